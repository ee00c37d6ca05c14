// Command gen writes the AVX2 and AVX-512 micro-kernels of package gemm,
// kernels_amd64.s, and their Go declarations, kernels_amd64.go.
//
// A micro-kernel keeps a tile of C, rows x (1 or 2 vectors), in registers. Each
// step of K loads one row of the packed panel of B and multiplies it with one
// element of A for each row of the tile:
//
//	C[i, :] += A(i, k) * B[k, :]
//
// A is not packed. Its elements lie at a + offset[segment] + i*rowStride +
// k*stepStride, so the same kernel reads rows, columns, and the overlapping
// windows of a convolution.
package main

import (
	"bytes"
	"fmt"

	"ddpm/internal/graph/cpu/asmgen"
)

// widths names the tiles of one and of two vectors.
var widths = [2]string{"Narrow", "Wide"}

// isa is one family of kernels.
type isa struct {
	name    string
	vector  string // register prefix
	bytes   int    // of a vector
	rows    [2]int // of the tallest narrow and wide tile
	scratch int    // first register that no tile uses
}

var families = []isa{
	{name: "avx512", vector: "Z", bytes: 64, rows: [2]int{16, 14}, scratch: 28},
	{name: "avx2", vector: "Y", bytes: 32, rows: [2]int{12, 6}, scratch: 12},
}

// Offsets of the fields of struct tile; tile_amd64_test.go holds them to its
// layout, and struct packing to the order in pack.
const (
	tileA = 8 * iota
	tileB
	tileC
	tileBias
	tileMask
	tileOffsets
	tileSegments
	tileSteps
	tileRowStride
	tileStepStride
	tileSplit
	tileCStride
	tileCSplit
	tileAddend
	tilePartial
)

// prefetch is how far ahead of its use, in bytes, a panel of B is fetched: the
// long panels of wide layers come from the second-level cache.
const prefetch = 1024

// half is the number of rows in the upper half of a tile. The lower half has
// its own base address, so that it may continue in another image row.
func half(rows int) int { return (rows + 1) / 2 }

// rowAddress is the address of row i of A within one step: the base of its
// half, SI or AX, plus a multiple of the row stride, BX. R8, R9 and R10 hold
// the multiples by 3, 5 and 7.
func rowAddress(i, rows int) string {
	multiple := [...]string{"", "(BX*1)", "(BX*2)", "(R8*1)", "(BX*4)", "(R9*1)", "(R8*2)", "(R10*1)"}
	if i < half(rows) {
		return "(SI)" + multiple[i]
	}
	return "(AX)" + multiple[i-half(rows)]
}

type writer struct{ bytes.Buffer }

func (w *writer) line(format string, a ...any) { fmt.Fprintf(w, "\t"+format+"\n", a...) }

func (w *writer) label(format string, a ...any) { fmt.Fprintf(w, format+":\n", a...) }

// kernel writes the micro-kernel for a tile of rows x vectors.
func (w *writer) kernel(f isa, rows, vectors int) {
	reg := func(i int) string { return fmt.Sprintf("%s%d", f.vector, i) }
	acc := func(i, v int) string { return reg(vectors*i + v) }
	b := func(v int) string { return reg(f.scratch + v) }
	broadcast := func(i int) string { return reg(f.scratch + 2 + i%2) }
	at := func(v int, base string) string { return fmt.Sprintf("%d(%s)", v*f.bytes, base) }

	fmt.Fprintf(w, "// func %s(t *tile)\n", kernelName(f, rows, vectors))
	fmt.Fprintf(w, "TEXT ·%s(SB), NOSPLIT, $16-8\n", kernelName(f, rows, vectors))
	w.line("MOVQ t+0(FP), DI")
	w.line("MOVQ %d(DI), BX", tileRowStride)
	w.line("SHLQ $2, BX")
	w.line("LEAQ (BX)(BX*2), R8")
	w.line("LEAQ (BX)(BX*4), R9")
	w.line("LEAQ (R8)(BX*4), R10")
	w.line("IMUL3Q $%d, BX, R11", half(rows))
	w.line("MOVQ %d(DI), AX", tileSplit)
	w.line("LEAQ (R11)(AX*4), R11")
	w.line("MOVQ %d(DI), R14", tileStepStride)
	w.line("SHLQ $2, R14")
	w.line("MOVQ %d(DI), DX", tileB)

	// The mask of the columns that C has: K1 and K2, or the registers of B.
	w.line("MOVQ %d(DI), CX", tileMask)
	loadMask := func() {
		for v := range vectors {
			w.line("VMOVUPS %s, %s", at(v, "CX"), b(v))
			if f.name == "avx512" {
				w.line("VPTESTMD %s, %s, K%d", b(v), b(v), v+1)
			}
		}
	}
	loadMask()

	// Every row starts at the bias, or at zero.
	w.line("MOVQ %d(DI), CX", tileBias)
	w.line("TESTQ CX, CX")
	w.line("JZ zero")
	for v := range vectors {
		if f.name == "avx512" {
			w.line("VMOVUPS.Z %s, K%d, %s", at(v, "CX"), v+1, acc(0, v))
		} else {
			w.line("VMASKMOVPS %s, %s, %s", at(v, "CX"), b(v), acc(0, v))
		}
	}
	for i := 1; i < rows; i++ {
		for v := range vectors {
			w.line("VMOVAPS %s, %s", acc(0, v), acc(i, v))
		}
	}
	w.line("JMP begin")
	w.label("zero")
	for i := range rows * vectors {
		if f.name == "avx512" {
			w.line("VPXORD %s, %s, %s", reg(i), reg(i), reg(i))
		} else {
			w.line("VXORPS %s, %s, %s", reg(i), reg(i), reg(i))
		}
	}

	w.label("begin")
	w.line("MOVQ %d(DI), CX", tileOffsets)
	w.line("MOVQ CX, 0(SP)")
	w.line("MOVQ %d(DI), CX", tileSegments)
	w.line("MOVQ CX, 8(SP)")
	w.label("segment")
	w.line("MOVQ 0(SP), CX")
	w.line("MOVQ (CX), SI")
	w.line("ADDQ $8, CX")
	w.line("MOVQ CX, 0(SP)")
	w.line("SHLQ $2, SI")
	w.line("ADDQ %d(DI), SI", tileA)
	w.line("LEAQ (SI)(R11*1), AX")
	w.line("MOVQ %d(DI), CX", tileSteps)
	w.line("SHRQ $1, CX")
	w.line("JZ odd")

	step := func(u int) {
		for v := range vectors {
			if f.name == "avx512" {
				w.line("PREFETCHT0 %d(DX)", (u*vectors+v)*f.bytes+prefetch)
			}
			w.line("VMOVUPS %s, %s", at(u*vectors+v, "DX"), b(v))
		}
		for i := range rows {
			if f.name == "avx512" && vectors == 1 {
				w.line("VFMADD231PS.BCST %s, %s, %s", rowAddress(i, rows), b(0), acc(i, 0))
				continue
			}
			w.line("VBROADCASTSS %s, %s", rowAddress(i, rows), broadcast(i))
			for v := range vectors {
				w.line("VFMADD231PS %s, %s, %s", b(v), broadcast(i), acc(i, v))
			}
		}
		w.line("ADDQ R14, SI")
		w.line("ADDQ R14, AX")
	}
	w.line("PCALIGN $32")
	w.label("loop")
	step(0)
	step(1)
	w.line("ADDQ $%d, DX", 2*vectors*f.bytes)
	w.line("DECQ CX")
	w.line("JNZ loop")
	w.label("odd")
	w.line("TESTQ $1, %d(DI)", tileSteps)
	w.line("JZ next")
	step(0)
	w.line("ADDQ $%d, DX", vectors*f.bytes)
	w.label("next")
	w.line("DECQ 8(SP)")
	w.line("JNZ segment")

	// The tile is complete: add the addend and store it, whole vectors or masked.
	w.line("MOVQ %d(DI), BX", tileCStride)
	w.line("SHLQ $2, BX")
	w.line("MOVQ %d(DI), AX", tileCSplit)
	w.line("LEAQ (BX)(AX*4), AX")
	if f.name == "avx2" {
		w.line("MOVQ %d(DI), CX", tileMask)
		loadMask()
	}
	eachRow := func(do func(i, v int)) {
		for i := range rows {
			for v := range vectors {
				do(i, v)
			}
			switch {
			case i == rows-1:
			case i == half(rows)-1:
				w.line("ADDQ AX, SI")
			default:
				w.line("ADDQ BX, SI")
			}
		}
	}
	w.line("MOVQ %d(DI), SI", tileAddend)
	w.line("CMPQ %d(DI), $0", tilePartial)
	w.line("JNE partial")
	w.line("TESTQ SI, SI")
	w.line("JEQ store")
	eachRow(func(i, v int) { w.line("VADDPS %s, %s, %s", at(v, "SI"), acc(i, v), acc(i, v)) })
	w.label("store")
	w.line("MOVQ %d(DI), SI", tileC)
	eachRow(func(i, v int) { w.line("VMOVUPS %s, %s", acc(i, v), at(v, "SI")) })
	w.line("VZEROUPPER")
	w.line("RET")

	w.label("partial")
	w.line("TESTQ SI, SI")
	w.line("JEQ storepartial")
	eachRow(func(i, v int) {
		if f.name == "avx512" {
			w.line("VADDPS %s, %s, K%d, %s", at(v, "SI"), acc(i, v), v+1, acc(i, v))
		} else {
			w.line("VMASKMOVPS %s, %s, %s", at(v, "SI"), b(v), broadcast(i))
			w.line("VADDPS %s, %s, %s", broadcast(i), acc(i, v), acc(i, v))
		}
	})
	w.label("storepartial")
	w.line("MOVQ %d(DI), SI", tileC)
	eachRow(func(i, v int) {
		if f.name == "avx512" {
			w.line("VMOVUPS %s, K%d, %s", acc(i, v), v+1, at(v, "SI"))
		} else {
			w.line("VMASKMOVPS %s, %s, %s", acc(i, v), b(v), at(v, "SI"))
		}
	})
	w.line("VZEROUPPER")
	w.line("RET")
	fmt.Fprintln(w)
}

// pack writes the routine that copies rows of B, one panel wide, to packed
// memory, setting the columns that B lacks to zero.
func (w *writer) pack(f isa, vectors int) {
	fmt.Fprintf(w, "// func %s(p *packing)\n", packName(f, vectors))
	fmt.Fprintf(w, "TEXT ·%s(SB), NOSPLIT, $0-8\n", packName(f, vectors))
	w.line("MOVQ p+0(FP), DI")
	for i, reg := range []string{"DX", "SI", "CX", "BX", "AX"} { // dst, src, mask, stride, rows
		w.line("MOVQ %d(DI), %s", 8*i, reg)
	}
	w.line("SHLQ $2, BX")
	for v := range vectors {
		w.line("VMOVUPS %d(CX), %s%d", v*f.bytes, f.vector, v)
		if f.name == "avx512" {
			w.line("VPTESTMD %s%d, %s%d, K%d", f.vector, v, f.vector, v, v+1)
		}
	}
	w.label("loop")
	for v := range vectors {
		if f.name == "avx512" {
			w.line("VMOVUPS.Z %d(SI), K%d, Z%d", v*f.bytes, v+1, 2+v)
		} else {
			w.line("VMASKMOVPS %d(SI), Y%d, Y%d", v*f.bytes, v, 2+v)
		}
	}
	for v := range vectors {
		w.line("VMOVUPS %s%d, %d(DX)", f.vector, 2+v, v*f.bytes)
	}
	w.line("ADDQ BX, SI")
	w.line("ADDQ $%d, DX", vectors*f.bytes)
	w.line("DECQ AX")
	w.line("JNZ loop")
	w.line("VZEROUPPER")
	w.line("RET")
	fmt.Fprintln(w)
}

func packName(f isa, vectors int) string {
	return fmt.Sprintf("%sPack%s", f.name, widths[vectors-1])
}

func kernelName(f isa, rows, vectors int) string {
	return fmt.Sprintf("%s%s%d", f.name, widths[vectors-1], rows)
}

// assembly is kernels_amd64.s.
func assembly() []byte {
	var w writer
	w.WriteString(asmgen.Header + "#include \"textflag.h\"\n\n")
	for _, f := range families {
		for width := range widths {
			for rows := 1; rows <= f.rows[width]; rows++ {
				w.kernel(f, rows, width+1)
			}
			w.pack(f, width+1)
		}
	}
	return w.Bytes()
}

// declarations is kernels_amd64.go: static calls, so that a tile can stay on
// its worker's stack.
func declarations() []byte {
	var w bytes.Buffer
	fmt.Fprint(&w, asmgen.Header+"package gemm\n")
	for _, f := range families {
		for width, name := range widths {
			fmt.Fprintf(&w, "\nconst %s%sRows = %d\n", f.name, name, f.rows[width])
			fmt.Fprintf(&w, "\nfunc %s%s(t *tile, rows int) {\n\tswitch rows {\n", f.name, name)
			for rows := 1; rows <= f.rows[width]; rows++ {
				fmt.Fprintf(&w, "\tcase %d:\n\t\t%s(t)\n", rows, kernelName(f, rows, width+1))
			}
			fmt.Fprint(&w, "\t}\n}\n")
			for rows := 1; rows <= f.rows[width]; rows++ {
				fmt.Fprintf(&w, "\n//go:noescape\nfunc %s(t *tile)\n", kernelName(f, rows, width+1))
			}
			fmt.Fprintf(&w, "\n//go:noescape\nfunc %s(p *packing)\n", packName(f, width+1))
		}
	}
	return w.Bytes()
}

func main() { asmgen.Write(assembly(), declarations()) }
