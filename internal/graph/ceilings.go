package graph

import "math"

// Ceilings are what a device does at most, as measured on it: the speeds that those
// of kernels are compared with.
type Ceilings struct {
	// Flops is floating-point operations a second, of products in the backend's
	// precision whose operands stay beside the arithmetic.
	Flops float64
	// Bytes is bytes a second, those read and those written, of a copy between arrays
	// that no cache holds.
	Bytes float64
	// Product says how Flops was measured: "avx512, fp32".
	Product string
	// Listed is what the data sheet has for Flops; 0 is unknown.
	Listed float64
}

// Measurable is a Backend that measures its ceilings, in less than a second. It takes
// memory while it does. What cannot be true is an error.
type Measurable interface {
	Ceilings() (Ceilings, error)
}

// Plausible reports whether a speed can be one: what a compiler left out takes no
// time, and what was not measured has none.
func Plausible(speed float64) bool {
	return speed > 0 && !math.IsInf(speed, 1)
}

// Floor is the least time, in seconds, that work of so many operations on so many
// bytes takes, and whether computing is what it waits for then, rather than memory.
func (c Ceilings) Floor(flops, bytes int64) (seconds float64, computing bool) {
	compute, memory := float64(flops)/c.Flops, float64(bytes)/c.Bytes
	return max(compute, memory), compute > memory
}
