package cpu

import (
	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/gemm"
	"ddpm/internal/graph/cpu/isa"
)

// weightsKernel is a kernel that reads weights, in a form of its own unless
// transform is nil. They are transformed when they have changed, into memory that
// is either kept between runs or scratch.
type weightsKernel struct {
	kernel
	weights   int // elements of the transformed weights
	transform func(form, w []float32) func()
}

// memory is that of the kernel, as graph.Backend.Workspace reports it.
func (k weightsKernel) memory(keep bool) (scratch, kept int) {
	switch {
	case k.transform == nil:
		return k.workspace, 0
	case keep:
		return k.workspace, k.weights
	}
	return gemm.Scratch(k.weights) + k.workspace, 0
}

// weightsKernel finds the kernel of an operation that has weights; ok is false
// for the others. It may depend on whether there is memory to keep them.
func (e *engine) weightsKernel(op graph.Op, in []graph.Shape, keep bool) (k weightsKernel, ok bool) {
	heart, fusion := graph.Unfuse(op)
	x, in := unfuseShapes(fusion, in)
	switch op := heart.(type) {
	case graph.Conv2D:
		g, _ := op.Geometry(x.shape, in[0])
		return e.forwardKernel(convGeometry(g), x, op.Algorithm, keep), true
	case graph.Conv2DGradData:
		g, _ := op.GeometryOf(x.shape, in[0])
		return e.gradDataKernel(convGeometry(g), op.Algorithm, keep), true
	case graph.Linear:
		rows, from, to := rowsOf(x.shape), in[0][0], in[0][1]
		return e.linearKernel(rows, from, to, x), true
	case graph.LinearGradData:
		rows, from, to := rowsOf(in[0]), x.shape[0], x.shape[1]
		return e.linearGradDataKernel(rows, from, to), true
	}
	return k, false
}

// winograds is whether Winograd's algorithm computes a pass of a convolution.
func (g convGeometry) winograds(algorithm graph.ConvAlgorithm, pass convPass) bool {
	switch algorithm {
	case graph.DirectConv:
		return false
	case graph.WinogradConv:
		return g.winogradFits()
	}
	return g.winogradPays(pass)
}

// leading is the first operand of an operation as a fusion sees it.
type leading struct {
	fusion graph.Fusion
	shape  graph.Shape // of the whole
	ca, cb int
	count  int // operands it takes
}

// unfuseShapes splits the shapes of a fusion's operands into the first one and
// the others.
func unfuseShapes(f graph.Fusion, in []graph.Shape) (leading, []graph.Shape) {
	x := leading{fusion: f, shape: in[0], count: 1}
	if len(in[0]) > 0 {
		x.ca = in[0][len(in[0])-1]
	}
	switch {
	case f.Joined:
		x.cb = in[1][len(in[1])-1]
		x.shape = in[0].Clone()
		x.shape[len(x.shape)-1] += x.cb
		x.count = 2
	case f.Doubled:
		x.shape = graph.Shape{in[0][0], 2 * in[0][1], 2 * in[0][2], in[0][3]}
	}
	return x, in[x.count:]
}

// source is where the operand lies.
func (x leading) source(m operands) source {
	s := source{a: m.f(0), ca: x.ca, doubled: x.fusion.Doubled}
	if x.fusion.Joined {
		s.b, s.cb = m.f(1), x.cb
	}
	return s
}

// epilogue is what a fusion adds, and bias.
func (x leading) epilogue(m operands, bias []float32) epilogue {
	epi := epilogue{bias: bias}
	i := len(m.in)
	if x.fusion.Residual {
		i--
		epi.residual = m.f(i)
	}
	if x.fusion.PerSample {
		i--
		epi.perSample = m.f(i)
	}
	return epi
}

// rounds is whether the operands of a product are rounded to bfloat16: where that
// precision was asked for, unless the product is a convolution that Winograd's
// algorithm computes faster in float32. It does beside AVX512-BF16, which
// multiplies twice as many numbers at a time as AVX-512, but not beside AMX.
func (e *engine) rounds(winograds bool) bool {
	return e.bf16 != nil && (!winograds || e.bf16.Kind() == isa.BF16AMX)
}

// forwardKernel chooses how a convolution runs.
func (e *engine) forwardKernel(g convGeometry, x leading, algorithm graph.ConvAlgorithm, keep bool) weightsKernel {
	weights, bias := x.count, x.count+1
	winograds := g.winograds(algorithm, forwardPass)
	switch {
	case g.pointwise():
		return e.linearKernel(g.pixels(), g.C, g.K, x)
	case e.rounds(winograds):
		return weightsKernel{
			kernel: kernel{e.convBF16Workspace(g), func(m operands) func() {
				return e.convBF16(g, m.out, x.source(m), m.form, x.epilogue(m, m.f(bias)), m.ws)
			}},
			weights:   e.convBF16WeightsSize(g),
			transform: func(form, w []float32) func() { return e.convBF16Weights(g, form, w) },
		}
	case winograds && keep:
		return weightsKernel{
			kernel: kernel{e.winogradWorkspace(g), func(m operands) func() {
				return e.winograd(g, m.out, x.source(m), m.form, x.epilogue(m, m.f(bias)), m.ws)
			}},
			weights:   e.winogradWeightsSize(g),
			transform: func(form, w []float32) func() { return e.winogradWeights(g, form, w) },
		}
	case winograds:
		return weightsKernel{kernel: kernel{e.winogradOnceWorkspace(g), func(m operands) func() {
			return e.winogradOnce(g, m.out, x.source(m), m.f(weights), x.epilogue(m, m.f(bias)), m.ws)
		}}}
	}
	return weightsKernel{
		kernel: kernel{e.directWorkspace(g), func(m operands) func() {
			return e.direct(g, m.out, x.source(m), m.form, x.epilogue(m, m.f(bias)), m.ws)
		}},
		weights:   e.directWeightsSize(g),
		transform: func(form, w []float32) func() { return e.directWeights(g, form, w) },
	}
}

// gradDataKernel chooses how the gradient of a convolution with respect to its
// input runs. The operands are w, dy, and the addend of a fusion.
func (e *engine) gradDataKernel(g convGeometry, algorithm graph.ConvAlgorithm, keep bool) weightsKernel {
	winograds := g.winograds(algorithm, gradDataPass)
	switch {
	case g.pointwise():
		return e.linearGradDataKernel(g.pixels(), g.C, g.K)
	case e.rounds(winograds):
		return weightsKernel{
			kernel: kernel{e.convBF16GradDataWorkspace(g), func(m operands) func() {
				return e.convBF16GradData(g, m.out, m.form, m.f(1), m.optional(2), m.ws)
			}},
			weights:   e.convBF16GradDataWeightsSize(g),
			transform: func(form, w []float32) func() { return e.convBF16GradDataWeights(g, form, w) },
		}
	case winograds && keep:
		return weightsKernel{
			kernel: kernel{e.winogradGradDataWorkspace(g), func(m operands) func() {
				return e.winogradGradData(g, m.out, m.form, m.f(1), m.optional(2), m.ws)
			}},
			weights:   e.winogradGradDataWeightsSize(g),
			transform: func(form, w []float32) func() { return e.winogradGradDataWeights(g, form, w) },
		}
	case winograds:
		return weightsKernel{kernel: kernel{e.winogradGradDataOnceWorkspace(g), func(m operands) func() {
			return e.winogradGradDataOnce(g, m.out, m.f(0), m.f(1), m.optional(2), m.ws)
		}}}
	}
	return weightsKernel{
		kernel: kernel{e.directGradDataWorkspace(g), func(m operands) func() {
			return e.directGradData(g, m.out, m.form, m.f(1), m.optional(2), m.ws)
		}},
		weights:   e.directGradDataWeightsSize(g),
		transform: func(form, w []float32) func() { return e.directGradDataWeights(g, form, w) },
	}
}

// linearKernel is that of a linear layer or a pointwise convolution.
func (e *engine) linearKernel(rows, from, to int, x leading) weightsKernel {
	bias := x.count + 1
	if e.rounds(false) {
		return weightsKernel{
			kernel: kernel{e.linearBF16Workspace(rows, from, to), func(m operands) func() {
				return e.linearBF16(rows, from, to, m.out, x.source(m), m.form, x.epilogue(m, m.f(bias)), m.ws)
			}},
			weights:   e.linearBF16WeightsSize(from, to),
			transform: func(form, w []float32) func() { return e.linearBF16Weights(from, to, form, w) },
		}
	}
	return weightsKernel{
		kernel: kernel{e.linearWorkspace(rows, from, to), func(m operands) func() {
			return e.linear(rows, from, to, m.out, x.source(m), m.form, x.epilogue(m, m.f(bias)), m.ws)
		}},
		weights:   e.linearWeightsSize(from, to),
		transform: func(form, w []float32) func() { return e.linearWeights(from, to, form, w) },
	}
}

func (e *engine) linearGradDataKernel(rows, from, to int) weightsKernel {
	if e.rounds(false) {
		return weightsKernel{
			kernel: kernel{e.linearBF16GradDataWorkspace(rows, from, to), func(m operands) func() {
				return e.linearBF16GradData(rows, from, to, m.out, m.form, m.f(1), m.optional(2), m.ws)
			}},
			weights:   e.linearBF16GradDataWeightsSize(from, to),
			transform: func(form, w []float32) func() { return e.linearBF16GradDataWeights(from, to, form, w) },
		}
	}
	return weightsKernel{
		kernel: kernel{e.linearGradDataWorkspace(rows, from, to), func(m operands) func() {
			return e.linearGradData(rows, from, to, m.out, m.form, m.f(1), m.optional(2), m.ws)
		}},
		weights:   e.linearGradDataWeightsSize(from, to),
		transform: func(form, w []float32) func() { return e.linearGradDataWeights(from, to, form, w) },
	}
}

// gradWeightKernel chooses how the gradient of a convolution with respect to its
// weights runs. The operands are x and dy.
func (e *engine) gradWeightKernel(g convGeometry, x leading, algorithm graph.ConvAlgorithm) kernel {
	dy := x.count
	winograds := g.winograds(algorithm, gradWeightPass)
	switch {
	case g.pointwise():
		return e.linearGradWeightKernel(g.pixels(), g.K, x)
	case e.rounds(winograds):
		return kernel{e.convBF16GradWeightWorkspace(g), func(m operands) func() {
			return e.convBF16GradWeight(g, m.out, x.source(m), m.f(dy), m.ws)
		}}
	case winograds:
		return kernel{e.winogradGradWeightWorkspace(g), func(m operands) func() {
			return e.winogradGradWeight(g, m.out, x.source(m), m.f(dy), m.ws)
		}}
	}
	return kernel{e.directGradWeightWorkspace(g), func(m operands) func() {
		return e.directGradWeight(g, m.out, x.source(m), m.f(dy), m.ws)
	}}
}

func (e *engine) linearGradWeightKernel(rows, to int, x leading) kernel {
	if e.rounds(false) {
		from := x.ca + x.cb
		return kernel{e.linearBF16GradWeightWorkspace(rows, from, to), func(m operands) func() {
			return e.linearBF16GradWeight(rows, from, to, m.out, x.source(m), m.f(x.count), m.ws)
		}}
	}
	return kernel{e.linearGradWeightWorkspace(rows, to, x.ca, x.cb), func(m operands) func() {
		return e.linearGradWeight(rows, to, m.out, x.source(m), m.f(x.count), m.ws)
	}}
}

// Fuses says which fusions have kernels: convolutions, linear layers and
// normalisations read what is joined, the first two also add a residual;
// convolutions that see more than one pixel read what is doubled, too, and add a
// value per sample.
func (b *Backend) Fuses(op graph.Op, in []graph.Shape) bool {
	heart, f := graph.Unfuse(op)
	x, rest := unfuseShapes(f, in)
	var can graph.Fusion
	switch op := heart.(type) {
	case graph.Conv2D:
		g, _ := op.Geometry(x.shape, rest[0])
		spatial := !convGeometry(g).pointwise()
		can = graph.Fusion{Joined: true, Doubled: spatial, PerSample: spatial, Residual: true}
	case graph.Conv2DGradWeight:
		g, _ := op.GeometryOf(x.shape, rest[0])
		can = graph.Fusion{Joined: true, Doubled: !convGeometry(g).pointwise()}
	case graph.Linear:
		can = graph.Fusion{Joined: true, Residual: true}
	case graph.Conv2DGradData, graph.LinearGradData:
		can = graph.Fusion{Residual: true}
	case graph.LinearGradWeight, graph.GroupNormStats, graph.GroupNorm, graph.GroupNormGradSums, graph.GroupNormGradData:
		can = graph.Fusion{Joined: true}
	}
	return !f.Disordered && !(f.Joined && f.Doubled) &&
		implies(f.Joined, can.Joined) && implies(f.Doubled, can.Doubled) &&
		implies(f.PerSample, can.PerSample) && implies(f.Residual, can.Residual)
}

func implies(a, b bool) bool { return !a || b }
