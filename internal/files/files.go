// Package files writes files whole or not at all.
package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
)

// Write makes path hold what fill writes. A reader sees what path held before
// or the whole new file, even when the machine stops half-way: the bytes go to a
// temporary file in the same folder, which reaches the disk and then takes the
// name. On an error nothing has changed. Errors of the file system come without
// a path; see Cause.
func Write(path string, fill func(io.Writer) error) (err error) {
	// Taking the name of a device or a pipe would destroy it.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return errors.New("it is there and not a regular file")
	}
	file, err := createBeside(path)
	if err != nil {
		return Cause(err)
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(file.Name())
			err = Cause(err)
		}
	}()
	if err := fill(unnamed{file}); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	syncFolder(filepath.Dir(path))
	return nil
}

// Cause drops the paths from an error of the file system, for messages that name
// the file already.
func Cause(err error) error {
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

// unnamed is a file whose errors do not mention its name, which is temporary.
type unnamed struct{ file *os.File }

func (u unnamed) Write(p []byte) (int, error) {
	n, err := u.file.Write(p)
	if err != nil {
		err = Cause(err)
	}
	return n, err
}

var temporaries atomic.Int64

// createBeside makes an empty file .NAME.PROCESS.NUMBER.tmp in the folder of
// path. Other than os.CreateTemp's, its permissions are those of any new file.
func createBeside(path string) (*os.File, error) {
	folder, name := filepath.Split(path)
	for {
		temporary := fmt.Sprintf("%s.%s.%d.%d.tmp", folder, name, os.Getpid(), temporaries.Add(1))
		file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) { // left by a killed process of the same number
			return file, err
		}
	}
}

// syncFolder makes the names in a folder durable, where the system can. The file
// is whole without it, so that a system cannot is no error.
func syncFolder(path string) {
	if folder, err := os.Open(path); err == nil {
		folder.Sync()
		folder.Close()
	}
}
