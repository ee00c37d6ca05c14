//go:build !linux && !darwin

package bench

// peakMemory is 0: unknown.
func peakMemory() int64 { return 0 }
