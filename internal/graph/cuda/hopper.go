//go:build gpu && !cpu

package cuda

import (
	"cmp"
	"fmt"
	"slices"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// tma finds the kernels of convolutions, linear layers and their gradients that
// compute capability 9.0 has. ok is false where those of the set sm_80 are the better
// ones, or the only ones that fit.
func (d *device) tma(c call) (k kernel, ok bool) {
	p, ok := d.tmaProductOf(c)
	if !ok {
		return d.tmaWeight(c)
	}
	if len(p.tilesFor(d, p.conv.kernels)) == 0 {
		return kernel{}, false
	}
	return p.bind(d, c), true
}

// bind makes a product a kernel. Operands that lie otherwise than programs place them
// are left to the set sm_80.
func (p tmaProduct) bind(d *device, c call) kernel {
	pass, _ := d.passOf(c)
	other := d.bind(pass)
	return kernel{scratch: max(other.scratch, p.scratch()), kept: p.tapsBytes(), launches: func(m operands) []launch {
		tiles := p.tilesFor(d, p.kernels(m.aside))
		if len(tiles) == 0 || m.aside == nil && !p.takes(m) {
			return other.launches(m)
		}
		return p.launches(d, m, tiles, pass.result(m))
	}}
}

// tmaMoments is the number of slots of an image in which the kernel of a call leaves
// moments of its result, 0 if it does not. All have as many pixels.
func (d *device) tmaMoments(c call) (slots int) {
	if p, ok := d.tmaProductOf(c); ok && p.conv.turned {
		return p.slots(d, p.conv.kernels)
	}
	return 0
}

// tmaGradSums is the number of slots of an image in which the kernel of a call leaves
// sums for the gradient of a group normalisation whose dy is the result and whose x is
// bfloat16, 0 if it does not.
func (d *device) tmaGradSums(c call) (slots int) {
	p, ok := d.tmaProductOf(c)
	if !ok || p.conv.turned || p.conv.phases() > 1 || len(p.tilesFor(d, p.conv.kernels)) == 0 {
		return 0
	}
	return p.slots(d, p.conv.kernels+tmaNorm)
}

// tmaNorm ends the names of kernels that leave gradient sums.
const tmaNorm = "_norm"

// tmaProduct is a call that tma_conv.cu computes.
type tmaProduct struct {
	conv   tmaConv
	fusion graph.Fusion
	tiles  []tmaTile // that all give the same bits, the one that ought to be fastest first
	shares int
	time   float64 // of the first tile, by the model of cost
}

// tmaProductOf is a product that runs by tma_conv.cu, as far as extents tell.
func (d *device) tmaProductOf(c call) (p tmaProduct, ok bool) {
	for _, conv := range d.tmaConvsOf(c) {
		q := tmaProduct{conv: conv, fusion: c.fusion}
		q.choose()
		if len(q.tiles) > 0 && (!ok || q.time < p.time) {
			p, ok = q, true
		}
	}
	return p, ok
}

// tmaConvsOf are the ways to see a call as a convolution of bfloat16 in whole steps, of
// which none need be worth it.
func (d *device) tmaConvsOf(c call) []tmaConv {
	if d.precision != graph.BF16 || !d.stored(c.out) {
		return nil
	}
	x, rest := seenOf(c)
	var parts []int
	for _, part := range x.parts {
		parts = append(parts, part[len(part)-1])
	}
	var g graph.ConvGeometry
	var conv tmaConv
	switch op := c.heart.(type) {
	case graph.Conv2D:
		g, _ = op.Geometry(x.shape, rest[0])
		conv = forwardConv(g, parts, x.doubled)
	case graph.Linear:
		g = linearGeometry(x.shape, rest[0])
		conv = forwardConv(g, parts, false)
	case graph.Conv2DGradData:
		g, _ = op.GeometryOf(c.in[0], c.in[1])
		conv = dataConv(g)
	case graph.LinearGradData:
		g = linearGeometry(c.out, c.in[0])
		conv = dataConv(g)
	default:
		return nil
	}
	sameExtents := g.Stride == 1 && g.OH == g.H && g.OW == g.W
	if x.doubled && !(sameExtents && g.R == 3 && g.S == 3 && g.PadTop == 1 && g.PadLeft == 1) || !conv.divides() {
		return nil
	}
	convs := []tmaConv{conv}
	if sameExtents && g.R == 1 && g.S == 1 && conv.pixels%64 == 0 && !c.fusion.PerSample {
		convs = append(convs, conv.asRows())
	}
	return convs
}

// linearGeometry is that of a linear layer: a convolution of the images it is applied to.
func linearGeometry(x, w graph.Shape) graph.ConvGeometry {
	rows, _ := rowsOf(x)
	g := pointwise(rows, w[0], w[1])
	if len(x) == 4 {
		g.N, g.H, g.W, g.OH, g.OW = x[0], x[1], x[2], x[1], x[2]
	}
	return g
}

// divides is whether channels come in whole steps, and phases are alike.
func (c tmaConv) divides() bool {
	for _, channels := range c.parts {
		if channels%tmaStep != 0 {
			return false
		}
	}
	return c.channels%tmaStep == 0 && c.even()
}

const (
	// tmaWhole of tmaPadded is the least part of tiles that a product fills: the kernels of
	// the set sm_80, which waste less, are slower by more.
	tmaWhole, tmaPadded = 3, 4
	// tmaLeast is the number of multiplications of a product that takes no longer than
	// its launch, one way or the other.
	tmaLeast = 1 << 21
)

// choose finds the tiles and shares of a product; no tile if none fits.
func (p *tmaProduct) choose() {
	p.tiles, p.shares = nil, 1
	costs := map[string]float64{}
	for _, t := range tmaTiles {
		if p.fits(t) {
			p.tiles = append(p.tiles, t)
			costs[t.name] = p.cost(t, 1)
		}
	}
	if len(p.tiles) == 0 {
		return
	}
	slices.SortStableFunc(p.tiles, func(a, b tmaTile) int { return cmp.Compare(costs[a.name], costs[b.name]) })
	whole := costs[p.tiles[0].name]
	p.time = whole
	for shares := 2; p.conv.phases() == 1 && shares <= len(kernels.TmaConvTable{}.Pieces); shares++ {
		// What is not left beside the result takes passes of its own.
		const worthIt = 0.8
		if cost := p.cost(p.tiles[0], shares); cost < worthIt*whole && cost < p.time {
			p.shares, p.time = shares, cost
		}
	}
}

// fits is whether a product is worth a tile, and fits into shared memory and a table.
func (p *tmaProduct) fits(t tmaTile) bool {
	c := p.conv
	images, rows, columns, channels := c.tiles(t)
	padded := c.phases() * images * rows * columns * channels * t.images * t.rows * t.columns * tmaChannels
	whole := c.pixels * c.channels
	if padded*tmaWhole > whole*tmaPadded {
		return false
	}
	plan := c.plan(t, 1)
	_, stages, _ := c.shared(t)
	return plan.fits && stages >= 2 && whole*plan.counts.steps*tmaStep >= tmaLeast*c.phases()
}

// cost is a model of the time that a product takes, in steps of the largest tile, of
// which one is 0.7 us: those of the busiest processor, and what begins and ends a tile.
// Shares take a pass more, which the last terms stand for.
func (p *tmaProduct) cost(t tmaTile, shares int) float64 {
	const ends, pass, bytesInStep = 3, 6, 3e6
	c := p.conv
	images, rows, columns, channels := c.tiles(t)
	plan := c.plan(t, shares)
	tiles := images * rows * columns * channels
	steps := float64(plan.counts.steps) / float64(plan.counts.pieces)
	cost := float64(pieces(tiles*plan.counts.pieces, processors)) * (steps + ends) * t.weight
	if shares > 1 {
		cost += pass + float64(2*4*plan.counts.pieces)*float64(c.pixels*c.channels)/bytesInStep
	}
	return cost
}

// kernels are those that leave something for a reader of the result, or nothing, up to
// the name of the tile.
func (p *tmaProduct) kernels(a *aside) string {
	if a != nil && !p.conv.turned {
		return p.conv.kernels + tmaNorm
	}
	return p.conv.kernels
}

// tilesFor are the tiles of kernels that may run here.
func (p *tmaProduct) tilesFor(d *device, kernels string) []tmaTile {
	return slices.DeleteFunc(slices.Clone(p.tiles), func(t tmaTile) bool { return !d.trusts(kernels + "_" + t.name) })
}

// slots are those of what some kernels leave.
func (p *tmaProduct) slots(d *device, kernels string) int {
	tiles := p.tilesFor(d, kernels)
	if len(tiles) == 0 || p.shares > 1 {
		return 0
	}
	return p.conv.slots(tiles[0])
}

// tapsBytes is the memory of the summed taps, and sharesBytes that of the sums.
func (p *tmaProduct) tapsBytes() int {
	if !p.conv.doubled {
		return 0
	}
	return align(2 * 16 * p.conv.parts[0] * p.conv.channels)
}

func (p *tmaProduct) sharesBytes() int {
	if p.shares == 1 {
		return 0
	}
	return 4 * p.conv.plan(p.tiles[0], p.shares).counts.pieces * p.conv.pixels * p.conv.channels
}

func (p *tmaProduct) scratch() int { return p.tapsBytes() + p.sharesBytes() }

// operands tells those of a product apart.
func (p *tmaProduct) operands(m operands) (x []tensor, w tensor, bias, perSample, residual kernels.Ptr) {
	in := m.in
	if p.conv.turned {
		parts := len(p.conv.parts)
		x, w, bias, in = in[:parts], in[parts], in[parts+1].ptr, in[parts+2:]
	} else {
		w, x, in = in[0], in[1:2], in[2:]
	}
	if p.fusion.PerSample {
		perSample, in = in[0].ptr, in[1:]
	}
	if p.fusion.Residual {
		residual = in[0].ptr
	}
	return x, w, bias, perSample, residual
}

// takes is whether operands lie as the kernels read them, which is how programs place
// and store them.
func (p *tmaProduct) takes(m operands) bool {
	x, w, bias, perSample, residual := p.operands(m)
	stored := append([]tensor{m.out}, x...)
	if p.fusion.Residual {
		stored = append(stored, m.in[len(m.in)-1])
	}
	for _, t := range stored {
		if !t.bf16 || t.ptr%16 != 0 {
			return false
		}
	}
	return (w.ptr|w.rounded|bias|perSample|residual)%16 == 0
}

// launches are those of a product by the first of some tiles, or where nothing is left
// beside the result the one that was measured to be the fastest.
func (p *tmaProduct) launches(d *device, m operands, tiles []tmaTile, whole kernels.ConvResult) []launch {
	c, names := p.conv, p.kernels(m.aside)
	x, w, bias, perSample, residual := p.operands(m)
	var launches []launch
	weights := w.rounded
	if c.doubled {
		weights = m.scratch
		if m.kept != 0 {
			weights = m.kept
		}
		sum := p.sumTaps(w, weights)
		sum.once = m.kept != 0
		launches = append(launches, sum)
	}
	tile := tiles[0]
	if m.aside == nil {
		ways := make([]string, len(tiles))
		for i, t := range tiles {
			ways[i] = names + "_" + t.name
		}
		tile = tiles[slices.Index(ways, d.chosen(p.String(), ways))]
	}
	plan := c.plan(tile, p.shares)
	box, stages, shared := c.shared(tile)
	images, rows, columns, channels := c.tiles(tile)
	_, pitch := c.box(tile)
	blocks := d.Info.Processors
	if d.single {
		blocks = 1
	}
	params := &kernels.TmaConvParams{
		Y: m.out.ptr, Bias: bias, PerSample: perSample, Residual: residual,
		ImageStride: int64(c.out.image * c.channels), RowStride: int64(c.out.row * c.channels), ColumnStride: int64(c.out.column * c.channels),
		Images: int32(c.out.images), Height: int32(c.out.height), Width: int32(c.out.width), Channels: int32(c.channels),
		TilesN: int32(images), TilesY: int32(rows), TilesX: int32(columns), TilesC: int32(channels),
		Pieces: int32(plan.counts.pieces), Shares: flag(p.shares > 1),
		BoxBytes: int32(box), BoxStages: int32(stages), BoxPitch: int32(pitch * tile.atoms()), Slots: int32(c.slots(tile)),
	}
	if p.shares > 1 {
		params.Y = m.scratch + kernels.Ptr(p.tapsBytes())
	}
	l := launch{
		kernel: names + "_" + tile.name, block: tmaThreads, shared: shared, params: params,
		grid:     [3]int{min(images*rows*columns*channels*plan.counts.pieces, blocks), 1, 1},
		resident: &plan.table, at: &params.Table,
		maps: []tensorMap{{c.weightsMap(weights), &plan.table.Weights.Words}},
	}
	for i, v := range plan.views {
		l.maps = append(l.maps, tensorMap{c.mapOf(v, x[v.part], tile), &plan.table.Maps[i].Words})
	}
	switch {
	case m.aside != nil && c.turned:
		params.Moments = m.aside.out.ptr
	case m.aside != nil:
		norm := &kernels.TmaConvNormParams{Conv: *params, Norm: normOfAside(m.aside, c.channels)}
		l.params, l.at = norm, &norm.Conv.Table
	}
	launches = append(launches, l)
	if p.shares > 1 {
		sums := kernels.ConvShares{Sums: params.Y, Count: params.Pieces}
		launches = append(launches, sumShares(sums, whole, c.pixels, c.channels))
	}
	return launches
}

// String is the product's extents, for the tuner.
func (p *tmaProduct) String() string {
	g := p.conv.out
	steps := p.conv.plan(p.tiles[0], 1).counts.steps
	return fmt.Sprintf("%s %dx%dx%dx%dx%d in %d phases", p.conv.kernels, g.images, g.height, g.width, p.conv.channels, tmaStep*steps, p.conv.phases())
}

// sumTaps makes the weights of a doubled image's phases. It takes the weights as they
// are rather than rounded, so that they are rounded once.
func (p *tmaProduct) sumTaps(w tensor, sums kernels.Ptr) launch {
	const threads, each = 256, 8
	size := p.conv.parts[0] * p.conv.channels
	return launch{
		kernel: "conv_sum_taps", grid: [3]int{pieces(size, threads*each), 16, 1}, block: threads,
		params: &kernels.ConvTapsParams{W: w.ptr, WBf16: flag(w.bf16), Sums: sums, Size: int64(size)},
	}
}

// normOfAside is the normalisation that gradient sums are left for.
func normOfAside(a *aside, channels int) kernels.TmaNorm {
	heart, f := graph.Unfuse(a.op)
	op, _ := heart.(graph.GroupNormGradSums)
	_, split := rowsOf(a.in[0].shape)
	n := kernels.TmaNorm{
		A: a.in[0].ptr, Sums: a.out.ptr, Split: int32(split), Groups: int32(op.Groups), Silu: flag(op.SiLU),
		GroupWidth: fastDivisor(channels / op.Groups),
	}
	rest := a.in[1:]
	if f.Joined {
		n.B, rest = rest[0].ptr, rest[1:]
	}
	n.Stats, n.Gamma, n.Beta = rest[0].ptr, rest[1].ptr, rest[2].ptr
	return n
}

// tmaCases are calls that each run one kernel of tma_conv.cu, with all that it can do.
func tmaCases() []check {
	same := graph.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}
	point := graph.Conv2D{Stride: 1}
	stats := graph.GroupNormStats{Groups: 16, Eps: 1e-6}
	sums := graph.GroupNormGradSums{Groups: 16, SiLU: true}
	forward := func(tile string, op graph.Conv2D, n, h, w, from, to, kernel int, aside graph.Op) check {
		out := graph.Shape{n, h, w, to}
		return check{
			kernel: "tma_conv_forward_" + tile, op: graph.Plus{Of: graph.PlusPerSample{Of: op}}, out: out, aside: aside,
			in: []graph.Shape{{n, h, w, from}, {kernel, kernel, from, to}, {to}, {n, to}, out},
		}
	}
	data := func(tile string, op graph.Conv2D, n, h, w, to, from, kernel int, aside graph.Op) check {
		out := graph.Shape{n, h, w, to}
		c := check{
			kernel: "tma_conv_data_" + tile, op: graph.Plus{Of: graph.Conv2DGradData{Conv2D: op, Height: h, Width: w}}, out: out, aside: aside,
			in: []graph.Shape{{kernel, kernel, to, from}, {n, h, w, from}, out},
		}
		if aside != nil {
			c.kernel = "tma_conv_data" + tmaNorm + "_" + tile
		}
		return c
	}
	return []check{
		forward("32x8", same, 8, 16, 8, 64, 128, 3, nil),
		forward("16x8", same, 8, 8, 8, 64, 128, 3, stats),
		forward("8x16", same, 16, 8, 4, 64, 128, 3, stats),
		forward("8x16", same, 16, 4, 4, 256, 128, 3, nil), // in shares
		data("32x8", same, 8, 16, 8, 128, 64, 3, nil),
		data("16x8", same, 8, 8, 8, 128, 64, 3, nil),
		data("8x16", same, 16, 8, 4, 128, 64, 3, nil),
		data("16x8", same, 8, 8, 8, 128, 64, 3, sums),
		data("8x16", same, 16, 8, 4, 128, 64, 3, sums),
		// Enough tiles that the largest is the best.
		forward("32x8", point, 8, 32, 32, 64, 384, 1, stats),
		data("32x8", point, 8, 32, 32, 384, 64, 1, sums),
	}
}
