// Package bf16 multiplies matrices of bfloat16 and sums in float32,
//
//	C[M,N] = bias[N] + add[M,N] + A[M,K] B[K,N]
//
// with C, bias and add in float32. It is the counterpart of package gemm for
// convolution and linear layers of lower precision, and has its structure: B is
// packed in panels, A is read in place through a Layout, C is computed in strips.
//
// A bfloat16 is the upper half of a float32, here a uint16. Operands are rounded
// to the nearest, ties to even, when they are copied into the form that the
// kernels read; denormal numbers become zero, as they do in the instructions.
//
// The instructions multiply pairs of numbers, neighbours along K:
//
//	C[i,j] += A[i,2p] B[2p,j] + A[i,2p+1] B[2p+1,j]
//
// so a row of a packed panel holds two rows of B, number by number, and in A
// neighbours along K are neighbours in memory. AVX512-BF16 takes one such pair
// a step, AMX 16: K is padded to a multiple of that with zeros in B, and a
// kernel reads as far beyond the end of a row of A. What it finds there must be
// finite.
//
//	panel of B [K/2][width][2]     AVX-512: tile of C of 14x32 in registers,
//	┌──────┬──────┬───┐            16x16 in the narrow last panel
//	│ab ab │      │   │ K/2        AMX: 32x32, 32x16, in 16x16 tile registers
//	└──────┴──────┴───┘            rows of A in halves: the lower half may lie elsewhere
//
// An element of C is summed in an order that K fixes, wherever its tile begins
// and whichever worker computes it: AVX512-BF16 and the portable kernel add pair
// after pair, the second product of each first; AMX sums the first and the second
// products of 16 pairs, then both, and adds that. Products are exact, sums round
// to nearest. The instructions take denormal operands and results for zero, the
// portable kernel only operands.
package bf16

//go:generate go run ./gen

import (
	"fmt"
	"unsafe"

	"ddpm/internal/graph/cpu/isa"
)

// Slack is how many numbers a kernel may read beyond the end of a row of A.
const Slack = amxSteps - 1

// Widths of panels, and numbers of K in a step.
const (
	wide     = 32
	narrow   = 16
	pair     = 2
	amxSteps = 32
)

// Engine runs the kernels of one family of instructions.
type Engine struct {
	kind     isa.BF16Kind
	portable bool // products run in plain Go
	vector   bool // conversions run in assembly

	// emulate stands for the AMX kernels in tests.
	emulate func(t amxTile, rows, columns int)
}

// New returns an engine. The family must be a supported one.
func New(kind isa.BF16Kind) *Engine {
	if kind == isa.BF16Generic {
		return Portable(kind)
	}
	return &Engine{kind: kind, vector: true}
}

// Portable returns an engine that has the steps and tiles of a family of
// instructions but runs in plain Go: what is built on a family can be tested on
// processors that lack it.
func Portable(kind isa.BF16Kind) *Engine { return &Engine{kind: kind, portable: true} }

// Kind is the family of instructions in use.
func (e *Engine) Kind() isa.BF16Kind { return e.kind }

// Multiple is what K is padded to a multiple of.
func (e *Engine) Multiple() int {
	if e.kind == isa.BF16AMX {
		return amxSteps
	}
	return pair
}

// Padded is a number of steps of K with its padding.
func (e *Engine) Padded(steps int) int { return roundUp(steps, e.Multiple()) }

// View is the memory of x as bfloat16s, two for each element.
func View(x []float32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(x))), 2*len(x))
}

// Floats is the number of float32s whose memory holds n bfloat16s.
func Floats(n int) int { return (n + 1) / 2 }

// Panel is a range of columns of B and C that a strip covers.
type Panel struct {
	First, Columns int
	Width          int // columns in packed memory, the last of them zero
}

// Panels is the number of panels that n columns make.
func (e *Engine) Panels(n int) int { return ceil(n, wide) }

// Panel is panel p of n columns. All but the last are wide; its packed copy
// begins at First*K.
func (e *Engine) Panel(p, n int) Panel {
	first := p * wide
	panel := Panel{first, min(n-first, wide), wide}
	if panel.Columns <= narrow {
		panel.Width = narrow
	}
	return panel
}

// PackedSize is the number of bfloat16s of B[k,n] in panels, k being padded.
func (e *Engine) PackedSize(k, n int) int {
	last := e.Panel(e.Panels(n)-1, n)
	return (last.First + last.Width) * k
}

// TileRows is the number of rows of the tallest tile in a panel of that width.
func (e *Engine) TileRows(width int) int {
	switch {
	case e.kind == isa.BF16AMX:
		return 2 * amxRows
	case width == wide:
		return wideRows
	}
	return narrowRows
}

// Layout says where the elements of a left operand lie. K is cut into segments
// of Steps each, padding included: A(i, s*Steps+j) is element
// Offsets[s] + i*Row + j.
type Layout struct {
	Row     int
	Steps   int
	Offsets []int
	last    int // the greatest offset
}

// Layout is a layout of len(offsets) segments, none negative, of that many
// steps before padding.
func (e *Engine) Layout(row, steps int, offsets ...int) *Layout {
	l := &Layout{Row: row, Steps: e.Padded(steps), Offsets: offsets}
	for _, o := range offsets {
		l.last = max(l.last, o)
	}
	return l
}

// K is the length of the inner dimension, padding included.
func (l *Layout) K() int { return l.Steps * len(l.Offsets) }

// Strip is some rows of C in one panel.
type Strip struct {
	Rows   int
	A      []uint16 // from A(0, 0)
	Layout *Layout
	B      []uint16 // the packed panel
	Panel  Panel
	Bias   []float32 // of the panel's columns, or nil for none
	Add    []float32 // from the strip's first element, strided as C; C itself, or nil for none
	C      []float32 // from the strip's first element
	Stride int       // of C's rows

	// A strip of an even number of rows, no more than a tile has, may have its
	// lower half elsewhere: these are the elements skipped between the halves.
	SplitA, SplitC int
}

// Run computes the strip.
func (e *Engine) Run(s *Strip) {
	e.check(s)
	switch {
	case e.portable:
		s.generic()
	case e.kind == isa.BF16AMX:
		e.amx(s)
	default:
		avx512(s)
	}
}

// check panics if the strip reaches beyond its slices: the assembly would not.
func (e *Engine) check(s *Strip) {
	l, rows := s.Layout, s.Rows-1
	c := rows*s.Stride + s.SplitC + s.Panel.Columns
	switch {
	case rows < 0 || l.Steps < 1 || l.Steps%e.Multiple() != 0 || len(l.Offsets) == 0 || s.Panel.Columns < 1:
		panic(fmt.Sprintf("bf16: empty strip: %d rows, %d times %d steps, %d columns", s.Rows, len(l.Offsets), l.Steps, s.Panel.Columns))
	case (s.SplitA != 0 || s.SplitC != 0) && (s.Rows%2 != 0 || s.Rows > e.TileRows(s.Panel.Width)):
		panic(fmt.Sprintf("bf16: a strip of %d rows cannot be split", s.Rows))
	case rows*l.Row+s.SplitA+l.last+l.Steps > len(s.A),
		l.K()*s.Panel.Width > len(s.B),
		c > len(s.C),
		s.Add != nil && c > len(s.Add),
		s.Bias != nil && s.Panel.Columns > len(s.Bias):
		panic("bf16: strip reaches beyond its operands")
	}
}

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

func ceil(n, d int) int { return (n + d - 1) / d }
