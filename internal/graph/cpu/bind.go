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
		if in[0].Eq(in[1]) && op.Kept == 0 && !op.Limited {
			return simple(func(m operands) func() {
				prev, x0 := halves(m.out)
				return e.pSample(n, size, prev, x0, m.f(0), m.f(1), m.in[2].words, m.f(3), op)
			})
		}
		return simple(func(m operands) func() {
			s := reverseStep{
				wide: wideOf(in[0], in[1]), prev: part(m.out, n*size, 0), x0: part(m.out, n*size, 1),
				xt: m.f(0), out: m.f(1), keys: m.in[2].words, coefs: m.f(3),
			}
			kept := m.in[4:]
			if op.Limited {
				s.limits, kept = kept[0].floats, kept[1:]
			}
			for i, k := range kept {
				s.kept, s.keptNew = append(s.kept, k.floats), append(s.keptNew, part(m.out, n*size, 2+i))
			}
			return e.pSampleWith(s, op)
		})
	case graph.X0Limit:
		w := wideOf(in[0], in[1])
		return kernel{w.N * w.D, func(m operands) func() {
			return e.x0Limit(w, m.out, m.f(0), m.f(1), m.f(2), op.Rank(w.D), m.ws)
		}}
	case graph.Dropout:
		n, size := samples(out)
		return simple(func(m operands) func() {
			return e.dropout(n, size, m.out, m.f(0), m.in[1].words, op.Stream, op.P)
		})
	case graph.TimestepEmbedding:
		return simple(func(m operands) func() {
			return timestepEmbedding(p, out[0], op.Dim, m.out, m.f(0), op.CosFirst, op.FreqShift)
		})

	case graph.Embedding:
		return simple(func(m operands) func() { return e.embedding(out[0], out[1], m.out, m.f(0), m.in[1].words) })
	case graph.EmbeddingGrad:
		return simple(func(m operands) func() {
			return e.embeddingGrad(in[1][0], in[1][1], op.Rows, m.out, m.in[0].words, m.f(1))
		})

	case graph.Twice:
		return simple(func(m operands) func() { return twice(p, len(m.out)/2, m.out, m.f(0)) })
	case graph.Guidance:
		n, size := samples(out)
		k := out[len(out)-1]
		return simple(func(m operands) func() { return e.guidance(n, size/k, k, m.out, m.f(0), m.f(1), op) })

	case graph.SquaredError:
		n, size := samples(in[1])
		if w := wideOf(in[1], in[0]); w.K != w.C {
			return simple(func(m operands) func() { return e.squaredErrorWide(w, m.out, m.f(0), m.f(1)) })
		}
		return simple(func(m operands) func() { return e.squaredError(n, size, m.out, m.f(0), m.f(1)) })
	case graph.SquaredErrorGrad:
		n, size := samples(in[1])
		if w := wideOf(in[1], in[0]); w.K != w.C {
			return simple(func(m operands) func() { return e.squaredErrorWideGrad(w, m.out, m.f(0), m.f(1), m.f(2)) })
		}
		return simple(func(m operands) func() { return e.squaredErrorGrad(n, size, m.out, m.f(0), m.f(1), m.f(2)) })
	case graph.VLB:
		w := wideOf(in[1], in[0])
		return simple(func(m operands) func() {
			return e.vlb(boundTerms{w, m.f(0), m.f(1), m.f(2), m.f(3)}, m.out)
		})
	case graph.VLBGrad:
		w := wideOf(in[1], in[0])
		return simple(func(m operands) func() {
			return e.vlbGrad(boundTerms{w, m.f(0), m.f(1), m.f(2), m.f(3)}, m.out, m.f(4), op.StopMean)
		})
	case graph.Weigh:
		return simple(func(m operands) func() { return weigh(p, len(m.out), m.out, m.f(0), m.f(1)) })
	case graph.PseudoHuber:
		return simple(func(m operands) func() { return pseudoHuber(p, len(m.out), op.C, m.out, m.f(0)) })
	case graph.PseudoHuberGrad:
		return simple(func(m operands) func() { return pseudoHuberGrad(p, len(m.out), op.C, m.out, m.f(0), m.f(1)) })
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

// part is the i-th of the values of so many elements packed in [...].
func part(packed []float32, size, i int) []float32 { return packed[i*size : (i+1)*size] }

// image splits [N,H,W,C] into images, pixels and channels.
func image(s graph.Shape) (n, pixels, c int) { return s[0], s[1] * s[2], s[3] }

// samples splits [N,...] into samples and the values of one.
func samples(s graph.Shape) (n, size int) { return s[0], s.TotalSize() / s[0] }

// rowsOf is the number of rows of [...,C].
func rowsOf(s graph.Shape) int { return s.TotalSize() / s[len(s)-1] }
