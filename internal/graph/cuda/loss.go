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
		n, size := samples(c.in[1])
		return squaredError(n, size), true
	case graph.SquaredErrorGrad:
		return kernel{launches: squaredErrorGrad}, true
	case graph.Weigh:
		return perSample("weigh", 0), true
	case graph.PseudoHuber:
		return perSample("pseudo_huber", op.C), true
	case graph.PseudoHuberGrad:
		return perSample("pseudo_huber_grad", op.C), true
	case graph.Mean:
		n := c.in[0].TotalSize()
		return kernel{launches: func(m operands) []launch {
			return []launch{rowSums(m.out.ptr, m.in[0].ptr, 1, n, float64(n))}
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
		pred, target := m.in[0], m.in[1]
		name, whole := "squared_error", []tensor{target, pred}
		channels := wideChannels(target, pred)
		if channels.Times > 1 {
			name, whole = "squared_error_wide", whole[:1]
		}
		p := &kernels.SquaredErrorParams{
			Pred: values(pred), Target: values(target), Out: m.out.ptr, Extents: quads(size, whole...),
			Chunk: chunkElements, Chunks: int32(chunks), Divisor: float32(size), Channels: channels,
		}
		launches := []launch{{kernel: name, grid: [3]int{n * chunks, 1, 1}, block: pointThreads, params: p}}
		if chunks > 1 {
			p.Out, p.Divisor = m.scratch, 1
			launches = append(launches, rowSums(m.out.ptr, m.scratch, n, chunks, float64(size)))
		}
		return launches
	}}
}

// rowSums sums the rows of x [n,length], float32, and divides them.
func rowSums(out, x kernels.Ptr, n, length int, divisor float64) launch {
	return launch{
		kernel: "row_sums", grid: [3]int{n, 1, 1}, block: pointThreads,
		params: &kernels.RowSumsParams{X: x, Out: out, Length: int64(length), Divisor: float32(divisor)},
	}
}

func squaredErrorGrad(m operands) []launch {
	pred, target := m.in[0], m.in[1]
	n, size := samples(pred.shape)
	_, read := samples(target.shape)
	_, wide := rowsOf(pred.shape)
	_, narrow := rowsOf(target.shape)
	name, whole := "squared_error_grad", []tensor{m.out, pred, target}
	if wide > narrow {
		name, whole = "squared_error_grad_wide", whole[:2]
	}
	e := quads(size, whole...)
	return []launch{quadLaunch(name, n, e, &kernels.SquaredErrorGradParams{
		Pred: values(pred), Target: values(target), Derror: m.in[2].ptr, Dpred: values(m.out),
		Extents: e, Wide: fastDivisor(wide), Narrow: int32(narrow), Scale: float32(2 / float64(read)),
	})}
}

// perSample is a function, with a constant c, of a number for each sample, or two.
func perSample(name string, c float64) kernel {
	return kernel{launches: func(m operands) []launch {
		n := m.out.len()
		p := &kernels.PerSampleParams{X: m.in[0].ptr, Out: m.out.ptr, N: int32(n), C: float32(c)}
		if len(m.in) > 1 {
			p.Y = m.in[1].ptr
		}
		return []launch{{kernel: name, grid: [3]int{pieces(n, pointThreads), 1, 1}, block: pointThreads, params: p}}
	}}
}
