//go:build gpu && !cpu

package cuda

import (
	"fmt"
	"math"
	"slices"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// matmul finds the kernels of convolutions, linear layers and their gradients, which
// are products of matrices (kernels/product.h).
func (d *device) matmul(c call) (kernel, bool) {
	if k, ok := d.tma(c); ok {
		return k, true
	}
	p, ok := d.passOf(c)
	if !ok {
		return kernel{}, false
	}
	return d.bind(p), true
}

// passOf takes a linear layer for a convolution of images of one pixel.
func (d *device) passOf(c call) (pass, bool) {
	x, rest := seenOf(c)
	switch op := c.heart.(type) {
	case graph.Conv2D:
		g, _ := op.Geometry(x.shape, rest[0])
		return d.convForward(g, x, c.fusion), true
	case graph.Conv2DGradData:
		g, _ := op.GeometryOf(x.shape, rest[0])
		return d.convData(g, c.fusion), true
	case graph.Conv2DGradWeight:
		g, _ := op.GeometryOf(x.shape, rest[0])
		return d.convWeight(g, x), true
	case graph.Linear:
		rows, from := rowsOf(x.shape)
		return d.convForward(pointwise(rows, from, rest[0][1]), x, c.fusion), true
	case graph.LinearGradData:
		rows, to := rowsOf(rest[0])
		return d.convData(pointwise(rows, x.shape[0], to), c.fusion), true
	case graph.LinearGradWeight:
		rows, from := rowsOf(x.shape)
		return d.convWeight(pointwise(rows, from, c.out[1]), x), true
	}
	return pass{}, false
}

// pointwise is the geometry of a linear layer.
func pointwise(rows, from, to int) graph.ConvGeometry {
	return graph.ConvGeometry{N: rows, H: 1, W: 1, C: from, OH: 1, OW: 1, K: to, R: 1, S: 1, Stride: 1}
}

// seen is the first operand of an operation, as it sees it.
type seen struct {
	shape   graph.Shape
	parts   []graph.Shape // as they lie in memory: one, or the two that are joined
	doubled bool
}

// seenOf also returns the other operands.
func seenOf(c call) (seen, []graph.Shape) {
	n := 1
	if c.fusion.Joined {
		n = 2
	}
	x := seen{shape: c.in[0].Clone(), parts: c.in[:n], doubled: c.fusion.Doubled}
	if x.doubled {
		x.shape[1] *= 2
		x.shape[2] *= 2
	}
	for _, more := range x.parts[1:] {
		x.shape[len(x.shape)-1] += more[len(more)-1]
	}
	return x, c.in[n:]
}

// block is a way to compute a tile, of those that product.h declares.
type block struct {
	name    string
	m, n    int // extents of the tile
	depth   int // of a step, in pieces of 16 bytes along k
	stages  int
	threads int
	// weight is the time that a multiplication takes on a busy device, relative to
	// the largest tile: small ones load more for each.
	weight float64
}

var (
	block128x128 = block{"128x128", 128, 128, 4, 4, 128, 1}
	block128x64  = block{"128x64", 128, 64, 4, 4, 128, 1.15}
	block64x64   = block{"64x64", 64, 64, 8, 3, 128, 1.5}
	block128x8   = block{"128x8", 128, 8, 8, 3, 128, 1}
	// blockAny takes operands of any type and alignment.
	blockAny = block{"any", 64, 64, 8, 2, 256, 1.5}
)

// narrow is the most columns of a product that block128x8 computes.
const narrow = 8

// shared is the memory of the stages, in bytes.
func (b block) shared() int { return b.stages * b.depth * 16 * (b.m + b.n) }

// processors is that of the device which tiles and shares are chosen for. It is not
// asked of the device at hand: the order of a sum must not depend on that.
const processors = 132

// leastSteps is how many steps a share of a sum has at least.
const leastSteps = 8

// product is a product of matrices: m x n sums of k terms, in each of its phases.
type product struct {
	kernels string // that compute it, by pass
	m, n, k int
	phases  int
	busy    int // blocks that keep the device busy
	rows    int // of the result, in all phases
}

func (p product) String() string {
	return fmt.Sprintf("%s %dx%dx%d", p.kernels, p.m*p.phases, p.n, p.k)
}

// tiling is how a product is computed.
type tiling struct {
	block
	tiles  int // of all phases
	steps  int // of a share
	shares int
}

// share deals the steps of each tile to so many blocks, or a few less.
func (d *device) share(p product, b block, shares int) tiling {
	steps := max(1, pieces(p.k, b.depth*d.chunk()))
	t := tiling{block: b, tiles: pieces(p.m, b.m) * pieces(p.n, b.n) * p.phases, steps: pieces(steps, shares)}
	t.shares = pieces(steps, t.steps)
	return t
}

// cost is a model of the time that a product takes: the chunks that the busiest
// processor multiplies, where a tile alone on a processor leaves it waiting for
// memory at times; a pass that sums shares takes as long as 16 steps of the largest
// tile.
func (t tiling) cost() float64 {
	each := pieces(t.tiles*t.shares, processors)
	cost := float64(each*t.m*t.n*t.steps*t.depth) * t.weight
	if each == 1 {
		cost *= 1.3
	}
	if t.shares > 1 {
		cost += 16 * 128 * 128 * 4
	}
	return cost
}

// fastest is the tiling by any of some blocks that takes the least time.
func (d *device) fastest(p product, blocks ...block) tiling {
	best, least := tiling{}, math.Inf(1)
	for _, b := range blocks {
		whole := d.share(p, b, 1)
		most := max(1, min(p.busy/whole.tiles, whole.steps/leastSteps))
		for _, t := range []tiling{whole, d.share(p, b, most)} {
			if t.cost() < least {
				best, least = t, t.cost()
			}
		}
	}
	return best
}

// scratch is the memory of the shares' sums, in bytes, of whatever tiling is chosen:
// those that are tuned have as many shares as the one they replace.
func (d *device) scratch(p product) int {
	choices := []tiling{d.fastest(p, d.blocks()...), d.fastest(p, block128x8), d.fastest(p, blockAny)}
	most := 0
	for _, t := range choices {
		if t.shares > 1 && (t.n > narrow || p.n <= narrow) {
			most = max(most, 4*t.shares*p.rows*p.n)
		}
	}
	return most
}

// chunk is the number of elements in 16 bytes of an operand of a product.
func (d *device) chunk() int {
	if d.precision == graph.BF16 {
		return 8
	}
	return 4
}

// chunked is whether all chunks of the last dimension of tensors begin at a multiple
// of 16 bytes.
func (d *device) chunked(tensors ...tensor) bool {
	for _, t := range tensors {
		if _, columns := rowsOf(t.shape); columns%d.chunk() != 0 || t.ptr%16 != 0 {
			return false
		}
	}
	return true
}

// copied is whether they can be copied to shared memory as they are.
func (d *device) copied(tensors ...tensor) bool {
	for _, t := range tensors {
		if t.bf16 != (d.precision == graph.BF16) {
			return false
		}
	}
	return d.chunked(tensors...)
}

// weights are those of an operand, in the precision that they are multiplied in.
func (d *device) weights(w tensor) tensor {
	if d.precision == graph.BF16 {
		return tensor{ptr: w.rounded, shape: w.shape, bf16: true}
	}
	return w
}

// pass is a product with its operands.
type pass struct {
	product
	choose func(in []tensor) tiling
	result func(m operands) kernels.ConvResult
	params func(m operands, s kernels.ConvShares, r kernels.ConvResult) any
}

// bind makes a pass a kernel.
func (d *device) bind(p pass) kernel {
	return kernel{scratch: d.scratch(p.product), launches: func(m operands) []launch {
		t, result := p.choose(m.in), p.result(m)
		shares := kernels.ConvShares{Sums: m.scratch, Count: int32(t.shares), Steps: int32(t.steps)}
		launches := []launch{{
			kernel: p.kernels + "_" + string(d.precision) + "_" + t.name,
			grid:   [3]int{t.tiles / p.phases, t.shares, p.phases}, block: t.threads, shared: t.shared(),
			params: p.params(m, shares, result),
		}}
		if t.shares > 1 {
			launches = append(launches, sumShares(shares, result, p.rows, p.n))
		}
		return launches
	}}
}

// sumShares adds the shares of a result of so many rows and columns.
func sumShares(shares kernels.ConvShares, result kernels.ConvResult, rows, columns int) launch {
	const threads, each = 256, 8 // of a block; columns of a thread
	return launch{
		kernel: "conv_sum_shares", grid: [3]int{pieces(rows*pieces(columns, each), threads), 1, 1}, block: threads,
		params: &kernels.ConvSharesParams{Shares: shares, Result: result},
	}
}

// tilingOf chooses a tiling by the seen operand and the other one. Where the result
// is narrow and the pass has a kernel for that, the other one does not matter.
func (d *device) tilingOf(p product, hasNarrow bool, x []tensor, other tensor) tiling {
	switch {
	case hasNarrow && p.n <= narrow && d.copied(x...):
		return d.fastest(p, block128x8)
	case d.copied(x...) && d.copied(other):
		return d.tunedTiling(p, d.fastest(p, d.blocks()...))
	}
	return d.fastest(p, blockAny)
}

// tunedTiling is, of the tilings that compute the very bits of one, that which was measured
// to be the fastest on this device.
func (d *device) tunedTiling(p product, t tiling) tiling {
	same := d.sameBits(p, t)
	names := make([]string, len(same))
	for i, s := range same {
		names[i] = s.name
	}
	name := d.chosen(p.String(), names)
	return same[slices.Index(names, name)]
}

// sameBits are the tilings that add in the order of one: it, and those by other blocks
// that cut k into the same shares. Within a share all blocks add in the order of k.
func (d *device) sameBits(p product, t tiling) []tiling {
	same := []tiling{t}
	for _, b := range d.blocks() {
		other := d.share(p, b, t.shares)
		cut := other.shares == t.shares && (t.shares == 1 || other.steps*other.depth == t.steps*t.depth)
		if b != t.block && cut {
			same = append(same, other)
		}
	}
	return same
}

// blocks are those there are kernels of in the device's precision.
func (d *device) blocks() []block {
	switch d.precision {
	case graph.BF16:
		return []block{block128x128, block128x64, block64x64}
	case graph.TF32:
		return []block{block128x128, block64x64}
	}
	return []block{block128x64, block64x64}
}

func (d *device) image(x []tensor, height, width int, doubled bool) kernels.ConvImage {
	_, channels := rowsOf(x[0].shape)
	image := kernels.ConvImage{
		First: x[0].ptr, FirstBf16: flag(x[0].bf16), FirstChannels: int32(channels),
		Height: int32(height), Width: int32(width), Doubled: flag(doubled), Chunked: flag(d.chunked(x...)),
	}
	for _, second := range x[1:] {
		_, more := rowsOf(second.shape)
		channels += more
		image.Second, image.SecondBf16 = second.ptr, flag(second.bf16)
	}
	image.Channels, image.ByChannels = int32(channels), fastDivisor(channels)
	return image
}

func (d *device) matrix(t tensor, rows, columns int) kernels.ConvMatrix {
	return kernels.ConvMatrix{
		Data: t.ptr, Bf16: flag(t.bf16), Chunked: flag(d.chunked(t)), Rows: int32(rows), Columns: int32(columns),
	}
}

// window is that of a convolution's forward pass.
func window(g graph.ConvGeometry) kernels.ConvWindow {
	return kernels.ConvWindow{
		Rows: int32(g.R), Columns: int32(g.S), Stride: int32(g.Stride), Step: 1,
		Top: int32(g.PadTop), Left: int32(g.PadLeft),
		Pixels: uint32(g.N * g.OH * g.OW), ByPlane: fastDivisor(g.OH * g.OW), ByWidth: fastDivisor(g.OW),
	}
}

// resultOf is where a product of so many rows and columns goes.
func resultOf(out tensor, rows, columns int) kernels.ConvResult {
	r := kernels.ConvResult{Y: out.ptr, YBf16: flag(out.bf16), Rows: int64(rows), Columns: int32(columns)}
	r.BySample = fastDivisor(1)
	r.InPieces = flag(columns%8 == 0 && out.ptr%16 == 0)
	return r
}

// plus adds the last operands of a fusion to a result whose samples have so many
// rows.
func plus(r kernels.ConvResult, f graph.Fusion, in []tensor, rows int) kernels.ConvResult {
	if f.Residual {
		residual := in[len(in)-1]
		in = in[:len(in)-1]
		r.Residual, r.ResidualBf16 = residual.ptr, flag(residual.bf16)
	}
	if f.PerSample {
		r.PerSample, r.BySample = in[len(in)-1].ptr, fastDivisor(rows)
	}
	if r.Bias%16 != 0 || r.PerSample%16 != 0 || r.Residual%16 != 0 {
		r.InPieces = 0
	}
	return r
}

// convForward has the operands x, w, bias and those of the fusion.
func (d *device) convForward(g graph.ConvGeometry, x seen, f graph.Fusion) pass {
	rows, w := g.N*g.OH*g.OW, len(x.parts)
	p := product{kernels: "conv_forward", m: rows, n: g.K, k: g.R * g.S * g.C, phases: 1, busy: processors, rows: rows}
	return pass{
		product: p,
		choose:  func(in []tensor) tiling { return d.tilingOf(p, true, in[:w], d.weights(in[w])) },
		result: func(m operands) kernels.ConvResult {
			r := resultOf(m.out, rows, g.K)
			r.Bias = m.in[w+1].ptr
			return plus(r, f, m.in, g.OH*g.OW)
		},
		params: func(m operands, s kernels.ConvShares, r kernels.ConvResult) any {
			return &kernels.ConvForwardParams{
				X: d.image(m.in[:w], g.H, g.W, x.doubled), Window: window(g),
				W: d.matrix(d.weights(m.in[w]), p.k, g.K), Shares: s, Result: r,
			}
		},
	}
}

// convData has the operands w, dy and that of the fusion.
func (d *device) convData(g graph.ConvGeometry, f graph.Fusion) pass {
	height, width := pieces(g.H, g.Stride), pieces(g.W, g.Stride) // of a phase
	taps := pieces(g.R, g.Stride) * pieces(g.S, g.Stride)         // of one, at most
	p := product{
		kernels: "conv_data", m: g.N * height * width, n: g.C, k: taps * g.K, phases: g.Stride * g.Stride,
		busy: processors, rows: g.N * g.H * g.W,
	}
	return pass{
		product: p,
		choose:  func(in []tensor) tiling { return d.tilingOf(p, false, in[1:2], d.weights(in[0])) },
		result: func(m operands) kernels.ConvResult {
			return plus(resultOf(m.out, p.rows, g.C), f, m.in, g.H*g.W)
		},
		params: func(m operands, s kernels.ConvShares, r kernels.ConvResult) any {
			w := d.weights(m.in[0])
			return &kernels.ConvDataParams{
				Dy: d.image(m.in[1:2], g.OH, g.OW, false),
				W: kernels.ConvWeights{
					Data: w.ptr, Bf16: flag(w.bf16), Chunked: flag(d.chunked(w)),
					R: int32(g.R), S: int32(g.S), C: int32(g.C), K: int32(g.K),
				},
				Shares: s, Result: r,
				Stride: int32(g.Stride), Top: int32(g.PadTop), Left: int32(g.PadLeft),
				Height: int32(g.H), Width: int32(g.W),
				Pixels: uint32(p.m), ByPlane: fastDivisor(height * width), ByWidth: fastDivisor(width),
			}
		},
	}
}

// convWeight has the operands x and dy.
func (d *device) convWeight(g graph.ConvGeometry, x seen) pass {
	pixels, rows, dy := g.N*g.OH*g.OW, g.R*g.S*g.C, len(x.parts)
	p := product{kernels: "conv_weight", m: rows, n: g.K, k: pixels, phases: 1, busy: 2 * processors, rows: rows}
	return pass{
		product: p,
		choose:  func(in []tensor) tiling { return d.tilingOf(p, true, in[:dy], in[dy]) },
		result:  func(m operands) kernels.ConvResult { return resultOf(m.out, rows, g.K) },
		params: func(m operands, s kernels.ConvShares, r kernels.ConvResult) any {
			return &kernels.ConvWeightParams{
				X: d.image(m.in[:dy], g.H, g.W, x.doubled), Window: window(g),
				Dy: d.matrix(m.in[dy], pixels, g.K), Shares: s, Result: r,
			}
		},
	}
}
