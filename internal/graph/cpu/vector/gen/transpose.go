package main

import "fmt"

// transpose is out[j][i] = x[i][j] for as many rows of x as a vector has lanes
// and a multiple of that many columns: one square after another.
//
// A square is transposed in steps that each combine two registers. The first two
// steps transpose the squares of 4x4 that lie in the 128-bit parts; after them
// register 4i+c holds, in part p, column 4p+c of rows 4i to 4i+3. The others
// transpose the parts.
func transpose() kernel {
	return kernel{name: "transpose", args: []string{"out", "x"}, whole: func(a *asm) {
		n := a.bytes / 4
		for _, arg := range a.args {
			a.op("MOVQ %s, %s", field(arg), registers[arg])
		}
		a.op("MOVQ %s, CX", field("columns"))
		a.op("MOVQ %s, R8", field("strideX"))
		a.op("SHLQ $2, R8")
		a.op("MOVQ %s, R9", field("strideOut"))
		a.op("SHLQ $2, R9")
		fmt.Fprintln(a, "square:")
		a.op("MOVQ SI, BX")
		for i := range n {
			a.op("VMOVUPS (BX), %s", a.v(i))
			if i < n-1 {
				a.op("ADDQ R8, BX")
			}
		}
		// Registers from 0 on and from n on take turns.
		from, to := 0, n
		next := func() { from, to = to, from }
		for i := range n / 2 {
			a.op("VUNPCKLPS %s, %s, %s", a.v(from+2*i+1), a.v(from+2*i), a.v(to+2*i))
			a.op("VUNPCKHPS %s, %s, %s", a.v(from+2*i+1), a.v(from+2*i), a.v(to+2*i+1))
		}
		next()
		for i := 0; i < n; i += 4 {
			for h := range 2 {
				a.op("VUNPCKLPD %s, %s, %s", a.v(from+i+h+2), a.v(from+i+h), a.v(to+i+2*h))
				a.op("VUNPCKHPD %s, %s, %s", a.v(from+i+h+2), a.v(from+i+h), a.v(to+i+2*h+1))
			}
		}
		next()
		if a.wide() {
			// Parts 0 and 1, or 2 and 3, of two registers; then the even or the
			// odd ones of two of those.
			for c := range 4 {
				for i := range 2 {
					left, right := a.v(from+8*i+c), a.v(from+8*i+4+c)
					a.op("VSHUFF32X4 $0x44, %s, %s, %s", right, left, a.v(to+8*i+c))
					a.op("VSHUFF32X4 $0xee, %s, %s, %s", right, left, a.v(to+8*i+4+c))
				}
			}
			next()
			for c := range 8 {
				low := 8*(c/4) + c%4
				a.op("VSHUFF32X4 $0x88, %s, %s, %s", a.v(from+8+c), a.v(from+c), a.v(to+low))
				a.op("VSHUFF32X4 $0xdd, %s, %s, %s", a.v(from+8+c), a.v(from+c), a.v(to+low+4))
			}
			next()
		} else {
			for c := range 4 {
				a.op("VPERM2F128 $0x20, %s, %s, %s", a.v(from+4+c), a.v(from+c), a.v(to+c))
				a.op("VPERM2F128 $0x31, %s, %s, %s", a.v(from+4+c), a.v(from+c), a.v(to+4+c))
			}
			next()
		}
		for i := range n {
			a.op("VMOVUPS %s, (AX)", a.v(from+i))
			a.op("ADDQ R9, AX")
		}
		a.op("ADDQ $%d, SI", a.bytes)
		a.op("SUBQ $%d, CX", n)
		a.op("JNZ square")
	}}
}
