package data

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// Picture is an image file and the pixels it has.
type Picture struct {
	Path          string
	Width, Height int
}

// ReadImages reads an image file, or all below a folder in the order of their names but for those
// that skip names, shaped like those of a data set: [n,H,W,C].
func ReadImages(file string, width, height, channels int, skip ...string) ([]byte, []Picture, error) {
	pictures, err := findPictures(file, skip)
	if err != nil {
		return nil, nil, err
	}
	s := newShaper(Config{Width: width, Height: height, Channels: channels})
	size := width * height * channels
	images := make([]byte, len(pictures)*size)
	for i := range pictures {
		if err := s.readFile(&pictures[i], images[i*size:(i+1)*size]); err != nil {
			return nil, nil, err
		}
	}
	return images, pictures, nil
}

// findPictures lists what ReadImages reads; the sizes are not known yet.
func findPictures(file string, skip []string) ([]Picture, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q does not exist", file)
	}
	if err != nil {
		return nil, err
	}
	if err := checkMode(file, info); err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []Picture{{Path: file}}, nil
	}
	names, err := imageNames(os.DirFS(file))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", file, err)
	}
	var pictures []Picture
	for _, name := range names {
		if !slices.Contains(skip, path.Base(name)) {
			pictures = append(pictures, Picture{Path: filepath.Join(file, filepath.FromSlash(name))})
		}
	}
	switch {
	case len(names) == 0:
		return nil, fmt.Errorf("%q: no PNG, JPEG, GIF, WebP or BMP image in it or its sub-folders", file)
	case len(pictures) == 0:
		return nil, fmt.Errorf("%q: no image in it or its sub-folders but %s", file, path.Base(names[0]))
	}
	return pictures, nil
}

// readFile reads a picture into dst and notes its size.
func (s *shaper) readFile(p *Picture, dst []byte) error {
	f, err := os.Open(p.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	from, err := s.read(f, dst)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Path, err)
	}
	p.Width, p.Height = from.width, from.height
	return nil
}
