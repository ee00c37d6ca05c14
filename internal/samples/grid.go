package samples

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ddpm/internal/picture"
)

// withGrid passes samples on and keeps the first ones for a picture.
type withGrid struct {
	Writer
	size
	path   string
	most   int
	opt    picture.GridOptions
	pixels []byte
}

// WithGrid makes a Writer that hands everything to w, whose samples are h x w
// pixels of c channels, and on Close also draws the first ones, up to most, as
// a grid in the PNG file at path.
func WithGrid(writer Writer, path string, most, h, w, c int, opt picture.GridOptions) Writer {
	return &withGrid{Writer: writer, size: size{0, h, w, c}, path: path, most: most, opt: opt}
}

func (g *withGrid) Append(x []float32) error {
	if err := g.Writer.Append(x); err != nil {
		return err
	}
	take := min(len(x)/g.sample(), g.most-g.n)
	g.pixels = append(g.pixels, picture.ToBytes(x[:take*g.sample()])...)
	g.n += take
	return nil
}

func (g *withGrid) Close() error {
	if err := g.Writer.Close(); err != nil {
		return err
	}
	return picture.WritePNG(g.path, picture.Grid(g.pixels, g.n, g.w, g.h, g.c, g.opt))
}

// Vacant reports an error if there is a file or a folder at path.
func Vacant(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("samples: %s exists: choose another name, or remove it first", path)
	}
	return nil
}

// Unused returns the first of path, path with -2 before its extension, with -3,
// and so on, that does not exist.
func Unused(path string) string {
	ext := filepath.Ext(path)
	candidate := path
	for i := 2; ; i++ {
		if _, err := os.Lstat(candidate); err != nil {
			return candidate
		}
		candidate = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(path, ext), i, ext)
	}
}
