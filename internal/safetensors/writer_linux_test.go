package safetensors

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"ddpm/internal/files"
)

// /dev/full, a disk without space, is a device of Linux.

func TestDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, n := range []int{0, 1, chunk} { // header only; buffered until the end; more than the buffer
		tensors := []Tensor{{Name: "a", DType: F32, Shape: []int{n}, Float32: ramp(n)}}
		if err := Write(full, nil, tensors); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%d values: error %v, want no space left on device", n, err)
		}
		path := filepath.Join(t.TempDir(), "a.safetensors")
		if err := os.WriteFile(path, []byte("old"), 0o666); err != nil {
			t.Fatal(err)
		}
		err := files.Write(path, func(io.Writer) error { return write(full, nil, tensors) })
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%d values: error %v, want no space left on device", n, err)
		}
		unchanged(t, path)
	}
	// A stream that hides the error from its caller does not hide it from Write.
	careless := func(w io.Writer) error {
		for range 4 * chunk {
			w.Write([]byte{0})
		}
		return nil
	}
	if err := Write(full, nil, []Tensor{{Name: "a", DType: U8, Shape: []int{4 * chunk}, Stream: careless}}); err == nil {
		t.Error("a careless stream to a full disk: no error")
	}
}
