package graph

import (
	"context"
	"fmt"
	"time"
)

// KernelCheck is what came of comparing a kernel with the one that runs where it does
// not, on random data.
type KernelCheck struct {
	Kernel string `json:"kernel"`
	Cases  int    `json:"cases"`
	// Worst is the largest difference of an element of a result, relative to the
	// element or to the rms of the result, whichever is larger; Bound is what
	// rounding explains.
	Worst float64 `json:"worst"`
	Bound float64 `json:"bound"`
	// Wrong says why the kernel is not used; it is empty if the kernel agrees.
	Wrong string `json:"wrong,omitempty"`
}

var checkers = map[string]func(Options) ([]KernelCheck, error){}

// RegisterChecker makes a kind of device known whose kernels can be compared. It is
// called from init.
func RegisterChecker(kind string, check func(Options) ([]KernelCheck, error)) { checkers[kind] = check }

// Check compares the kernels of a device, such as cuda:0, whatever an earlier
// comparison found, and has the next Open use those that agree. None means that the
// device has nothing to compare.
func Check(device string, o Options) ([]KernelCheck, error) {
	kind, n, ok := ordinal(device)
	check, known := checkers[kind]
	if !ok || !known {
		return nil, fmt.Errorf("device %q: its kernels have nothing to be compared with, want a GPU such as cuda or cuda:1", device)
	}
	o.Ordinal = n
	return check(o)
}

// Tuner is a Backend that has several ways to compute some products, which give the
// same bits, and can measure which is the fastest on its device.
type Tuner interface {
	// Tune measures the products of plans for about the time given, tells each of
	// what it found, and keeps that for the next Open, in a file that it names. If it
	// is interrupted, what it measured is kept.
	Tune(ctx context.Context, plans []*Plan, limit time.Duration, each func(Tuning)) (file string, err error)
}

// Tuning is what was measured of one product.
type Tuning struct {
	Product string // its pass and extents: conv_forward 131072x128x1152
	Calls   int    // instructions of the plans that compute it
	// Ways are those there are, the default first; Best is the index of the one
	// that is used from here on.
	Ways []Way
	Best int
}

// Way is one way to compute a product.
type Way struct {
	Name string
	Time time.Duration // the median
	// Differs says that its result was not that of the default, byte for byte, so
	// that it is never chosen.
	Differs bool
}
