//go:build gpu && !cpu

package cuda

import (
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// bound finds the kernels of the variational bound.
func (d *device) bound(c call) (kernel, bool) {
	switch op := c.heart.(type) {
	case graph.VLB:
		n, size := samples(c.in[1])
		return vlb(n, size), true
	case graph.VLBGrad:
		return kernel{launches: func(m operands) []launch { return vlbGrad(op, m) }}, true
	}
	return kernel{}, false
}

// vlbParams are of terms in bits, the means of a size, in chunks of the images.
func vlbParams(m operands, size, chunk int) *kernels.VlbParams {
	out, x, target, coefs := m.in[0], m.in[1], m.in[2], m.in[3]
	return &kernels.VlbParams{
		Out: values(out), X: values(x), Target: values(target), Coefs: coefs.ptr,
		Size: int64(size), Chunk: int64(chunk), Chunks: int32(pieces(size, chunk)), Channels: wideChannels(x, out),
		Scale: float32(1 / (float64(size) * math.Ln2)),
	}
}

// vlb sums chunks of each of n images, and then, where an image is more than one,
// their sums.
func vlb(n, size int) kernel {
	chunks := pieces(size, chunkElements)
	scratch := 0
	if chunks > 1 {
		scratch = 4 * n * chunks
	}
	return kernel{scratch: scratch, launches: func(m operands) []launch {
		p := vlbParams(m, size, chunkElements)
		p.Terms = m.out.ptr
		launches := []launch{{kernel: "vlb", grid: [3]int{n * chunks, 1, 1}, block: pointThreads, params: p}}
		if chunks > 1 {
			p.Terms, p.Scale = m.scratch, 1
			launches = append(launches, rowSums(m.out.ptr, m.scratch, n, chunks, float64(size)*math.Ln2))
		}
		return launches
	}}
}

func vlbGrad(op graph.VLBGrad, m operands) []launch {
	n, size := samples(m.in[1].shape)
	p := vlbParams(m, size, pointThreads)
	p.Derror, p.Dout, p.StopMean = m.in[4].ptr, values(m.out), flag(op.StopMean)
	return []launch{{kernel: "vlb_grad", grid: [3]int{n * int(p.Chunks), 1, 1}, block: pointThreads, params: p}}
}
