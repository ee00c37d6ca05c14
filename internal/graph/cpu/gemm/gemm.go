// Package gemm multiplies matrices of float32,
//
//	C[M,N] = bias[N] + A[M,K] B[K,N] + addend[M,N]   or   C += A B
//
// and is what convolution, linear layers and attention are made of.
//
// The structure is that of Goto & van de Geijn, "Anatomy of High-Performance
// Matrix Multiplication" (2008), except that A is not packed. B is packed once
// into panels of a few vectors' width; a micro-kernel keeps a tile of C, a few
// rows by one panel, in registers and walks along K. It reads A in place
// through a Layout, which is general enough for rows, columns, and the sliding
// windows of a convolution over a padded image.
//
//	              panel of B  [K][width]
//	              ┌──┬──┬─┐
//	              │  │  │ │ K          a Strip is some rows of C in one panel,
//	              └──┴──┴─┘            a tile is as much of it as fits the
//	┌───────┐     ┌──┬──┬─┐            registers: 14x32 with AVX-512 (16x16 in
//	│   A   │     │▒▒│  │ │ strip      the narrow last panel), 6x16 (12x8) with
//	│       │     ├──┼──┼─┤            AVX2
//	└───────┘     └──┴──┴─┘
//
// An element of C is one chain of multiply-adds in rising order of K, wherever
// its tile begins and whichever worker computes it. Where K is cut, in chunks
// that are summed in rising order, the cuts depend on the shape alone, and not on
// the number of rows where B comes packed. So the result does not depend on the
// number of workers.
package gemm

//go:generate go run ./gen

import (
	"fmt"
	"unsafe"

	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/graph/cpu/worker"
)

// Engine runs the kernels of one instruction set on a pool of workers.
type Engine struct {
	pool *worker.Pool
	set  isa.Set
	// Widths of panels, and rows of the tallest tile in each.
	wide, narrow         int
	wideRows, narrowRows int
}

// New returns an engine. The instruction set must be a supported one.
func New(pool *worker.Pool, set isa.Set) *Engine {
	e := &Engine{pool: pool, set: set}
	e.setTiles()
	return e
}

// Panel is a range of columns of B and C that a strip covers.
type Panel struct {
	First, Columns int
	Width          int // columns in packed memory, the last of them zero
}

// Panels is the number of panels that n columns make.
func (e *Engine) Panels(n int) int { return (n + e.wide - 1) / e.wide }

// Panel is panel p of n columns. All but the last are wide; its packed copy
// begins at First*K.
func (e *Engine) Panel(p, n int) Panel {
	first := p * e.wide
	panel := Panel{first, min(n-first, e.wide), e.wide}
	if panel.Columns <= e.narrow {
		panel.Width = e.narrow
	}
	return panel
}

// PackedSize is the number of elements of B[k,n] in panels.
func (e *Engine) PackedSize(k, n int) int {
	last := e.Panel(e.Panels(n)-1, n)
	return (last.First + last.Width) * k
}

// TileRows is the number of rows of the tallest tile in a panel of that width.
func (e *Engine) TileRows(width int) int {
	if width == e.wide {
		return e.wideRows
	}
	return e.narrowRows
}

// Matrix is an operand in memory: element (i, j) is Data[i*Stride+j], or
// Data[j*Stride+i] if it is transposed.
type Matrix struct {
	Data       []float32
	Stride     int
	Transposed bool
}

// T is the transpose.
func (m Matrix) T() Matrix {
	m.Transposed = !m.Transposed
	return m
}

// Pack packs all panels of B[k,n].
func (e *Engine) Pack(dst []float32, b Matrix, k, n int) {
	for j := range e.Panels(n) {
		p := e.Panel(j, n)
		e.PackPanel(dst[p.First*k:], b, p, 0, k)
	}
}

// PackPanel copies rows k0 <= k < k1 of one panel of B to dst[(k-k0)*Width:].
func (e *Engine) PackPanel(dst []float32, b Matrix, p Panel, k0, k1 int) {
	if k0 == k1 {
		return
	}
	if !b.Transposed {
		e.packRows(dst, b.Data[k0*b.Stride+p.First:], b.Stride, k1-k0, p)
		return
	}
	// Four columns at a time, as far down as the packed rows stay in the cache.
	const rows, columns = 64, 4
	for ; k0 < k1; k0 += rows {
		n := min(rows, k1-k0)
		for j := 0; j < p.Width; j += columns {
			var from [columns][]float32
			for c := range from {
				from[c] = zeros[:n]
				if j+c < p.Columns {
					from[c] = b.Data[(p.First+j+c)*b.Stride+k0:][:n]
				}
			}
			c0, c1, c2, c3 := from[0], from[1][:len(from[0])], from[2][:len(from[0])], from[3][:len(from[0])]
			to := dst[j:]
			for k := range c0 {
				row := (*[columns]float32)(to[k*p.Width:])
				row[0], row[1], row[2], row[3] = c0[k], c1[k], c2[k], c3[k]
			}
		}
		dst = dst[n*p.Width:]
	}
}

// zeros stand for the columns that a matrix lacks.
var zeros [64]float32

// Layout says where the elements of a left operand lie. K is cut into segments
// of Steps each: A(i, s*Steps+j) is element Offsets[s] + i*Row + j*Step.
type Layout struct {
	Row, Step int
	Steps     int
	Offsets   []int
	last      int // the greatest offset
}

// NewLayout is a layout of len(offsets) segments, none negative; without
// offsets there is one, at 0.
func NewLayout(row, step, steps int, offsets ...int) *Layout {
	if len(offsets) == 0 {
		offsets = []int{0}
	}
	l := &Layout{Row: row, Step: step, Steps: steps, Offsets: offsets}
	for _, o := range offsets {
		l.last = max(l.last, o)
	}
	return l
}

// layout is that of a matrix of k columns.
func (m Matrix) layout(k int) *Layout {
	if m.Transposed {
		return NewLayout(1, m.Stride, k)
	}
	return NewLayout(m.Stride, 1, k)
}

// K is the length of the inner dimension.
func (l *Layout) K() int { return l.Steps * len(l.Offsets) }

// Strip is some rows of C in one panel.
type Strip struct {
	Rows   int
	A      []float32 // from A(0, 0)
	Layout *Layout
	B      []float32 // the packed panel
	Panel  Panel
	Bias   []float32 // of the panel's columns, or nil for none
	C      []float32 // from the strip's first element
	Stride int       // of C's rows

	// Accumulate adds to C, which is otherwise overwritten.
	Accumulate bool
	// Addend, if any, is added to the product: elements laid out as C's, which
	// they may be.
	Addend []float32

	// A strip of an even number of rows, no more than a tile has, may have its
	// lower half elsewhere: these are the elements skipped between the halves.
	SplitA, SplitC int
}

// Run computes the strip.
func (e *Engine) Run(s *Strip) {
	s.check()
	if e.set == isa.Generic {
		s.generic()
		return
	}
	e.assembly(s)
}

// check panics if the strip reaches beyond its slices: the assembly would not.
func (s *Strip) check() {
	l := s.Layout
	switch rows := s.Rows - 1; {
	case rows < 0 || l.Steps < 1 || s.Panel.Columns < 1:
		panic(fmt.Sprintf("gemm: empty strip: %d rows, %d steps, %d columns", s.Rows, l.Steps, s.Panel.Columns))
	case rows*l.Row+s.SplitA+l.last+(l.Steps-1)*l.Step >= len(s.A),
		l.K()*s.Panel.Width > len(s.B),
		rows*s.Stride+s.SplitC+s.Panel.Columns > len(s.C),
		s.Addend != nil && rows*s.Stride+s.SplitC+s.Panel.Columns > len(s.Addend),
		s.Bias != nil && s.Panel.Columns > len(s.Bias):
		panic("gemm: strip reaches beyond its operands")
	}
}

// addend is what is added to the product; nil for nothing.
func (s *Strip) addend() []float32 {
	if s.Accumulate {
		return s.C
	}
	return s.Addend
}

// Block runs a strip in each panel of n columns: B holds all of them, Bias and
// C begin at column 0, and Panel is set here. It takes no Addend.
func (e *Engine) Block(s *Strip, n int) {
	b, bias, c, k := s.B, s.Bias, s.C, s.Layout.K()
	for p := range e.Panels(n) {
		s.Panel = e.Panel(p, n)
		s.B = b[s.Panel.First*k:]
		s.C = c[s.Panel.First:]
		if bias != nil {
			s.Bias = bias[s.Panel.First:]
		}
		e.Run(s)
	}
	s.B, s.Bias, s.C = b, bias, c
}

// cacheLine is the alignment of scratch memory in elements.
const cacheLine = 16

// Scratch is the workspace that holds pieces of the given sizes; see Carve.
func Scratch(sizes ...int) int {
	total := cacheLine - 1
	for _, n := range sizes {
		total += roundUp(n, cacheLine)
	}
	return total
}

// Carve cuts n elements, aligned to a cache line, off the front of *ws.
func Carve(ws *[]float32, n int) []float32 {
	address := uintptr(unsafe.Pointer(unsafe.SliceData(*ws))) / unsafe.Sizeof(float32(0))
	skip := int(-address % cacheLine)
	piece := (*ws)[skip : skip+n : skip+n]
	*ws = (*ws)[skip+n:]
	return piece
}

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

func ceil(n, d int) int { return (n + d - 1) / d }
