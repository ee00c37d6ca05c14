package cpu

import "ddpm/internal/graph/cpu/gemm"

// linear binds y[m,out] = x[m,in] w[in,out] plus the epilogue, which has no
// perSample; packed is w packed by linearWeights. x has m pixels.
func (e *engine) linear(m, in, out int, y []float32, x source, packed []float32, epi epilogue, ws []float32) func() {
	return e.gemm.Multiply(gemm.Product{
		M: m, N: out, K: in,
		A: gemm.Matrix{Data: x.a, Stride: x.ca}, Beside: gemm.Matrix{Data: x.b, Stride: x.cb}, Split: x.ca,
		Packed: packed, C: y, Bias: epi.bias, Addend: epi.residual,
	}, ws)
}

func (e *engine) linearWorkspace(m, in, out int) int {
	return e.gemm.MultiplyWorkspace(m, out, in, true)
}

// linearWeights binds the packing of w for linear.
func (e *engine) linearWeights(in, out int, packed, w []float32) func() {
	return e.gemm.Packer(packed, out, in, gemm.Matrix{Data: w, Stride: out})
}

func (e *engine) linearWeightsSize(in, out int) int { return e.gemm.PackedSize(in, out) }

// linearGradData binds dx[m,in] = dy[m,out] wᵀ plus addend, which may be nil;
// packed is w packed by linearGradDataWeights.
func (e *engine) linearGradData(m, in, out int, dx, packed, dy, addend, ws []float32) func() {
	return e.gemm.Multiply(gemm.Product{
		M: m, N: in, K: out, A: gemm.Matrix{Data: dy, Stride: out},
		Packed: packed, C: dx, Addend: addend,
	}, ws)
}

func (e *engine) linearGradDataWorkspace(m, in, out int) int {
	return e.gemm.MultiplyWorkspace(m, in, out, true)
}

// linearGradDataWeights binds the packing of w for linearGradData.
func (e *engine) linearGradDataWeights(in, out int, packed, w []float32) func() {
	return e.gemm.Packer(packed, in, out, gemm.Matrix{Data: w, Stride: out, Transposed: true})
}

func (e *engine) linearGradDataWeightsSize(in, out int) int { return e.gemm.PackedSize(out, in) }

// linearGradWeight binds dw[in,out] = xᵀ dy. The rows of dw that belong to each
// image of x are a product of their own.
func (e *engine) linearGradWeight(m, out int, dw []float32, x source, dy, ws []float32) func() {
	product := func(x []float32, in int, dw, ws []float32) func() {
		return e.gemm.Multiply(gemm.Product{
			M: in, N: out, K: m,
			A: gemm.Matrix{Data: x, Stride: in, Transposed: true}, B: gemm.Matrix{Data: dy, Stride: out},
			C: dw,
		}, ws)
	}
	first := product(x.a, x.ca, dw, ws)
	if x.b == nil {
		return first
	}
	second := product(x.b, x.cb, dw[x.ca*out:], ws)
	return func() {
		first()
		second()
	}
}

// linearGradWeightWorkspace is that for a source of ca and cb channels.
func (e *engine) linearGradWeightWorkspace(m, out, ca, cb int) int {
	size := e.gemm.MultiplyWorkspace(ca, out, m, false)
	if cb > 0 {
		size = max(size, e.gemm.MultiplyWorkspace(cb, out, m, false))
	}
	return size
}
