package cpu

import (
	"ddpm/internal/graph/cpu/bf16"
	"ddpm/internal/graph/cpu/gemm"
	"ddpm/internal/graph/cpu/isa"
)

// The gradient with respect to the weights sums over pixels, so pixels must be
// neighbours in memory for the instructions that multiply pairs. A first pass
// rounds and turns all of x, into padded planes of one channel and block of
// pixels each,
//
//	[block][channel][images][Stride][Stride][rows][columns]
//
// in which rows and columns lie apart by what they are modulo Stride, and packs
// dy in panels. Then tap (r, s) of dw is a product whose A begins at an offset
// of its own in the planes: dw[(r,s), c, k] = sum over pixels of
// A[c, pixel] dy[pixel, k].
//
// The rows of an image are either padded one by one to the kernel's step, or
// all as one with the gaps between them, whichever is shorter; dy is packed with
// zeros in the gaps.

// How the gradient with respect to the weights is cut.
const (
	bf16BlockPixels = 1024 // output pixels between two visits to a tile of dw
	bf16ChunkPixels = 2048 // output pixels at least in a partial sum of dw
	bf16TurnWidth   = 16   // channels that one task of the first pass turns
	bf16TurnHeight  = 32   // pixels turned at once
)

// bf16WeightCuts are the forms of the operands and the tasks.
type bf16WeightCuts struct {
	g             convGeometry
	blocks        pixelBlocks
	merged        bool // pointwise, of one image: a block's pixels are one row
	flat          bool // an image's rows are one segment
	rows, columns int  // of a plane, by their remainders
	row           int  // pixels in a row of output
	count         int  // rows of output in an image of the largest block
	segment       int  // steps of a segment, padded
	steps         int  // of the largest block
	plane         int  // numbers of a channel and block

	channels, panels, chunks int // number of groups
}

func (e *engine) bf16WeightCuts(g convGeometry) bf16WeightCuts {
	c := bf16WeightCuts{g: g, blocks: cutPixels(g.N, g.OH, g.OW, bf16BlockPixels)}
	c.count, c.row = c.blocks.rows, g.OW
	if g.pointwise() {
		c.merged = true
		c.count, c.row = 1, c.blocks.rows*g.OW
	}
	c.rows, c.columns = c.count-1+ceil(g.R, g.Stride), c.row-1+ceil(g.S, g.Stride)
	// Pairs of pixels must not straddle rows.
	even := c.columns + c.columns%2
	apart, together := c.count*e.bf16.Padded(c.row), e.bf16.Padded((c.count-1)*even+c.row)
	if c.flat = together < apart; c.flat {
		c.columns, c.segment = even, together
		c.steps = c.blocks.images * together
	} else {
		c.segment = e.bf16.Padded(c.row)
		c.steps = c.blocks.images * apart
	}
	// An odd number of cache lines, so that channels fall on different ones.
	const line = 32
	c.plane = ceil(c.blocks.images*c.image()+bf16.Slack, line) * line
	if c.plane/line%2 == 0 {
		c.plane += line
	}

	c.channels = ceil(g.C, e.bf16GroupChannels())
	panels := e.bf16.Panels(g.K)
	tasks := c.channels * panels
	c.chunks = max(1, min(ceil(manyTasks/2, tasks), g.pixels()/bf16ChunkPixels, c.blocks.count()))
	c.panels = min(panels, ceil(manyTasks, c.channels*c.chunks))
	return c
}

// bf16GroupChannels is the number of input channels of a task: a few tiles'.
func (e *engine) bf16GroupChannels() int {
	if e.bf16.Kind() == isa.BF16AMX {
		return 32
	}
	return 28
}

// image is the size of an image in a plane.
func (c *bf16WeightCuts) image() int { return c.g.Stride * c.g.Stride * c.rows * c.columns }

// tap is the offset of the first input that tap (r, s) sees.
func (c *bf16WeightCuts) tap(r, s int) int {
	stride := c.g.Stride
	return ((r%stride*stride+s%stride)*c.rows+r/stride)*c.columns + s/stride
}

// rowsOf is the number of rows of output in an image of b, and of pixels in one.
func (c *bf16WeightCuts) rowsOf(b pixelBlock) (count, row int) {
	if c.merged {
		return 1, b.rows * c.g.OW
	}
	return b.rows, c.row
}

// offsets are where the segments of a block begin in a plane.
func (c *bf16WeightCuts) offsets(b pixelBlock) (offsets []int) {
	count, _ := c.rowsOf(b)
	for n := range b.images {
		if c.flat {
			offsets = append(offsets, n*c.image())
			continue
		}
		for i := range count {
			offsets = append(offsets, n*c.image()+i*c.columns)
		}
	}
	return offsets
}

// turn fills the planes of channels [c0, c1) of block b, no more than
// bf16TurnWidth and all of the same image of x. Scratch is for pixels that are
// doubled.
func (c *bf16WeightCuts) turn(k *bf16.Engine, dst []uint16, x source, b pixelBlock, c0, c1 int, scratch []float32) {
	g, stride := c.g, c.g.Stride
	image, width, channel := x.a, x.ca, c0
	if c0 >= x.ca {
		image, width, channel = x.b, x.cb, c0-x.ca
	}
	if c.merged {
		pixels := b.rows * g.W
		k.Transpose(dst, c.plane, image[b.row*g.W*width+channel:], width, pixels, c1-c0)
		for i := range c1 - c0 {
			clear(dst[i*c.plane+pixels:][:c.plane-pixels])
		}
		return
	}
	clear(dst[:(c1-c0)*c.plane])
	for n := range b.images {
		count, row := c.rowsOf(b)
		for i := range (count-1)*stride + g.R {
			h := b.row*stride + i - g.PadTop
			if h < 0 || h >= g.H {
				continue
			}
			for s := range min(stride, g.S) {
				// Column q of these holds pixel q*stride + s - PadLeft.
				columns := row - 1 + ceil(g.S-s, stride)
				first := min(ceil(max(0, g.PadLeft-s), stride), columns)
				end := max(first, min(columns, ceil(max(0, g.W+g.PadLeft-s), stride)))
				to := n*c.image() + c.tap(i, s) + first
				pixel := first*stride + s - g.PadLeft
				if !x.doubled {
					from := ((b.image+n)*g.H+h)*g.W + pixel
					if first < end {
						k.Transpose(dst[to:], c.plane, image[from*width+channel:], stride*width, end-first, c1-c0)
					}
					continue
				}
				half := image[((b.image+n)*(g.H/2)+h/2)*(g.W/2)*width:]
				for q := first; q < end; q += bf16TurnHeight {
					pixels := min(bf16TurnHeight, end-q)
					for p := range pixels {
						copy(scratch[p*bf16TurnWidth:][:c1-c0], half[(pixel+p*stride)/2*width+channel:])
					}
					k.Transpose(dst[to:], c.plane, scratch, bf16TurnWidth, pixels, c1-c0)
					to += pixels
					pixel += pixels * stride
				}
			}
		}
	}
}

// pack packs one panel of a block of dy.
func (c *bf16WeightCuts) pack(k *bf16.Engine, dst []uint16, dy []float32, b pixelBlock, p bf16.Panel) {
	g := c.g
	count, row := c.rowsOf(b)
	for n := range b.images {
		for i := range count {
			padded := c.segment
			if c.flat {
				padded = c.columns
				if i == count-1 {
					padded = c.segment - i*c.columns
				}
			}
			first := ((b.image+n)*g.OH + b.row + i) * g.OW
			k.PackPanel(dst, bf16.Matrix{Data: dy[first*g.K:], Stride: g.K}, p, 0, row, padded)
			dst = dst[padded*p.Width:]
		}
	}
}

// convBF16GradWeight binds dw, the gradient with respect to w, from x, which a
// pointwise convolution does not double, and dy.
func (e *engine) convBF16GradWeight(g convGeometry, dw []float32, x source, dy, ws []float32) func() {
	g = g.flat(false)
	c := e.bf16WeightCuts(g)
	size := g.R * g.S * g.C * g.K
	count := c.blocks.count()
	planes := bf16.View(gemm.Carve(&ws, bf16.Floats(count*g.C*c.plane)))
	packed := bf16.View(gemm.Carve(&ws, bf16.Floats(e.bf16.PackedSize(count*c.steps, g.K))))
	scratch := gemm.Carve(&ws, e.pool.Workers()*bf16TurnWidth*bf16TurnHeight)
	sums := gemm.Sums{Result: dw[:size], Others: gemm.Carve(&ws, (c.chunks-1)*size)}

	// The first pass: groups of channels of a, of b, and panels.
	var starts []int
	for c0 := 0; c0 < x.ca; c0 += bf16TurnWidth {
		starts = append(starts, c0)
	}
	for c0 := x.ca; c0 < g.C; c0 += bf16TurnWidth {
		starts = append(starts, c0)
	}
	panels := e.bf16.Panels(g.K)
	parts := len(starts) + panels
	prepare := func(task, worker int) {
		i, part := task/parts, task%parts
		b := c.blocks.block(i)
		if part >= len(starts) {
			p := e.bf16.Panel(part-len(starts), g.K)
			c.pack(e.bf16, packed[(p.First*count+i*p.Width)*c.steps:], dy, b, p)
			return
		}
		c0, c1 := starts[part], g.C
		if part+1 < len(starts) {
			c1 = starts[part+1]
		}
		c.turn(e.bf16, planes[(i*g.C+c0)*c.plane:], x, b, c0, c1, e.own(scratch, worker))
	}

	layouts := make([]*bf16.Layout, count)
	for i := range layouts {
		layouts[i] = e.bf16.Layout(c.plane, c.segment, c.offsets(c.blocks.block(i))...)
	}
	run := func(task, _ int) {
		group, chunk := task%(c.channels*c.panels), task/(c.channels*c.panels)
		c0, c1 := cut(g.C, c.channels, group%c.channels)
		j0, j1 := cut(panels, c.panels, group/c.channels)
		first, end := cut(count, c.chunks, chunk)
		part := sums.Part(chunk)
		s := bf16.Strip{Rows: c1 - c0, Stride: g.K}
		for i := first; i < end; i++ {
			s.Layout = layouts[i]
			for j := j0; j < j1; j++ {
				s.Panel = e.bf16.Panel(j, g.K)
				s.B = packed[(s.Panel.First*count+i*s.Panel.Width)*c.steps:]
				for r := range g.R {
					for q := range g.S {
						s.A = planes[(i*g.C+c0)*c.plane+c.tap(r, q):]
						s.C = part[((r*g.S+q)*g.C+c0)*g.K+s.Panel.First:]
						s.Add = nil
						if i > first {
							s.Add = s.C
						}
						e.bf16.Run(&s)
					}
				}
			}
		}
	}
	reduce := e.gemm.Reducer(sums)
	tasks := c.channels * c.panels * c.chunks
	return func() {
		e.pool.Run(count*parts, prepare)
		e.pool.Run(tasks, run)
		reduce()
	}
}

// convBF16GradWeightWorkspace is that for any source.
func (e *engine) convBF16GradWeightWorkspace(g convGeometry) int {
	g = g.flat(false)
	c := e.bf16WeightCuts(g)
	count := c.blocks.count()
	return gemm.Scratch(
		bf16.Floats(count*g.C*c.plane), bf16.Floats(e.bf16.PackedSize(count*c.steps, g.K)),
		e.pool.Workers()*bf16TurnWidth*bf16TurnHeight, (c.chunks-1)*g.R*g.S*g.C*g.K)
}
