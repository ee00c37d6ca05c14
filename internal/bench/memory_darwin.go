package bench

import "golang.org/x/sys/unix"

// peakMemory is the most memory that the process has had resident, in bytes; 0
// is unknown.
func peakMemory() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Maxrss // in bytes here, in KiB elsewhere
}
