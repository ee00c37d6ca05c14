package cpu

import (
	"ddpm/internal/graph/cpu/bf16"
	"ddpm/internal/graph/cpu/gemm"
)

// Convolution and linear layers with operands of bfloat16. Values in memory stay
// float32: a task rounds what it reads as it copies it into a patch, and weights
// are rounded as they are packed. Sums, and all that is added to them, are
// float32. How the work is cut is as in conv.go.

// bf16TaskPixels is the number of output pixels of a task: more than of a
// float32 one, which takes twice as long and twice the memory.
const bf16TaskPixels = 256

// convBF16 binds y = conv(x, w) plus the epilogue, with weights packed by
// convBF16Weights. A pointwise one does not double what it reads.
func (e *engine) convBF16(g convGeometry, y []float32, x source, packed []float32, epi epilogue, ws []float32) func() {
	g = g.flat(epi.perSample != nil)
	c := correlation{
		convGeometry: g, image: g.OH * g.OW * g.K, row: g.OW * g.K, pixel: g.K,
		y: y, x: x, packed: packed, bias: epi.bias, addend: epi.residual,
	}
	prepare := c.addPerSample(epi, &ws)
	tasks := e.bf16Tasks(c)
	run := e.correlateBF16(c, gemm.Carve(&ws, e.pool.Workers()*c.bf16PatchSize()))
	return func() {
		prepare()
		e.pool.Run(tasks, run)
	}
}

// convBF16Workspace is that for any source and epilogue.
func (e *engine) convBF16Workspace(g convGeometry) int {
	patch := 0
	for _, perSample := range []bool{false, true} {
		c := correlation{convGeometry: g.flat(perSample)}
		patch = max(patch, c.bf16PatchSize())
	}
	return gemm.Scratch(g.N*g.K, e.pool.Workers()*patch)
}

// flat is a pointwise convolution as one of an image of one column, and of one
// image if samples do not matter.
func (g convGeometry) flat(perSample bool) convGeometry {
	if !g.pointwise() {
		return g
	}
	n := 1
	if perSample {
		n = g.N
	}
	return pointwise(n, g.pixels()/n, g.C, g.K)
}

// pointwise is a convolution of n images of so many rows of one pixel.
func pointwise(n, rows, c, k int) convGeometry {
	return convGeometry{N: n, H: rows, W: 1, C: c, OH: rows, OW: 1, K: k, R: 1, S: 1, Stride: 1}
}

// convBF16Weights binds the packing of w [R,S,C,K] for convBF16.
func (e *engine) convBF16Weights(g convGeometry, packed, w []float32) func() {
	taps := make([]bf16.Matrix, g.R*g.S) // each [C,K]
	for i := range taps {
		taps[i] = bf16.Matrix{Data: w[i*g.C*g.K:], Stride: g.K}
	}
	return e.packBF16(packed, g.C, g.K, taps)
}

func (e *engine) convBF16WeightsSize(g convGeometry) int {
	return e.packedBF16(g.R*g.S, g.C, g.K)
}

// convBF16GradData binds dx, the gradient with respect to x, plus addend, which
// may be nil, from dy and weights packed by convBF16GradDataWeights.
func (e *engine) convBF16GradData(g convGeometry, dx, packed, dy, addend, ws []float32) func() {
	phases := g.flat(false).phases()
	patches := gemm.Carve(&ws, e.pool.Workers()*largest(phases, correlation.bf16PatchSize))
	return e.runPhases(phases, dx, dy, addend, func(i int, c correlation) (tasks int, run func(task, worker int)) {
		c.packed = packed[e.bf16PhaseWeights(g, phases[:i]):]
		return e.bf16Tasks(c), e.correlateBF16(c, patches)
	})
}

func (e *engine) convBF16GradDataWorkspace(g convGeometry) int {
	return gemm.Scratch(e.pool.Workers() * largest(g.flat(false).phases(), correlation.bf16PatchSize))
}

// convBF16GradDataWeights binds the packing of w for convBF16GradData.
func (e *engine) convBF16GradDataWeights(g convGeometry, packed, w []float32) func() {
	phases := g.flat(false).phases()
	packs := make([]func(), len(phases))
	for i, p := range phases {
		taps := make([]bf16.Matrix, len(p.taps)) // each [K,C]
		for j, tap := range p.taps {
			taps[j] = bf16.Matrix{Data: w[tap*g.C*g.K:], Stride: g.K, Transposed: true}
		}
		packs[i] = e.packBF16(packed[e.bf16PhaseWeights(g, phases[:i]):], g.K, g.C, taps)
	}
	return sequence(packs)
}

func (e *engine) convBF16GradDataWeightsSize(g convGeometry) int {
	return e.bf16PhaseWeights(g, g.flat(false).phases())
}

// bf16PhaseWeights is the size of the packed weights of some phases.
func (e *engine) bf16PhaseWeights(g convGeometry, phases []phase) int {
	size := 0
	for _, p := range phases {
		size += e.packedBF16(len(p.taps), g.K, g.C)
	}
	return size
}

// packBF16 binds the packing of a stack of matrices of k rows each, which are
// padded one by one, and n columns.
func (e *engine) packBF16(dst []float32, k, n int, stack []bf16.Matrix) func() {
	packed, padded := bf16.View(dst), e.bf16.Padded(k)
	pack := func(task, _ int) {
		p, i := e.bf16.Panel(task/len(stack), n), task%len(stack)
		e.bf16.PackPanel(packed[(p.First*len(stack)+i*p.Width)*padded:], stack[i], p, 0, k, padded)
	}
	return func() { e.pool.Run(e.bf16.Panels(n)*len(stack), pack) }
}

// packedBF16 is the size, in elements of memory, of a stack of so many matrices.
// It is a multiple of a cache line's.
func (e *engine) packedBF16(stack, k, n int) int {
	const line = 16
	return ceil(bf16.Floats(e.bf16.PackedSize(stack*e.bf16.Padded(k), n)), line) * line
}

// bf16Patch is the patch of a correlation: gathered where a row is shorter than
// half of the tallest tile, that of AMX.
func (c correlation) bf16Patch() bf16Patch {
	return newBF16Patch(c.convGeometry, c.bf16Blocks(), c.OW < 16)
}

func (c correlation) bf16Blocks() pixelBlocks { return cutPixels(c.N, c.OH, c.OW, bf16TaskPixels) }

func (c correlation) bf16PatchSize() int {
	if c.R == 0 || c.S == 0 {
		return 0
	}
	return bf16.Floats(c.bf16Patch().size())
}

// bf16Groups is the number of parts into which a correlation's panels are cut,
// where pixels alone make too few tasks. Each group fills a patch, so there are
// fewer than for float32.
func (e *engine) bf16Groups(c correlation) int {
	if c.R == 0 || c.S == 0 {
		return 1
	}
	return min(e.bf16.Panels(c.K), ceil(manyTasks/2, c.bf16Blocks().count()))
}

func (e *engine) bf16Tasks(c correlation) int {
	return c.bf16Blocks().count() * e.bf16Groups(c)
}

// correlateBF16 returns the function that runs one task of a correlation. Each
// worker has its part of patches.
func (e *engine) correlateBF16(c correlation, patches []float32) func(task, worker int) {
	blocks, groups := c.bf16Blocks(), e.bf16Groups(c)
	if c.R == 0 || c.S == 0 {
		return func(task, _ int) { c.clear(blocks.block(task)) }
	}
	patch := c.bf16Patch()
	var taps []int
	for r := range c.R {
		for s := range c.S {
			taps = append(taps, patch.tap(r, s))
		}
	}
	right, below := patch.step()
	layout := e.bf16.Layout(right, c.C, taps...)
	packed := bf16.View(c.packed)
	panels := e.bf16.Panels(c.K)
	// With no gaps, all rows of an image are one run.
	whole := patch.gathered && c.row == c.OW*c.pixel

	return func(task, worker int) {
		b := blocks.block(task % blocks.count())
		p := bf16.View(e.own(patches, worker))
		patch.fill(e.bf16, p, c.x, b)
		s := bf16.Strip{Layout: layout, Stride: c.pixel}
		first, end := cut(panels, groups, task/blocks.count())
		for j := first; j < end; j++ {
			s.Panel = e.bf16.Panel(j, c.K)
			s.B = packed[s.Panel.First*layout.K():]
			at := b.image*c.image + b.row*c.row + s.Panel.First
			if whole && c.biasStride == 0 {
				if c.bias != nil {
					s.Bias = c.bias[s.Panel.First:]
				}
				e.runsBF16(&s, &c, p, at, bf16Runs{b.images, b.rows * c.OW, patch.image(), c.image})
				continue
			}
			for n := range b.images {
				if c.bias != nil {
					s.Bias = c.bias[(b.image+n)*c.biasStride+s.Panel.First:]
				}
				runs := bf16Runs{b.rows, c.OW, below, c.row}
				if whole {
					runs = bf16Runs{1, b.rows * c.OW, 0, 0}
				}
				e.runsBF16(&s, &c, p[n*patch.image():], at+n*c.image, runs)
			}
		}
	}
}

// bf16Runs are runs of output pixels, each without gaps.
type bf16Runs struct {
	count, pixels int
	a, c          int // from one run to the next in the patch and in the output
}

// runsBF16 computes runs of a correlation's pixels in the panel of s. In the
// output, the first is at element at.
func (e *engine) runsBF16(s *bf16.Strip, c *correlation, a []uint16, at int, r bf16Runs) {
	// Short runs fill a tile with two.
	fold := 2*r.pixels <= e.bf16.TileRows(s.Panel.Width)
	for i := 0; i < r.count; {
		s.A, s.C, s.Add = a[i*r.a:], c.y[at+i*r.c:], nil
		if c.addend != nil {
			s.Add = c.addend[at+i*r.c:]
		}
		s.Rows, s.SplitA, s.SplitC = r.pixels, 0, 0
		i++
		if fold && i < r.count {
			s.Rows = 2 * r.pixels
			s.SplitA = r.a - r.pixels*s.Layout.Row
			s.SplitC = r.c - r.pixels*s.Stride
			i++
		}
		e.bf16.Run(s)
	}
}
