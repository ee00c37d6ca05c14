package files

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func TestWriteReplacesWholeOrNotAtAll(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "a")
	for _, s := range []string{"old", "new"} {
		if err := Write(path, text(s)); err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("broken")
	err := Write(path, func(w io.Writer) error {
		io.WriteString(w, "half")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want that of fill", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
		t.Errorf("the file holds %q, %v; want what it held before", got, err)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v; want no temporary file", entries, err)
	}
}

func TestWriteErrorsDoNotNameTheTemporaryFile(t *testing.T) {
	err := Write(filepath.Join(t.TempDir(), "no", "a"), text("x"))
	if err == nil || err.Error() != "no such file or directory" {
		t.Errorf("error %v", err)
	}
}

func TestWriteSparesWhatIsNoFile(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{folder, os.DevNull} {
		if err := Write(path, text("x")); err == nil || err.Error() != "it is there and not a regular file" {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

// A killed process's temporary file does not stop the next one.
func TestStaleTemporary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	stale, err := createBeside(path)
	if err != nil {
		t.Fatal(err)
	}
	stale.Close()
	temporaries.Add(-1)
	if err := Write(path, text("x")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(stale.Name()); err != nil {
		t.Errorf("another process's temporary file is gone: %v", err)
	}
}
