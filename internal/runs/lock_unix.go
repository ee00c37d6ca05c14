//go:build unix

package runs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Lock keeps a second process from training in the same folder. The system
// drops the lock when the process ends, however it ends.
func (d Dir) Lock() (unlock func(), err error) {
	f, err := os.Open(string(d))
	if err != nil {
		return nil, fmt.Errorf("locking the run: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("%s is being trained by another process: stop it first, or use another --out", d)
	}
	// Any other error means a file system without locks: then there is none.
	return func() { f.Close() }, nil
}
