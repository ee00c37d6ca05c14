// Package picture draws what a run produces: grids of samples, the prediction
// of x_0 along t, and the loss curve. Pixels are bytes in HWC order, channels
// 1 (grey) or 3 (RGB), unless a comment says otherwise.
package picture

import (
	"bufio"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
)

// ToBytes converts numbers of the network's range [-1, 1] to bytes, clamping
// and rounding to nearest; it undoes byte/127.5 - 1. NaN becomes 0.
func ToBytes(x []float32) []byte {
	b := make([]byte, len(x))
	for i, v := range x {
		b[i] = toByte(v)
	}
	return b
}

func toByte(v float32) byte {
	switch {
	case v >= 1:
		return 255
	case v > -1:
		return byte((float64(v)+1)*127.5 + 0.5)
	default: // also NaN, whose conversion to an integer differs between machines
		return 0
	}
}

// Image makes an image of one h x w picture of c channels.
func Image(pixels []byte, w, h, c int) image.Image {
	if c == 1 {
		return &image.Gray{Pix: pixels, Stride: w, Rect: image.Rect(0, 0, w, h)}
	}
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		copy(img.Pix[4*i:], pixels[3*i:3*i+3])
		img.Pix[4*i+3] = 255
	}
	return img
}

// WritePNG writes img to path, by WriteFile.
func WritePNG(path string, img image.Image) error {
	if err := WriteFile(path, func(w io.Writer) error { return png.Encode(w, img) }); err != nil {
		return fmt.Errorf("picture: cannot write %s: %w", path, err)
	}
	return nil
}

// WriteFile makes a file of what write writes. A reader of path sees what it
// held before or the whole new file, never a part: the bytes go to a temporary
// file in the same folder, which then takes the name. The error does not name
// the path. It does not wait for the disk: what a power cut takes can be drawn
// again.
func WriteFile(path string, write func(io.Writer) error) (err error) {
	f, err := createBeside(path)
	if err != nil {
		return cause(err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = cause(err)
		}
	}()
	buffered := bufio.NewWriterSize(f, 1<<16)
	if err := write(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

var temporaries atomic.Int64

// createBeside makes an empty file in the folder of path. Other than those of
// os.CreateTemp, its permissions are the usual ones.
func createBeside(path string) (*os.File, error) {
	folder, name := filepath.Split(path)
	for {
		temporary := fmt.Sprintf("%s.%s.%d.%d.tmp", folder, name, os.Getpid(), temporaries.Add(1))
		f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) { // left by a killed process of the same number
			return f, err
		}
	}
}

// cause drops the name of the temporary file from an error.
func cause(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}
