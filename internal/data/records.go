package data

import (
	"archive/tar"
	"bufio"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// randomFile is a file that any number of goroutines read at any place.
type randomFile interface {
	io.ReaderAt
	io.Closer
}

// spill is a temporary file that has no name where the system allows that: it
// disappears with the program, however that ends.
type spill struct {
	*os.File
	named bool
}

func newSpill() (*spill, error) {
	f, err := os.CreateTemp("", "ddpm-data-*")
	if err != nil {
		return nil, fmt.Errorf("no place to unpack to: %w: set TMPDIR to another folder", err)
	}
	return &spill{File: f, named: os.Remove(f.Name()) != nil}, nil
}

func (s *spill) Close() error {
	err := s.File.Close()
	if s.named {
		err = errors.Join(err, os.Remove(s.Name()))
	}
	return err
}

// unpackError says what to do about an error met while reading the archive at
// path and writing to a spill.
func unpackError(path string, err error) error {
	var onDisk *fs.PathError
	var corrupt flate.CorruptInputError
	switch {
	case errors.As(err, &onDisk) && onDisk.Op == "write":
		return fmt.Errorf("unpacking %q: %w: free some space or set TMPDIR to another folder", path, err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("%q is truncated: fetch it again", path)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.Is(err, tar.ErrHeader), errors.As(err, &corrupt):
		return fmt.Errorf("%q is damaged (%w): fetch it again", path, err)
	}
	return fmt.Errorf("%q: %w", path, err)
}

// openPacked opens a file and looks through gzip if that is what it holds.
func openPacked(path string) (r *bufio.Reader, packed bool, f *os.File, err error) {
	f, err = os.Open(path)
	if err != nil {
		return nil, false, nil, err
	}
	r = bufio.NewReaderSize(f, 1<<16)
	if magic, _ := r.Peek(2); len(magic) < 2 || magic[0] != 0x1f || magic[1] != 0x8b {
		return r, false, f, nil
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		f.Close()
		return nil, false, nil, unpackError(path, err)
	}
	return bufio.NewReaderSize(z, 1<<16), true, f, nil
}

// closeAll closes what a failed open leaves behind.
func closeAll[C io.Closer](all []C) error {
	var errs []error
	for _, c := range all {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
