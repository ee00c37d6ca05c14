//go:build gpu && !cpu

package cuda

import (
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// Arenas are float32 and begin at multiples of 16 bytes. What changes from step
// to step is read from device memory, so that captured launches stay what they
// are.

// squareChunk is the number of elements whose squares one block sums, as in
// optimizer.cu.
const squareChunk = 16384

// gradNormScratch is the scratch memory of gradNormLaunches in bytes.
func gradNormScratch(n int) int { return 8 * pieces(n, squareChunk) }

// gradNormLaunches leaves the L2 norm of n gradients, one float32, in norm. It is
// not finite if any of them is not.
func (d *device) gradNormLaunches(grads kernels.Ptr, n int, norm, scratch kernels.Ptr) []launch {
	parts := pieces(n, squareChunk)
	return []launch{{
		kernel: "sum_squares", grid: [3]int{parts, 1, 1}, block: pointThreads,
		params: &kernels.SquaresParams{X: grads, Parts: scratch, N: int64(n)},
	}, {
		kernel: "grad_norm", grid: [3]int{1, 1, 1}, block: pointThreads,
		params: &kernels.GradNormParams{Parts: scratch, Norm: norm, Count: int32(parts)},
	}}
}

// accumulateScalars is what accumulateLaunches reads from device memory.
func accumulateScalars(first bool, scale float64) kernels.AccumulateScalarsParams {
	return kernels.AccumulateScalarsParams{First: flag(first), Scale: float32(scale)}
}

// accumulateLaunches adds n scaled gradients to sum, or begins it with them;
// scalars is the address of accumulateScalars.
func (d *device) accumulateLaunches(sum, grads kernels.Ptr, n int, scalars kernels.Ptr) []launch {
	return []launch{{
		kernel: "accumulate", grid: [3]int{pieces(n, quadBlock), 1, 1}, block: pointThreads,
		params: &kernels.AccumulateParams{Sum: sum, X: grads, Scalars: scalars, N: int64(n)},
	}}
}

// adamArenas are what a step of Adam works on. Without rounded, 0, there is no
// bfloat16 copy of the weights.
type adamArenas struct{ params, grads, m, v, ema, rounded kernels.Ptr }

// adamScalars is what adamLaunches reads from device memory.
func adamScalars(u graph.Update) kernels.AdamScalarsParams {
	step := float64(u.Step)
	return kernels.AdamScalarsParams{
		Rate:        float32(u.LR / (1 - math.Pow(u.Beta1, step))),
		Beta1Rest:   float32(1 - u.Beta1),
		Beta2Rest:   float32(1 - u.Beta2),
		InverseRoot: float32(1 / math.Sqrt(1-math.Pow(u.Beta2, step))),
		Epsilon:     float32(u.Eps),
		Clip:        float32(u.Clip),
		EmaRest:     float32(1 - u.EMADecay),
	}
}

// adamLaunches makes a step on arenas of n elements, see graph.Update, with the
// norm of gradNormLaunches; scalars is the address of adamScalars. A norm that is
// not finite changes nothing.
func (d *device) adamLaunches(a adamArenas, n int, norm, scalars kernels.Ptr) []launch {
	return []launch{{
		kernel: "adam_step", grid: [3]int{pieces(n, quadBlock), 1, 1}, block: pointThreads,
		params: &kernels.AdamParams{
			Weights: a.params, Grads: a.grads, M: a.m, V: a.v, Ema: a.ema, Rounded: a.rounded,
			Norm: norm, Scalars: scalars, N: int64(n),
		},
	}}
}

// roundLaunches copies n float32 values to bfloat16.
func (d *device) roundLaunches(dst, src kernels.Ptr, n int) []launch {
	shape := graph.Shape{n}
	return copyLaunches(tensor{ptr: dst, shape: shape, bf16: true}, tensor{ptr: src, shape: shape})
}
