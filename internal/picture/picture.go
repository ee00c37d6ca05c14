// Package picture draws what a run produces: grids of samples, the prediction
// of x_0 along t, and the loss curve. Pixels are bytes in HWC order, channels
// 1 (grey) or 3 (RGB), unless a comment says otherwise.
package picture

import (
	"fmt"
	"image"
	"image/png"
	"io"

	"ddpm/internal/files"
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
	if err := files.Write(path, func(w io.Writer) error { return png.Encode(w, img) }); err != nil {
		return fmt.Errorf("picture: cannot write %s: %w", path, err)
	}
	return nil
}
