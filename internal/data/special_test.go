//go:build unix

package data_test

import (
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
