//go:build unix

package runs

import (
	"path/filepath"
	"testing"
)

func TestLock(t *testing.T) {
	d := newRun(t, filepath.Join(t.TempDir(), "run"))
	unlock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Lock()
	wantError(t, err, "is being trained by another process")
	unlock()
	if unlock, err = d.Lock(); err != nil {
		t.Fatalf("after unlocking: %v", err)
	}
	unlock()
	_, err = Dir(filepath.Join(string(d), "missing")).Lock()
	wantError(t, err, "locking the run")
}
