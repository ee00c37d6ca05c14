// Command gen writes the AVX512-BF16 and AMX-BF16 kernels of package bf16,
// kernels_amd64.s, and their Go declarations, kernels_amd64.go.
package main

import (
	"bytes"
	"fmt"

	"ddpm/internal/graph/cpu/asmgen"
)

// widths names the panels of one and of two vectors or tiles.
var widths = [2]string{"Narrow", "Wide"}

// tileRows is the number of rows of the tallest AVX-512 tile in each.
var tileRows = [2]int{16, 14}

// Registers that no tile of C uses.
const scratch = 28

// Offsets of the fields of struct tile; the test of the package holds them to
// its layout.
const (
	tileA = 8 * iota
	tileB
	tileC
	tileBias
	tileAdd
	tileMask
	tileOffsets
	tileSegments
	tileSteps
	tileRowStride
	tileSplit
	tileCStride
	tileCSplit
)

// Offsets of the fields of struct amxTile.
const (
	amxUpper = 8 * iota
	amxLower
	amxB
	amxUpperC
	amxLowerC
	amxUpperInit
	amxLowerInit
	amxInitStride
	amxOffsets
	amxSegments
	amxSteps
	amxRowStride
	amxCStride
	amxConfig
)

// prefetch is how far ahead of its use, in bytes, a panel of B is fetched: it
// comes from the second-level cache.
const prefetch = 1024

// half is the number of rows in the upper half of a tile. The lower half has
// its own base address, so that it may continue in another image row.
func half(rows int) int { return (rows + 1) / 2 }

// rowAddress is the address of row i of A, some bytes on: the base of its half,
// SI or AX, plus a multiple of the row stride, BX. R8, R9 and R10 hold the
// multiples by 3, 5 and 7.
func rowAddress(i, rows, on int) string {
	multiple := [...]string{"", "(BX*1)", "(BX*2)", "(R8*1)", "(BX*4)", "(R9*1)", "(R8*2)", "(R10*1)"}
	if i < half(rows) {
		return fmt.Sprintf("%d(SI)%s", on, multiple[i])
	}
	return fmt.Sprintf("%d(AX)%s", on, multiple[i-half(rows)])
}

type writer struct{ bytes.Buffer }

func (w *writer) line(format string, a ...any) { fmt.Fprintf(w, "\t"+format+"\n", a...) }

func (w *writer) label(name string) { fmt.Fprintf(w, "%s:\n", name) }

// begin opens a function of one pointer, which it loads into DI.
func (w *writer) begin(name, arg, of string) {
	fmt.Fprintf(w, "// func %s(%s *%s)\n", name, arg, of)
	fmt.Fprintf(w, "TEXT ·%s(SB), NOSPLIT, $0-8\n", name)
	w.line("MOVQ %s+0(FP), DI", arg)
}

func (w *writer) end() {
	w.line("VZEROUPPER")
	w.line("RET")
	fmt.Fprintln(w)
}

// masks sets K1 and K2 to the lanes of two vectors, from the bits in CX.
func (w *writer) masks() {
	w.line("KMOVW CX, K1")
	w.line("SHRQ $16, CX")
	w.line("KMOVW CX, K2")
}

// kernel writes the micro-kernel for a tile of rows x vectors. Each step takes
// two numbers of K: a row of the packed panel of B holds pairs, and so does
// each element of A that is spread over a vector.
func (w *writer) kernel(rows, vectors int) {
	acc := func(i, v int) int { return vectors*i + v }
	b := func(v int) int { return scratch + v }
	spread := func(i int) int { return scratch + 2 + i%2 }

	w.begin(kernelName(rows, vectors), "t", "tile")
	w.line("MOVQ %d(DI), BX", tileRowStride)
	w.line("SHLQ $1, BX")
	w.line("LEAQ (BX)(BX*2), R8")
	w.line("LEAQ (BX)(BX*4), R9")
	w.line("LEAQ (R8)(BX*4), R10")
	w.line("IMUL3Q $%d, BX, R11", half(rows))
	w.line("MOVQ %d(DI), AX", tileSplit)
	w.line("LEAQ (R11)(AX*2), R11")
	w.line("MOVQ %d(DI), DX", tileB)
	w.line("MOVQ %d(DI), CX", tileMask)
	w.masks()

	// Every row starts at the bias, or at zero.
	w.line("MOVQ %d(DI), CX", tileBias)
	w.line("TESTQ CX, CX")
	w.line("JZ zero")
	for v := range vectors {
		w.line("VMOVUPS.Z %d(CX), K%d, Z%d", 64*v, v+1, acc(0, v))
	}
	for i := 1; i < rows; i++ {
		for v := range vectors {
			w.line("VMOVAPS Z%d, Z%d", acc(0, v), acc(i, v))
		}
	}
	w.line("JMP begin")
	w.label("zero")
	for i := range rows * vectors {
		w.line("VPXORD Z%d, Z%d, Z%d", i, i, i)
	}

	w.label("begin")
	w.line("MOVQ %d(DI), R12", tileOffsets)
	w.line("MOVQ %d(DI), R13", tileSegments)
	w.label("segment")
	w.line("MOVQ (R12), SI")
	w.line("ADDQ $8, R12")
	w.line("SHLQ $1, SI")
	w.line("ADDQ %d(DI), SI", tileA)
	w.line("LEAQ (SI)(R11*1), AX")
	w.line("MOVQ %d(DI), CX", tileSteps)
	w.line("SHRQ $1, CX")
	w.line("JZ odd")
	step := func(u int) {
		for v := range vectors {
			w.line("PREFETCHT0 %d(DX)", (u*vectors+v)*64+prefetch)
			w.line("VMOVDQU32 %d(DX), Z%d", (u*vectors+v)*64, b(v))
		}
		for i := range rows {
			w.line("VPBROADCASTD %s, Z%d", rowAddress(i, rows, 4*u), spread(i))
			for v := range vectors {
				w.dot(b(v), spread(i), acc(i, v))
			}
		}
	}
	w.line("PCALIGN $32")
	w.label("loop")
	step(0)
	step(1)
	w.line("ADDQ $8, SI")
	w.line("ADDQ $8, AX")
	w.line("ADDQ $%d, DX", 2*vectors*64)
	w.line("DECQ CX")
	w.line("JNZ loop")
	w.label("odd")
	w.line("TESTQ $1, %d(DI)", tileSteps)
	w.line("JZ next")
	step(0)
	w.line("ADDQ $%d, DX", vectors*64)
	w.label("next")
	w.line("DECQ R13")
	w.line("JNZ segment")

	// The tile is complete: add what is to be added and store it, as many
	// columns as there are.
	w.line("MOVQ %d(DI), BX", tileCStride)
	w.line("SHLQ $2, BX")
	w.line("MOVQ %d(DI), AX", tileCSplit)
	w.line("LEAQ (BX)(AX*4), AX")
	eachRow := func(base string, do func(i, v int)) {
		for i := range rows {
			for v := range vectors {
				do(i, v)
			}
			switch {
			case i == rows-1:
			case i == half(rows)-1:
				w.line("ADDQ AX, %s", base)
			default:
				w.line("ADDQ BX, %s", base)
			}
		}
	}
	w.line("MOVQ %d(DI), DX", tileAdd)
	w.line("TESTQ DX, DX")
	w.line("JZ store")
	eachRow("DX", func(i, v int) {
		w.line("VADDPS %d(DX), Z%d, K%d, Z%d", 64*v, acc(i, v), v+1, acc(i, v))
	})
	w.label("store")
	w.line("MOVQ %d(DI), SI", tileC)
	eachRow("SI", func(i, v int) { w.line("VMOVUPS Z%d, K%d, %d(SI)", acc(i, v), v+1, 64*v) })
	w.end()
}

// amx writes the kernel for a block of C of rows x columns tiles of 16x16. Each
// step takes 32 numbers of K. It configures the tiles and frees them again: no
// Go code ever runs with them in use.
func (w *writer) amx(rows, columns int) {
	acc := func(i, j int) int { return 2*i + j }
	a := func(i int) int { return 4 + i }
	b := func(j int) int { return 6 + j }

	w.begin(amxName(rows, columns), "t", "amxTile")
	w.line("LEAQ %d(DI), AX", amxConfig)
	w.tileConfigure("AX")
	w.line("MOVQ %d(DI), BX", amxInitStride)
	w.line("CMPQ %d(DI), $0", amxUpperInit)
	w.line("JEQ zero")
	for i := range rows {
		w.line("MOVQ %d(DI), SI", [2]int{amxUpperInit, amxLowerInit}[i])
		for j := range columns {
			w.tileLoad(acc(i, j), "SI", "BX", int32(64*j))
		}
	}
	w.line("JMP begin")
	w.label("zero")
	for i := range rows {
		for j := range columns {
			w.tileZero(acc(i, j))
		}
	}
	w.label("begin")
	w.line("MOVQ %d(DI), DX", amxB)
	w.line("MOVQ $%d, R10", 64*columns)
	w.line("MOVQ %d(DI), BX", amxRowStride)
	w.line("MOVQ %d(DI), R8", amxOffsets)
	w.line("MOVQ %d(DI), R9", amxSegments)
	bases := [2]string{"SI", "R11"}
	w.label("segment")
	w.line("MOVQ (R8), AX")
	w.line("ADDQ $8, R8")
	for i := range rows {
		w.line("MOVQ %d(DI), %s", [2]int{amxUpper, amxLower}[i], bases[i])
		w.line("LEAQ (%s)(AX*2), %s", bases[i], bases[i])
	}
	w.line("MOVQ %d(DI), CX", amxSteps)
	w.label("loop")
	for i := range rows {
		w.tileLoad(a(i), bases[i], "BX", 0)
		for j := range columns {
			if i == 0 {
				w.tileLoad(b(j), "DX", "R10", int32(64*j))
			}
			w.tileDot(b(j), a(i), acc(i, j))
		}
	}
	for i := range rows {
		w.line("ADDQ $64, %s", bases[i])
	}
	w.line("ADDQ $%d, DX", 16*64*columns)
	w.line("DECQ CX")
	w.line("JNZ loop")
	w.line("DECQ R9")
	w.line("JNZ segment")
	w.line("MOVQ %d(DI), BX", amxCStride)
	for i := range rows {
		w.line("MOVQ %d(DI), SI", [2]int{amxUpperC, amxLowerC}[i])
		for j := range columns {
			w.tileStore(acc(i, j), "SI", "BX", int32(64*j))
		}
	}
	w.tileRelease()
	w.line("RET")
	fmt.Fprintln(w)
}

// addRows writes c[i, :] = add[i, :] + bias[:] for up to two vectors of columns.
func (w *writer) addRows() {
	w.begin("addRows", "a", "addition")
	for i, reg := range []string{"DX", "SI", "R8", "CX", "BX", "AX"} { // c, add, bias, mask, stride, rows
		w.line("MOVQ %d(DI), %s", 8*i, reg)
	}
	w.line("SHLQ $2, BX")
	w.masks()
	for v := range 2 {
		w.line("VMOVUPS.Z %d(R8), K%d, Z%d", 64*v, v+1, v)
	}
	w.label("loop")
	for v := range 2 {
		w.line("VADDPS.Z %d(SI), Z%d, K%d, Z%d", 64*v, v, v+1, 2+v)
		w.line("VMOVUPS Z%d, K%d, %d(DX)", 2+v, v+1, 64*v)
	}
	w.line("ADDQ BX, SI")
	w.line("ADDQ BX, DX")
	w.line("DECQ AX")
	w.line("JNZ loop")
	w.end()
}

// convert writes the routine that rounds rows of numbers. AX counts a row's
// numbers; K1, K2 and K3 mask the last ones of a row.
func (w *writer) convert() {
	w.begin("convertRows", "c", "conversion")
	for i, reg := range []string{"DX", "SI", "R8", "R9", "R10", "R11"} { // dst, src, dst stride, src stride, rows, numbers
		w.line("MOVQ %d(DI), %s", 8*i, reg)
	}
	w.line("SHLQ $1, R8")
	w.line("SHLQ $2, R9")
	w.line("MOVQ R11, CX")
	w.line("ANDQ $31, CX")
	w.line("MOVQ $1, AX")
	w.line("SHLQ CX, AX")
	w.line("DECQ AX")
	w.line("KMOVD AX, K3")
	w.line("MOVQ AX, CX")
	w.masks()
	w.label("row")
	w.line("MOVQ SI, R12")
	w.line("MOVQ DX, R13")
	w.line("MOVQ R11, AX")
	w.line("SHRQ $5, AX")
	w.line("JZ tail")
	w.label("loop")
	w.line("VMOVUPS (R12), Z0")
	w.line("VMOVUPS 64(R12), Z1")
	w.round(1, 0, 2)
	w.line("VMOVDQU32 Z2, (R13)")
	w.line("ADDQ $128, R12")
	w.line("ADDQ $64, R13")
	w.line("DECQ AX")
	w.line("JNZ loop")
	w.label("tail")
	w.line("TESTQ $31, R11")
	w.line("JZ next")
	w.line("VMOVUPS.Z (R12), K1, Z0")
	w.line("VMOVUPS.Z 64(R12), K2, Z1")
	w.round(1, 0, 2)
	w.line("VMOVDQU16 Z2, K3, (R13)")
	w.label("next")
	w.line("ADDQ R8, DX")
	w.line("ADDQ R9, SI")
	w.line("DECQ R10")
	w.line("JNZ row")
	w.end()
}

// pairIndices defines the permutation that turns two runs of 16 words into
// pairs: the first of each, the second of each, and so on.
func (w *writer) pairIndices() {
	for i := range 8 {
		fmt.Fprintf(w, "DATA pairs<>+%d(SB)/8, $%#x\n", 8*i, (2*i)|(16+2*i)<<16|(2*i+1)<<32|(17+2*i)<<48)
	}
	fmt.Fprint(w, "GLOBL pairs<>(SB), RODATA|NOPTR, $64\n\n")
}

// pack writes the routine that rounds an even number of rows of B, one panel
// wide, to rows of pairs, setting the columns that B lacks to zero.
func (w *writer) pack(vectors int) {
	w.begin("pack"+widths[vectors-1], "p", "packing")
	for i, reg := range []string{"DX", "SI", "CX", "BX", "AX"} { // dst, src, mask, stride, pairs
		w.line("MOVQ %d(DI), %s", 8*i, reg)
	}
	w.line("SHLQ $2, BX")
	w.masks()
	w.line("VMOVDQU16 pairs<>(SB), Z31")
	w.label("loop")
	for v := range vectors {
		w.line("VMOVUPS.Z %d(SI), K%d, Z%d", 64*v, v+1, 3*v)
		w.line("VMOVUPS.Z %d(SI)(BX*1), K%d, Z%d", 64*v, v+1, 3*v+1)
		w.round(3*v+1, 3*v, 3*v+2)
		w.line("VPERMW Z%d, Z31, Z%d", 3*v+2, 3*v+2)
		w.line("VMOVDQU32 Z%d, %d(DX)", 3*v+2, 64*v)
	}
	w.line("LEAQ (SI)(BX*2), SI")
	w.line("ADDQ $%d, DX", vectors*64)
	w.line("DECQ AX")
	w.line("JNZ loop")
	w.end()
}

// transposeTail writes the end of a routine that has rows of 16 double words in
// Z0 to Z15: it stores R9 of their columns, R8 bytes apart from DX on, as much
// of each as K3 says.
func (w *writer) transposeTail() {
	// Double words of two rows side by side; then of four, so that in
	// Z[r+c] part l holds column 4l+c of rows r to r+3.
	for r := 0; r < 16; r += 2 {
		w.line("VPUNPCKLDQ Z%d, Z%d, Z%d", r+1, r, 16+r)
		w.line("VPUNPCKHDQ Z%d, Z%d, Z%d", r+1, r, 17+r)
	}
	for r := 0; r < 16; r += 4 {
		for h := range 2 {
			w.line("VPUNPCKLQDQ Z%d, Z%d, Z%d", 18+r+h, 16+r+h, r+2*h)
			w.line("VPUNPCKHQDQ Z%d, Z%d, Z%d", 18+r+h, 16+r+h, r+2*h+1)
		}
	}
	// Parts 0 and 2, then 1 and 3, of the rows up to 7 and of the others.
	const even, odd = 0x88, 0xdd
	for c := range 4 {
		w.line("VSHUFI32X4 $%#x, Z%d, Z%d, Z%d", even, 4+c, c, 16+c)
		w.line("VSHUFI32X4 $%#x, Z%d, Z%d, Z%d", even, 12+c, 8+c, 20+c)
		w.line("VSHUFI32X4 $%#x, Z%d, Z%d, Z%d", odd, 4+c, c, 24+c)
		w.line("VSHUFI32X4 $%#x, Z%d, Z%d, Z%d", odd, 12+c, 8+c, 28+c)
	}
	for l := range 4 {
		which := [2]int{even, odd}[l/2]
		for c := range 4 {
			first := 16 + l%2*8 + c
			w.line("VSHUFI32X4 $%#x, Z%d, Z%d, Z%d", which, first+4, first, c)
			w.line("VMOVDQU16 Z%d, K3, (DX)", c)
			w.line("DECQ R9")
			w.line("JZ done")
			w.line("ADDQ R8, DX")
		}
	}
	w.label("done")
	w.end()
}

// transposeBegin loads the arguments of a transposition and clears the rows.
func (w *writer) transposeBegin(name string) {
	w.begin(name, "t", "transposition")
	// dst, dst stride, src, src stride, rows, columns, mask of a row, mask of a column
	for i, reg := range []string{"DX", "R8", "SI", "BX", "AX", "R9", "CX", "R10"} {
		w.line("MOVQ %d(DI), %s", 8*i, reg)
	}
	w.line("SHLQ $1, R8")
	w.line("SHLQ $2, BX")
	w.line("KMOVD R10, K3")
	w.masks()
	for r := range 16 {
		w.line("VPXORD Z%d, Z%d, Z%d", r, r, r)
	}
}

// transposePixels writes the routine that turns up to 32 rows of up to 16
// numbers into columns.
func (w *writer) transposePixels() {
	w.transposeBegin("transposePixels")
	w.line("VMOVDQU16 pairs<>(SB), Z31")
	w.line("VPXORD Z30, Z30, Z30")
	for r := range 16 {
		w.line("SUBQ $2, AX")
		w.line("JL last%d", r)
		w.line("VMOVUPS.Z (SI), K1, Z28")
		w.line("VMOVUPS.Z (SI)(BX*1), K1, Z29")
		w.round(29, 28, r)
		w.line("VPERMW Z%d, Z31, Z%d", r, r)
		w.line("LEAQ (SI)(BX*2), SI")
	}
	w.line("JMP loaded")
	for r := range 16 {
		w.label(fmt.Sprintf("last%d", r))
		w.line("CMPQ AX, $-1")
		w.line("JNE loaded")
		w.line("VMOVUPS.Z (SI), K1, Z28")
		w.round(30, 28, r)
		w.line("VPERMW Z%d, Z31, Z%d", r, r)
		if r < 15 {
			w.line("JMP loaded")
		}
	}
	w.label("loaded")
	w.transposeTail()
}

// transposePairs writes the routine that turns up to 16 rows of up to 32
// numbers into columns of pairs.
func (w *writer) transposePairs() {
	w.transposeBegin("transposePairs")
	for r := range 16 {
		w.line("VMOVUPS.Z (SI), K1, Z28")
		w.line("VMOVUPS.Z 64(SI), K2, Z29")
		w.round(29, 28, r)
		if r < 15 {
			w.line("DECQ AX")
			w.line("JZ loaded")
			w.line("ADDQ BX, SI")
		}
	}
	w.label("loaded")
	w.transposeTail()
}

func kernelName(rows, vectors int) string {
	return fmt.Sprintf("avx512%s%d", widths[vectors-1], rows)
}

func amxName(rows, columns int) string { return fmt.Sprintf("amx%dx%d", rows, columns) }

// assembly is kernels_amd64.s.
func assembly() []byte {
	var w writer
	w.WriteString(asmgen.Header + "#include \"textflag.h\"\n\n")
	w.pairIndices()
	for width := range widths {
		for rows := 1; rows <= tileRows[width]; rows++ {
			w.kernel(rows, width+1)
		}
		w.pack(width + 1)
	}
	w.convert()
	w.transposePixels()
	w.transposePairs()
	for rows := 1; rows <= 2; rows++ {
		for columns := 1; columns <= 2; columns++ {
			w.amx(rows, columns)
		}
	}
	w.addRows()
	return w.Bytes()
}

// declarations is kernels_amd64.go: static calls, so that arguments can stay on
// a worker's stack.
func declarations() []byte {
	var w bytes.Buffer
	fmt.Fprint(&w, asmgen.Header+"package bf16\n")
	declare := func(name, arg, of string) {
		fmt.Fprintf(&w, "\n//go:noescape\nfunc %s(%s *%s)\n", name, arg, of)
	}
	for width, name := range widths {
		fmt.Fprintf(&w, "\nconst avx512%sRows = %d\n", name, tileRows[width])
		fmt.Fprintf(&w, "\nfunc avx512%s(t *tile, rows int) {\n\tswitch rows {\n", name)
		for rows := 1; rows <= tileRows[width]; rows++ {
			fmt.Fprintf(&w, "\tcase %d:\n\t\t%s(t)\n", rows, kernelName(rows, width+1))
		}
		fmt.Fprint(&w, "\t}\n}\n")
		for rows := 1; rows <= tileRows[width]; rows++ {
			declare(kernelName(rows, width+1), "t", "tile")
		}
		declare("pack"+name, "p", "packing")
	}
	declare("convertRows", "c", "conversion")
	declare("transposePixels", "t", "transposition")
	declare("transposePairs", "t", "transposition")
	for rows := 1; rows <= 2; rows++ {
		for columns := 1; columns <= 2; columns++ {
			declare(amxName(rows, columns), "t", "amxTile")
		}
	}
	declare("addRows", "a", "addition")
	return w.Bytes()
}

func main() { asmgen.Write(assembly(), declarations()) }
