//go:build gpu && !cpu

package cuda

import (
	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// guidance finds the kernels of classifier-free guidance.
func (d *device) guidance(c call) (kernel, bool) {
	switch op := c.heart.(type) {
	case graph.Twice:
		return kernel{launches: twice}, true
	case graph.Guidance:
		return guidance(op, c.out), true
	}
	return kernel{}, false
}

func twice(m operands) []launch {
	x := m.in[0]
	first := tensor{ptr: m.out.ptr, shape: x.shape, bf16: m.out.bf16}
	second := first
	second.ptr += kernels.Ptr(first.bytes())
	return append(copyLaunches(first, x), copyLaunches(second, x)...)
}

// scaleThreads is the number of threads of guidance_scale.
const scaleThreads = 512

// guidance finds the factor of each image first, if there is one.
func guidance(op graph.Guidance, out graph.Shape) kernel {
	n, size := samples(out)
	pixels, channels := rowsOf(out[1:])
	scratch := 0
	if op.Rescale != 0 {
		scratch = 4 * n
	}
	return kernel{scratch: scratch, launches: func(m operands) []launch {
		p := &kernels.GuidanceParams{
			Both: values(m.in[0]), W: m.in[1].ptr, Out: values(m.out), Total: int64(n * size),
			Extents: quads(size, m.out, m.in[0]), Channels: fastDivisor(channels), Guided: int32(op.Channels),
			R: float32(op.Rescale), Count: float32(pixels * op.Channels),
		}
		var launches []launch
		if op.Rescale != 0 {
			p.Scales = m.scratch
			launches = []launch{{kernel: "guidance_scale", grid: [3]int{n, 1, 1}, block: scaleThreads, params: p}}
		}
		return append(launches, quadLaunch("guidance", n, p.Extents, p))
	}}
}
