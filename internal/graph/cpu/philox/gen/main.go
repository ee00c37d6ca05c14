// Command gen writes the AVX2 and AVX-512 kernels of package philox,
// kernels_amd64.s, and their Go declarations, kernels_amd64.go.
//
// A round of Philox4x32 maps a counter (c0, c1, c2, c3) by
//
//	p0 = m0 c0,  p1 = m1 c2
//	(high(p1) ^ c1 ^ k0,  low(p1),  high(p0) ^ c3 ^ k1,  low(p0))
//
// The kernels keep each word in the lower half of a lane of 64 bits: that is
// what VPMULUDQ multiplies, and a product is its own lower word without being
// touched. The upper halves hold whatever they hold.
package main

import (
	"bytes"
	"fmt"

	"ddpm/internal/graph/cpu/asmgen"
)

const rounds = 10

// multipliers are those of c0 and c2.
var multipliers = [2]uint32{0xD2511F53, 0xCD9E8D57}

// Offsets of the fields of struct call; the test of the package holds them to
// its layout.
const (
	callY       = 0
	callX       = 8
	callStrides = 16
	callCounter = 24
	callKeys    = 40
	callLimit   = callKeys + 8*rounds
	callScale   = callLimit + 4
)

// groups is how many vectors of counters go through the rounds side by side,
// each waiting for its multiplications only.
const groups = 2

// family is one set of instructions.
type family struct {
	name   string
	vector string // prefix of registers
	bytes  int    // of a vector
}

var families = []family{{"avx512", "Z", 64}, {"avx2", "Y", 32}}

// blocks is how many a vector holds, one in 64 bits.
func (f family) blocks() int { return f.bytes / 8 }

// stride is the number of elements, one for each word, of one turn of the loop.
func (f family) stride() int { return 4 * groups * f.blocks() }

// Registers. The words of the counters of group g are 4g to 4g+3; with AVX2
// those above 15 do not exist, and the kernel loads their contents when it needs
// them.
const (
	temporary = 4 * groups // two of them
	key       = temporary + 2
	counter   = key + 2
	multiply  = counter + 1
	limit     = 16
	scale     = 17
)

type asm struct {
	bytes.Buffer
	family
}

func (a *asm) op(format string, args ...any) { fmt.Fprintf(a, "\t"+format+"\n", args...) }

func (a *asm) v(i int) string { return fmt.Sprintf("%s%d", a.vector, i) }

func (a *asm) wide() bool { return a.family.name == "avx512" }

// constants of a family: which blocks the lanes of each group hold, how many
// blocks a turn takes, the multipliers.
func (a *asm) constants() {
	at := 0
	row := func(lane func(i int) uint32) {
		for i := range a.blocks() {
			fmt.Fprintf(a, "DATA %sConstants<>+%d(SB)/8, $%#x\n", a.name, at, lane(i))
			at += 8
		}
	}
	for g := range groups {
		// Neighbours are half a vector's blocks apart: the last step takes
		// the even lanes to one vector, in order, and the odd ones to the next.
		row(func(i int) uint32 { return uint32(g*a.blocks() + i%2*a.blocks()/2 + i/2) })
	}
	row(func(int) uint32 { return uint32(groups * a.blocks()) })
	for _, m := range multipliers {
		row(func(int) uint32 { return m })
	}
	fmt.Fprintf(a, "GLOBL %sConstants<>(SB), RODATA|NOPTR, $%d\n\n", a.name, at)
}

func (a *asm) constant(row int) string {
	return fmt.Sprintf("%sConstants<>+%d(SB)", a.name, row*a.bytes)
}

const (
	stepRow       = groups
	multiplierRow = groups + 1
)

// load copies a vector from memory; broadcast a word to all lanes.
func (a *asm) load(from string, i int) {
	if a.wide() {
		a.op("VMOVDQU32 %s, %s", from, a.v(i))
	} else {
		a.op("VMOVDQU %s, %s", from, a.v(i))
	}
}

func (a *asm) broadcast(offset, i int) { a.op("VPBROADCASTD %d(DI), %s", offset, a.v(i)) }

// dropout writes the kernel.
func (a *asm) dropout() {
	name := a.name + "Dropout"
	fmt.Fprintf(a, "// func %s(c *call)\nTEXT ·%s(SB), NOSPLIT, $0-8\n", name, name)
	a.op("MOVQ c+0(FP), DI")
	a.op("MOVQ %d(DI), DX", callY)
	a.op("MOVQ %d(DI), SI", callX)
	a.op("MOVQ %d(DI), CX", callStrides)
	for i := range multipliers {
		a.load(a.constant(multiplierRow+i), multiply+i)
	}
	if a.wide() {
		a.op("MOVL $0xaaaa, AX") // the upper halves of the lanes
		a.op("KMOVW AX, K1")
		a.broadcast(callLimit, limit)
		a.broadcast(callScale, scale)
	}
	a.broadcast(callCounter, counter)
	a.op("PCALIGN $32")
	fmt.Fprintln(a, "loop:")
	for g := range groups {
		a.op("VPADDD %s, %s, %s", a.constant(g), a.v(counter), a.v(4*g))
		for i := 1; i < 4; i++ {
			a.broadcast(callCounter+4*i, 4*g+i)
		}
	}
	a.op("VPADDD %s, %s, %s", a.constant(stepRow), a.v(counter), a.v(counter))
	for r := range rounds {
		a.round(r)
	}
	for g := range groups {
		a.finish(g)
	}
	a.op("ADDQ $%d, SI", 4*a.stride())
	a.op("ADDQ $%d, DX", 4*a.stride())
	a.op("DECQ CX")
	a.op("JNZ loop")
	a.op("VZEROUPPER")
	a.op("RET")
	fmt.Fprintln(a)
}

// word is the register of word i of a group's counters after r rounds. A round
// moves each word's successor into its place, so that nothing is copied.
func word(g, i, r int) int { return 4*g + (i+r)%4 }

// round writes a round for all groups.
func (a *asm) round(r int) {
	for i := range multipliers {
		a.broadcast(callKeys+8*r+4*i, key+i)
	}
	for g := range groups {
		for i := range multipliers {
			factor := a.v(word(g, 2*i, r))
			a.op("VPMULUDQ %s, %s, %s", a.v(multiply+i), factor, factor)
		}
		for i := range multipliers {
			product, other, t := a.v(word(g, 2-2*i, r)), a.v(word(g, 1+2*i, r)), a.v(temporary+i)
			a.op("VPSRLQ $32, %s, %s", product, t)
			if a.wide() {
				const xor = 0x96 // of all three
				a.op("VPTERNLOGD $%#x, %s, %s, %s", xor, a.v(key+i), t, other)
			} else {
				a.op("VPXOR %s, %s, %s", a.v(key+i), other, other)
				a.op("VPXOR %s, %s, %s", t, other, other)
			}
		}
	}
}

// finish brings a group's words into the order of the elements, two vectors of
// them, and writes those elements.
func (a *asm) finish(g int) {
	w := func(i int) int { return word(g, i, rounds) }
	for _, i := range []int{0, 2} { // pairs of words
		if a.wide() {
			a.op("VMOVSLDUP %s, K1, %s", a.v(w(i+1)), a.v(w(i)))
		} else {
			a.op("VPSLLQ $32, %s, %s", a.v(w(i+1)), a.v(w(i+1)))
			a.op("VPBLENDD $0xaa, %s, %s, %s", a.v(w(i+1)), a.v(w(i)), a.v(w(i)))
		}
	}
	even, odd := w(1), w(3)
	a.op("VPUNPCKLQDQ %s, %s, %s", a.v(w(2)), a.v(w(0)), a.v(even))
	a.op("VPUNPCKHQDQ %s, %s, %s", a.v(w(2)), a.v(w(0)), a.v(odd))
	for i, words := range []int{even, odd} {
		offset := (2*g + i) * a.bytes
		a.op("VPSRLD $8, %s, %s", a.v(words), a.v(words))
		if a.wide() {
			const atLeast = 5
			a.op("VPCMPD $%d, %s, %s, K2", atLeast, a.v(limit), a.v(words))
			a.op("VMULPS.Z %d(SI), %s, K2, %s", offset, a.v(scale), a.v(words))
		} else {
			a.broadcast(callLimit, temporary)
			a.broadcast(callScale, temporary+1)
			a.op("VPCMPGTD %s, %s, %s", a.v(words), a.v(temporary), a.v(words))
			a.op("VMULPS %d(SI), %s, %s", offset, a.v(temporary+1), a.v(temporary+1))
			a.op("VANDNPS %s, %s, %s", a.v(temporary+1), a.v(words), a.v(words))
		}
		a.op("VMOVUPS %s, %d(DX)", a.v(words), offset)
	}
}

// assembly is kernels_amd64.s.
func assembly() []byte {
	var w bytes.Buffer
	w.WriteString(asmgen.Header + "#include \"textflag.h\"\n\n")
	for _, f := range families {
		a := asm{family: f}
		a.constants()
		a.dropout()
		w.Write(a.Bytes())
	}
	return w.Bytes()
}

// declarations is kernels_amd64.go: static calls, so that the arguments can
// stay on the caller's stack.
func declarations() []byte {
	var w bytes.Buffer
	fmt.Fprint(&w, asmgen.Header+"package philox\n")
	for _, f := range families {
		fmt.Fprintf(&w, "\nconst %sStride = %d\n", f.name, f.stride())
		fmt.Fprintf(&w, "\n//go:noescape\nfunc %sDropout(c *call)\n", f.name)
	}
	return w.Bytes()
}

func main() { asmgen.Write(assembly(), declarations()) }
