package safetensors

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// text streams a string.
func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func ramp(n int) []float32 {
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(i) - 1000.5
	}
	return values
}

func TestWriteKnownBytes(t *testing.T) {
	var b bytes.Buffer
	err := Write(&b, map[string]string{"b": "2", "a": "<\"\n>"}, []Tensor{
		{Name: "n", DType: U8, Shape: []int{3}, Stream: text("xyz")},
		{Name: "w", DType: F32, Shape: []int{1, 2}, Float32: []float32{1, -2}},
		{Name: "e", DType: F32, Shape: []int{0}},
		{Name: "s", DType: F32, Float32: []float32{0.5}},
	})
	if err != nil {
		t.Fatal(err)
	}
	header := `{"__metadata__":{"a":"<\"\n>","b":"2"},` +
		`"e":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},` +
		`"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},` +
		`"w":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]},` +
		`"n":{"dtype":"U8","shape":[3],"data_offsets":[12,15]}}`
	header += strings.Repeat(" ", (8-len(header)%8)%8)
	want := file(header, 0)
	want = append(want, "\x00\x00\x00\x3f"+"\x00\x00\x80\x3f"+"\x00\x00\x00\xc0"+"xyz"...)
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("wrote %q\nwant  %q", b.Bytes(), want)
	}
}

// Larger than the buffers, of odd lengths, in any order: the same bytes, and
// read back equal.
func TestRoundTrip(t *testing.T) {
	shapes := map[string][]int{"a": {chunk/4 + 1}, "b": {3, 1, 5}, "c": {}, "d": {2, chunk / 4}, "e": {0, 7}}
	metadata := map[string]string{"config": "t: 1000\n", "ü": "\x00\u2028😀"}
	var tensors []Tensor
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		n, err := elements(F32, shapes[name])
		if err != nil {
			t.Fatal(err)
		}
		tensors = append(tensors, Tensor{Name: name, DType: F32, Shape: shapes[name], Float32: ramp(n)})
	}
	tensors = append(tensors, Tensor{Name: "f", DType: U8, Shape: []int{5}, Stream: text("abcde")})
	path := filepath.Join(t.TempDir(), "a.safetensors")
	if err := WriteFile(path, metadata, tensors); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(tensors)
	if err := WriteFile(path, metadata, tensors); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the order of the tensors changed the file")
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := f.Metadata(); !maps.Equal(got, metadata) {
		t.Errorf("metadata %q, want %q", got, metadata)
	}
	for name, shape := range shapes {
		info, ok := f.Tensor(name)
		if !ok || !slices.Equal(info.Shape, shape) || info.Offset%4 != 0 {
			t.Errorf("%s: %+v, want shape %v, aligned", name, info, shape)
		}
		got, err := f.ReadFloat32(name)
		if err != nil {
			t.Fatal(err)
		}
		if want := ramp(info.Elements()); !slices.Equal(got, want) {
			t.Errorf("%s: read back differs", name)
		}
	}
}

func TestNotANumberKeepsItsBits(t *testing.T) {
	values := []float32{math.Float32frombits(0xffc00001), float32(math.Inf(-1)), float32(math.Copysign(0, -1))}
	var b bytes.Buffer
	if err := Write(&b, nil, []Tensor{{Name: "a", DType: F32, Shape: []int{3}, Float32: values}}); err != nil {
		t.Fatal(err)
	}
	f, err := parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.ReadFloat32("a")
	if err != nil {
		t.Fatal(err)
	}
	for i := range values {
		if math.Float32bits(got[i]) != math.Float32bits(values[i]) {
			t.Errorf("value %d: bits %x, want %x", i, math.Float32bits(got[i]), math.Float32bits(values[i]))
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	two := []float32{1, 2}
	cut := errors.New("source is gone")
	for _, c := range []struct {
		name     string
		metadata map[string]string
		tensors  []Tensor
		want     string
	}{
		{"name twice", nil, []Tensor{{Name: "a", DType: F32, Shape: []int{2}, Float32: two}, {Name: "a", DType: U8, Shape: []int{0}}}, `tensor "a": is there twice`},
		{"reserved name", nil, []Tensor{{Name: "__metadata__", DType: F32, Shape: []int{2}, Float32: two}}, "reserved"},
		{"name not UTF-8", nil, []Tensor{{Name: "\xff", DType: F32, Shape: []int{2}, Float32: two}}, "not valid UTF-8"},
		{"metadata not UTF-8", map[string]string{"k": "\xff"}, nil, `metadata "k"`},
		{"unknown dtype", nil, []Tensor{{Name: "a", DType: "F31", Shape: []int{2}, Float32: two}}, `dtype "F31" is not known`},
		{"wrong dtype", nil, []Tensor{{Name: "a", DType: F16, Shape: []int{2}, Float32: two}}, "dtype F16: Float32 is for dtype F32"},
		{"wrong shape", nil, []Tensor{{Name: "a", DType: F32, Shape: []int{2, 2}, Float32: two}}, "has 2 values, but shape [2 2] needs 4"},
		{"negative shape", nil, []Tensor{{Name: "a", DType: F32, Shape: []int{-1, -2}, Float32: two}}, "negative dimension"},
		{"no source", nil, []Tensor{{Name: "a", DType: F32, Shape: []int{2}}}, "neither Float32 nor Stream"},
		{"two sources", nil, []Tensor{{Name: "a", DType: F32, Shape: []int{2}, Float32: two, Stream: text("")}}, "both Float32 and Stream"},
		{"file too long", nil, []Tensor{
			{Name: "a", DType: U8, Shape: []int{math.MaxInt}, Stream: text("")},
			{Name: "b", DType: U8, Shape: []int{math.MaxInt}, Stream: text("")},
		}, "longer than a file can be"},
		{"stream too short", nil, []Tensor{{Name: "a", DType: U8, Shape: []int{3}, Stream: text("xy")}}, `tensor "a": Stream wrote 2 bytes, but dtype U8 and shape [3] need 3`},
		{"stream too long", nil, []Tensor{{Name: "a", DType: U8, Shape: []int{3}, Stream: text("wxyz")}}, `tensor "a": Stream writes 1 bytes too many`},
		{"stream fails", nil, []Tensor{{Name: "a", DType: U8, Shape: []int{3}, Stream: func(io.Writer) error { return cut }}}, "source is gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Write(io.Discard, c.metadata, c.tensors); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Write: error %v, want %q in it", err, c.want)
			}
			folder := t.TempDir()
			path := filepath.Join(folder, "a.safetensors")
			if err := os.WriteFile(path, []byte("old"), 0o666); err != nil {
				t.Fatal(err)
			}
			err := WriteFile(path, c.metadata, c.tensors)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("WriteFile: error %v, want %q and the path in it", err, c.want)
			}
			unchanged(t, path)
		})
	}
}

func TestHeaderLimit(t *testing.T) {
	metadata := map[string]string{"k": "v"}
	b, _, err := encodeHeader(metadata, nil, MaxHeader)
	if err != nil {
		t.Fatal(err)
	}
	n := len(b) - lengthBytes
	if _, _, err := encodeHeader(metadata, nil, n); err != nil {
		t.Errorf("a header of %d bytes under a limit of %d: %v", n, n, err)
	}
	if _, _, err := encodeHeader(metadata, nil, n-1); err == nil || !strings.Contains(err.Error(), "shorten the metadata") {
		t.Errorf("a header of %d bytes under a limit of %d: error %v", n, n-1, err)
	}
}

// unchanged checks that a file still holds "old" and is alone in its folder.
func unchanged(t *testing.T, path string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != "old" {
		t.Errorf("the old file holds %q, %v; want it unchanged", b, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v; want the old file alone", entries, err)
	}
}

func TestWriteFileErrorsNameThePathOnce(t *testing.T) {
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "taken", "inside"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(folder, "none", "a"), filepath.Join(folder, "taken")} {
		err := WriteFile(path, nil, nil)
		if err == nil || strings.Count(err.Error(), folder) != 1 || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v, want %s named once", err, path)
		}
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v; want no temporary file", entries, err)
	}
}

func BenchmarkWriteFloat32(b *testing.B) {
	tensors := []Tensor{{Name: "a", DType: F32, Shape: []int{1 << 22}, Float32: ramp(1 << 22)}}
	b.SetBytes(4 << 22)
	for b.Loop() {
		if err := Write(io.Discard, nil, tensors); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadFloat32(b *testing.B) {
	var buffer bytes.Buffer
	values := ramp(1 << 22)
	if err := Write(&buffer, nil, []Tensor{{Name: "a", DType: F32, Shape: []int{1 << 22}, Float32: values}}); err != nil {
		b.Fatal(err)
	}
	f, err := parse(buffer.Bytes())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4 << 22)
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Float32s("a", values); err != nil {
			b.Fatal(err)
		}
	}
}
