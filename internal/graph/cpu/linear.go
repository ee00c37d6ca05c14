package cpu

import "ddpm/internal/graph/cpu/gemm"

// linear binds y[m,out] = bias[out] + x[m,in] w[in,out]; bias may be nil.
func (e *engine) linear(m, in, out int, y, x, w, bias, ws []float32) func() {
	return e.gemm.Multiply(gemm.Product{
		M: m, N: out, K: in,
		A: gemm.Matrix{Data: x, Stride: in}, B: gemm.Matrix{Data: w, Stride: out},
		C: y, Bias: bias,
	}, ws)
}

func (e *engine) linearWorkspace(m, in, out int) int {
	return e.gemm.MultiplyWorkspace(m, out, in)
}

// linearGradData binds dx[m,in] = dy[m,out] wᵀ.
func (e *engine) linearGradData(m, in, out int, dx, w, dy, ws []float32) func() {
	return e.gemm.Multiply(gemm.Product{
		M: m, N: in, K: out,
		A: gemm.Matrix{Data: dy, Stride: out}, B: gemm.Matrix{Data: w, Stride: out, Transposed: true},
		C: dx,
	}, ws)
}

func (e *engine) linearGradDataWorkspace(m, in, out int) int {
	return e.gemm.MultiplyWorkspace(m, in, out)
}

// linearGradWeight binds dw[in,out] = xᵀ dy.
func (e *engine) linearGradWeight(m, in, out int, dw, x, dy, ws []float32) func() {
	return e.gemm.Multiply(gemm.Product{
		M: in, N: out, K: m,
		A: gemm.Matrix{Data: x, Stride: in, Transposed: true}, B: gemm.Matrix{Data: dy, Stride: out},
		C: dw,
	}, ws)
}

func (e *engine) linearGradWeightWorkspace(m, in, out int) int {
	return e.gemm.MultiplyWorkspace(in, out, m)
}
