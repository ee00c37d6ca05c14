// Command gen writes the AVX2 and AVX-512 transforms of package winograd,
// kernels_amd64.s, and their Go declarations, kernels_amd64.go.
//
// Each lane of a vector is a channel. A transform T of a square of values is
// done as T (T square)ᵀ: the first pass takes the square's lines one by one to
// scratch memory on the stack, the second takes the lines across. The thirty-six
// results or operands of package winograd's planes are numbered line by line of
// the pass that touches them, so plane 6j+i is row i, column j.
package main

import (
	"bytes"
	"fmt"
	"math"

	"ddpm/internal/graph/cpu/asmgen"
)

// family is one instruction set.
type family struct {
	name   string
	vector string // register prefix
	lanes  int
}

func (f family) bytes() int { return 4 * f.lanes }

var families = []family{{"avx512", "Z", 16}, {"avx2", "Y", 8}}

// Offsets of the fields of the argument structs; kernels_amd64_test.go holds
// them to the structs' layouts.
const (
	gatherDst = 8 * iota
	gatherPixels
	gatherMask
	gatherPlane
	gatherVectors
	gatherFirst
)

const (
	scatterDst = 8 * iota
	scatterSrc
	scatterBias
	scatterPerSample
	scatterResidual
	scatterMask
	scatterPlane
	scatterVectors
	scatterPixel
	scatterRow
	scatterRows
	scatterColumns
)

const (
	tapsPlanes = 8 * iota
	tapsTaps
	tapsMask
	tapsPlane
	tapsTap
	tapsRow
	tapsRows
	tapsVectors
)

const (
	blockDst = 8 * iota
	blockSrc
	blockDstRow
	blockSrcRow
)

type writer struct {
	bytes.Buffer
	family
	labels int
}

func (w *writer) line(format string, a ...any) { fmt.Fprintf(w, "\t"+format+"\n", a...) }

func (w *writer) label(name string) { fmt.Fprintf(w, "%s:\n", name) }

// newLabel is a label that the function does not have yet.
func (w *writer) newLabel() string {
	w.labels++
	return fmt.Sprintf("skip%d", w.labels)
}

func (w *writer) v(i int) string { return fmt.Sprintf("%s%d", w.vector, i) }

// op writes an instruction on vector registers, the destination last.
func (w *writer) op(name string, registers ...int) {
	s := "\t" + name + " "
	for i, r := range registers {
		if i > 0 {
			s += ", "
		}
		s += w.v(r)
	}
	fmt.Fprintln(w, s)
}

func (w *writer) fma(x, y, sum int) { w.op("VFMADD231PS", x, y, sum) }  // sum += x y
func (w *writer) fms(x, y, sum int) { w.op("VFNMADD231PS", x, y, sum) } // sum -= x y

// Registers. A line of up to six values is in the first, its transform's
// constants in those from 10 on.
const (
	temporary = 6 // and two more
	mask      = 9 // of the channels, with AVX2; AVX-512 has it in K1
	constant  = 10
)

// transform is a linear map of one line, and the constants it needs.
type transform struct {
	in, out   int
	constants []float64
	// seventh is the register of the last of seven constants.
	seventh int
	// write computes from registers 0 to in-1 and the constants' registers c,
	// and calls put as soon as an output is in a register.
	write func(w *writer, c []int, put func(i, register int))
}

func (t transform) registers() []int {
	c := make([]int, len(t.constants))
	for i := range c {
		c[i] = constant + i
		if i == 6 {
			c[i] = t.seventh
		}
	}
	return c
}

// The points ±a and ±b of package winograd, and the scales of their rows of G.
const (
	a, b   = 5. / 8, 3. / 2
	a2, b2 = a * a, b * b
	na, nb = 2 * a2 * (a2 - b2), 2 * b2 * (b2 - a2)
)

// pair puts even ± scale*odd, overwriting even.
func (w *writer) pair(first, even, odd, scale int, put func(i, register int)) {
	t := temporary + 2
	w.op("VMOVAPS", even, t)
	w.fma(scale, odd, t)
	put(first, t)
	w.fms(scale, odd, even)
	put(first+1, even)
}

// Bᵀ, of a line of the image.
var input = transform{6, 6, []float64{a2 * b2, a2 + b2, a2, b2, a, b}, 0,
	func(w *writer, c []int, put func(i, register int)) {
		const t, u = temporary, temporary + 1
		w.op("VMOVAPS", 4, t)
		w.fms(c[1], 2, t)
		w.fma(c[0], 0, t)
		put(0, t)
		w.op("VMOVAPS", 5, u)
		w.fms(c[1], 3, u)
		w.fma(c[0], 1, u)
		put(5, u)
		w.op("VMOVAPS", 4, t)
		w.fms(c[3], 2, t)
		w.op("VMOVAPS", 3, u)
		w.fms(c[3], 1, u)
		w.pair(1, t, u, c[4], put)
		w.fms(c[2], 2, 4)
		w.fms(c[2], 1, 3)
		w.pair(3, 4, 3, c[5], put)
	}}

// A, of a line of the output's gradient.
var gradient = transform{4, 6, []float64{a, b, a2, b2}, 0,
	func(w *writer, c []int, put func(i, register int)) {
		const t, u = temporary, temporary + 1
		put(0, 0)
		put(5, 3)
		w.op("VMOVAPS", 0, t)
		w.fma(c[2], 2, t)
		w.op("VMOVAPS", 1, u)
		w.fma(c[2], 3, u)
		w.pair(1, t, u, c[0], put)
		w.fma(c[3], 2, 0)
		w.fma(c[3], 3, 1)
		w.pair(3, 0, 1, c[1], put)
	}}

// G, of a line of the weights.
var weights = transform{3, 6, []float64{1 / (a2 * b2), 1 / na, a / na, a2 / na, 1 / nb, b / nb, b2 / nb}, 5,
	func(w *writer, c []int, put func(i, register int)) {
		const t = temporary
		w.op("VMULPS", c[0], 0, t)
		put(0, t)
		put(5, 2)
		w.op("VMULPS", c[1], 0, t)
		w.fma(c[3], 2, t)
		w.pair(1, t, 1, c[2], put)
		w.op("VMULPS", c[4], 0, t)
		w.fma(c[6], 2, t)
		w.pair(3, t, 1, c[5], put)
	}}

// sums leaves 1+2, 1-2, 3+4 and 3-4 in the registers it returns; 2 and 4 are
// free afterwards.
func (w *writer) sums() (evenA, oddA, evenB, oddB int) {
	const t, u = temporary, temporary + 1
	w.op("VSUBPS", 2, 1, t)
	w.op("VADDPS", 2, 1, 1)
	w.op("VSUBPS", 4, 3, u)
	w.op("VADDPS", 4, 3, 3)
	return 1, t, 3, u
}

// Aᵀ, of a line of the product.
var output = transform{6, 4, []float64{a, b, a2, b2, a * a2, b * b2}, 0,
	func(w *writer, c []int, put func(i, register int)) {
		evenA, oddA, evenB, oddB := w.sums()
		w.op("VADDPS", evenA, 0, 0)
		w.op("VADDPS", evenB, 0, 0)
		put(0, 0)
		w.op("VMULPS", c[0], oddA, 2)
		w.fma(c[1], oddB, 2)
		put(1, 2)
		w.op("VMULPS", c[2], evenA, evenA)
		w.fma(c[3], evenB, evenA)
		put(2, evenA)
		w.fma(c[4], oddA, 5)
		w.fma(c[5], oddB, 5)
		put(3, 5)
	}}

// Gᵀ, of a line of the sum of products over all tiles.
var weightGradient = transform{6, 3, []float64{1 / (a2 * b2), 1 / na, a / na, a2 / na, 1 / nb, b / nb, b2 / nb}, 8,
	func(w *writer, c []int, put func(i, register int)) {
		evenA, oddA, evenB, oddB := w.sums()
		w.op("VMULPS", c[0], 0, 0)
		w.fma(c[1], evenA, 0)
		w.fma(c[4], evenB, 0)
		put(0, 0)
		w.op("VMULPS", c[2], oddA, 2)
		w.fma(c[5], oddB, 2)
		put(1, 2)
		w.fma(c[3], evenA, 5)
		w.fma(c[6], evenB, 5)
		put(2, 5)
	}}

// begin writes a function's head: DI is its argument, R9 the scratch memory
// that square uses, and the transform's constants are in their registers.
func (w *writer) begin(f family, kernel, argument string, t transform) {
	w.family = f
	w.labels = 0
	name := kernelName(f, kernel)
	fmt.Fprintf(w, "// func %s(a *%s)\nTEXT ·%s(SB), 0, $%d-8\n", name, argument, name, f.bytes()*(t.in*t.out+1))
	w.line("MOVQ a+0(FP), DI")
	w.line("LEAQ %d(SP), R9", f.bytes()-1)
	w.line("ANDQ $~%d, R9", f.bytes()-1)
	for i, r := range t.registers() {
		w.line("MOVL $%#x, AX // %v", math.Float32bits(float32(t.constants[i])), float32(t.constants[i]))
		w.line("VMOVD AX, X%d", r)
		w.line("VBROADCASTSS X%d, %s", r, w.v(r))
	}
}

// field loads a field of the argument.
func (w *writer) field(offset int, register string) { w.line("MOVQ %d(DI), %s", offset, register) }

// elements loads a field that counts elements, as bytes.
func (w *writer) elements(offset int, register string) {
	w.field(offset, register)
	w.line("SHLQ $2, %s", register)
}

// square writes both passes of a transform. load fetches value j of line i,
// store takes value j of line i of the result; before is written ahead of each
// line of the second pass.
func (w *writer) square(t transform, load func(i, j, register int), before func(i int), store func(i, j, register int)) {
	for i := range t.in {
		for j := range t.in {
			load(i, j, j)
		}
		t.write(w, t.registers(), func(j, register int) {
			w.line("VMOVAPS %s, %d(R9)", w.v(register), (i*t.out+j)*w.bytes())
		})
	}
	for i := range t.out {
		if before != nil {
			before(i)
		}
		for j := range t.in {
			w.line("VMOVAPS %d(R9), %s", (j*t.out+i)*w.bytes(), w.v(j))
		}
		t.write(w, t.registers(), func(j, register int) { store(i, j, register) })
	}
}

// multiples are the addresses of up to six elements that lie a stride apart;
// three and five times the stride are in registers of their own.
func multiples(base, stride, three, five string) [6]string {
	return [6]string{
		"(" + base + ")", "(" + base + ")(" + stride + "*1)", "(" + base + ")(" + stride + "*2)",
		"(" + base + ")(" + three + "*1)", "(" + base + ")(" + stride + "*4)", "(" + base + ")(" + five + "*1)",
	}
}

// planes are the six of one line: DX is their stride, R10 and R11 three and
// five times that, R12 the first.
var planes = multiples("R12", "DX", "R10", "R11")

func (w *writer) beginPlanes(offset int) {
	w.elements(offset, "DX")
	w.line("LEAQ (DX)(DX*2), R10")
	w.line("LEAQ (DX)(DX*4), R11")
}

func (w *writer) nextPlanes() { w.line("LEAQ (R12)(R10*2), R12") }

// allLanes sets the mask to all channels of a vector.
func (w *writer) allLanes() {
	if w.name == "avx512" {
		w.line("KXNORW K1, K1, K1")
	} else {
		w.op("VPCMPEQD", mask, mask, mask)
	}
}

// load and store the channels of the mask; the others are zero, or left.
func (w *writer) load(address string, register int) {
	if w.name == "avx512" {
		w.line("VMOVUPS.Z %s, K1, %s", address, w.v(register))
	} else {
		w.line("VMASKMOVPS %s, %s, %s", address, w.v(mask), w.v(register))
	}
}

// store needs the offset of the argument's mask, and CX to be 1 in the last
// vector: AVX2's masked stores are slow, so only a partial vector takes one.
func (w *writer) store(register int, address string, maskField int) {
	if w.name == "avx512" {
		w.line("VMOVUPS %s, K1, %s", w.v(register), address)
		return
	}
	whole, done := w.newLabel(), w.newLabel()
	w.line("CMPQ CX, $1")
	w.line("JNE %s", whole)
	w.line("CMPQ %d(DI), $0", maskField)
	w.line("JE %s", whole)
	w.line("VMASKMOVPS %s, %s, %s", w.v(register), w.v(mask), address)
	w.line("JMP %s", done)
	w.label(whole)
	w.line("VMOVUPS %s, %s", w.v(register), address)
	w.label(done)
}

func (w *writer) zero(register int) {
	if w.name == "avx512" {
		w.op("VPXORD", register, register, register)
	} else {
		w.op("VXORPS", register, register, register)
	}
}

// lastMask narrows the mask in the last vector, if the argument has one for it.
func (w *writer) lastMask(maskField int) {
	w.line("CMPQ CX, $1")
	w.line("JNE whole")
	w.field(maskField, "AX")
	w.line("TESTQ AX, AX")
	w.line("JZ whole")
	if w.name == "avx512" {
		w.line("VMOVUPS (AX), Z0")
		w.line("VPTESTMD Z0, Z0, K1")
	} else {
		w.line("VMOVUPS (AX), %s", w.v(mask))
	}
	w.label("whole")
}

// gather writes the transform of pixels, t.in rows and columns of them, to
// planes.
func (w *writer) gather(f family, kernel string, t transform) {
	w.begin(f, kernel, "gather", t)
	w.field(gatherDst, "SI")
	w.field(gatherPixels, "BX")
	w.beginPlanes(gatherPlane)
	w.field(gatherVectors, "CX")
	w.elements(gatherFirst, "R13")
	w.allLanes()
	w.label("vector")
	w.lastMask(gatherMask)
	w.line("MOVQ SI, R12")
	w.square(t, func(i, j, register int) {
		// The window's rows are six pixels apart whatever its size.
		w.line("MOVQ %d(BX), AX", 8*(6*i+j))
		w.load("(AX)(R13*1)", register)
		// Pixels lie as far apart as they have channels: fetch the next ones.
		w.line("PREFETCHT0 %d(AX)(R13*1)", f.bytes())
	}, func(i int) {
		if i > 0 {
			w.nextPlanes()
		}
	}, func(_, j, register int) {
		w.line("VMOVUPS %s, %s", w.v(register), planes[j])
	})
	w.line("ADDQ $%d, R13", f.bytes())
	w.line("ADDQ $%d, SI", f.bytes())
	w.line("DECQ CX")
	w.line("JNZ vector")
	w.end()
}

func (w *writer) end() {
	w.line("VZEROUPPER")
	w.line("RET")
	fmt.Fprintln(w)
}

// scatter writes the transform of planes to up to 4x4 pixels of the output,
// with what is added to them.
func (w *writer) scatter(f family, kernel string, t transform) {
	const addend = 8
	w.begin(f, kernel, "scatter", t)
	w.field(scatterSrc, "SI")
	w.field(scatterDst, "R13")
	w.line("MOVQ R13, R8")
	w.line("NEGQ R8")
	w.line("ADDQ %d(DI), R8 // from the output to the residual", scatterResidual)
	w.beginPlanes(scatterPlane)
	w.elements(scatterPixel, "BX")
	w.field(scatterVectors, "CX")
	w.line("XORQ R14, R14 // the vector's first channel, in bytes")
	w.allLanes()
	w.label("vector")
	w.lastMask(scatterMask)
	w.line("MOVQ SI, R12")

	w.zero(addend)
	for _, offset := range []int{scatterBias, scatterPerSample} {
		skip := w.newLabel()
		w.field(offset, "AX")
		w.line("TESTQ AX, AX")
		w.line("JZ %s", skip)
		w.load("(AX)(R14*1)", 0)
		w.op("VADDPS", 0, addend, addend)
		w.label(skip)
	}

	w.square(t, func(i, j, register int) {
		w.line("VMOVUPS %s, %s", planes[j], w.v(register))
		if j == 5 && i < 5 {
			w.nextPlanes()
		}
	}, func(i int) {
		if i == 0 {
			w.line("LEAQ (R13)(R14*1), R12")
		} else {
			w.elements(scatterRow, "AX")
			w.line("ADDQ AX, R12")
		}
		w.line("CMPQ %d(DI), $%d", scatterRows, i)
		w.line("JLE next")
	}, func(_, j, register int) {
		skip := w.newLabel()
		if j > 0 {
			w.line("CMPQ %d(DI), $%d", scatterColumns, j)
			w.line("JLE %s", skip)
		}
		w.line("LEAQ %s, AX", [...]string{"(R12)", "(R12)(BX*1)", "(R12)(BX*2)", "(BX)(BX*2)"}[j])
		if j == 3 {
			w.line("ADDQ R12, AX")
		}
		w.op("VADDPS", addend, register, register)
		plain := w.newLabel()
		w.line("CMPQ %d(DI), $0", scatterResidual)
		w.line("JE %s", plain)
		w.load("(AX)(R8*1)", 4)
		w.op("VADDPS", 4, register, register)
		w.label(plain)
		w.store(register, "(AX)", scatterMask)
		w.label(skip)
	})
	w.label("next")
	w.line("ADDQ $%d, R14", f.bytes())
	w.line("ADDQ $%d, SI", f.bytes())
	w.line("DECQ CX")
	w.line("JNZ vector")
	w.end()
}

// taps writes a transform between the planes of a matrix and its nine taps,
// either way: weights to planes, or planes to the weights' gradient. The rows of
// a plane follow each other without a gap.
func (w *writer) taps(f family, kernel string, t transform, toPlanes bool) {
	w.begin(f, kernel, "taps", t)
	w.field(tapsPlanes, "SI")
	w.field(tapsTaps, "R13")
	w.beginPlanes(tapsPlane)
	w.elements(tapsTap, "BX")
	w.field(tapsRows, "R14")
	w.label("row")
	w.line("MOVQ R13, R8 // of the taps, as SI is of the planes")
	w.field(tapsVectors, "CX")
	w.allLanes()
	w.label("vector")
	w.lastMask(tapsMask)

	three := multiples("R12", "BX", "", "")
	nextTaps := func() {
		w.line("LEAQ (R12)(BX*2), R12")
		w.line("ADDQ BX, R12")
	}
	if toPlanes {
		// Rows of a panel lie too far apart for the processor to foresee them:
		// fetch the one eight rows on.
		w.elements(tapsRow, "AX")
		w.line("LEAQ (R8)(AX*8), R12")
		for i := range 9 {
			w.line("PREFETCHT0 %s", three[i%3])
			if i%3 == 2 {
				nextTaps()
			}
		}
		w.line("MOVQ R8, R12")
		w.square(t, func(_, j, register int) {
			w.load(three[j], register)
			if j == 2 {
				nextTaps()
			}
		}, func(i int) {
			if i == 0 {
				w.line("MOVQ SI, R12")
			} else {
				w.nextPlanes()
			}
		}, func(_, j, register int) {
			w.line("VMOVUPS %s, %s", w.v(register), planes[j])
		})
	} else {
		w.line("MOVQ SI, R12")
		w.square(t, func(_, j, register int) {
			w.line("VMOVUPS %s, %s", planes[j], w.v(register))
			if j == 5 {
				w.nextPlanes()
			}
		}, func(i int) {
			if i == 0 {
				w.line("MOVQ R8, R12")
			} else {
				nextTaps()
			}
		}, func(_, j, register int) {
			w.store(register, three[j], tapsMask)
		})
	}

	w.line("ADDQ $%d, R8", f.bytes())
	w.line("ADDQ $%d, SI", f.bytes())
	w.line("DECQ CX")
	w.line("JNZ vector")
	w.elements(tapsRow, "AX")
	w.line("ADDQ AX, R13")
	w.line("DECQ R14")
	w.line("JNZ row")
	w.end()
}

// transpose writes the transposition of a block of lanes x lanes elements.
func (w *writer) transpose(f family) {
	w.family = f
	name := kernelName(f, "Transpose")
	fmt.Fprintf(w, "// func %s(a *block)\nTEXT ·%s(SB), NOSPLIT, $0-8\n", name, name)
	w.line("MOVQ a+0(FP), DI")
	w.field(blockDst, "SI")
	w.field(blockSrc, "R12")
	w.elements(blockDstRow, "BX")
	w.elements(blockSrcRow, "DX")
	n := f.lanes
	for i := range n {
		w.line("VMOVUPS (R12), %s", w.v(i))
		w.line("ADDQ DX, R12")
	}
	// Pairs of rows, then fours: afterwards register g+i holds, in its 128 bits
	// number l, rows g to g+3 of column 4l+i.
	unpack := func(name string, x, y, to int) { w.op(name, y, x, to) }
	for g := 0; g < n; g += 4 {
		r := func(i int) int { return g + i }
		t := func(i int) int { return n + i }
		if n == 16 {
			t = func(i int) int { return n + g + i }
		}
		unpack("VUNPCKLPS", r(0), r(1), t(0))
		unpack("VUNPCKHPS", r(0), r(1), t(1))
		unpack("VUNPCKLPS", r(2), r(3), t(2))
		unpack("VUNPCKHPS", r(2), r(3), t(3))
		unpack("VUNPCKLPD", t(0), t(2), r(0))
		unpack("VUNPCKHPD", t(0), t(2), r(1))
		unpack("VUNPCKLPD", t(1), t(3), r(2))
		unpack("VUNPCKHPD", t(1), t(3), r(3))
	}
	put := func(column, register int) {
		w.line("MOVQ BX, AX")
		w.line("IMULQ $%d, AX", column)
		w.line("VMOVUPS %s, (SI)(AX*1)", w.v(register))
	}
	for i := range 4 {
		if n == 8 {
			w.line("VPERM2F128 $0x20, %s, %s, Y8", w.v(4+i), w.v(i))
			put(i, 8)
			w.line("VPERM2F128 $0x31, %s, %s, Y9", w.v(4+i), w.v(i))
			put(4+i, 9)
			continue
		}
		// Lanes of 128 bits 0 and 2, or 1 and 3, of two registers.
		w.line("VSHUFF32X4 $0x88, Z%d, Z%d, Z16", 4+i, i)
		w.line("VSHUFF32X4 $0xdd, Z%d, Z%d, Z17", 4+i, i)
		w.line("VSHUFF32X4 $0x88, Z%d, Z%d, Z18", 12+i, 8+i)
		w.line("VSHUFF32X4 $0xdd, Z%d, Z%d, Z19", 12+i, 8+i)
		for j, imm := range []int{0x88, 0xdd} {
			w.line("VSHUFF32X4 $%#x, Z18, Z16, Z20", imm)
			put(8*j+i, 20)
			w.line("VSHUFF32X4 $%#x, Z19, Z17, Z21", imm)
			put(8*j+4+i, 21)
		}
	}
	w.end()
}

// kernels are the functions of each family and their arguments.
var kernels = [][2]string{
	{"Input", "gather"}, {"Gradient", "gather"}, {"Output", "scatter"},
	{"Weights", "taps"}, {"WeightGradient", "taps"}, {"Transpose", "block"},
}

func kernelName(f family, kernel string) string { return f.name + kernel }

// assembly is kernels_amd64.s.
func assembly() []byte {
	var w writer
	w.WriteString(asmgen.Header + "#include \"textflag.h\"\n\n")
	for _, f := range families {
		w.gather(f, "Input", input)
		w.gather(f, "Gradient", gradient)
		w.scatter(f, "Output", output)
		w.taps(f, "Weights", weights, true)
		w.taps(f, "WeightGradient", weightGradient, false)
		w.transpose(f)
	}
	return w.Bytes()
}

// declarations is kernels_amd64.go.
func declarations() []byte {
	var w bytes.Buffer
	fmt.Fprint(&w, asmgen.Header+"package winograd\n")
	for _, f := range families {
		for _, k := range kernels {
			fmt.Fprintf(&w, "\n//go:noescape\nfunc %s(a *%s)\n", kernelName(f, k[0]), k[1])
		}
	}
	return w.Bytes()
}

func main() { asmgen.Write(assembly(), declarations()) }
