package cpu

import "ddpm/internal/graph"

// kernel is how one operation on operands of known extents runs here.
type kernel struct {
	workspace int // scratch memory, in elements
	bind      func(m operands) func()
}

// kernel finds the kernel of an operation without weights, or without any that
// it would transform; its bind is nil if there is none.
func (e *engine) kernel(op graph.Op, out graph.Shape, in []graph.Shape) kernel {
	p := e.pool
	simple := func(bind func(m operands) func()) kernel { return kernel{0, bind} }
	heart, fusion := graph.Unfuse(op)
	x, rest := unfuseShapes(fusion, in)
	switch op := heart.(type) {
	case graph.Conv2DGradWeight:
		g, _ := op.GeometryOf(x.shape, rest[0])
		return e.gradWeightKernel(convGeometry(g), x, op.Algorithm)
	case graph.LinearGradWeight:
		return e.linearGradWeightKernel(rowsOf(x.shape), out[1], x)
	case graph.SumRows:
		rows, c := rowsOf(in[0]), out[0]
		return kernel{sumRowsWorkspace(rows, c), func(m operands) func() {
			return e.sumRows(rows, c, m.out, m.f(0), m.ws)
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
		return simple(func(m operands) func() {
			g, _ := normOf(m, x, op.Groups, false)
			return e.groupNormStats(g, op.Eps, m.out)
		})
	case graph.GroupNorm:
		return simple(func(m operands) func() {
			g, r := normOf(m, x, op.Groups, op.SiLU)
			return e.groupNorm(g, m.out, r[0].floats, r[1].floats, r[2].floats)
		})
	case graph.GroupNormGradSums:
		return simple(func(m operands) func() {
			g, r := normOf(m, x, op.Groups, op.SiLU)
			return e.groupNormGradSums(g, m.out, r[0].floats, r[1].floats, r[2].floats, r[3].floats)
		})
	case graph.GroupNormGradData:
		return simple(func(m operands) func() {
			g, r := normOf(m, x, op.Groups, op.SiLU)
			return e.groupNormGradData(g, m.out, r[0].floats, r[1].floats, r[2].floats, r[3].floats, r[4].floats)
		})
	case graph.GroupNormGradAffine:
		return simple(func(m operands) func() {
			return e.groupNormGradAffine(in[0][0], in[0][2], m.out, m.f(0))
		})

	case graph.SiLU:
		return simple(func(m operands) func() { return e.silu(len(m.out), m.out, m.f(0)) })
	case graph.SiLUGrad:
		return simple(func(m operands) func() { return e.siluGrad(len(m.out), m.out, m.f(0), m.f(1)) })

	case graph.Add:
		return simple(func(m operands) func() { return e.add(len(m.out), m.out, m.f(0), m.f(1)) })
	case graph.AddPerSample:
		n, pixels, c := image(out)
		return simple(func(m operands) func() { return e.addPerSample(n, pixels, c, m.out, m.f(0), m.f(1)) })
	case graph.SumPixels:
		n, pixels, c := image(in[0])
		return simple(func(m operands) func() { return e.sumPixels(n, pixels, c, m.out, m.f(0)) })
	case graph.Copy:
		return simple(func(m operands) func() { return copyInto(p, len(m.out), m.out, m.f(0)) })

	case graph.Upsample:
		n, h, w, c := in[0][0], in[0][1], in[0][2], in[0][3]
		return simple(func(m operands) func() { return upsampleNearest2x(p, n, h, w, c, m.out, m.f(0)) })
	case graph.UpsampleGrad:
		n, h, w, c := out[0], out[1], out[2], out[3]
		return simple(func(m operands) func() { return e.upsampleNearest2xGrad(n, h, w, c, m.out, m.f(0)) })
	case graph.Concat:
		rows, a, b := rowsOf(out), in[0][len(in[0])-1], in[1][len(in[1])-1]
		return simple(func(m operands) func() { return concat(p, rows, a, b, m.out, m.f(0), m.f(1)) })
	case graph.SliceChannels:
		rows, c := rowsOf(out), in[0][len(in[0])-1]
		return simple(func(m operands) func() {
			return sliceChannels(p, rows, c, op.From, op.Width, m.out, m.f(0))
		})

	case graph.QSample:
		n, size := samples(in[0])
		return kernel{2 * n * size, func(m operands) func() {
			xt, target := halves(m.out)
			x0, eps := halves(m.ws[:2*n*size])
			return e.qSample(forward{
				N: n, W: in[0][2], C: in[0][3], D: size, stream: op.Stream, xt: xt, target: target,
				images: m.in[0].bytes, flip: m.f(1), keys: m.in[2].words,
				onX0: [2][]float32{m.f(3), m.f(5)}, onEps: [2][]float32{m.f(4), m.f(6)}, x0: x0, eps: eps,
			})
		}}
	case graph.PSample:
		n, size := samples(in[0])
		return simple(func(m operands) func() {
			prev, x0 := halves(m.out)
			return e.pSample(n, size, prev, x0, m.f(0), m.f(1), m.in[2].words, m.f(3), op)
		})
	case graph.Dropout:
		n, size := samples(out)
		return simple(func(m operands) func() {
			return e.dropout(n, size, m.out, m.f(0), m.in[1].words, op.Stream, op.P)
		})
	case graph.TimestepEmbedding:
		return simple(func(m operands) func() {
			return timestepEmbedding(p, out[0], op.Dim, m.out, m.f(0), op.CosFirst, op.FreqShift)
		})

	case graph.SquaredError:
		n, size := samples(in[0])
		return simple(func(m operands) func() { return e.squaredError(n, size, m.out, m.f(0), m.f(1)) })
	case graph.SquaredErrorGrad:
		n, size := samples(out)
		return simple(func(m operands) func() { return e.squaredErrorGrad(n, size, m.out, m.f(0), m.f(1), m.f(2)) })
	case graph.Mean:
		return simple(func(m operands) func() { return mean(p, in[0][0], m.out, m.f(0)) })
	case graph.MeanGrad:
		return simple(func(m operands) func() { return meanGrad(p, op.N, m.out, m.f(0)) })
	}
	return kernel{}
}

// normOf is the normalisation of x and the operands that follow.
func normOf(m operands, x leading, groups int, silu bool) (norm, []memory) {
	n, pixels, _ := image(x.shape)
	return norm{N: n, P: pixels, groups: groups, x: x.source(m), silu: silu}, m.in[x.count:]
}

// halves are the two values packed in [2,...].
func halves(packed []float32) (first, second []float32) {
	half := len(packed) / 2
	return packed[:half], packed[half:]
}

// image splits [N,H,W,C] into images, pixels and channels.
func image(s graph.Shape) (n, pixels, c int) { return s[0], s[1] * s[2], s[3] }

// samples splits [N,...] into samples and the values of one.
func samples(s graph.Shape) (n, size int) { return s[0], s.TotalSize() / s[0] }

// rowsOf is the number of rows of [...,C].
func rowsOf(s graph.Shape) int { return s.TotalSize() / s[len(s)-1] }
