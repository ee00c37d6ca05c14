//go:build gpu && !cpu

package cuda

import (
	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// tmaStep is the number of channels that a step of tma_conv.cu multiplies.
const tmaStep = 64

// tmaTap is a tap of a kernel in one dimension, as a phase of the result meets it: on
// a plane of the operand, which is every so-many-th row, at a shift from the result's.
type tmaTap struct{ index, plane, shift int }

// tmaTaps are those of one phase of the result.
type tmaTaps []tmaTap

// forwardTaps are the taps of a convolution in one dimension, of one phase: planes are
// the rows of a remainder by the stride.
func forwardTaps(size, stride, pad int) []tmaTaps {
	var taps tmaTaps
	for r := range size {
		shift, plane := floorDivide(r-pad, stride)
		taps = append(taps, tmaTap{r, plane, shift})
	}
	return []tmaTaps{taps}
}

// dataTaps are those of a data gradient: phase p is the rows y = stride i + p of dx,
// which meet dy where stride divides y + pad - r.
func dataTaps(size, stride, pad int) []tmaTaps {
	phases := make([]tmaTaps, stride)
	for p := range phases {
		for r := range size {
			if shift, rest := floorDivide(p+pad-r, stride); rest == 0 {
				phases[p] = append(phases[p], tmaTap{r, 0, shift})
			}
		}
	}
	return phases
}

// doubledTaps are those of a 3x3 convolution of a doubled image, on the image as it is:
// sums of taps (kernels/conv_taps.cu).
func doubledTaps() []tmaTaps {
	return []tmaTaps{{{0, 0, -1}, {1, 0, 0}}, {{0, 0, 0}, {1, 0, 1}}}
}

// floorDivide is the quotient, rounded down, and the remainder, which is not negative.
func floorDivide(a, b int) (quotient, remainder int) {
	remainder = (a%b + b) % b
	return (a - remainder) / b, remainder
}

// onPlane are the taps that meet a plane, and the least of their shifts.
func (t tmaTaps) onPlane(plane int) (on tmaTaps, least int) {
	for _, tap := range t {
		if tap.plane == plane {
			if len(on) == 0 || tap.shift < least {
				least = tap.shift
			}
			on = append(on, tap)
		}
	}
	return on, least
}

// span is by how much shifts on one plane differ, at most.
func span(phases []tmaTaps, planes int) (most int) {
	for _, taps := range phases {
		for plane := range planes {
			on, least := taps.onPlane(plane)
			for _, tap := range on {
				most = max(most, tap.shift-least)
			}
		}
	}
	return most
}

// tmaGrid is the pixels of a feature map, and how many pixels lie between neighbours in
// each dimension.
type tmaGrid struct {
	images, height, width int
	image, row, column    int
}

func denseGrid(images, height, width int) tmaGrid {
	return tmaGrid{images, height, width, height * width, width, 1}
}

// rowsGrid takes rows of a matrix, a multiple of 64, for images of 8 columns: one tap
// does not ask where a pixel lies.
func rowsGrid(rows int) tmaGrid { return tmaGrid{8, rows / 64, 8, 1, 64, 8} }

// every is the grid of every step'th row and column, from given ones on.
func (g tmaGrid) every(step, row, column int) tmaGrid {
	g.height, g.width = pieces(g.height-row, step), pieces(g.width-column, step)
	g.row, g.column = step*g.row, step*g.column
	return g
}

// tmaConv is a convolution, or a data gradient of one, as tma_conv.cu computes it.
type tmaConv struct {
	kernels string
	turned  bool // the operand of the weights
	in      tmaGrid
	parts   []int   // channels of the operand's parts
	planes  int     // of it, in each dimension
	out     tmaGrid // of a phase
	// channels and pixels are those of the result as a whole.
	channels, pixels int
	rows, columns    []tmaTaps // by phase
	width            int       // taps of a row of the kernel
	// doubled says that weights are sums of taps, four for each phase.
	doubled bool
	// whole says that out is images with one tile after the other.
	whole bool
}

// forwardConv is the convolution g of parts side by side, doubled if the image lies in
// memory at half of its height and width.
func forwardConv(g graph.ConvGeometry, parts []int, doubled bool) tmaConv {
	c := tmaConv{
		kernels: "tma_conv_forward", turned: true, parts: parts, planes: g.Stride, channels: g.K,
		in: denseGrid(g.N, g.H, g.W), out: denseGrid(g.N, g.OH, g.OW), pixels: g.N * g.OH * g.OW,
		rows: forwardTaps(g.R, g.Stride, g.PadTop), columns: forwardTaps(g.S, g.Stride, g.PadLeft),
		width: g.S, whole: true,
	}
	if doubled {
		c.in, c.out = denseGrid(g.N, g.H/2, g.W/2), c.out.every(2, 0, 0)
		c.rows, c.columns, c.width, c.doubled = doubledTaps(), doubledTaps(), 2, true
	}
	return c
}

// dataConv is the data gradient of g.
func dataConv(g graph.ConvGeometry) tmaConv {
	return tmaConv{
		kernels: "tma_conv_data", parts: []int{g.K}, planes: 1, channels: g.C,
		in: denseGrid(g.N, g.OH, g.OW), out: denseGrid(g.N, g.H, g.W).every(g.Stride, 0, 0), pixels: g.N * g.H * g.W,
		rows: dataTaps(g.R, g.Stride, g.PadTop), columns: dataTaps(g.S, g.Stride, g.PadLeft),
		width: g.S, whole: true,
	}
}

// asRows is a product of one tap on a matrix of rows.
func (c tmaConv) asRows() tmaConv {
	c.in, c.out, c.whole = rowsGrid(c.pixels), rowsGrid(c.pixels), false
	return c
}

// phases is the number of phases of the result.
func (c tmaConv) phases() int { return len(c.rows) * len(c.columns) }

// even is whether all phases are of the same extents, and each meets the operand.
func (c tmaConv) even() bool {
	for _, taps := range append(append([]tmaTaps{}, c.rows...), c.columns...) {
		if len(taps) == 0 {
			return false
		}
	}
	return c.phases()*c.out.images*c.out.height*c.out.width == c.pixels
}

// tmaTile is the tile of a kernel: of so many images, columns and rows, times
// tmaChannels channels (kernels/tma_conv.h).
type tmaTile struct {
	name                  string // pixels x images
	images, columns, rows int
	// weight is the time that a step takes, relative to that of the largest tile.
	weight float64
}

const tmaChannels = 128

var tmaTiles = []tmaTile{
	{"32x8", 8, 8, 4, 1},
	{"16x8", 8, 8, 2, 0.55},
	{"8x16", 16, 4, 2, 0.55},
}

// tiles are counted in each dimension.
func (c tmaConv) tiles(t tmaTile) (images, rows, columns, channels int) {
	return pieces(c.out.images, t.images), pieces(c.out.height, t.rows), pieces(c.out.width, t.columns), pieces(c.channels, tmaChannels)
}

// slots is the number of tiles that an image is made of, 0 if some are not full.
func (c tmaConv) slots(t tmaTile) int {
	if !c.whole || c.out.height%t.rows != 0 || c.out.width%t.columns != 0 {
		return 0
	}
	return c.phases() * (c.out.height / t.rows) * (c.out.width / t.columns)
}

// box is the extents of a box, in pixels: a tile and the margin that taps reach.
func (c tmaConv) box(t tmaTile) (rows, columns int) {
	return t.rows + span(c.rows, c.planes), t.columns + span(c.columns, c.planes)
}

// Extents of shared memory as tma_conv.h has them, in bytes.
const (
	tmaThreads       = 384
	tmaWeightStages  = 5
	tmaWeightBytes   = tmaChannels * tmaStep * 2
	tmaMostBoxes     = 8 // stages
	tmaMostShared    = 227 << 10
	tmaBarriersBytes = 16 // of a stage
)

// atoms are those of a pixel: 1024 bytes, of 8 images each.
func (t tmaTile) atoms() int { return t.images / 8 }

func (t tmaTile) exchangeBytes() int { return 8 * t.images * 32 * 8 }

// shared is the bytes of a box, the number of its stages and the dynamic shared memory;
// stages is less than 2 if there is too little.
func (c tmaConv) shared(t tmaTile) (box, stages, shared int) {
	rows, columns := c.box(t)
	box = t.images * rows * columns * tmaStep * 2
	fixed := tmaWeightStages*(tmaWeightBytes+tmaBarriersBytes) + t.exchangeBytes()
	stages = min(tmaMostBoxes, (tmaMostShared-fixed)/(box+tmaBarriersBytes))
	return box, stages, fixed + stages*(box+tmaBarriersBytes)
}

// tmaPlan is what tma_conv.cu reads of the sums of a tile, in so many shares.
type tmaPlan struct {
	table  kernels.TmaConvTable
	counts struct{ pieces, boxes, steps int }
	views  []tmaView // of table.Maps
	fits   bool      // the table
}

// tmaView is a plane of a part of the operand.
type tmaView struct{ part, row, column int }

// plan lists boxes and steps. The order of the steps is that of the sums: it does not
// depend on the tile.
func (c tmaConv) plan(t tmaTile, shares int) *tmaPlan {
	p := &tmaPlan{fits: true}
	for y, rows := range c.rows {
		for x, columns := range c.columns {
			firstTap := 0
			if c.doubled {
				firstTap = (y*len(c.columns) + x) * len(rows) * len(columns)
			}
			first := p.counts
			ends := p.addPhase(c, t, rows, columns, firstTap)
			offset := (y*c.out.row/len(c.rows) + x*c.out.column/len(c.columns)) * c.channels
			p.addPieces(first.boxes, first.steps, ends, shares, offset, c.pixels*c.channels)
		}
	}
	return p
}

// addPhase adds the boxes and steps of a phase, and returns where the steps of each box
// end.
func (p *tmaPlan) addPhase(c tmaConv, t tmaTile, rows, columns tmaTaps, firstTap int) (ends []int) {
	before := 0 // channels of the parts before
	for part, channels := range c.parts {
		for channel := 0; channel < channels; channel += tmaStep {
			for plane := range c.planes * c.planes {
				view := tmaView{part, plane / c.planes, plane % c.planes}
				onRows, row := rows.onPlane(view.row)
				onColumns, column := columns.onPlane(view.column)
				if len(onRows) == 0 || len(onColumns) == 0 {
					continue
				}
				p.addBox(kernels.TmaConvBox{
					Map: int32(p.view(view)), Channel: int32(channel), Row: int32(row), Column: int32(column),
				})
				_, pitch := c.box(t)
				for i, r := range onRows {
					for j, s := range onColumns {
						pixel := (r.shift-row)*pitch + s.shift - column
						p.addStep(kernels.TmaConvStep{
							Opens: flag(i+j == 0), Atom: int32(pixel * t.atoms()),
							Channel: int32(before + channel), Tap: int32(firstTap + r.index*c.width + s.index),
						})
					}
				}
				ends = append(ends, p.counts.steps)
			}
		}
		before += channels
	}
	return ends
}

func (p *tmaPlan) view(v tmaView) int {
	for i, other := range p.views {
		if v == other {
			return i
		}
	}
	if len(p.views) == len(p.table.Maps) {
		p.fits = false
		return 0
	}
	p.views = append(p.views, v)
	return len(p.views) - 1
}

func (p *tmaPlan) addBox(b kernels.TmaConvBox) {
	if p.fits = p.fits && p.counts.boxes < len(p.table.Boxes); p.fits {
		p.table.Boxes[p.counts.boxes] = b
	}
	p.counts.boxes++
}

func (p *tmaPlan) addStep(s kernels.TmaConvStep) {
	if p.fits = p.fits && p.counts.steps < len(p.table.Steps); p.fits {
		p.table.Steps[p.counts.steps] = s
	}
	p.counts.steps++
}

// addPieces deals the boxes of a phase, which end at given steps, to so many shares or
// a few less, whose sums lie a distance apart.
func (p *tmaPlan) addPieces(box, step int, ends []int, shares, offset, distance int) {
	each := pieces(len(ends), shares)
	for share := 0; share*each < len(ends); share++ {
		last := min((share+1)*each, len(ends))
		if p.fits = p.fits && p.counts.pieces < len(p.table.Pieces); p.fits {
			p.table.Pieces[p.counts.pieces] = kernels.TmaConvPiece{
				Offset: int64(offset + share*distance),
				Box:    int32(box + share*each), Boxes: int32(last - share*each),
				Step: int32(step), Steps: int32(ends[last-1] - step),
			}
		}
		step = ends[last-1]
		p.counts.pieces++
	}
}

// mapOf is the map of a view of a part of the operand.
func (c tmaConv) mapOf(v tmaView, x tensor, t tmaTile) driver.Tiled {
	channels := c.parts[v.part]
	g := c.in.every(c.planes, v.row, v.column)
	first := v.row*c.in.row + v.column*c.in.column
	rows, columns := c.box(t)
	bytes := func(pixels int) uint64 { return uint64(2 * pixels * channels) }
	return driver.Tiled{
		Address: x.ptr + kernels.Ptr(bytes(first)), BF16: true, Swizzle: 128,
		Extents: []uint64{uint64(channels), uint64(g.images), uint64(g.width), uint64(g.height)},
		Strides: []uint64{bytes(g.image), bytes(g.column), bytes(g.row)},
		Box:     []uint32{tmaStep, uint32(t.images), uint32(columns), uint32(rows)},
	}
}

// weightsMap is that of weights [taps][c][k] of bf16.
func (c tmaConv) weightsMap(at kernels.Ptr) driver.Tiled {
	taps := len(c.rows) * len(c.columns) * 4
	if !c.doubled {
		taps = 0
		for _, rows := range c.rows {
			for _, columns := range c.columns {
				taps += len(rows) * len(columns)
			}
		}
	}
	from, to := 0, c.channels
	for _, channels := range c.parts {
		from += channels
	}
	box := []uint32{tmaStep, tmaStep, 1}
	if !c.turned {
		from, to = to, from
		box[1] = tmaChannels
	}
	return driver.Tiled{
		Address: at, BF16: true, Swizzle: 128, Box: box,
		Extents: []uint64{uint64(to), uint64(from), uint64(taps)},
		Strides: []uint64{uint64(2 * to), uint64(2 * from * to)},
	}
}
