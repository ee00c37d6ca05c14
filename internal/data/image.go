package data

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // the first frame
	_ "image/jpeg"
	_ "image/png"
	"io"
	"path"
	"strings"
	"sync"

	_ "golang.org/x/image/bmp"
	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp"
)

// Limits on one image file. A file of a few bytes can claim any size, so the
// header is looked at before anything is allocated for its pixels.
const (
	maxImageBytes = 256 << 20
	maxPixels     = 100_000_000
)

var imageExtensions = []string{".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"}

// isImageName tells image files from others by their name. Names that start
// with a dot, and the shadow files macOS puts into archives, are not images.
func isImageName(name string) bool {
	for _, element := range strings.Split(name, "/") {
		if strings.HasPrefix(element, ".") || element == "__MACOSX" {
			return false
		}
	}
	extension := strings.ToLower(path.Ext(name))
	for _, e := range imageExtensions {
		if extension == e {
			return true
		}
	}
	return false
}

// original is what an image file holds before it is shaped.
type original struct {
	width, height int
	channels      int // 1 grey, 3 colour, 4 colour with transparency
}

// shaper turns images of any size and kind into width x height x channels
// bytes. Its scratch memory is reused between calls.
type shaper struct {
	width, height, channels int

	files    sync.Pool // *bytes.Buffer
	canvases sync.Pool // *canvas
}

type canvas struct {
	rgba   *image.RGBA   // for images of the wanted size
	rgba64 *image.RGBA64 // scaled ones: the filter's result is rounded once, to 8 bits
}

func newShaper(cfg Config) *shaper {
	s := &shaper{width: cfg.Width, height: cfg.Height, channels: cfg.Channels}
	bounds := image.Rect(0, 0, cfg.Width, cfg.Height)
	s.files.New = func() any { return new(bytes.Buffer) }
	s.canvases.New = func() any {
		return &canvas{rgba: image.NewRGBA(bounds), rgba64: image.NewRGBA64(bounds)}
	}
	return s
}

// read decodes one image file into dst.
func (s *shaper) read(r io.Reader, dst []byte) (original, error) {
	file := s.files.Get().(*bytes.Buffer)
	defer s.files.Put(file)
	file.Reset()
	if n, err := file.ReadFrom(io.LimitReader(r, maxImageBytes+1)); err != nil {
		return original{}, err
	} else if n > maxImageBytes {
		return original{}, fmt.Errorf("file larger than %d MiB", maxImageBytes>>20)
	}
	img, err := decode(file.Bytes())
	if err != nil {
		return original{}, err
	}
	s.shape(img, dst)
	size := img.Bounds().Size()
	return original{width: size.X, height: size.Y, channels: channelsOf(img)}, nil
}

func decode(file []byte) (img image.Image, err error) {
	// Decoders of damaged files have been known to index out of range; a bad
	// image must not stop the program.
	defer func() {
		if p := recover(); p != nil {
			img, err = nil, fmt.Errorf("the decoder failed on a damaged file (%v)", p)
		}
	}()
	if len(file) == 0 {
		return nil, errors.New("empty file")
	}
	config, _, err := image.DecodeConfig(bytes.NewReader(file))
	if err != nil {
		return nil, describe(err)
	}
	if config.Width < 1 || config.Height < 1 || config.Width > maxPixels/config.Height {
		return nil, fmt.Errorf("%d x %d pixels: want at least one and at most %d million", config.Width, config.Height, maxPixels/1_000_000)
	}
	img, _, err = image.Decode(bytes.NewReader(file))
	if err != nil {
		return nil, describe(err)
	}
	if img.Bounds().Empty() {
		return nil, errors.New("no pixels")
	}
	return img, nil
}

func describe(err error) error {
	switch {
	case errors.Is(err, image.ErrFormat):
		return errors.New("not a PNG, JPEG, GIF, WebP or BMP image")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("truncated file")
	}
	return err
}

// shape covers the wanted size with img, crops at the centre, and stores the
// result in dst, width*height*channels bytes HWC.
func (s *shaper) shape(img image.Image, dst []byte) {
	bounds := img.Bounds()
	fits := bounds.Dx() == s.width && bounds.Dy() == s.height
	if grey, ok := img.(*image.Gray); ok && fits && s.channels == 1 {
		for y := range s.height {
			copy(dst[y*s.width:(y+1)*s.width], grey.Pix[y*grey.Stride:])
		}
		return
	}
	c := s.canvases.Get().(*canvas)
	defer s.canvases.Put(c)
	if fits {
		whiten(c.rgba.Pix)
		draw.Draw(c.rgba, c.rgba.Rect, img, bounds.Min, draw.Over)
		s.store8(c.rgba.Pix, dst)
		return
	}
	whiten(c.rgba64.Pix)
	draw.CatmullRom.Scale(c.rgba64, c.rgba64.Rect, img, crop(bounds, s.width, s.height), draw.Over, nil)
	s.store16(c.rgba64.Pix, dst)
}

func whiten(pix []byte) {
	for i := range pix {
		pix[i] = 0xff
	}
}

// crop is the largest centred part of bounds with the proportions width:height,
// to the nearest pixel.
func crop(bounds image.Rectangle, width, height int) image.Rectangle {
	w, h := int64(bounds.Dx()), int64(bounds.Dy())
	tw, th := int64(width), int64(height)
	if w*th > h*tw {
		w = max((h*tw+th/2)/th, 1)
	} else {
		h = max((w*th+tw/2)/tw, 1)
	}
	x := bounds.Min.X + (bounds.Dx()-int(w))/2
	y := bounds.Min.Y + (bounds.Dy()-int(h))/2
	return image.Rect(x, y, x+int(w), y+int(h))
}

// store8 takes RGBA bytes that are all opaque.
func (s *shaper) store8(pix, dst []byte) {
	if s.channels == 1 {
		for i := range dst {
			dst[i] = luma(pix[4*i], pix[4*i+1], pix[4*i+2])
		}
		return
	}
	for i, j := 0, 0; j < len(dst); i, j = i+4, j+3 {
		dst[j], dst[j+1], dst[j+2] = pix[i], pix[i+1], pix[i+2]
	}
}

// store16 takes big-endian 16-bit RGBA values that are all opaque.
func (s *shaper) store16(pix, dst []byte) {
	value := func(i int) uint32 { return uint32(pix[i])<<8 | uint32(pix[i+1]) }
	round := func(v uint32) byte { return byte((v*255 + 32767) / 65535) }
	if s.channels == 1 {
		for i := range dst {
			y := (299*value(8*i) + 587*value(8*i+2) + 114*value(8*i+4) + 500) / 1000
			dst[i] = round(y)
		}
		return
	}
	for i, j := 0, 0; j < len(dst); i, j = i+8, j+3 {
		dst[j], dst[j+1], dst[j+2] = round(value(i)), round(value(i+2)), round(value(i+4))
	}
}

// luma is the grey of an RGB pixel; equal components keep their value.
func luma(r, g, b byte) byte {
	return byte((299*uint32(r) + 587*uint32(g) + 114*uint32(b) + 500) / 1000)
}

func channelsOf(img image.Image) int {
	switch m := img.(type) {
	case *image.Gray, *image.Gray16:
		return 1
	case interface{ Opaque() bool }:
		if !m.Opaque() {
			return 4
		}
	}
	return 3
}
