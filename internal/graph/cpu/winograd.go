package cpu

import (
	"ddpm/internal/graph/cpu/gemm"
	"ddpm/internal/graph/cpu/winograd"
)

// How convolutions are cut.
const (
	// A block of tiles is large enough to use a panel of weights often once it is
	// in the cache, and small enough for its windows to stay there: from 21 to 112
	// tiles make little difference. With few blocks they are smaller.
	blockTiles     = 56
	smallBlock     = 32
	fewBlocks      = 8
	sharedTiles    = 128 // of a block whose windows several tasks read
	transformTiles = 4   // that one task transforms

	// chainChannels are as many as one chain of multiply-adds sums. More would
	// round worse, and fewer cost more visits to the sum: half as many, 3 %.
	chainChannels = 256

	chunkTiles    = 128 // of a sum over tiles, between two visits to the sum
	mostChannels  = 112 // of a task of a weight gradient: eight of the tallest tiles
	leastChannels = 14  // of one that is cut smaller to make sumTasks
	sumTasks      = 8
)

// planePad keeps planes and the rows in them from lying a multiple of 4 KiB
// apart, where they would all want the same few places in the cache.
const planePad = 16

// winogradFits is whether Winograd's algorithm can compute a convolution at all.
func (g convGeometry) winogradFits() bool {
	return g.R == 3 && g.S == 3 && g.Stride == 1 && g.PadTop == 1 && g.PadLeft == 1 && g.OH == g.H && g.OW == g.W
}

// convPass is one of the computations that a convolution makes in training.
type convPass int

const (
	forwardPass convPass = iota
	gradDataPass
	gradWeightPass
)

// winogradPays is whether Winograd's algorithm is faster than direct convolution,
// by shapes alone. Measured on one thread of a Zen 5 server core with AVX-512, the
// speed of the direct kernels of the same pass being 1, at batch 16 unless stated:
//
//	                  forward        data      weight
//	                kept   used     used      gradient
//	32x32 128->128  2.7    2.7      2.7       3.5
//	32x32 384->128  3.0    2.9      2.9       3.0
//	16x16 256->256  2.9    2.9      2.8       3.0
//	16x16 512->256  2.7    2.6      2.7       2.7
//	 8x8  256->256  2.8    2.9      2.9       2.8
//	 4x4  256->256  2.1    2.7      2.7       2.5
//	 8x8   48->48   2.6    2.2      2.5       2.7
//	16x16  24->24   1.9    1.8      1.8       1.7
//	16x16  16->16   1.4    1.3      1.3       1.1
//	16x16   8->8    0.95   0.95     0.95      0.9
//	32x32   3->128  0.8    0.7      1.8       0.7
//	32x32 128->3    1.8    1.7      0.8       2.0
//	 7x7  128->128  2.0    2.0      2.1       2.1
//	 5x5  128->128  1.1    1.0      1.1       1.1       tiles mostly empty
//	 8x8  256->256  2.2    2.0      2.4       2.1       batch 4, 16 tiles
//	 8x8  256->256  1.0    1.4      1.7       1.2       batch 1, 4 tiles
//
// (kept: the weights were transformed before; used: they are transformed at every
// use. With AVX2 the ratios are higher.) So tiles must be at least half full,
// and the channels that are transformed must be many enough to fill vectors. It
// makes no difference to this rule whether weights are kept, and the batch makes
// none either, though a single small image gains nothing: an image is to have the
// same bits in a batch of any size.
func (g convGeometry) winogradPays(pass convPass) bool {
	t := newTiling(g)
	if !g.winogradFits() || 2*g.pixels() < winograd.Tile*winograd.Tile*t.count() {
		return false
	}
	switch pass {
	case forwardPass:
		return g.C >= 16
	case gradDataPass:
		return g.K >= 16
	}
	return g.C >= 24
}

// tiling is how the output of a convolution is cut into tiles.
type tiling struct {
	convGeometry
	rows, columns int // tiles of an image
}

func newTiling(g convGeometry) tiling {
	return tiling{g, ceil(g.H, winograd.Tile), ceil(g.W, winograd.Tile)}
}

func (t tiling) count() int { return t.N * t.rows * t.columns }

// at is the image that a tile is in and its first pixel.
func (t tiling) at(tile int) (n, row, column int) {
	i := tile / t.columns
	return i / t.rows, winograd.Tile * (i % t.rows), winograd.Tile * (tile % t.columns)
}

// inputPlanes is where transformed windows of a number of tiles lie: plane p of
// tile i at p*plane + i*row. A row has room for two images' channels, each
// rounded up to whole vectors.
type inputPlanes struct{ row, plane int }

func newInputPlanes(tiles, channels int) inputPlanes {
	row := roundUp(channels, planePad) + planePad
	return inputPlanes{row, tiles*row + planePad}
}

func (p inputPlanes) size() int { return winograd.Planes * p.plane }

func roundUp(n, multiple int) int { return ceil(n, multiple) * multiple }

// packedPlanes are 36 matrices of some rows in the panels of package gemm: plane
// p of panel j begins at at(j) + p*plane(j), and the panel's rows follow.
type packedPlanes struct {
	gemm          *gemm.Engine
	rows, columns int
}

func (p packedPlanes) plane(panel gemm.Panel) int { return p.rows*panel.Width + planePad }

func (p packedPlanes) at(j int) int {
	return winograd.Planes * j * p.plane(p.gemm.Panel(0, p.columns))
}

func (p packedPlanes) size() int {
	last := p.gemm.Panels(p.columns) - 1
	return p.at(last) + winograd.Planes*p.plane(p.gemm.Panel(last, p.columns))
}

// chain is a range of channels that are summed in one chain; the sum over all
// channels is that of the chains, in order.
type chain struct {
	first  int
	layout *gemm.Layout // of the channels in transformed windows
}

// longestChain is the length of all chains but the last.
func longestChain(channels int) int {
	return roundUp(ceil(channels, ceil(channels, chainChannels)), planePad)
}

func newChains(channels int, windows inputPlanes) []chain {
	size := longestChain(channels)
	chains := make([]chain, ceil(channels, size))
	for i := range chains {
		first := i * size
		chains[i] = chain{first, gemm.NewLayout(windows.row, 1, min(size, channels-first))}
	}
	return chains
}

// windows takes what a convolution reads apart into transformed windows.
type windows struct {
	kernels winograd.Kernels
	tiling
	src   source
	zeros []float32 // a pixel outside of the image
}

func (e *engine) newWindows(g convGeometry, src source) windows {
	return windows{winograd.New(e.set), newTiling(g), src, make([]float32, max(src.ca, src.cb))}
}

// transform writes the window of a tile to planes.
func (w *windows) transform(dst []float32, plane, tile int) {
	n, row, column := w.at(tile)
	w.part(dst, plane, n, row, column, w.src.a, w.src.ca)
	if w.src.cb > 0 {
		w.part(dst[w.src.ca:], plane, n, row, column, w.src.b, w.src.cb)
	}
}

// part does so for one image of the source, [N,H,W,channels].
func (w *windows) part(dst []float32, plane, n, row, column int, x []float32, channels int) {
	size := w.H * w.W * channels
	if w.src.doubled {
		size /= 4
	}
	m := winograd.Image{Data: x[n*size:][:size], Height: w.H, Width: w.W, Channels: channels, Doubled: w.src.doubled}
	var pixels winograd.Pixels
	pixels.Take(&m, row-1, column-1, winograd.Window, w.zeros)
	w.kernels.Input(dst, plane, &pixels, 0, channels)
}

// weightRows writes the transform of some rows of a panel of weights to planes.
type weightRows func(planes []float32, plane int, panel gemm.Panel, first, end int)

// rowsOfWeights are those of w[3,3,C,K].
func (e *engine) rowsOfWeights(g convGeometry, w []float32) weightRows {
	kernels := winograd.New(e.set)
	return func(planes []float32, plane int, panel gemm.Panel, first, end int) {
		kernels.Weights(&winograd.Taps{
			Planes: planes, Plane: plane,
			Taps: w[first*g.K+panel.First:], Tap: g.C * g.K, Row: g.K,
			Rows: end - first, Columns: panel.Columns,
		})
	}
}

// rowsOfAdjoint are those of w[3,3,C,K] flipped and transposed, [3,3,K,C].
func (e *engine) rowsOfAdjoint(g convGeometry, w []float32) weightRows {
	const most, widest = 16, 32 // lanes; width of a panel
	kernels := winograd.New(e.set)
	lanes := kernels.Lanes()
	return func(planes []float32, plane int, panel gemm.Panel, first, end int) {
		var taps [9 * most * widest]float32 // [3,3][rows][panel.Width]
		for k := first; k < end; k += lanes {
			rows := min(lanes, end-k)
			for tap := range 9 {
				for c := 0; c < panel.Columns; c += lanes {
					kernels.Transpose(taps[tap*most*widest+c:], panel.Width,
						w[(tap*g.C+panel.First+c)*g.K+k:], g.K, min(lanes, panel.Columns-c), rows)
				}
			}
			kernels.Weights(&winograd.Taps{
				Planes: planes[(k-first)*panel.Width:], Plane: plane,
				Taps: taps[:], Tap: most * widest, Row: panel.Width,
				Rows: rows, Columns: panel.Columns, Flipped: true,
			})
		}
	}
}

// winogradTransform binds u, the transformed weights of a convolution.
func (e *engine) winogradTransform(g convGeometry, u []float32, weights weightRows) func() {
	const rows = 16 // of a task
	packed := packedPlanes{e.gemm, g.C, g.K}
	u = gemm.Carve(&u, packed.size())
	cuts := ceil(g.C, rows)
	run := func(task, _ int) {
		j, first := task/cuts, task%cuts*rows
		panel := e.gemm.Panel(j, g.K)
		weights(u[packed.at(j)+first*panel.Width:], packed.plane(panel), panel, first, min(first+rows, g.C))
	}
	return func() { e.pool.Run(e.gemm.Panels(g.K)*cuts, run) }
}

// winogradWeights binds u, the transform of the weights w[3,3,C,K].
func (e *engine) winogradWeights(g convGeometry, u, w []float32) func() {
	return e.winogradTransform(g, u, e.rowsOfWeights(g, w))
}

func (e *engine) winogradWeightsSize(g convGeometry) int {
	return gemm.Scratch(packedPlanes{e.gemm, g.C, g.K}.size())
}

// winogradCuts is how a convolution is cut into tasks.
type winogradCuts struct {
	tiling
	tiles, blocks int // tiles of a block
	// shared says that there are so few blocks that panels are tasks of their
	// own, in groups, and share the transformed windows of their block. Elsewhere
	// a task transforms a block's windows and uses them at once.
	shared  bool
	groups  int
	windows inputPlanes // of a block
	product int         // from plane to plane of the product of a block and a panel
}

func (e *engine) winogradCuts(g convGeometry) winogradCuts {
	c := winogradCuts{tiling: newTiling(g), tiles: blockTiles, groups: 1}
	if c.count() < fewBlocks*blockTiles {
		c.tiles = smallBlock
	}
	if c.count() < fewBlocks*smallBlock {
		c.shared, c.tiles = true, sharedTiles
	}
	c.tiles = ceil(c.count(), ceil(c.count(), c.tiles))
	c.blocks = ceil(c.count(), c.tiles)
	if c.shared {
		c.groups = min(e.gemm.Panels(g.K), ceil(manyTasks, c.blocks))
	}
	c.windows = newInputPlanes(c.tiles, g.C)
	c.product = c.tiles*e.gemm.Panel(0, g.K).Width + planePad
	return c
}

// block is the range of tiles of a block.
func (c *winogradCuts) block(i int) (first, end int) {
	return i * c.tiles, min((i+1)*c.tiles, c.count())
}

// winogradSizes are those of the workspace's pieces: transformed windows and products.
func (e *engine) winogradSizes(c winogradCuts) (windows, products int) {
	parts := e.pool.Workers()
	if c.shared {
		parts = c.blocks
	}
	return parts * c.windows.size(), e.pool.Workers() * winograd.Planes * c.product
}

// winogradOutput is where the products of a convolution go.
type winogradOutput struct {
	winogradCuts
	kernels winograd.Kernels
	y       []float32
	epilogue
}

// store transforms the products of a block's tiles [first, end) and a panel to
// pixels.
func (c *winogradOutput) store(products []float32, panel gemm.Panel, first, end int) {
	o := winograd.Output{Plane: c.product, Pixel: c.K, Row: c.W * c.K, Channels: panel.Columns}
	if c.bias != nil {
		o.Bias = c.bias[panel.First:]
	}
	for tile := first; tile < end; tile++ {
		n, row, column := c.at(tile)
		at := ((n*c.H+row)*c.W+column)*c.K + panel.First
		o.Src = products[(tile-first)*panel.Width:]
		o.Dst = c.y[at:]
		o.Rows, o.Columns = min(winograd.Tile, c.H-row), min(winograd.Tile, c.W-column)
		if c.perSample != nil {
			o.PerSample = c.perSample[n*c.K+panel.First:]
		}
		if c.residual != nil {
			o.Residual = c.residual[at:]
		}
		c.kernels.Output(&o)
	}
}

// transformAll returns a function that transforms the windows of all blocks.
func (e *engine) transformAll(c winogradCuts, w windows, transformed []float32) func() {
	run := func(task, _ int) {
		for tile := task * transformTiles; tile < min((task+1)*transformTiles, c.count()); tile++ {
			block, i := tile/c.tiles, tile%c.tiles
			w.transform(transformed[block*c.windows.size()+i*c.windows.row:], c.windows.plane, tile)
		}
	}
	return func() { e.pool.Run(ceil(c.count(), transformTiles), run) }
}

// winograd binds y, the convolution of src with weights that winogradWeights
// transformed to u.
func (e *engine) winograd(g convGeometry, y []float32, src source, u []float32, epi epilogue, ws []float32) func() {
	c := e.winogradCuts(g)
	packed := packedPlanes{e.gemm, g.C, g.K}
	u = gemm.Carve(&u, packed.size())
	windowsSize, productsSize := e.winogradSizes(c)
	transformed, products := gemm.Carve(&ws, windowsSize), gemm.Carve(&ws, productsSize)
	windows := e.newWindows(g, src)
	out := winogradOutput{c, winograd.New(e.set), y, epi}
	chains := newChains(g.C, c.windows)
	panels := e.gemm.Panels(g.K)

	multiply := func(x []float32, block, group, worker int) {
		first, end := c.block(block)
		product := e.own(products, worker)
		s := gemm.Strip{Rows: end - first}
		j0, j1 := cut(panels, c.groups, group)
		for j := j0; j < j1; j++ {
			s.Panel = e.gemm.Panel(j, g.K)
			s.Stride = s.Panel.Width
			weights, plane := u[packed.at(j):], packed.plane(s.Panel)
			for p := range winograd.Planes {
				s.C = product[p*c.product:]
				for i, chain := range chains {
					s.A = x[p*c.windows.plane+chain.first:]
					s.B = weights[p*plane+chain.first*s.Stride:]
					s.Layout, s.Accumulate = chain.layout, i > 0
					e.gemm.Run(&s)
				}
			}
			out.store(product, s.Panel, first, end)
		}
	}
	if c.shared {
		transform := e.transformAll(c, windows, transformed)
		run := func(task, worker int) {
			block := task / c.groups
			multiply(transformed[block*c.windows.size():], block, task%c.groups, worker)
		}
		return func() {
			transform()
			e.pool.Run(c.blocks*c.groups, run)
		}
	}
	run := func(block, worker int) {
		x := e.own(transformed, worker)
		first, end := c.block(block)
		for tile := first; tile < end; tile++ {
			windows.transform(x[(tile-first)*c.windows.row:], c.windows.plane, tile)
		}
		multiply(x, block, 0, worker)
	}
	return func() { e.pool.Run(c.blocks, run) }
}

func (e *engine) winogradWorkspace(g convGeometry) int {
	return gemm.Scratch(e.winogradSizes(e.winogradCuts(g)))
}

// winogradOnce binds y, the convolution of src with the weights w[3,3,C,K], which
// it transforms at every run.
func (e *engine) winogradOnce(g convGeometry, y []float32, src source, w []float32, epi epilogue, ws []float32) func() {
	return e.winogradOnceRows(g, y, src, e.rowsOfWeights(g, w), epi, ws)
}

// atUse is whether a convolution whose weights are not kept transforms them in the
// tasks that use them, some rows of a panel at a time. With one block of tiles
// they are used once, and to write and fetch all 36 planes, four times the size of
// the weights, would take as long as to multiply.
func (c *winogradCuts) atUse() bool { return c.shared && c.blocks == 1 }

// winogradOnceRows is winogradOnce for weights however they lie.
func (e *engine) winogradOnceRows(g convGeometry, y []float32, src source, weights weightRows, epi epilogue, ws []float32) func() {
	c := e.winogradCuts(g)
	if !c.atUse() {
		u := gemm.Carve(&ws, e.winogradWeightsSize(g))
		transform := e.winogradTransform(g, u, weights)
		run := e.winograd(g, y, src, u, epi, ws)
		return func() {
			transform()
			run()
		}
	}
	windowsSize, productsSize := e.winogradSizes(c)
	transformed, products := gemm.Carve(&ws, windowsSize), gemm.Carve(&ws, productsSize)
	// Some rows of a panel of weights for each worker.
	packed := gemm.Carve(&ws, e.pool.Workers()*e.weightsAtUse(g))
	transform := e.transformAll(c, e.newWindows(g, src), transformed)
	out := winogradOutput{c, winograd.New(e.set), y, epi}
	chains := newChains(g.C, c.windows)
	run := func(j, worker int) {
		product, u := e.own(products, worker), e.own(packed, worker)
		panel := e.gemm.Panel(j, g.K)
		plane := longestChain(g.C)*panel.Width + planePad
		s := gemm.Strip{Rows: c.count(), Panel: panel, Stride: panel.Width}
		for i, chain := range chains {
			weights(u, plane, panel, chain.first, chain.first+chain.layout.K())
			s.Layout, s.Accumulate = chain.layout, i > 0
			for p := range winograd.Planes {
				s.A, s.B, s.C = transformed[p*c.windows.plane+chain.first:], u[p*plane:], product[p*c.product:]
				e.gemm.Run(&s)
			}
		}
		out.store(product, panel, 0, c.count())
	}
	return func() {
		transform()
		e.pool.Run(e.gemm.Panels(g.K), run)
	}
}

// weightsAtUse is the size of one worker's transformed weights.
func (e *engine) weightsAtUse(g convGeometry) int {
	return winograd.Planes * (longestChain(g.C)*e.gemm.Panel(0, g.K).Width + planePad)
}

func (e *engine) winogradOnceWorkspace(g convGeometry) int {
	c := e.winogradCuts(g)
	if !c.atUse() {
		return gemm.Scratch(e.winogradWeightsSize(g), e.winogradWorkspace(g))
	}
	windows, products := e.winogradSizes(c)
	return gemm.Scratch(windows, products, e.pool.Workers()*e.weightsAtUse(g))
}

// adjoint is the convolution of dy that computes dx.
func (g convGeometry) adjoint() convGeometry {
	g.C, g.K = g.K, g.C
	return g
}

// winogradGradData binds dx = addend + the gradient with respect to the data;
// addend may be nil, or dx. The weights u are those of winogradGradDataWeights.
func (e *engine) winogradGradData(g convGeometry, dx, u, dy, addend, ws []float32) func() {
	return e.winograd(g.adjoint(), dx, plain(dy, g.K), u, epilogue{residual: addend}, ws)
}

func (e *engine) winogradGradDataWorkspace(g convGeometry) int {
	return e.winogradWorkspace(g.adjoint())
}

// winogradGradDataWeights binds u, the transform of the weights w[3,3,C,K]
// flipped and transposed.
func (e *engine) winogradGradDataWeights(g convGeometry, u, w []float32) func() {
	return e.winogradTransform(g.adjoint(), u, e.rowsOfAdjoint(g, w))
}

func (e *engine) winogradGradDataWeightsSize(g convGeometry) int {
	return e.winogradWeightsSize(g.adjoint())
}

// winogradGradDataOnce is winogradGradData from the weights w[3,3,C,K], which it
// transforms at every run.
func (e *engine) winogradGradDataOnce(g convGeometry, dx, w, dy, addend, ws []float32) func() {
	return e.winogradOnceRows(g.adjoint(), dx, plain(dy, g.K), e.rowsOfAdjoint(g, w), epilogue{residual: addend}, ws)
}

func (e *engine) winogradGradDataOnceWorkspace(g convGeometry) int {
	return e.winogradOnceWorkspace(g.adjoint())
}

// gradWeightCuts is how a weight gradient is cut: the sum over tiles into chunks,
// one after another; a chunk's windows by tiles, its products by input channels
// and panels.
type gradWeightCuts struct {
	tiling
	tiles, chunks int          // tiles of a chunk
	windows       inputPlanes  // of a chunk
	gradients     packedPlanes // of a chunk
	groups        int          // of input channels
	sum           int          // elements of the sums of products of a task
}

func (e *engine) gradWeightCuts(g convGeometry) gradWeightCuts {
	c := gradWeightCuts{tiling: newTiling(g), tiles: chunkTiles}
	// Where the windows of all tiles take no more memory than the sums that would
	// be kept from chunk to chunk, one chunk is better.
	if (c.count()-chunkTiles)*(g.C+g.K) <= g.C*g.K {
		c.tiles = c.count()
	}
	c.tiles = ceil(c.count(), ceil(c.count(), c.tiles))
	c.chunks = ceil(c.count(), c.tiles)
	c.windows = newInputPlanes(c.tiles, g.C)
	c.gradients = packedPlanes{e.gemm, c.tiles, g.K}
	c.groups = max(ceil(g.C, mostChannels), min(ceil(sumTasks, e.gemm.Panels(g.K)), ceil(g.C, leastChannels)))
	c.sum = winograd.Planes * c.sumPlane(ceil(g.C, c.groups), e.gemm.Panel(0, g.K))
	return c
}

// chunk is the range of tiles of a chunk.
func (c *gradWeightCuts) chunk(i int) (first, end int) {
	return i * c.tiles, min((i+1)*c.tiles, c.count())
}

// sumPlane is from plane to plane of the sums of a task.
func (c *gradWeightCuts) sumPlane(channels int, panel gemm.Panel) int {
	return channels*panel.Width + planePad
}

// sums is the number of tasks whose sums are kept at once: with one chunk those
// that run, else all.
func (e *engine) sums(c gradWeightCuts) int {
	if c.chunks == 1 {
		return e.pool.Workers()
	}
	return c.groups * e.gemm.Panels(c.K)
}

// winogradGradWeight binds dw[3,3,C,K], the gradient with respect to the weights,
// from what the convolution read and dy.
func (e *engine) winogradGradWeight(g convGeometry, dw []float32, src source, dy, ws []float32) func() {
	c := e.gradWeightCuts(g)
	transformed := gemm.Carve(&ws, c.windows.size())
	gradients := gemm.Carve(&ws, c.gradients.size())
	sums := gemm.Carve(&ws, e.sums(c)*c.sum)
	windows := e.newWindows(g, src)
	outside := make([]float32, g.K)
	kernels := winograd.New(e.set)
	layouts := make([]*gemm.Layout, c.chunks)
	for i := range layouts {
		first, end := c.chunk(i)
		layouts[i] = gemm.NewLayout(1, c.windows.row, end-first)
	}

	chunk := 0
	transform := func(task, _ int) {
		first, end := c.chunk(chunk)
		for i := task * transformTiles; i < min((task+1)*transformTiles, end-first); i++ {
			windows.transform(transformed[i*c.windows.row:], c.windows.plane, first+i)
			n, row, column := c.at(first + i)
			size := g.H * g.W * g.K
			m := winograd.Image{Data: dy[n*size:][:size], Height: g.H, Width: g.W, Channels: g.K}
			var pixels winograd.Pixels
			pixels.Take(&m, row, column, winograd.Tile, outside)
			for j := range e.gemm.Panels(g.K) {
				panel := e.gemm.Panel(j, g.K)
				kernels.Gradient(gradients[c.gradients.at(j)+i*panel.Width:], c.gradients.plane(panel),
					&pixels, panel.First, panel.Columns)
			}
		}
	}
	multiply := func(task, worker int) {
		j := task / c.groups
		c0, c1 := cut(g.C, c.groups, task%c.groups)
		sum := e.own(sums, worker)
		if c.chunks > 1 {
			sum = sums[task*c.sum:][:c.sum]
		}
		panel := e.gemm.Panel(j, g.K)
		plane := c.sumPlane(c1-c0, panel)
		s := gemm.Strip{
			Rows: c1 - c0, Layout: layouts[chunk], Panel: panel, Stride: panel.Width,
			Accumulate: chunk > 0,
		}
		dy, dyPlane := gradients[c.gradients.at(j):], c.gradients.plane(panel)
		for p := range winograd.Planes {
			s.A, s.B, s.C = transformed[p*c.windows.plane+c0:], dy[p*dyPlane:], sum[p*plane:]
			e.gemm.Run(&s)
		}
		if chunk == c.chunks-1 {
			kernels.WeightGradient(&winograd.Taps{
				Planes: sum, Plane: plane,
				Taps: dw[c0*g.K+panel.First:], Tap: g.C * g.K, Row: g.K,
				Rows: c1 - c0, Columns: panel.Columns,
			})
		}
	}
	tasks := c.groups * e.gemm.Panels(g.K)
	return func() {
		for chunk = range c.chunks {
			first, end := c.chunk(chunk)
			e.pool.Run(ceil(end-first, transformTiles), transform)
			e.pool.Run(tasks, multiply)
		}
	}
}

func (e *engine) winogradGradWeightWorkspace(g convGeometry) int {
	c := e.gradWeightCuts(g)
	return gemm.Scratch(c.windows.size(), c.gradients.size(), e.sums(c)*c.sum)
}
