//go:build gpu && !cpu

package cuda

import (
	"fmt"
	"slices"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// tensor is a value in device memory.
type tensor struct {
	ptr   kernels.Ptr
	shape graph.Shape
	// bf16 says that the elements are bfloat16; else they are float32, or the
	// bytes or words that the operation wants.
	bf16 bool
	// rounded is, in bf16 precision, an operand of weights in bfloat16.
	rounded kernels.Ptr
}

func (t tensor) len() int { return graph.Ref{Shape: t.shape}.Len() }

// operands are the memory of one instruction.
type operands struct {
	out     tensor
	in      []tensor
	scratch kernels.Ptr
	kept    kernels.Ptr // where weights are kept as the kernel wants them, or 0
	// aside is what to leave beside the result, or nil; found is what others left
	// for this instruction, one for each part of x, or none. See graph.Aside.
	aside *aside
	found []tensor
}

// aside is a part of another operation, which will read the result: graph.Aside in
// device memory.
type aside struct {
	op  graph.Op
	in  []tensor
	out tensor
}

// launch is one launch of a kernel.
type launch struct {
	kernel string // its name in the PTX
	grid   [3]int // blocks
	block  int    // threads
	shared int    // bytes of dynamic shared memory
	params any    // points to a struct of package kernels
	// once says that it makes what is kept of the weights alone.
	once bool
	// resident points to a struct of package kernels that the kernel reads from device
	// memory, at a multiple of 256 bytes; its address goes to at, a field of params.
	// Before that maps are encoded into it.
	resident any
	at       *kernels.Ptr
	maps     []tensorMap
}

// tensorMap is a map to encode and its place in a resident struct.
type tensorMap struct {
	tiled driver.Tiled
	into  *[16]uint64 // the words of a kernels.TensorMap
}

func (l launch) String() string {
	return fmt.Sprintf("%s<<<%dx%dx%d, %d, %d B>>>", l.kernel, l.grid[0], l.grid[1], l.grid[2], l.block, l.shared)
}

// kernel is how one operation on operands of known extents runs here.
type kernel struct {
	scratch  int // bytes of memory for this instruction alone
	kept     int // bytes of what it makes of the weights, if that may be kept
	launches func(m operands) []launch
}

// call is an operation with the extents of its operands: those of heart, then
// those of the fusion.
type call struct {
	heart  graph.Op
	fusion graph.Fusion
	out    graph.Shape
	in     []graph.Shape
}

func callOf(op graph.Op, out graph.Shape, in []graph.Shape) call {
	heart, fusion := graph.Unfuse(op)
	return call{heart, fusion, out, in}
}

// families are the places to look for the kernel of an operation.
var families = []func(*device, call) (kernel, bool){
	(*device).matmul, (*device).attention, (*device).norm, (*device).elementwise, (*device).diffusion, (*device).losses,
	(*device).bound, (*device).guidance, (*device).embedding,
}

// kernel finds the kernel of an operation; ok is false if there is none.
func (d *device) kernel(op graph.Op, out graph.Shape, in []graph.Shape) (k kernel, ok bool) {
	c := callOf(op, out, in)
	for _, family := range families {
		if k, ok = family(d, c); ok {
			break
		}
	}
	at, weighted := graph.WeightsAt(op)
	if ok && weighted && d.precision == graph.BF16 {
		k = d.rounding(k, at, in[at])
	}
	return k, ok
}

// rounding gives a kernel that multiplies weights a bfloat16 copy of them where
// the state has none: where an operation is applied to weights that were
// computed.
func (d *device) rounding(k kernel, at int, weights graph.Shape) kernel {
	n := graph.Ref{Shape: weights}.Len()
	room := align(2 * n)
	inner := k.launches
	return kernel{k.scratch + room, k.kept, func(m operands) []launch {
		var before []launch
		w := &m.in[at]
		if w.rounded == 0 && w.bf16 {
			w.rounded = w.ptr
		}
		if w.rounded == 0 {
			w.rounded = m.scratch
			before = d.roundLaunches(w.rounded, w.ptr, n)
		}
		m.scratch += kernels.Ptr(room)
		return append(before, inner(m)...)
	}}
}

// align is the next multiple of what the driver aligns memory to, in bytes.
func align(bytes int) int { return (bytes + 255) / 256 * 256 }

// Fuses says which fusions have kernels.
func (b *Backend) Fuses(op graph.Op, _ []graph.Shape) bool {
	heart, f := graph.Unfuse(op)
	if f.Disordered || f.Joined && f.Doubled {
		return false
	}
	var can graph.Fusion
	switch heart.(type) {
	case graph.Conv2D:
		can = graph.Fusion{Joined: true, Doubled: true, PerSample: true, Residual: true}
	case graph.Conv2DGradWeight:
		can = graph.Fusion{Joined: true, Doubled: true}
	case graph.Linear:
		can = graph.Fusion{Joined: true, Residual: true}
	case graph.GroupNormGradData:
		can = graph.Fusion{Joined: true, Residual: true}
	case graph.Conv2DGradData, graph.LinearGradData:
		can = graph.Fusion{Residual: true}
	case graph.LinearGradWeight, graph.GroupNormStats, graph.GroupNorm, graph.GroupNormGradSums:
		can = graph.Fusion{Joined: true}
	}
	implies := func(a, b bool) bool { return !a || b }
	return implies(f.Joined, can.Joined) && implies(f.Doubled, can.Doubled) &&
		implies(f.PerSample, can.PerSample) && implies(f.Residual, can.Residual)
}

// vector is the number of bfloat16 values in 16 bytes, the most that a thread
// reads or writes at once.
const vector = 8

// Stored is the element type of what an operation computes. In bf16 precision
// values with a channel dimension that fills whole vectors are bfloat16, except
// gradients of weights: sums that the optimiser reads.
func (b *Backend) Stored(op graph.Op, out graph.Shape) graph.DType {
	heart, _ := graph.Unfuse(op)
	switch heart.(type) {
	case graph.Conv2DGradWeight, graph.LinearGradWeight:
		return graph.Float32
	}
	if b.device.stored(out) {
		return graph.BFloat16
	}
	return graph.Float32
}

func (d *device) stored(s graph.Shape) bool {
	return d.precision == graph.BF16 && len(s) >= 4 && s[len(s)-1]%vector == 0
}

// Workspace is the memory of an operation's kernel, in elements of float32.
func (b *Backend) Workspace(op graph.Op, out graph.Shape, in []graph.Shape, keep bool) (scratch, kept int) {
	k, _ := b.device.kernel(op, out, slices.Clone(in))
	if keep {
		kept = (k.kept + 3) / 4
	}
	return (k.scratch + 3) / 4, kept
}
