//go:build unix

package data_test

// Links and pipes: not every system lets everybody make them.

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"ddpm/internal/data"
)

// Opening a pipe would wait for a writer.
func TestPipesAreRefused(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe.zip")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := data.Detect(pipe)
	wantError(t, err, "neither a file nor a folder")
	for _, name := range []string{"cifar10", "mnist", "folder", "zip"} {
		_, err := data.Open(config(name, pipe, 8, 8, 3), data.Train)
		wantError(t, err, pipe)
	}
}

func TestFolderFollowsLinks(t *testing.T) {
	target := writeFolder(t, file{"x.png", encoded(t, "png", nrgba(1, 2, 2))})
	folder := t.TempDir()
	must(t, os.Symlink(filepath.Join(target, "x.png"), filepath.Join(folder, "link.png")))
	root := filepath.Join(t.TempDir(), "root")
	must(t, os.Symlink(folder, root))
	if n := open(t, config("folder", root, 2, 2, 3), data.Train).Info().Len; n != 1 {
		t.Errorf("%d images, want the linked one", n)
	}
	must(t, os.Symlink(filepath.Join(target, "gone.png"), filepath.Join(folder, "broken.png")))
	ds := open(t, config("folder", root, 2, 2, 3), data.Train)
	_, err := ds.Read(0, make([]byte, ds.Info().Bytes()))
	wantError(t, err, filepath.Join(root, "broken.png"), "no such file")
}
