package cpu

import (
	"slices"

	"ddpm/internal/graph/cpu/gemm"
)

// Convolution without im2col. A task copies the few image rows that its output
// sees into a patch, adding the zero padding. In a patch the R*S*C inputs of
// one output pixel are R runs of S*C contiguous elements, and the inputs of the
// pixel to the right begin Stride*C elements later:
//
//	patch, C = 2, S = 3           aabbccddeeff   row of pixels a to f
//	inputs of the 1st output      ^^^^^^
//	inputs of the 2nd output        ^^^^^^
//
// So the patch is a matrix of overlapping rows, which the micro-kernels of
// package gemm read in place: y = A w with A[pixel, (r,s,c)], w[(r,s,c), k].
//
// The gradient with respect to the data is again such a correlation, of dy with
// the flipped kernel. With a stride, the pixels of dx fall into Stride*Stride
// phases, each of which sees its own subset of taps: as many correlations of
// stride 1, each writing every Stride-th pixel.
//
// The gradient with respect to the weights reads the same patch by columns:
// dw[(r,s,c), k] = sum over pixels of A[pixel, (r,s,c)] dy[pixel, k].

// convGeometry is a convolution of an image [N,H,W,C] with weights [R,S,C,K] to
// [N,OH,OW,K]:
//
//	y[n,i,j,k] = bias[k] + sum_{r,s,c} x[n, i*Stride+r-PadTop, j*Stride+s-PadLeft, c] w[r,s,c,k]
//
// where x is zero outside of the image. OH and OW imply the padding below and
// right.
type convGeometry struct {
	N, H, W, C      int
	OH, OW, K       int
	R, S            int
	Stride          int
	PadTop, PadLeft int
}

// pointwise is whether each output pixel sees the one input pixel in its place.
func (g convGeometry) pointwise() bool {
	return g.R == 1 && g.S == 1 && g.Stride == 1 && g.PadTop == 0 && g.PadLeft == 0 && g.OH == g.H && g.OW == g.W
}

func (g convGeometry) pixels() int { return g.N * g.OH * g.OW }

// direct binds y = conv(x, w) plus the epilogue, with weights packed by
// directWeights.
func (e *engine) direct(g convGeometry, y []float32, x source, packed []float32, epi epilogue, ws []float32) func() {
	c := correlation{
		convGeometry: g, image: g.OH * g.OW * g.K, row: g.OW * g.K, pixel: g.K,
		y: y, x: x, packed: packed, bias: epi.bias, addend: epi.residual,
	}
	prepare := c.addPerSample(epi, &ws)
	tasks := e.correlationTasks(c)
	run := e.correlate(c, gemm.Carve(&ws, e.pool.Workers()*c.patchSize()))
	return func() {
		prepare()
		e.pool.Run(tasks, run)
	}
}

func (e *engine) directWorkspace(g convGeometry) int {
	c := correlation{convGeometry: g}
	return gemm.Scratch(g.N*g.K, e.pool.Workers()*c.patchSize())
}

// directWeights binds the packing of w for direct.
func (e *engine) directWeights(g convGeometry, packed, w []float32) func() {
	return e.gemm.Packer(packed, g.K, g.R*g.S*g.C, gemm.Matrix{Data: w, Stride: g.K})
}

func (e *engine) directWeightsSize(g convGeometry) int {
	return e.gemm.PackedSize(g.R*g.S*g.C, g.K)
}

// directGradData binds dx, the gradient with respect to x, plus addend, which
// may be nil, from dy and weights packed by directGradDataWeights.
func (e *engine) directGradData(g convGeometry, dx, packed, dy, addend, ws []float32) func() {
	phases := g.phases()
	patches := gemm.Carve(&ws, e.pool.Workers()*largest(phases, correlation.patchSize))
	return e.runPhases(phases, dx, dy, addend, func(i int, c correlation) (tasks int, run func(task, worker int)) {
		c.packed = packed[e.phaseWeights(g, phases[:i]):]
		return e.correlationTasks(c), e.correlate(c, patches)
	})
}

// runPhases binds all phases of a gradient: bind is called for each correlation,
// which lacks only its weights, and returns its tasks.
func (e *engine) runPhases(phases []phase, dx, dy, addend []float32, bind func(i int, c correlation) (tasks int, run func(task, worker int))) func() {
	runs := make([]func(task, worker int), len(phases))
	firsts := make([]int, len(phases)+1) // the tasks of each phase begin here
	for i, p := range phases {
		p.x, p.y = plain(dy, p.C), dx[p.first:]
		if addend != nil {
			p.addend = addend[p.first:]
		}
		var tasks int
		tasks, runs[i] = bind(i, p.correlation)
		firsts[i+1] = firsts[i] + tasks
	}
	run := func(task, worker int) {
		phase := 0
		for task >= firsts[phase+1] {
			phase++
		}
		runs[phase](task-firsts[phase], worker)
	}
	return func() { e.pool.Run(firsts[len(phases)], run) }
}

// sequence is functions as one.
func sequence(fns []func()) func() {
	return func() {
		for _, fn := range fns {
			fn()
		}
	}
}

func (e *engine) directGradDataWorkspace(g convGeometry) int {
	return gemm.Scratch(e.pool.Workers() * largest(g.phases(), correlation.patchSize))
}

// directGradDataWeights binds the packing of w for directGradData.
func (e *engine) directGradDataWeights(g convGeometry, packed, w []float32) func() {
	phases := g.phases()
	packs := make([]func(), len(phases))
	for i, p := range phases {
		taps := make([]gemm.Matrix, len(p.taps)) // each [K,C]
		for j, tap := range p.taps {
			taps[j] = gemm.Matrix{Data: w[tap*g.C*g.K:], Stride: g.K, Transposed: true}
		}
		packs[i] = e.gemm.Packer(packed[e.phaseWeights(g, phases[:i]):], g.C, g.K, taps...)
	}
	return sequence(packs)
}

func (e *engine) directGradDataWeightsSize(g convGeometry) int {
	return e.phaseWeights(g, g.phases())
}

// phaseWeights is the size of the packed weights of some phases.
func (e *engine) phaseWeights(g convGeometry, phases []phase) int {
	size := 0
	for _, p := range phases {
		size += e.gemm.PackedSize(len(p.taps)*g.K, g.C)
	}
	return size
}

// phase is a correlation that makes up a part of the gradient with respect to
// the data: dx from element first on, through some taps of the convolution's
// kernel, given in the order of the phase's own kernel.
type phase struct {
	correlation
	first int
	taps  []int
}

func (g convGeometry) phases() []phase {
	var phases []phase
	for py := range min(g.Stride, g.H) {
		for px := range min(g.Stride, g.W) {
			rows, top := phaseTaps(py+g.PadTop, g.R, g.Stride)
			columns, left := phaseTaps(px+g.PadLeft, g.S, g.Stride)
			p := phase{
				correlation: correlation{
					convGeometry: convGeometry{
						N: g.N, H: g.OH, W: g.OW, C: g.K,
						OH: ceil(g.H-py, g.Stride), OW: ceil(g.W-px, g.Stride), K: g.C,
						R: len(rows), S: len(columns), Stride: 1, PadTop: top, PadLeft: left,
					},
					image: g.H * g.W * g.C, row: g.Stride * g.W * g.C, pixel: g.Stride * g.C,
				},
				first: (py*g.W + px) * g.C,
			}
			for _, r := range rows {
				for _, s := range columns {
					p.taps = append(p.taps, r*g.S+s)
				}
			}
			phases = append(phases, p)
		}
	}
	return phases
}

// phaseTaps are the taps that one phase sees along one axis, and the padding
// before dy; at is the phase's first position plus the convolution's padding.
// Position at + stride*i receives dy[i + at/stride - j] through tap
// at%stride + stride*j, so the taps fall as dy rises.
func phaseTaps(at, size, stride int) (taps []int, pad int) {
	for tap := at % stride; tap < size; tap += stride {
		taps = append(taps, tap)
	}
	slices.Reverse(taps)
	return taps, len(taps) - 1 - at/stride
}

// largest is the size of the largest patch of some phases.
func largest(phases []phase, patchSize func(correlation) int) int {
	size := 0
	for _, p := range phases {
		size = max(size, patchSize(p.correlation))
	}
	return size
}

// correlation is a convolution whose output may lie anywhere: pixel (n, i, j)
// at y[n*image + i*row + j*pixel:], with weights packed in panels.
type correlation struct {
	convGeometry
	image, row, pixel int
	y                 []float32
	x                 source
	packed            []float32
	bias              []float32 // nil for none
	biasStride        int       // between the biases of two samples; 0 if they share it
	addend            []float32 // laid out as y; nil for none
}

// addPerSample makes one bias for each sample of those of an epilogue, if it has
// any, in scratch memory; it binds the function that computes them.
func (c *correlation) addPerSample(epi epilogue, ws *[]float32) func() {
	if epi.perSample == nil {
		return func() {}
	}
	c.bias, c.biasStride = gemm.Carve(ws, c.N*c.K), c.K
	biases := c.bias
	return func() {
		copy(biases, epi.perSample)
		for i := range biases {
			if epi.bias != nil {
				biases[i] += epi.bias[i%c.K]
			}
		}
	}
}

// taskPixels is the number of output pixels of a task: enough to use a panel of
// weights often once it is in the cache.
const taskPixels = 128

func (c correlation) blocks() pixelBlocks { return cutPixels(c.N, c.OH, c.OW, taskPixels) }

func (c correlation) patch() patch { return newPatch(c.convGeometry, c.blocks(), c.C) }

func (c correlation) patchSize() int { return c.patch().size() }

// groups is the number of parts into which a correlation's panels are cut,
// where pixels alone make too few tasks.
func (e *engine) groups(c correlation) int {
	if c.R == 0 || c.S == 0 {
		return 1
	}
	return min(e.gemm.Panels(c.K), ceil(manyTasks, c.blocks().count()))
}

func (e *engine) correlationTasks(c correlation) int { return c.blocks().count() * e.groups(c) }

// correlate returns the function that runs one task of a correlation. Each
// worker has its part of patches.
func (e *engine) correlate(c correlation, patches []float32) func(task, worker int) {
	blocks, patch, groups := c.blocks(), c.patch(), e.groups(c)
	if c.R == 0 || c.S == 0 {
		return func(task, _ int) { c.clear(blocks.block(task)) }
	}
	taps := make([]int, c.R)
	for r := range taps {
		taps[r] = patch.at(0, r, 0)
	}
	layout := gemm.NewLayout(c.Stride*c.C, 1, c.S*c.C, taps...)
	panels := e.gemm.Panels(c.K)

	return func(task, worker int) {
		b := blocks.block(task % blocks.count())
		p := e.own(patches, worker)
		patch.fill(p, c.x, b, 0, c.C)
		s := gemm.Strip{Layout: layout, Stride: c.pixel}
		first, end := cut(panels, groups, task/blocks.count())
		for j := first; j < end; j++ {
			s.Panel = e.gemm.Panel(j, c.K)
			s.B = c.packed[s.Panel.First*layout.K():]
			// Narrow images fill a tile with two rows.
			fold := 2*c.OW <= e.gemm.TileRows(s.Panel.Width)
			for n := range b.images {
				if c.bias != nil {
					s.Bias = c.bias[(b.image+n)*c.biasStride+s.Panel.First:]
				}
				for i := 0; i < b.rows; {
					s.A = p[patch.at(n, i*c.Stride, 0):]
					at := (b.image+n)*c.image + (b.row+i)*c.row + s.Panel.First
					s.C = c.y[at:]
					if c.addend != nil {
						s.Addend = c.addend[at:]
					}
					s.Rows, s.SplitA, s.SplitC = c.OW, 0, 0
					i++
					if fold && i < b.rows {
						s.Rows = 2 * c.OW
						s.SplitA = c.Stride * (patch.columns - c.OW) * c.C
						s.SplitC = c.row - c.OW*c.pixel
						i++
					}
					e.gemm.Run(&s)
				}
			}
		}
	}
}

// clear writes a block of output that sees no input: the addend or zero.
func (c correlation) clear(b pixelBlock) {
	for n := range b.images {
		for i := range b.rows {
			for j := range c.OW {
				at := (b.image+n)*c.image + (b.row+i)*c.row + j*c.pixel
				if c.addend != nil {
					copy(c.y[at:][:c.K], c.addend[at:])
				} else {
					clear(c.y[at:][:c.K])
				}
			}
		}
	}
}
