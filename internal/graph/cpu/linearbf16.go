package cpu

// A linear layer is a pointwise convolution of its rows.

// linearBF16 binds y[m,out] = x[m,in] w[in,out] plus the epilogue, which has no
// perSample; packed is w packed by linearBF16Weights. x has m pixels.
func (e *engine) linearBF16(m, in, out int, y []float32, x source, packed []float32, epi epilogue, ws []float32) func() {
	return e.convBF16(pointwise(1, m, in, out), y, x, packed, epi, ws)
}

func (e *engine) linearBF16Workspace(m, in, out int) int {
	return e.convBF16Workspace(pointwise(1, m, in, out))
}

// linearBF16Weights binds the packing of w for linearBF16.
func (e *engine) linearBF16Weights(in, out int, packed, w []float32) func() {
	return e.convBF16Weights(pointwise(1, 1, in, out), packed, w)
}

func (e *engine) linearBF16WeightsSize(in, out int) int {
	return e.convBF16WeightsSize(pointwise(1, 1, in, out))
}

// linearBF16GradData binds dx[m,in] = dy[m,out] wᵀ plus addend, which may be
// nil; packed is w packed by linearBF16GradDataWeights.
func (e *engine) linearBF16GradData(m, in, out int, dx, packed, dy, addend, ws []float32) func() {
	return e.convBF16GradData(pointwise(1, m, in, out), dx, packed, dy, addend, ws)
}

func (e *engine) linearBF16GradDataWorkspace(m, in, out int) int {
	return e.convBF16GradDataWorkspace(pointwise(1, m, in, out))
}

// linearBF16GradDataWeights binds the packing of w for linearBF16GradData.
func (e *engine) linearBF16GradDataWeights(in, out int, packed, w []float32) func() {
	return e.convBF16GradDataWeights(pointwise(1, 1, in, out), packed, w)
}

func (e *engine) linearBF16GradDataWeightsSize(in, out int) int {
	return e.convBF16GradDataWeightsSize(pointwise(1, 1, in, out))
}

// linearBF16GradWeight binds dw[in,out] = xᵀ dy.
func (e *engine) linearBF16GradWeight(m, in, out int, dw []float32, x source, dy, ws []float32) func() {
	return e.convBF16GradWeight(pointwise(1, m, in, out), dw, x, dy, ws)
}

func (e *engine) linearBF16GradWeightWorkspace(m, in, out int) int {
	return e.convBF16GradWeightWorkspace(pointwise(1, m, in, out))
}
