package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
)

// asm writes one routine. Vector registers are numbered from 0; the last ones
// hold masks and constants.
type asm struct {
	bytes.Buffer
	family
	kernel
	masked bool // in the last, partial vector of a row
}

func (a *asm) op(format string, args ...any) { fmt.Fprintf(a, "\t"+format+"\n", args...) }

func (a *asm) wide() bool { return a.family.name == "avx512" }

// v is a vector register, h its lower half, and q its lowest 128 bits.
func (a *asm) v(i int) string { return fmt.Sprintf("%s%d", a.vector, i) }
func (a *asm) h(i int) string { return fmt.Sprintf("%s%d", a.half, i) }
func q(i int) string          { return fmt.Sprintf("X%d", i) }

// at is the present vector of float32 of an argument; at64 half of one of
// float64, its lower (0) or upper (1).
func (a *asm) at(arg string) string { return fmt.Sprintf("(%s)(CX*1)", registers[arg]) }
func (a *asm) at64(arg string, half int) string {
	return fmt.Sprintf("%d(%s)(CX*2)", half*a.bytes, registers[arg])
}

// Masks: with AVX-512 K1 has a bit for each lane in use, K2 its upper and K3
// its lower half. With AVX2 register 15 has all ones in the lanes in use, and
// the lower half of register 14 a copy of its upper half; 13 may be scratch.
func (a *asm) masks() {
	a.op("MOVQ %s, CX", field("columns"))
	a.op("ANDQ $%d, CX", a.bytes/4-1)
	a.op("MOVQ CX, 8(SP)")
	if a.wide() {
		a.op("MOVL $1, BX")
		a.op("SHLL CX, BX")
		a.op("DECL BX")
		a.op("KMOVW BX, K1")
		a.op("KSHIFTRW $8, K1, K2")
		a.op("ANDL $255, BX")
		a.op("KMOVW BX, K3")
		return
	}
	a.op("LEAQ lanes<>+32(SB), BX")
	a.op("SHLQ $2, CX")
	a.op("SUBQ CX, BX")
	a.op("VMOVUPS (BX), Y15")
	a.op("VEXTRACTF128 $1, Y15, X14")
}

// routine writes the whole routine.
func (a *asm) routine() {
	name := routineName(a.family, a.kernel)
	fmt.Fprintf(a, "// func %s(c *call)\nTEXT ·%s(SB), NOSPLIT, $16-8\n", name, name)
	a.op("MOVQ c+0(FP), DI")
	if a.whole != nil {
		a.whole(a)
		a.leave()
		return
	}
	a.masks()
	a.op("MOVQ %s, CX", field("columns"))
	a.op("ANDQ $-%d, CX", a.bytes/4)
	a.op("SHLQ $2, CX")
	a.op("MOVQ CX, 0(SP)")
	for _, arg := range a.args {
		a.op("MOVQ %s, %s", field(arg), registers[arg])
	}
	a.preload()
	a.op("MOVQ %s, BX", field("rows"))
	fmt.Fprintln(a, "row:")
	for i, w := range a.walks {
		if w.before != nil {
			w.before(a)
		}
		a.op("XORQ CX, CX")
		a.op("CMPQ 0(SP), $0")
		a.op("JEQ tail%d", i)
		a.op("PCALIGN $32")
		fmt.Fprintf(a, "loop%d:\n", i)
		w.body(a)
		a.op("ADDQ $%d, CX", a.bytes)
		a.op("CMPQ CX, 0(SP)")
		a.op("JNE loop%d", i)
		fmt.Fprintf(a, "tail%d:\n", i)
		a.op("CMPQ 8(SP), $0")
		a.op("JEQ done%d", i)
		a.masked = true
		w.body(a)
		a.masked = false
		fmt.Fprintf(a, "done%d:\n", i)
	}
	advance := [][2]string{{"out", "strideOut"}, {"x", "strideX"}, {"y", "strideY"}}
	if a.twoRows {
		advance = append(advance, [][2]string{{"t3", "strideX"}, {"t4", "strideY"}}...)
	}
	for _, p := range advance {
		if slices.Contains(a.args, p[0]) {
			a.op("MOVQ %s, CX", field(p[1]))
			a.op("LEAQ (%s)(CX*4), %s", registers[p[0]], registers[p[0]])
		}
	}
	a.op("DECQ BX")
	a.op("JNZ row")
	if a.end != nil {
		a.end(a)
	}
	a.leave()
}

func (a *asm) leave() {
	a.op("VZEROUPPER")
	a.op("RET")
	fmt.Fprintln(a)
}

// Constants of float32, by name.
var constants = []struct {
	name string
	bits uint32
}{
	{"one", math.Float32bits(1)},
	{"-one", math.Float32bits(-1)},
	{"-inf", math.Float32bits(float32(math.Inf(-1)))},
	{"log2e", math.Float32bits(math.Log2E)},
	{"-log2e", math.Float32bits(-math.Log2E)},
	// ln(2) as the sum of two float32 numbers.
	{"ln2", math.Float32bits(math.Ln2)},
	{"ln2low", math.Float32bits(float32(math.Ln2 - float64(float32(math.Ln2))))},
	// Beyond these e^x overflows, and is less than half the smallest number.
	{"highest", math.Float32bits(89)},
	{"lowest", math.Float32bits(-104.5)},
	{"-highest", math.Float32bits(-89)},
	{"-lowest", math.Float32bits(104.5)},
	// Where sigmoid still is a normal number and SiLU's slope is less than 2e-36.
	{"flat", math.Float32bits(-87)},
	// e^r = 1 + r + r^2 (c2 + c3 r + c4 r^2 + c5 r^3 + c6 r^4) for |r| <= ln(2)/2
	// within 1.1e-8: the bracket is interpolated at Chebyshev's five points.
	{"c2", math.Float32bits(0.5)},
	{"c3", math.Float32bits(0.166665763)},
	{"-c3", math.Float32bits(-0.166665763)},
	{"c4", math.Float32bits(0.0416665561)},
	{"c5", math.Float32bits(0.00836318545)},
	{"-c5", math.Float32bits(-0.00836318545)},
	{"c6", math.Float32bits(0.0013926191)},
	// The exponent of 1, as an integer.
	{"bias", 127},
}

func constantAddress(name string) string {
	for i, c := range constants {
		if c.name == name {
			return fmt.Sprintf("constants<>+%d(SB)", 32*i)
		}
	}
	panic("no constant " + name)
}

// preload broadcasts, where registers are plenty, the kernel's constants and
// numbers of float64 to the last registers; those of float32 always.
func (a *asm) preload() {
	for _, i := range a.floats {
		a.op("VBROADCASTSS %s, %s", float(i), a.s(i))
	}
	if !a.wide() {
		return
	}
	for _, name := range a.consts {
		a.op("VBROADCASTSS %s, %s", constantAddress(name), a.c(name))
	}
	for i := range a.doubles {
		a.op("VBROADCASTSD %s, %s", double(i), a.d(i, 0))
	}
}

// c is a constant as the last source, the first operand, of an instruction.
func (a *asm) c(name string) string {
	if i := slices.Index(a.consts, name); i < 0 {
		panic(a.kernel.name + " does not declare constant " + name)
	} else if a.wide() {
		return a.v(31 - i)
	}
	return constantAddress(name)
}

// r is a constant in a register, t if it is in none yet.
func (a *asm) r(name string, t int) string {
	c := a.c(name)
	if !a.wide() {
		a.op("VMOVUPS %s, %s", c, a.v(t))
		return a.v(t)
	}
	return c
}

// s is field i of call.s in all lanes.
func (a *asm) s(i int) string { return a.v(13 - i) }

// d is field i of call.f in all lanes, in register t if it is in none yet.
func (a *asm) d(i, t int) string {
	if a.wide() {
		return a.v(31 - i)
	}
	a.op("VBROADCASTSD %s, %s", double(i), a.v(t))
	return a.v(t)
}

// load loads a vector of an argument; lanes not in use are zero.
func (a *asm) load(arg string, i int) {
	switch {
	case !a.masked:
		a.op("VMOVUPS %s, %s", a.at(arg), a.v(i))
	case a.wide():
		a.op("VMOVUPS.Z %s, K1, %s", a.at(arg), a.v(i))
	default:
		a.op("VMASKMOVPS %s, Y15, %s", a.at(arg), a.v(i))
	}
}

func (a *asm) store(i int, arg string) {
	switch {
	case !a.masked:
		a.op("VMOVUPS %s, %s", a.v(i), a.at(arg))
	case a.wide():
		a.op("VMOVUPS %s, K1, %s", a.v(i), a.at(arg))
	default:
		a.op("VMASKMOVPS %s, Y15, %s", a.v(i), a.at(arg))
	}
}

// load64 loads half a vector of float32 as float64.
func (a *asm) load64(arg string, half, i int) {
	from := fmt.Sprintf("%d(%s)(CX*1)", half*a.bytes/2, registers[arg])
	switch {
	case a.masked && a.wide():
		a.op("VCVTPS2PD.Z %s, K%d, %s", from, 3-half, a.v(i))
	case a.masked:
		a.op("VMASKMOVPS %s, X%d, %s", from, 15-half, q(i))
		a.op("VCVTPS2PD %s, %s", q(i), a.v(i))
	default:
		a.op("VCVTPS2PD %s, %s", from, a.v(i))
	}
}

// round rounds float64 to float32, which the lower half of i then holds.
func (a *asm) round(from, i int) {
	if a.wide() {
		a.op("VCVTPD2PS %s, %s", a.v(from), a.h(i))
	} else {
		a.op("VCVTPD2PSY %s, %s", a.v(from), a.h(i))
	}
}

// storeHalf stores the lower half of a register as half a vector of float32.
func (a *asm) storeHalf(i int, arg string, half int) {
	to := fmt.Sprintf("%d(%s)(CX*1)", half*a.bytes/2, registers[arg])
	switch {
	case a.masked && a.wide():
		a.op("VMOVUPS %s, K%d, %s", a.v(i), 3-half, to)
	case a.masked:
		a.op("VMASKMOVPS %s, X%d, %s", q(i), 15-half, to)
	default:
		a.op("VMOVUPS %s, %s", a.h(i), to)
	}
}

// widen makes the halves of i float64.
func (a *asm) widen(i, lower, upper int) {
	a.widenHalf(i, 1, upper)
	a.widenHalf(i, 0, lower)
}

// widenHalf makes one half of i, lower (0) or upper (1), float64.
func (a *asm) widenHalf(i, half, to int) {
	from := a.h(i)
	if half == 1 {
		a.extract(i, to)
		from = a.h(to)
	}
	a.op("VCVTPS2PD %s, %s", from, a.v(to))
}

// extract copies the upper half of i to the lower half of to.
func (a *asm) extract(i, to int) {
	if a.wide() {
		a.op("VEXTRACTF64X4 $1, %s, %s", a.v(i), a.h(to))
	} else {
		a.op("VEXTRACTF128 $1, %s, %s", a.v(i), a.h(to))
	}
}

func (a *asm) zero(i int) {
	if a.wide() {
		a.op("VPXORD %s, %s, %s", a.v(i), a.v(i), a.v(i))
	} else {
		a.op("VXORPS %s, %s, %s", a.v(i), a.v(i), a.v(i))
	}
}

// clearTail sets the lanes that are not in use to zero.
func (a *asm) clearTail(i int) {
	switch {
	case !a.masked:
	case a.wide():
		a.op("VMOVAPS.Z %s, K1, %s", a.v(i), a.v(i))
	default:
		a.op("VANDPS Y15, %s, %s", a.v(i), a.v(i))
	}
}

// raise sets each lane in use of i to the greater of itself and the argument's.
func (a *asm) raise(arg string, i, t int) {
	switch {
	case !a.masked:
		a.op("VMAXPS %s, %s, %s", a.at(arg), a.v(i), a.v(i))
	case a.wide():
		a.op("VMAXPS %s, %s, K1, %s", a.at(arg), a.v(i), a.v(i))
	default:
		a.load(arg, t)
		a.op("VBLENDVPS Y15, %s, %s, %s", a.v(t), a.v(i), a.v(t))
		a.op("VMAXPS %s, %s, %s", a.v(t), a.v(i), a.v(i))
	}
}

// fold combines the lanes of i by op, VMAXPS or VADDPS, and broadcasts the result.
func (a *asm) fold(op string, i, t int) {
	if a.wide() {
		a.op("VEXTRACTF64X4 $1, Z%d, Y%d", i, t)
		a.op("%s Y%d, Y%d, Y%d", op, t, i, i)
	}
	a.op("VEXTRACTF128 $1, Y%d, X%d", i, t)
	a.op("%s X%d, X%d, X%d", op, t, i, i)
	for _, order := range []string{"$0x4e", "$0xb1"} {
		a.op("VPERMILPS %s, X%d, X%d", order, i, t)
		a.op("%s X%d, X%d, X%d", op, t, i, i)
	}
	a.op("VBROADCASTSS X%d, %s", i, a.v(i))
}

// fold64 adds the lanes of i and j, of float64, into the lowest of i.
func (a *asm) fold64(i, j int) {
	a.op("VADDPD %s, %s, %s", a.v(j), a.v(i), a.v(i))
	if a.wide() {
		a.op("VEXTRACTF64X4 $1, Z%d, Y%d", i, j)
		a.op("VADDPD Y%d, Y%d, Y%d", j, i, i)
	}
	a.op("VEXTRACTF128 $1, Y%d, X%d", i, j)
	a.op("VADDPD X%d, X%d, X%d", j, i, i)
	a.op("VPERMILPD $1, X%d, X%d", i, j)
	a.op("VADDSD X%d, X%d, X%d", j, i, i)
}

// accumulate adds the float64 numbers in i to half of an argument's, using t.
func (a *asm) accumulate(i int, arg string, half, t int) {
	a.op("VADDPD %s, %s, %s", a.at64(arg, half), a.v(i), a.v(t))
	a.store64(t, arg, half)
}

// store64 stores half a vector of float64.
func (a *asm) store64(i int, arg string, half int) {
	switch {
	case a.masked && a.wide():
		a.op("VMOVUPD %s, K%d, %s", a.v(i), 3-half, a.at64(arg, half))
	case a.masked:
		a.op("VPMOVSXDQ X%d, Y13", 15-half)
		a.op("VMASKMOVPD %s, Y13, %s", a.v(i), a.at64(arg, half))
	default:
		a.op("VMOVUPD %s, %s", a.v(i), a.at64(arg, half))
	}
}

// exponential is e^x, or e^-x, of the numbers in x, which it changes, into p.
// It uses t and u. The result is within 1 unit in the last place, Inf and 0
// where it must be, NaN for NaN.
//
//	e^x = 2^k e^r,   k = round(x / ln 2),   r = x - k ln 2
//
// r is computed with two numbers that add up to ln 2, and e^r by a polynomial.
func (a *asm) exponential(negative bool, x, p, t, u int) {
	sign, reduce := "", "VFNMADD231PS"
	if negative {
		sign, reduce = "-", "VFMADD231PS"
	}
	least, most := "lowest", "highest"
	if negative {
		least, most = "-highest", "-lowest"
	}
	// These return x where it is not a number. Some kernels know that x is
	// within one of the bounds.
	if slices.Contains(a.consts, least) {
		a.op("VMAXPS %s, %s, %s", a.v(x), a.r(least, t), a.v(x))
	}
	if slices.Contains(a.consts, most) {
		a.op("VMINPS %s, %s, %s", a.v(x), a.r(most, t), a.v(x))
	}
	a.op("VMULPS %s, %s, %s", a.c(sign+"log2e"), a.v(x), a.v(t))
	if a.wide() {
		a.op("VRNDSCALEPS $0, %s, %s", a.v(t), a.v(t))
	} else {
		a.op("VROUNDPS $0, %s, %s", a.v(t), a.v(t))
	}
	a.op("%s %s, %s, %s", reduce, a.c("ln2"), a.v(t), a.v(x))
	a.op("%s %s, %s, %s", reduce, a.c("ln2low"), a.v(t), a.v(x))
	a.op("VMOVUPS %s, %s", a.c("c6"), a.v(p))
	for _, c := range []string{sign + "c5", "c4", sign + "c3", "c2", sign + "one", "one"} {
		a.op("VFMADD213PS %s, %s, %s", a.c(c), a.v(x), a.v(p))
	}
	if a.wide() {
		a.op("VSCALEFPS %s, %s, %s", a.v(t), a.v(p), a.v(p))
		return
	}
	// 2^k as the product of two powers that are normal numbers.
	a.op("VCVTPS2DQ %s, %s", a.v(t), a.v(t))
	a.op("VPSRAD $1, %s, %s", a.v(t), a.v(u))
	a.op("VPSUBD %s, %s, %s", a.v(u), a.v(t), a.v(t))
	for _, k := range []int{t, u} {
		a.op("VPADDD %s, %s, %s", a.c("bias"), a.v(k), a.v(k))
		a.op("VPSLLD $23, %s, %s", a.v(k), a.v(k))
		a.op("VMULPS %s, %s, %s", a.v(k), a.v(p), a.v(p))
	}
}

// What exponential needs, but for its bounds.
var (
	expConstants    = []string{"one", "log2e", "ln2", "ln2low", "c2", "c3", "c4", "c5", "c6", "bias"}
	negExpConstants = []string{"one", "-one", "-log2e", "ln2", "ln2low", "c2", "-c3", "c4", "-c5", "c6", "bias"}
)

func with(list []string, more ...string) []string { return slices.Concat(list, more) }
