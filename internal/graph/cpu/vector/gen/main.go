// Command gen writes the AVX2 and AVX-512 kernels of package vector,
// kernels_amd64.s, and their Go declarations, kernels_amd64.go.
//
// Every kernel walks over rows of float32, one vector after another, and once
// or several times over each row; the last vector of a row is masked. A kernel
// is what is done with a vector (body), before and after each walk (before,
// after), and once at the end (end). Only package asm's methods know which
// family of instructions they write.
package main

import (
	"bytes"
	"fmt"

	"ddpm/internal/graph/cpu/asmgen"
)

// kernel is one routine. Its name is that of a constant in package vector.
type kernel struct {
	name    string
	args    []string // fields of struct call that are pointers, as the kernel uses them
	walks   []walk
	end     func(a *asm)
	consts  []string // names of constants
	floats  []int    // the fields of call.s that it reads
	doubles int      // it reads the first so many fields of call.f
	// twoRows says that each step takes a row of x and y and the next, at t3 and t4.
	twoRows bool
	// whole writes a routine that does not walk over rows.
	whole func(a *asm)
}

// walk is one pass over a row.
type walk struct{ before, body func(a *asm) }

// Offsets of the fields of struct call; call_amd64_test.go holds them to its
// layout.
var fields = []string{
	"out", "x", "y", "t0", "t1", "t2", "t3", "t4", "sum", "dot",
	"rows", "columns", "strideOut", "strideX", "strideY",
}

func field(name string) string {
	for i, f := range fields {
		if f == name {
			return fmt.Sprintf("%d(DI)", 8*i)
		}
	}
	panic("no field " + name)
}

func double(i int) string { return fmt.Sprintf("%d(DI)", 8*(len(fields)+i)) }
func float(i int) string  { return fmt.Sprintf("%d(DI)", 8*(len(fields)+doubles)+4*i) }

// doubles is the length of call.f.
const doubles = 10

// registers of the pointers.
var registers = map[string]string{
	"out": "AX", "x": "SI", "y": "DX", "t0": "R8", "t1": "R9", "t2": "R10", "t3": "R11", "t4": "R12",
	"sum": "R13", "dot": "R14",
}

// family is one set of instructions.
type family struct {
	name   string
	vector string // prefix of registers
	half   string // of registers of half the width
	bytes  int    // of a vector
}

var families = []family{{"avx512", "Z", "Y", 64}, {"avx2", "Y", "X", 32}}

func main() { asmgen.Write(assembly(), declarations()) }

// assembly is kernels_amd64.s.
func assembly() []byte {
	var w bytes.Buffer
	w.WriteString(asmgen.Header + "#include \"textflag.h\"\n\n")
	for i, c := range constants {
		for lane := range 8 {
			fmt.Fprintf(&w, "DATA constants<>+%d(SB)/4, $%#08x\n", 32*i+4*lane, c.bits)
		}
	}
	fmt.Fprintf(&w, "GLOBL constants<>(SB), RODATA|NOPTR, $%d\n\n", 32*len(constants))
	for lane := range 16 {
		fmt.Fprintf(&w, "DATA lanes<>+%d(SB)/4, $%#08x\n", 4*lane, -uint32(1-lane/8))
	}
	fmt.Fprintf(&w, "GLOBL lanes<>(SB), RODATA|NOPTR, $64\n\n")
	for _, f := range families {
		for _, k := range kernels() {
			a := asm{family: f, kernel: k}
			a.routine()
			w.Write(a.Bytes())
		}
	}
	return w.Bytes()
}

// declarations is kernels_amd64.go: static calls, so that the arguments can
// stay on the caller's stack.
func declarations() []byte {
	var w bytes.Buffer
	fmt.Fprint(&w, asmgen.Header+"package vector\n")
	for _, f := range families {
		fmt.Fprintf(&w, "\nfunc %s(k kernel, c *call) {\n\tswitch k {\n", f.name)
		for _, k := range kernels() {
			fmt.Fprintf(&w, "\tcase %s:\n\t\t%s(c)\n", k.name, routineName(f, k))
		}
		fmt.Fprint(&w, "\t}\n}\n")
		for _, k := range kernels() {
			fmt.Fprintf(&w, "\n//go:noescape\nfunc %s(c *call)\n", routineName(f, k))
		}
	}
	return w.Bytes()
}

func routineName(f family, k kernel) string {
	return f.name + string(k.name[0]-'a'+'A') + k.name[1:]
}
