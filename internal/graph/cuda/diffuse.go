//go:build gpu && !cpu

package cuda

import (
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// diffusion finds the kernels of the diffusion process and of what else is
// random or a function of t.
func (d *device) diffusion(c call) (kernel, bool) {
	switch op := c.heart.(type) {
	case graph.QSample:
		return kernel{launches: func(m operands) []launch { return qSample(op, m) }}, true
	case graph.PSample:
		return kernel{launches: func(m operands) []launch { return pSample(op, m) }}, op.Kept <= mostKept
	case graph.X0Limit:
		return kernel{launches: func(m operands) []launch { return x0Limit(op, m) }}, true
	case graph.Dropout:
		return kernel{launches: func(m operands) []launch { return dropout(op, m) }}, true
	case graph.TimestepEmbedding:
		return kernel{launches: func(m operands) []launch { return timestepEmbedding(op, m) }}, true
	}
	return kernel{}, false
}

// quadBlock is the number of elements of a sample that a block takes, four a
// thread.
const quadBlock = 4 * pointThreads

// quads lays blocks over samples of a size; whole accesses need tensors that
// begin at multiples of 16 bytes.
func quads(size int, tensors ...tensor) kernels.QuadExtents {
	whole := size%4 == 0
	for _, t := range tensors {
		whole = whole && t.ptr%16 == 0
	}
	return kernels.QuadExtents{Size: int64(size), Blocks: int32(pieces(size, quadBlock)), Whole: flag(whole)}
}

func quadLaunch(name string, samples int, e kernels.QuadExtents, params any) launch {
	return launch{kernel: name, grid: [3]int{samples * int(e.Blocks), 1, 1}, block: pointThreads, params: params}
}

// samples splits [N,...] into samples and the values of one.
func samples(s graph.Shape) (n, size int) { return s[0], s.TotalSize() / s[0] }

func qSample(op graph.QSample, m operands) []launch {
	images := m.in[0].shape
	n, size := samples(images)
	e := quads(size, m.out)
	return []launch{quadLaunch("q_sample", n, e, &kernels.QSampleParams{
		Images: m.in[0].ptr, Flip: m.in[1].ptr, Keys: m.in[2].ptr,
		Signal: m.in[3].ptr, Noise: m.in[4].ptr, TargetSignal: m.in[5].ptr, TargetNoise: m.in[6].ptr,
		Out: values(m.out), Total: int64(n * size), Extents: e,
		Channels: fastDivisor(images[3]), Width: fastDivisor(images[2]), Stream: uint32(op.Stream),
	})}
}

// mostKept is how many kept values p_sample_general takes.
const mostKept = len(kernels.PSampleGeneralParams{}.Old)

func pSample(op graph.PSample, m operands) []launch {
	x, out := m.in[0], m.in[1]
	n, size := samples(x.shape)
	if op.Kept == 0 && !op.Learned && !op.Limited && out.shape.Eq(x.shape) {
		e := quads(size, m.out, x, out)
		return []launch{quadLaunch("p_sample", n, e, &kernels.PSampleParams{
			X: values(x), Out: values(out), Keys: m.in[2].ptr, Coefs: m.in[3].ptr,
			Result: values(m.out), Total: int64(n * size), Extents: e, Stream: uint32(op.Stream), Clip: flag(op.Clip),
		})}
	}
	p := &kernels.PSampleGeneralParams{
		X: values(x), Out: values(out), Keys: m.in[2].ptr, Coefs: m.in[3].ptr,
		Result: values(m.out), Total: int64(n * size), Channels: wideChannels(x, out), Stream: uint32(op.Stream),
		Clip: flag(op.Clip || op.Limited), Learned: flag(op.Learned), Kept: int32(op.Kept),
	}
	kept := m.in[4:]
	if op.Limited {
		p.Limits, kept = kept[0].ptr, kept[1:]
	}
	for i, v := range kept {
		p.Old[i] = values(v)
	}
	whole := append([]tensor{m.out, x}, kept...)
	if p.Channels.Times == 1 {
		whole = append(whole, out)
	}
	p.Extents = quads(size, whole...)
	return []launch{quadLaunch("p_sample_general", n, p.Extents, p)}
}

// wideChannels says where the values of images lie in a network's output of as many
// channels or more.
func wideChannels(images, out tensor) kernels.WideChannels {
	_, narrow := rowsOf(images.shape)
	_, wide := rowsOf(out.shape)
	return kernels.WideChannels{Count: fastDivisor(narrow), Times: int32(wide / narrow)}
}

// limitThreads is the number of threads of x0_limit.
const limitThreads = 512

func x0Limit(op graph.X0Limit, m operands) []launch {
	x, out := m.in[0], m.in[1]
	n, size := samples(x.shape)
	return []launch{{
		kernel: "x0_limit", grid: [3]int{n, 1, 1}, block: limitThreads,
		params: &kernels.X0LimitParams{
			X: values(x), Out: values(out), Coefs: m.in[2].ptr, Limits: m.out.ptr,
			Size: int64(size), Channels: wideChannels(x, out), Rank: int32(op.Rank(size)),
		},
	}}
}

func dropout(op graph.Dropout, m operands) []launch {
	x := m.in[0]
	n, size := samples(x.shape)
	e := quads(size, x, m.out)
	a := accessTo([]tensor{x, m.out}, size)
	if a != single {
		e.Blocks = int32(pieces(size, pointThreads*a.width))
	}
	return []launch{quadLaunch("dropout"+a.suffix, n, e, &kernels.DropoutParams{
		X: values(x), Y: values(m.out), Keys: m.in[1].ptr, Extents: e, Stream: uint32(op.Stream),
		// Both sides of rng.Uniform(word) >= P times 2^24, which rounds nothing.
		Limit: uint32(math.Ceil(op.P * (1 << 24))), Scale: float32(1 / (1 - op.P)),
	})}
}

// timestepEmbedding rounds the frequencies and their products with t to float32,
// as where the published weights were trained.
func timestepEmbedding(op graph.TimestepEmbedding, m operands) []launch {
	n, half := m.out.shape[0], op.Dim/2
	var launches []launch
	for first := 0; first < half; {
		p := &kernels.EmbeddingParams{
			T: m.in[0].ptr, Out: m.out.ptr, N: int32(n), Dim: int32(op.Dim),
			Sine: int32(first), Cosine: int32(half + first),
		}
		if op.CosFirst {
			p.Sine, p.Cosine = p.Cosine, p.Sine
		}
		count := min(half-first, len(p.Frequency))
		for i := range count {
			exponent := -math.Log(10000) * float64(first+i) / (float64(half) - op.FreqShift)
			p.Frequency[i] = float32(math.Exp(exponent))
		}
		p.Count = fastDivisor(count)
		launches = append(launches, launch{
			kernel: "timestep_embedding", grid: [3]int{pieces(n*count, pointThreads), 1, 1}, block: pointThreads, params: p,
		})
		first += count
	}
	return launches
}
