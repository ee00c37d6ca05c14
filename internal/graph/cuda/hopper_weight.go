//go:build gpu && !cpu

package cuda

import (
	"fmt"
	"slices"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// tmaWeight finds the kernel of a weight gradient by bulk copies and products of
// warpgroups (kernels/sm_90a/tma_weight.cu). ok is false for what does not fit its
// boxes, or would leave most of them empty, and where no such kernel is trusted.
func (d *device) tmaWeight(c call) (k kernel, ok bool) {
	w, ok := boxedWeightOf(c)
	if !ok || !w.worthwhile() {
		return kernel{}, false
	}
	for _, s := range c.in {
		if !d.stored(s) {
			return kernel{}, false
		}
	}
	names := slices.DeleteFunc(w.kernels(), func(name string) bool { return !d.trusts(name) })
	if len(names) == 0 {
		return kernel{}, false
	}
	p, _ := d.passOf(c)
	otherwise := d.bind(p)
	shares := w.shares()
	scratch := 0
	if shares > 1 || w.phased {
		scratch = 4 * shares * w.rows * w.columns
	}
	return kernel{scratch: max(scratch, otherwise.scratch), launches: func(m operands) []launch {
		if !d.copied(m.in...) || m.out.ptr%16 != 0 {
			return otherwise.launches(m)
		}
		if d.single {
			return w.launches(m, d.chosen(w.String(), names), 1)
		}
		return w.launches(m, d.chosen(w.String(), names), shares)
	}}, true
}

// boxedWeight is a weight gradient as products of boxes of x and boxes of dy.
type boxedWeight struct {
	taps          int // that each box of x is read for: neighbours in a row of the kernel
	n, h, w       int // images, rows and columns of dy that boxes are taken of
	images, width int // of a box of dy; a box of x is taps-1 pixels wider
	channels      int // of x, all parts
	columns       int // of the result: channels of dy
	rows          int // of the sums
	x, dy         []view
	groups        []kernels.TmaWeightGroup
	// phased says that the sums are those of four phases of dy, 2x2 taps each, which
	// conv_sum_phases adds.
	phased bool
}

// view is a part of an operand as maps describe it: every step-th row and column of its
// images from one on.
type view struct {
	operand         int
	shape           graph.Shape // [N,H,W,C]
	top, left, step int
}

const (
	channelsOfBox  = 64
	pixelsOfBox    = 64  // of dy: the k of a step
	pixelBytes     = 128 // of a box, for each of its images
	columnsOfBlock = 128
)

// weightStages is how many boxes of x a block has, how many bytes it keeps for each, and
// how many stages of them, by the taps of a box: as TmaWeightStages declares it.
var weightStages = map[int]struct{ boxes, bytes, count int }{
	1: {boxes: 4, bytes: 8192, count: 4},
	2: {boxes: 2, bytes: 10240, count: 6},
	3: {boxes: 2, bytes: 12288, count: 5},
}

// sharedOfWeight is the shared memory of a block, in bytes: boxes, two of dy with those of
// x, and two barriers a stage.
func sharedOfWeight(taps int) int {
	s := weightStages[taps]
	return s.count * (2*pixelsOfBox*pixelBytes + s.boxes*s.bytes + 16)
}

// boxedWeightOf looks at extents only.
func boxedWeightOf(c call) (w boxedWeight, ok bool) {
	x, rest := seenOf(c)
	switch op := c.heart.(type) {
	case graph.Conv2DGradWeight:
		g, err := op.GeometryOf(x.shape, rest[0])
		if err != nil {
			return w, false
		}
		w.channels, w.columns = g.C, g.K
		plain := g.Stride == 1 && g.PadTop == 0 && g.PadLeft == 0 && g.OH == g.H && g.OW == g.W
		switch {
		case x.doubled:
			ok = w.phases(g, x.parts, rest[0])
		case g.R == 1 && g.S == 1 && plain:
			ok = w.matrices(x.parts, rest[0])
		case g.Stride == 1 && (g.S == 2 || g.S == 3):
			ok = w.kernelRows(g, x.parts, rest[0])
		default:
			ok = w.kernelTaps(g, x.parts, rest[0])
		}
	case graph.LinearGradWeight:
		_, w.channels = rowsOf(x.shape)
		_, w.columns = rowsOf(rest[0])
		ok = w.matrices(x.parts, rest[0])
	}
	for _, v := range w.x {
		ok = ok && v.shape[3]%channelsOfBox == 0
	}
	return w, ok && w.columns%channelsOfBox == 0 &&
		len(w.x) <= len(kernels.TmaWeightTable{}.X) && len(w.groups) <= len(kernels.TmaWeightTable{}.Groups)
}

// ofImages has n images of h rows of w pixels of dy cut into boxes, where that leaves no
// part of one unused.
func (w *boxedWeight) ofImages(n, height, width int) (ok bool) {
	w.n, w.h, w.w = n, height, width
	w.images, w.width = 8, 8
	if width%w.width != 0 {
		w.images, w.width = 16, 4
	}
	return width%w.width == 0
}

// matrices: the rows of both operands are images of one pixel.
func (w *boxedWeight) matrices(parts []graph.Shape, dy graph.Shape) (ok bool) {
	asImages := func(s graph.Shape) graph.Shape {
		rows, columns := rowsOf(s)
		return graph.Shape{rows, 1, 1, columns}
	}
	images := make([]graph.Shape, len(parts))
	for i, s := range parts {
		images[i] = asImages(s)
	}
	w.taps, w.rows = 1, w.channels
	w.n, w.h, w.w = asImages(dy)[0], 1, 1
	w.images, w.width = pixelsOfBox, 1
	w.x, w.dy = whole(images), wholeAt(len(parts), asImages(dy))
	w.add(0, 0, 1, w.boxesAt(images, 1, 0, 0, 0, 0))
	return true
}

// kernelRows: a box of x is read for a row of taps. Rows of dy for which it lies outside
// of x are left out.
func (w *boxedWeight) kernelRows(g graph.ConvGeometry, parts []graph.Shape, dy graph.Shape) (ok bool) {
	w.taps, w.rows = g.S, g.R*g.S*g.C
	w.x, w.dy = whole(parts), wholeAt(len(parts), dy)
	for r := range g.R {
		y := r - g.PadTop
		first := max(0, -y)
		rows := max(0, min(g.OH, g.H-y)-first)
		w.add(0, first, rows, w.boxesAt(parts, 1, 0, -g.PadLeft, y, r*g.S*g.C))
	}
	return w.ofImages(g.N, g.OH, g.OW)
}

// kernelTaps: a box of x is read for one tap, of the rows and columns that it sees.
func (w *boxedWeight) kernelTaps(g graph.ConvGeometry, parts []graph.Shape, dy graph.Shape) (ok bool) {
	w.taps, w.rows = 1, g.R*g.S*g.C
	w.dy = wholeAt(len(parts), dy)
	for part, shape := range parts {
		for top := range g.Stride {
			for left := range g.Stride {
				w.x = append(w.x, view{operand: part, shape: shape, top: top, left: left, step: g.Stride})
			}
		}
	}
	var all []kernels.TmaWeightBox
	for r := range g.R {
		y, top := floorDivide(r-g.PadTop, g.Stride)
		for s := range g.S {
			x, left := floorDivide(s-g.PadLeft, g.Stride)
			all = append(all, w.boxesAt(parts, g.Stride*g.Stride, top*g.Stride+left, x, y, (r*g.S+s)*g.C)...)
		}
	}
	w.add(0, 0, g.OH, all)
	return g.H >= g.Stride && g.W >= g.Stride && w.ofImages(g.N, g.OH, g.OW)
}

// phases: the convolution of a doubled image is four of the image, of 2x2 taps each, one
// for each phase of the rows and columns of dy (kernels/conv_phases.cu).
func (w *boxedWeight) phases(g graph.ConvGeometry, parts []graph.Shape, dy graph.Shape) (ok bool) {
	const phases, taps = 4, 2
	w.taps, w.rows, w.phased = taps, phases*taps*taps*g.C, true
	w.x = whole(parts)
	height, width := g.H/2, g.W/2
	for phase := range phases {
		top, left := phase/2, phase%2
		w.dy = append(w.dy, view{operand: len(parts), shape: dy, top: top, left: left, step: 2})
		for tap := range taps {
			y := top + tap - 1
			first := max(0, -y)
			rows := min(height, height-y) - first
			w.add(phase, first, rows, w.boxesAt(parts, 1, 0, left-1, y, (phase*taps+tap)*taps*g.C))
		}
	}
	same := g.R == 3 && g.S == 3 && g.Stride == 1 && g.PadTop == 1 && g.PadLeft == 1 && g.OH == g.H && g.OW == g.W
	return same && w.ofImages(g.N, height, width)
}

// whole are views of all of each operand, from the first on.
func whole(shapes []graph.Shape) []view {
	var all []view
	for i, s := range shapes {
		all = append(all, wholeAt(i, s)...)
	}
	return all
}

func wholeAt(operand int, s graph.Shape) []view {
	return []view{{operand: operand, shape: s, step: 1}}
}

// boxesAt are the boxes of all channels of x at a pixel seen from that of dy, in the
// given one of so many views of each part. row is that of the first channel's sums.
func (w *boxedWeight) boxesAt(parts []graph.Shape, views, at, x, y, row int) []kernels.TmaWeightBox {
	var all []kernels.TmaWeightBox
	for part, shape := range parts {
		for channel := 0; channel < shape[3]; channel += channelsOfBox {
			all = append(all, kernels.TmaWeightBox{
				Map: int32(part*views + at), Channel: int32(channel), X: int32(x), Y: int32(y), Row: int32(row),
			})
			row += channelsOfBox
		}
	}
	return all
}

// add makes groups of boxes, with rows of dy from one on. What a group lacks of boxes is
// filled up with some of zeros, whose sums go nowhere.
func (w *boxedWeight) add(dy, first, rows int, all []kernels.TmaWeightBox) {
	const nowhere = -1
	for some := range slices.Chunk(all, weightStages[w.taps].boxes) {
		group := kernels.TmaWeightGroup{Dy: int32(dy), First: int32(first), Rows: int32(rows)}
		for i := range group.Boxes {
			group.Boxes[i] = kernels.TmaWeightBox{Channel: int32(w.x[0].shape[3]), Row: nowhere}
		}
		copy(group.Boxes[:], some)
		w.groups = append(w.groups, group)
	}
}

// worthwhile is whether at least half of what blocks multiply is asked for: less would
// rather be a matter of the smaller tiles of other kernels.
func (w *boxedWeight) worthwhile() bool {
	asked := w.rows * w.columns * w.n
	rows := len(w.groups) * weightStages[w.taps].boxes * w.taps * channelsOfBox
	done := rows * w.columnTiles() * columnsOfBlock * w.imageBoxes() * w.images
	return 2*asked >= done
}

func (w *boxedWeight) columnTiles() int { return pieces(w.columns, columnsOfBlock) }
func (w *boxedWeight) imageBoxes() int  { return pieces(w.n, w.images) }
func (w *boxedWeight) rowBoxes() int    { return pieces(w.w, w.width) }

// kernels are those that compute it, the same bits each; the first is expected to be the
// fastest.
func (w *boxedWeight) kernels() []string {
	name := fmt.Sprintf("tma_weight_%d", w.taps)
	if w.taps == 1 {
		return []string{name}
	}
	return []string{name + "_joint", name}
}

func (w *boxedWeight) String() string {
	return fmt.Sprintf("tma_weight %dx%dx%d", w.rows, w.columns, w.n*w.h*w.w)
}

// A model of time, in hundredths of what a block takes to multiply 128x64 by 64x128.
const (
	costOfBlock = 700 // until its first boxes are there, and to store its sums
	costOfPass  = 500 // of the launch that adds shares
	costOfSums  = 7   // to write and read 128x128 of them, by the whole device
)

// shares is how many blocks share the steps of a group: enough to keep a device busy,
// and few, since each leaves sums in memory. It is not asked how many processors the
// device has: the order of a sum must not depend on that.
func (w *boxedWeight) shares() int {
	steps := w.rowBoxes() * w.h * w.imageBoxes()
	blocks := len(w.groups) * w.columnTiles()
	area := weightStages[w.taps].boxes * w.taps / 2 // of a block, in 128x128
	best, least := 1, 0
	for shares := 1; shares <= steps && (shares == 1 || blocks*shares <= 2*processors); shares++ {
		cost := pieces(blocks*shares, processors) * (100*area*pieces(steps, shares) + costOfBlock)
		if shares > 1 || w.phased {
			cost += costOfPass + costOfSums*area*blocks*shares
		}
		if shares == 1 || cost < least {
			best, least = shares, cost
		}
	}
	return best
}

// launches compute the sums with a kernel, and add those of shares and phases.
func (w *boxedWeight) launches(m operands, name string, shares int) []launch {
	table := &kernels.TmaWeightTable{}
	copy(table.Groups[:], w.groups)
	p := &kernels.TmaWeightParams{
		Sums: m.out.ptr, Rows: int32(w.rows), Columns: int32(w.columns), TapRows: int32(w.channels),
		ColumnTiles: int32(w.columnTiles()), Images: int32(w.images), Width: int32(w.width),
		ImageBoxes: int32(w.imageBoxes()), RowBoxes: int32(w.rowBoxes()),
		PixelBytes: int32(w.images * pixelBytes), BoxBytes: int32(w.images * (w.width + w.taps - 1) * pixelBytes),
	}
	if shares > 1 || w.phased {
		p.Sums = m.scratch
	}
	product := launch{
		kernel: name, grid: [3]int{len(w.groups) * w.columnTiles(), shares, 1}, block: 384, shared: sharedOfWeight(w.taps),
		params: p, resident: table, at: &p.Table,
	}
	for i, v := range w.x {
		tiled := v.tiled(m.in[v.operand], w.images, w.width+w.taps-1)
		product.maps = append(product.maps, tensorMap{tiled: tiled, into: &table.X[i].Words})
	}
	for i, v := range w.dy {
		tiled := v.tiled(m.in[v.operand], w.images, w.width)
		product.maps = append(product.maps, tensorMap{tiled: tiled, into: &table.Dy[i].Words})
	}
	switch {
	case w.phased:
		return []launch{product, w.sumPhases(m, shares)}
	case shares > 1:
		return []launch{product, w.sumShares(m, shares)}
	}
	return []launch{product}
}

// tiled has the images inside of the pixels, so that a box holds the same pixel of all
// its images one after the other.
func (v view) tiled(t tensor, images, width int) driver.Tiled {
	n, h, w, c := v.shape[0], v.shape[1], v.shape[2], v.shape[3]
	const bytes = 2
	u := func(n int) uint64 { return uint64(n) }
	return driver.Tiled{
		Address: t.ptr + kernels.Ptr(bytes*c*(v.top*w+v.left)), BF16: true,
		Extents: []uint64{u(c), u(n), u(pieces(w-v.left, v.step)), u(pieces(h-v.top, v.step))},
		Strides: []uint64{u(bytes * c * w * h), u(bytes * c * v.step), u(bytes * c * w * v.step)},
		Box:     []uint32{channelsOfBox, uint32(images), uint32(width), 1},
		Swizzle: pixelBytes,
	}
}

func (w *boxedWeight) sumShares(m operands, shares int) launch {
	const threads, columns = 256, 8 // of a block; of a thread
	return launch{
		kernel: "conv_sum_shares", grid: [3]int{pieces(w.rows*w.columns/columns, threads), 1, 1}, block: threads,
		params: &kernels.ConvSharesParams{
			Shares: kernels.ConvShares{Sums: m.scratch, Count: int32(shares)},
			Result: resultOf(m.out, w.rows, w.columns),
		},
	}
}

func (w *boxedWeight) sumPhases(m operands, shares int) launch {
	const threads, elements = 128, 4 // of a block; of a thread
	tap := w.channels * w.columns
	return launch{
		kernel: "conv_sum_phases", grid: [3]int{tap / elements / threads, 1, 1}, block: threads,
		params: &kernels.ConvPhasesParams{Sums: m.scratch, Y: m.out.ptr, Elements: int64(tap), Shares: int32(shares)},
	}
}

// tmaWeightCases are calls for each of the kernels.
func tmaWeightCases() []check {
	same := graph.Conv2DGradWeight{Conv2D: graph.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}, R: 3, S: 3}
	halving := graph.Conv2DGradWeight{Conv2D: graph.Conv2D{Stride: 2, Bottom: 1, Right: 1}, R: 3, S: 3}
	var all []check
	add := func(op graph.Op, out graph.Shape, in ...graph.Shape) {
		w, _ := boxedWeightOf(callOf(op, out, in))
		for _, name := range w.kernels() {
			all = append(all, check{kernel: name, op: op, out: out, in: in})
		}
	}
	add(same, graph.Shape{3, 3, 128, 128}, graph.Shape{9, 3, 16, 128}, graph.Shape{9, 3, 16, 128})
	add(same, graph.Shape{3, 3, 128, 128}, graph.Shape{17, 4, 4, 128}, graph.Shape{17, 4, 4, 128})
	add(graph.Joined{Of: same}, graph.Shape{3, 3, 192, 128},
		graph.Shape{8, 4, 8, 64}, graph.Shape{8, 4, 8, 128}, graph.Shape{8, 4, 8, 128})
	add(graph.Doubled{Of: same}, graph.Shape{3, 3, 128, 128}, graph.Shape{8, 9, 8, 128}, graph.Shape{8, 18, 16, 128})
	add(halving, graph.Shape{3, 3, 64, 128}, graph.Shape{8, 20, 16, 64}, graph.Shape{8, 10, 8, 128})
	add(graph.LinearGradWeight{}, graph.Shape{256, 128}, graph.Shape{2, 28, 9, 256}, graph.Shape{2, 28, 9, 128})
	return all
}
