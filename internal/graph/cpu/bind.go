package cpu

import "ddpm/internal/graph"

// kernel is how one operation on operands of known extents runs here.
type kernel struct {
	workspace int // scratch memory, in elements
	bind      func(m operands) func()
}

// kernel finds the kernel of an operation; its bind is nil if there is none.
func (e *engine) kernel(op graph.Op, out graph.Shape, in []graph.Shape) kernel {
	p := e.pool
	simple := func(bind func(m operands) func()) kernel { return kernel{0, bind} }
	switch op := op.(type) {
	case graph.Conv2D:
		g, _ := op.Geometry(in[0], in[1])
		c := convGeometry(g)
		return kernel{e.conv2DWorkspace(c), func(m operands) func() {
			return e.conv2D(c, m.out, m.f(0), m.f(1), m.f(2), m.ws)
		}}
	case graph.Conv2DGradData:
		g, _ := op.GeometryOf(in[0], in[1])
		c := convGeometry(g)
		return kernel{e.conv2DGradDataWorkspace(c), func(m operands) func() {
			return e.conv2DGradData(c, m.out, m.f(0), m.f(1), m.ws)
		}}
	case graph.Conv2DGradWeight:
		g, _ := op.GeometryOf(in[0], in[1])
		c := convGeometry(g)
		return kernel{e.conv2DGradWeightWorkspace(c), func(m operands) func() {
			return e.conv2DGradWeight(c, m.out, m.f(0), m.f(1), m.ws)
		}}

	case graph.Linear:
		rows, from, to := rowsOf(in[0]), in[1][0], in[1][1]
		return kernel{e.linearWorkspace(rows, from, to), func(m operands) func() {
			return e.linear(rows, from, to, m.out, m.f(0), m.f(1), m.f(2), m.ws)
		}}
	case graph.LinearGradData:
		rows, from, to := rowsOf(in[1]), in[0][0], in[0][1]
		return kernel{e.linearGradDataWorkspace(rows, from, to), func(m operands) func() {
			return e.linearGradData(rows, from, to, m.out, m.f(0), m.f(1), m.ws)
		}}
	case graph.LinearGradWeight:
		rows, from, to := rowsOf(in[0]), out[0], out[1]
		return kernel{e.linearGradWeightWorkspace(rows, from, to), func(m operands) func() {
			return e.linearGradWeight(rows, from, to, m.out, m.f(0), m.f(1), m.ws)
		}}
	case graph.SumRows:
		rows, c := rowsOf(in[0]), out[0]
		return kernel{sumRowsWorkspace(rows, c), func(m operands) func() {
			return sumRows(p, rows, c, m.out, m.f(0), m.ws)
		}}

	case graph.Attention:
		length, c := out[1]*out[2], out[3]
		return kernel{e.attentionWorkspace(out[0], length, c, op.Heads), func(m operands) func() {
			return e.attention(out[0], length, c, op.Heads, m.out, m.f(0), m.f(1), m.f(2), m.ws)
		}}
	case graph.AttentionGrad:
		n, length, c := out[1], out[2]*out[3], out[4]
		return kernel{e.attentionGradWorkspace(n, length, c, op.Heads), func(m operands) func() {
			size := len(m.out) / 3
			dq, dk, dv := m.out[:size], m.out[size:2*size], m.out[2*size:]
			return e.attentionGrad(n, length, c, op.Heads, dq, dk, dv, m.f(0), m.f(1), m.f(2), m.f(3), m.ws)
		}}

	case graph.GroupNormStats:
		n, pixels, c := image(in[0])
		return simple(func(m operands) func() {
			return groupNormStats(p, n, pixels, c, op.Groups, op.Eps, m.out, m.f(0))
		})
	case graph.GroupNorm:
		n, pixels, c := image(in[0])
		return simple(func(m operands) func() {
			return groupNorm(p, n, pixels, c, op.Groups, op.SiLU, m.out, m.f(0), m.f(1), m.f(2), m.f(3))
		})
	case graph.GroupNormGradData:
		n, pixels, c := image(in[0])
		return simple(func(m operands) func() {
			return groupNormGradData(p, n, pixels, c, op.Groups, op.SiLU, m.out, m.f(0), m.f(1), m.f(2), m.f(3), m.f(4))
		})
	case graph.GroupNormGradAffine:
		n, pixels, c := image(in[0])
		return kernel{groupNormGradAffineWorkspace(n, c), func(m operands) func() {
			return groupNormGradAffine(p, n, pixels, c, op.Groups, op.SiLU, m.out, m.f(0), m.f(1), m.f(2), m.f(3), m.f(4), m.ws)
		}}

	case graph.SiLU:
		return simple(func(m operands) func() { return silu(p, len(m.out), m.out, m.f(0)) })
	case graph.SiLUGrad:
		return simple(func(m operands) func() { return siluGrad(p, len(m.out), m.out, m.f(0), m.f(1)) })

	case graph.Add:
		return simple(func(m operands) func() { return add(p, len(m.out), m.out, m.f(0), m.f(1)) })
	case graph.AddPerSample:
		n, pixels, c := image(out)
		return simple(func(m operands) func() { return addPerSample(p, n, pixels, c, m.out, m.f(0), m.f(1)) })
	case graph.SumPixels:
		n, pixels, c := image(in[0])
		return simple(func(m operands) func() { return sumPixels(p, n, pixels, c, m.out, m.f(0)) })
	case graph.Copy:
		return simple(func(m operands) func() { return copyInto(p, len(m.out), m.out, m.f(0)) })

	case graph.Upsample:
		n, h, w, c := in[0][0], in[0][1], in[0][2], in[0][3]
		return simple(func(m operands) func() { return upsampleNearest2x(p, n, h, w, c, m.out, m.f(0)) })
	case graph.UpsampleGrad:
		n, h, w, c := out[0], out[1], out[2], out[3]
		return simple(func(m operands) func() { return upsampleNearest2xGrad(p, n, h, w, c, m.out, m.f(0)) })
	case graph.Concat:
		rows, a, b := rowsOf(out), in[0][len(in[0])-1], in[1][len(in[1])-1]
		return simple(func(m operands) func() { return concat(p, rows, a, b, m.out, m.f(0), m.f(1)) })
	case graph.SliceChannels:
		rows, c := rowsOf(out), in[0][len(in[0])-1]
		return simple(func(m operands) func() {
			return sliceChannels(p, rows, c, op.From, op.Width, m.out, m.f(0))
		})

	case graph.Normalize:
		n, h, w, c := out[0], out[1], out[2], out[3]
		return simple(func(m operands) func() { return normalize(p, n, h, w, c, m.out, m.in[0].bytes, m.f(1)) })
	case graph.Noise:
		n, size := samples(out)
		return simple(func(m operands) func() { return noise(p, n, size, m.out, m.in[0].words, op.Stream) })
	case graph.Mix:
		n, size := samples(out)
		return simple(func(m operands) func() { return mix(p, n, size, m.out, m.f(0), m.f(1), m.f(2), m.f(3)) })
	case graph.Dropout:
		n, size := samples(out)
		return simple(func(m operands) func() {
			return dropout(p, n, size, m.out, m.f(0), m.in[1].words, op.Stream, op.P)
		})
	case graph.TimestepEmbedding:
		return simple(func(m operands) func() {
			return timestepEmbedding(p, out[0], op.Dim, m.out, m.f(0), op.CosFirst, op.FreqShift)
		})

	case graph.SquaredError:
		n, size := samples(in[0])
		return simple(func(m operands) func() { return squaredError(p, n, size, m.out, m.f(0), m.f(1)) })
	case graph.SquaredErrorGrad:
		n, size := samples(out)
		return simple(func(m operands) func() { return squaredErrorGrad(p, n, size, m.out, m.f(0), m.f(1), m.f(2)) })
	case graph.Mean:
		return simple(func(m operands) func() { return mean(p, in[0][0], m.out, m.f(0)) })
	case graph.MeanGrad:
		return simple(func(m operands) func() { return meanGrad(p, op.N, m.out, m.f(0)) })
	}
	return kernel{}
}

// image splits [N,H,W,C] into images, pixels and channels.
func image(s graph.Shape) (n, pixels, c int) { return s[0], s[1] * s[2], s[3] }

// samples splits [N,...] into samples and the values of one.
func samples(s graph.Shape) (n, size int) { return s[0], s.TotalSize() / s[0] }

// rowsOf is the number of rows of [...,C].
func rowsOf(s graph.Shape) int { return s.TotalSize() / s[len(s)-1] }
