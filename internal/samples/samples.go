// Package samples writes generated images to disk, batch by batch, and reads
// the noise they are to start from.
//
// Batches are NHWC, as the network has them. Files hold one tensor `samples`
// [n,C,H,W] of float32 in the network's range, not rounded; PNG files hold the
// same clamped to [-1, 1] and rounded to bytes.
package samples

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ddpm/internal/files"
	"ddpm/internal/picture"
)

// Writer takes the samples of one run in order. Its methods must not be called
// from two goroutines at once.
type Writer interface {
	// Append takes any whole number of samples, [k,H,W,C].
	Append(x []float32) error
	// Close ends the run. Only then does a file appear, and only if Append took
	// all n samples; if not, Close says so and a file is left out. PNG files
	// stay: each of them is whole.
	Close() error
}

// size is what every format needs to know of the samples.
type size struct{ n, h, w, c int }

func (s size) sample() int { return s.h * s.w * s.c }

// formats holds the encoders of the formats of one file: body is the tensor's
// bytes, little-endian [n,C,H,W], to be read to its end.
var formats = map[string]func(w io.Writer, s size, body io.Reader) error{
	"npy":         writeNPY,
	"npz":         writeNPZ,
	"safetensors": writeSafetensors,
}

// Formats lists what New writes.
func Formats() []string { return []string{"png", "npy", "npz", "safetensors"} }

// New starts writing n samples of h x w pixels and c channels. For png, path is
// a folder, new or empty, that gets sample_00000.png and so on; otherwise it is
// a file that does not exist yet. Folders above path are made.
func New(path, format string, n, h, w, c int) (Writer, error) {
	s := size{n, h, w, c}
	if !slices.Contains(Formats(), format) {
		return nil, fmt.Errorf("samples: format %q: want one of %s", format, strings.Join(Formats(), ", "))
	}
	if min(n, h, w, c) < 1 {
		return nil, fmt.Errorf("samples: %d samples of height %d, width %d and %d channels: want at least 1 of each", n, h, w, c)
	}
	if format == "png" {
		return newFolder(path, s)
	}
	return newFile(path, format, s)
}

// tally counts samples and holds the first error.
type tally struct {
	size
	path string
	done int // samples taken
	err  error
}

// take checks a batch and returns how many samples it has.
func (t *tally) take(x []float32) (int, error) {
	k := len(x) / t.sample()
	switch {
	case t.err != nil:
		return 0, t.err
	case k*t.sample() != len(x):
		return 0, fmt.Errorf("samples: %s: a batch of %d numbers is not a whole number of samples [%d,%d,%d]", t.path, len(x), t.h, t.w, t.c)
	case k > t.n-t.done:
		return 0, fmt.Errorf("samples: %s: sample %d, but only %d were announced", t.path, t.done+k, t.n)
	}
	return k, nil
}

// folder writes PNG files.
type folder struct {
	tally
	digits int
}

func newFolder(path string, s size) (Writer, error) {
	if s.c != 1 && s.c != 3 {
		return nil, fmt.Errorf("samples: format \"png\" is for 1 or 3 channels, not %d: want one of npy, npz, safetensors", s.c)
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, fmt.Errorf("samples: cannot make the folder %s: %w", path, files.Cause(err))
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("samples: cannot read the folder %s: %w", path, files.Cause(err))
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("samples: the folder %s is not empty (it has %s): choose a new or an empty one", path, entries[0].Name())
	}
	return &folder{tally{size: s, path: path}, max(5, len(fmt.Sprint(s.n-1)))}, nil
}

func (f *folder) Append(x []float32) error {
	k, err := f.take(x)
	if err != nil {
		return err
	}
	for i := range k {
		pixels := picture.ToBytes(x[i*f.sample() : (i+1)*f.sample()])
		name := filepath.Join(f.path, fmt.Sprintf("sample_%0*d.png", f.digits, f.done))
		if f.err = picture.WritePNG(name, picture.Image(pixels, f.w, f.h, f.c)); f.err != nil {
			return f.err
		}
		f.done++
	}
	return nil
}

func (f *folder) Close() error {
	if f.done == 0 {
		os.Remove(f.path) // unless something is in it
	}
	if f.err == nil && f.done < f.n {
		f.err = fmt.Errorf("samples: the folder %s has %d of %d samples", f.path, f.done, f.n)
	}
	return f.err
}

// file passes the bytes of the tensor to an encoder, which runs beside it so
// that it can be written as one pass over a whole file.
type file struct {
	tally
	body    *io.PipeWriter
	encoded chan error // the encoder's result, once
	closed  bool
	nchw    []float32
	bytes   []byte
}

var errIncomplete = errors.New("incomplete")

func newFile(path, format string, s size) (Writer, error) {
	if limit := math.MaxInt / 4 / s.n / s.h / s.w / s.c; limit == 0 {
		return nil, fmt.Errorf("samples: [%d,%d,%d,%d] is more than a file can hold", s.n, s.c, s.h, s.w)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("samples: %s is a folder: name a file for format %q", path, format)
	}
	if err := Vacant(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, fmt.Errorf("samples: cannot make the folder %s: %w", filepath.Dir(path), files.Cause(err))
	}
	reader, writer := io.Pipe()
	f := &file{tally: tally{size: s, path: path}, body: writer, encoded: make(chan error, 1)}
	go func() {
		err := files.Write(path, func(w io.Writer) error { return formats[format](w, s, reader) })
		reader.CloseWithError(err)
		f.encoded <- err
	}()
	return f, nil
}

func (f *file) Append(x []float32) error {
	k, err := f.take(x)
	if err != nil {
		return err
	}
	f.nchw = slices.Grow(f.nchw[:0], len(x))[:len(x)]
	ToNCHW(f.nchw, x, k, f.h, f.w, f.c)
	f.bytes = f.bytes[:0]
	for _, v := range f.nchw {
		f.bytes = binary.LittleEndian.AppendUint32(f.bytes, math.Float32bits(v))
	}
	if _, err := f.body.Write(f.bytes); err != nil {
		f.err = f.fail(err)
		return f.err
	}
	f.done += k
	return nil
}

func (f *file) Close() error {
	if f.closed {
		return f.err
	}
	f.closed = true
	if f.done < f.n {
		f.body.CloseWithError(errIncomplete)
	} else {
		f.body.Close()
	}
	if err := <-f.encoded; err != nil && f.err == nil {
		f.err = f.fail(err)
	}
	return f.err
}

func (f *file) fail(err error) error {
	if errors.Is(err, errIncomplete) {
		return fmt.Errorf("samples: %s is not written: only %d of %d samples were made", f.path, f.done, f.n)
	}
	return fmt.Errorf("samples: cannot write %s: %w", f.path, err)
}
