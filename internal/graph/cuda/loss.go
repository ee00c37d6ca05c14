//go:build gpu && !cpu

package cuda

import (
	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// losses finds the kernels of the loss.
func (d *device) losses(c call) (kernel, bool) {
	switch op := c.heart.(type) {
	case graph.SquaredError:
		n, size := samples(c.in[0])
		return squaredError(n, size), true
	case graph.SquaredErrorGrad:
		return kernel{launches: squaredErrorGrad}, true
	case graph.Mean:
		n := c.in[0].TotalSize()
		return kernel{launches: func(m operands) []launch {
			return []launch{rowSums(m.out.ptr, m.in[0].ptr, 1, n, n)}
		}}, true
	case graph.MeanGrad:
		return kernel{launches: func(m operands) []launch {
			return []launch{{
				kernel: "mean_grad", grid: [3]int{pieces(op.N, pointThreads), 1, 1}, block: pointThreads,
				params: &kernels.MeanGradParams{X: m.in[0].ptr, Out: m.out.ptr, N: int32(op.N)},
			}}
		}}, true
	}
	return kernel{}, false
}

// squaredError sums chunks of each of n samples, and then, where a sample is
// more than one, their sums.
func squaredError(n, size int) kernel {
	chunks := pieces(size, chunkElements)
	scratch := 0
	if chunks > 1 {
		scratch = 4 * n * chunks
	}
	return kernel{scratch: scratch, launches: func(m operands) []launch {
		p := &kernels.SquaredErrorParams{
			Pred: values(m.in[0]), Target: values(m.in[1]), Out: m.out.ptr, Extents: quads(size, m.in...),
			Chunk: chunkElements, Chunks: int32(chunks), Divisor: float32(size),
		}
		launches := []launch{{
			kernel: "squared_error", grid: [3]int{n * chunks, 1, 1}, block: pointThreads, params: p,
		}}
		if chunks > 1 {
			p.Out, p.Divisor = m.scratch, 1
			launches = append(launches, rowSums(m.out.ptr, m.scratch, n, chunks, size))
		}
		return launches
	}}
}

// rowSums sums the rows of x [n,length], float32, and divides them.
func rowSums(out, x kernels.Ptr, n, length, divisor int) launch {
	return launch{
		kernel: "row_sums", grid: [3]int{n, 1, 1}, block: pointThreads,
		params: &kernels.RowSumsParams{X: x, Out: out, Length: int64(length), Divisor: float32(divisor)},
	}
}

func squaredErrorGrad(m operands) []launch {
	n, size := samples(m.out.shape)
	e := quads(size, m.out, m.in[0], m.in[1])
	return []launch{quadLaunch("squared_error_grad", n, e, &kernels.SquaredErrorGradParams{
		Pred: values(m.in[0]), Target: values(m.in[1]), Derror: m.in[2].ptr, Dpred: values(m.out),
		Extents: e, Scale: float32(2 / float64(size)),
	})}
}
