//go:build unix

package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// usage reads what the process has used. It has a place of its own for what the
// system fills in, so as not to allocate.
type usage struct{ unix.Rusage }

func (u *usage) known() bool { return true }

// time is the processor time so far, of all threads, since a fixed moment.
func (u *usage) time() time.Time {
	if unix.Getrusage(unix.RUSAGE_SELF, &u.Rusage) != nil {
		return time.Time{}
	}
	return time.Unix(0, u.Utime.Nano()+u.Stime.Nano())
}
