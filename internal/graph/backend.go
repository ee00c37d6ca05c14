package graph

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Backend is one device. It is used from one goroutine at a time.
type Backend interface {
	// Name describes the device: "cpu: avx512, 2 threads".
	Name() string
	// Precision is what the operands of products are rounded to.
	Precision() Precision
	// NewState allocates the arenas of a network on the device, all zero.
	// Without training only Params and EMA exist, and what needs the others is
	// an error.
	NewState(l *Layout, training bool) (State, error)
	// Workspace is the memory, in float32 elements, that the kernel of op takes
	// for itself: scratch while it runs, and kept for what it makes of the
	// weights. It keeps nothing unless keep, see Graph.KeepWeights.
	Workspace(op Op, out Shape, in []Shape, keep bool) (scratch, kept int)
	// Load makes a plan runnable on weights, Params or EMA, of the state.
	Load(p *Plan, s State, weights Arena) (Program, error)
	Close() error
}

// Storing is a Backend that keeps some activations in another element type than
// the graph's.
type Storing interface {
	// Stored is the element type of what op computes: Float32 or BFloat16. A view
	// has that of its operand, and what is fed or read by the host is Float32.
	Stored(op Op, out Shape) DType
}

// Arena names one of the flat arrays of a State, all of one Layout.
type Arena int

const (
	Params Arena = iota
	EMA          // exponential moving average of Params
	Grads        // gradients of the last run
	AdamM        // Adam's first moment
	AdamV        // Adam's second moment
)

func (a Arena) String() string {
	return [...]string{"weights", "averaged weights", "gradients", "Adam first moments", "Adam second moments"}[a]
}

// State is a network's weights and optimiser state, resident on the device.
// Accumulate and Update do not allocate after their first call.
type State interface {
	Layout() *Layout
	// Read copies an arena to dst, of Layout().Size elements.
	Read(a Arena, dst []float32) error
	// Write copies src to an arena.
	Write(a Arena, src []float32) error
	// Accumulate adds the gradients of the last run to a sum that Update then
	// uses in their place, scaled: the first part of a step starts the sum.
	Accumulate(first bool, scale float64) error
	// Update clips the gradient, makes one Adam step and averages the weights.
	// A gradient that is not finite changes nothing and is reported by its norm.
	Update(u Update) (gradNorm float64, err error)
	Close() error
}

// Update is one step of Adam (Kingma & Ba, 2015) with a global-norm clip and an
// exponential moving average of the weights:
//
//	g = min(1, Clip / (|g| + 1e-6)) g
//	m = Beta1 m + (1-Beta1) g,  v = Beta2 v + (1-Beta2) g²
//	p = p - LR/(1-Beta1^Step) m / (sqrt(v)/sqrt(1-Beta2^Step) + Eps)
//	ema = EMADecay ema + (1-EMADecay) p
type Update struct {
	Step         int // from 1
	LR           float64
	Beta1, Beta2 float64
	Eps          float64
	Clip         float64 // 0 does not clip
	EMADecay     float64
}

// Feeds are the values of a program's inputs by name: []float32, []uint8 or
// []uint32 as declared, of the input's size, or for a Float32 input FromOutput.
type Feeds map[string]any

// FromOutput is fed to an input that is to have, without leaving the device, the
// value that the output of this name had after the last run.
type FromOutput string

// Program is a plan ready to run on a device. It does not allocate after its
// first run.
type Program interface {
	// Run computes the outputs, and the gradients if the graph trains.
	Run(ctx context.Context, feeds Feeds) error
	// Output copies a named output of the last run to dst, of its size.
	Output(name string, dst []float32) error
	Close() error
}

// Timed is a Program that can say where its time goes.
type Timed interface {
	// RunTimed is Run, and leaves the time of every instruction of the plan in
	// spent, which has one element for each.
	RunTimed(ctx context.Context, feeds Feeds, spent []time.Duration) error
}

// Processor is a Backend whose kernels run on the processor.
type Processor interface {
	Threads() int
	InstructionSet() string
}

// Ahead is a Backend whose programs return from Run before the device has finished.
type Ahead interface {
	// Wait waits for all that was asked of the device.
	Wait() error
}

// Options open a backend.
type Options struct {
	Threads int // 0 is one for each core
	Ordinal int // which of several GPUs, from 0
	// Precision is the device's own if empty: FP32 on a CPU, BF16 on a GPU. One
	// that the device lacks is an error.
	Precision Precision
	// Note, if not nil, is told in a sentence of what takes long.
	Note func(text string)
}

// Precision is the element type that the operands of convolutions and linear
// layers are rounded to as they are read. Sums, weights and their gradients are
// float32. A device may also keep activations in BF16 then; see Storing.
type Precision string

const (
	FP32 Precision = "fp32"
	TF32 Precision = "tf32" // 8 bits of exponent and 11 of fraction: GPUs
	BF16 Precision = "bf16" // 8 bits of exponent and 8 of fraction
)

// Precisions lists the names of precisions.
func Precisions() []string { return []string{string(FP32), string(TF32), string(BF16)} }

var backends = map[string]func(Options) (Backend, error){}

// RegisterBackend makes a device known under a name. It is called from init.
func RegisterBackend(name string, open func(Options) (Backend, error)) { backends[name] = open }

// ordinal splits cuda:1 into cuda and 1; ok is false if that makes no sense.
func ordinal(device string) (kind string, n int, ok bool) {
	kind, number, numbered := strings.Cut(device, ":")
	if !numbered {
		return kind, 0, true
	}
	n, err := strconv.Atoi(number)
	return kind, n, err == nil && n >= 0 && kind == "cuda"
}

// ValidDevice reports whether Open knows a device of this name, on some machine.
func ValidDevice(device string) bool {
	kind, _, ok := ordinal(device)
	return ok && (kind == "auto" || kind == "cpu" || kind == "cuda")
}

// Open opens a device by name; cuda:1 is the second GPU. A device asked for and
// absent is an error; auto takes the first that opens of cuda and cpu, and why says
// what was passed over.
func Open(device string, o Options) (b Backend, why error, err error) {
	if device != "auto" {
		kind, n, numbered := ordinal(device)
		o.Ordinal = n
		open, ok := backends[kind]
		if !ok || !numbered {
			names := []string{"auto"}
			for name := range backends {
				names = append(names, name)
			}
			slices.Sort(names)
			return nil, nil, fmt.Errorf("device %q: want one of %s", device, strings.Join(names, ", "))
		}
		b, err = open(o)
		return b, nil, err
	}
	if open, ok := backends["cuda"]; ok {
		if b, why = open(o); why == nil {
			return b, nil, nil
		}
	}
	b, err = backends["cpu"](o)
	return b, why, err
}

// Carried returns the output whose value an input is to have; ok is false if
// the input is fed by the host.
func (p *Plan) Carried(in Input, feeds Feeds) (from Ref, ok bool, err error) {
	name, ok := feeds[in.Name].(FromOutput)
	if !ok {
		return Ref{}, false, nil
	}
	from, known := p.Outputs[string(name)]
	if !known || in.DType != Float32 || from.Len() != elements(in.Shape) {
		return Ref{}, true, fmt.Errorf("graph: input %q %v cannot be fed from output %q", in.Name, in.Shape, name)
	}
	return from, true, nil
}

// Feed returns the value fed to an input as T, or says what is wrong with it.
func Feed[T float32 | float64 | uint8 | uint32](in Input, feeds Feeds) ([]T, error) {
	v, ok := feeds[in.Name].([]T)
	if !ok {
		return nil, fmt.Errorf("graph: input %q: want a slice of %v, have %T", in.Name, in.DType, feeds[in.Name])
	}
	if len(v) != elements(in.Shape) {
		return nil, fmt.Errorf("graph: input %q: want %d values, have %d", in.Name, elements(in.Shape), len(v))
	}
	return v, nil
}

// Widen returns the value fed to an input as float64. A Float64 input takes
// []float64 or []float32.
func Widen(in Input, feeds Feeds) ([]float64, error) {
	switch in.DType {
	case Uint8:
		v, err := Feed[uint8](in, feeds)
		return widen(v), err
	case Uint32:
		v, err := Feed[uint32](in, feeds)
		return widen(v), err
	}
	if _, ok := feeds[in.Name].([]float64); ok && in.DType == Float64 {
		return Feed[float64](in, feeds)
	}
	v, err := Feed[float32](in, feeds)
	return widen(v), err
}
