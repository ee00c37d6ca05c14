package cpu

import "ddpm/internal/graph/cpu/bf16"

// bf16Patch is the shape of the zero-padded copy, rounded to bfloat16, of the
// input that a block of output pixels sees. It has one of two forms:
//
//   - sliding, [images][rows][columns][pixel]: as patch is. One output pixel's
//     inputs begin Stride pixels after its left neighbour's, but those of the
//     next row begin somewhere else.
//   - gathered, [images][S][Stride][rows][OW][pixel]: one copy for each column
//     of taps, of the pixels that this tap sees, and of rows apart by what they
//     are modulo Stride. Then the inputs of all of a block's pixels follow each
//     other, which fills tiles better where rows are short.
type bf16Patch struct {
	g                     convGeometry
	gathered              bool
	images, rows, columns int
	pixel                 int // numbers of a pixel
}

// newBF16Patch fits the largest of the blocks.
func newBF16Patch(g convGeometry, b pixelBlocks, gathered bool) bf16Patch {
	if !gathered {
		return bf16Patch{g, false, b.images, (b.rows-1)*g.Stride + g.R, (g.OW-1)*g.Stride + g.S, g.C}
	}
	p := bf16Patch{g, true, b.images, b.rows - 1 + ceil(g.R, g.Stride), g.OW, g.C}
	if p.pixel%1024 == 0 {
		// The rows of a tile should not compete for the same lines of a cache.
		p.pixel += 32
	}
	return p
}

func (p bf16Patch) image() int {
	n := p.rows * p.columns * p.pixel
	if p.gathered {
		n *= p.g.S * p.g.Stride
	}
	return n
}

func (p bf16Patch) size() int { return p.images*p.image() + bf16.Slack }

// tap is the offset of the inputs that tap (r, s) sees, from those of (0, 0).
func (p bf16Patch) tap(r, s int) int {
	if p.gathered {
		return ((s*p.g.Stride+r%p.g.Stride)*p.rows + r/p.g.Stride) * p.columns * p.pixel
	}
	return (r*p.columns + s) * p.pixel
}

// step is from the inputs of one output pixel to those of its neighbour: to the
// right, and below.
func (p bf16Patch) step() (right, below int) {
	if p.gathered {
		return p.pixel, p.columns * p.pixel
	}
	return p.g.Stride * p.pixel, p.g.Stride * p.columns * p.pixel
}

// fill rounds what block b sees of x. Whatever a kernel may read is then finite
// if x is.
func (p bf16Patch) fill(k *bf16.Engine, dst []uint16, x source, b pixelBlock) {
	end := b.images * p.image()
	for n := range b.images {
		image := dst[n*p.image():][:p.image()]
		switch {
		case p.gathered && p.g.pointwise():
			pixels := b.rows * p.g.OW
			readBF16(k, image, p.pixel, x, p.g, b.image+n, b.row, 0, 1, pixels)
			end = n*p.image() + pixels*p.pixel
		case p.gathered:
			p.gather(k, image, x, b.image+n, b.row*p.g.Stride-p.g.PadTop)
		default:
			p.slide(k, image, x, b.image+n, b.row*p.g.Stride-p.g.PadTop)
		}
	}
	clear(dst[end:][:bf16.Slack])
}

// slide fills an image of the sliding form with rows of x from top on.
func (p bf16Patch) slide(k *bf16.Engine, dst []uint16, x source, n, top int) {
	g := p.g
	first := min(max(0, g.PadLeft), p.columns)
	end := max(first, min(p.columns, g.W+g.PadLeft))
	for i := range p.rows {
		row := dst[i*p.columns*p.pixel:][:p.columns*p.pixel]
		if h := top + i; h < 0 || h >= g.H || first == end {
			clear(row)
			continue
		}
		clear(row[:first*p.pixel])
		clear(row[end*p.pixel:])
		readBF16(k, row[first*p.pixel:], p.pixel, x, g, n, top+i, first-g.PadLeft, 1, end-first)
	}
}

// gather fills an image of the gathered form.
func (p bf16Patch) gather(k *bf16.Engine, dst []uint16, x source, n, top int) {
	g := p.g
	for s := range g.S {
		first := min(ceil(max(0, g.PadLeft-s), g.Stride), p.columns)
		end := max(first, min(p.columns, ceil(max(0, g.W+g.PadLeft-s), g.Stride)))
		for i := range p.rows * g.Stride {
			row := dst[p.tap(i, s):][:p.columns*p.pixel]
			if h := top + i; h < 0 || h >= g.H || first == end {
				clear(row)
				continue
			}
			clear(row[:first*p.pixel])
			clear(row[end*p.pixel:])
			readBF16(k, row[first*p.pixel:], p.pixel, x, g, n, top+i, first*g.Stride+s-g.PadLeft, g.Stride, end-first)
		}
	}
}

// readBF16 rounds so many pixels, j, j+step, ... of row i of image n, to dst, in
// which one begins every pitch numbers. g gives the extents of the
// convolution's input. Pixels beyond the row are those of the next.
func readBF16(k *bf16.Engine, dst []uint16, pitch int, x source, g convGeometry, n, i, j, step, pixels int) {
	if x.doubled {
		// Of pixels that are an even number apart, each is as far from the last
		// as all others.
		row := x.a[(n*(g.H/2)+i/2)*(g.W/2)*x.ca:]
		for q := range min(2, pixels) {
			k.Convert(dst[q*pitch:], 2*pitch, row[(j+q*step)/2*x.ca:], step*x.ca, ceil(pixels-q, 2), x.ca)
		}
		return
	}
	first := (n*g.H+i)*g.W + j
	if step == 1 && pitch == x.ca && x.cb == 0 {
		k.Convert(dst, 0, x.a[first*x.ca:], 0, 1, pixels*x.ca)
		return
	}
	k.Convert(dst, pitch, x.a[first*x.ca:], step*x.ca, pixels, x.ca)
	if x.cb > 0 {
		k.Convert(dst[x.ca:], pitch, x.b[first*x.cb:], step*x.cb, pixels, x.cb)
	}
}
