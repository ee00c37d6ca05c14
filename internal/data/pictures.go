package data

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ReadImages reads an image file, or all below a folder in the order of their names, shaped like
// those of a data set: [n,H,W,C].
func ReadImages(path string, width, height, channels int) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q does not exist", path)
	}
	if err != nil {
		return nil, err
	}
	if err := checkMode(path, info); err != nil {
		return nil, err
	}
	files := []string{path}
	if info.IsDir() {
		names, err := imageNames(os.DirFS(path))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", path, err)
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("%q: no PNG, JPEG, GIF, WebP or BMP image in it or its sub-folders", path)
		}
		files = files[:0]
		for _, name := range names {
			files = append(files, filepath.Join(path, filepath.FromSlash(name)))
		}
	}
	s := newShaper(Config{Width: width, Height: height, Channels: channels})
	size := width * height * channels
	images := make([]byte, len(files)*size)
	for i, file := range files {
		if err := s.readFile(file, images[i*size:(i+1)*size]); err != nil {
			return nil, err
		}
	}
	return images, nil
}

func (s *shaper) readFile(path string, dst []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := s.read(f, dst); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
