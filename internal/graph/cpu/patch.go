package cpu

// pixelBlocks cuts the pixels of n images of h x w into blocks of about one
// size: several whole images, or some rows of one image.
type pixelBlocks struct {
	n, h   int
	whole  int // blocks that the images make
	parts  int // blocks that an image makes; 1 if whole < n
	images int // of the largest block
	rows   int // of the largest block
}

func cutPixels(n, h, w, size int) pixelBlocks {
	b := pixelBlocks{n: n, h: h, whole: n, parts: 1}
	if h*w < size {
		b.whole = ceil(n, size/(h*w))
	} else {
		b.parts = min(h, ceil(h*w, size))
	}
	b.images, b.rows = ceil(n, b.whole), ceil(h, b.parts)
	return b
}

func (b pixelBlocks) count() int { return b.whole * b.parts }

// pixelBlock is the given rows of each of the given images.
type pixelBlock struct{ image, images, row, rows int }

func (b pixelBlocks) block(i int) pixelBlock {
	image, imageEnd := cut(b.n, b.whole, i/b.parts)
	row, rowEnd := cut(b.h, b.parts, i%b.parts)
	return pixelBlock{image, imageEnd - image, row, rowEnd - row}
}

// patch is the shape of the zero-padded copy of the input that a block of
// output pixels sees: [images][rows][columns][channels].
type patch struct {
	g                               convGeometry
	images, rows, columns, channels int
}

// newPatch fits the largest of the blocks and holds that many channels.
func newPatch(g convGeometry, b pixelBlocks, channels int) patch {
	return patch{g, b.images, (b.rows-1)*g.Stride + g.R, (g.OW-1)*g.Stride + g.S, channels}
}

func (p patch) size() int { return p.images * p.rows * p.columns * p.channels }

// at is the offset of a pixel.
func (p patch) at(image, row, column int) int {
	return ((image*p.rows+row)*p.columns + column) * p.channels
}

// fill copies channels [c0, c1) of what block b sees of x.
func (p patch) fill(dst []float32, x source, b pixelBlock, c0, c1 int) {
	g := p.g
	// Columns [first, end) of the patch are inside of the image.
	first := min(max(0, g.PadLeft), p.columns)
	end := max(first, min(p.columns, g.W+g.PadLeft))
	for n := range b.images {
		for i := range (b.rows-1)*g.Stride + g.R {
			row := dst[p.at(n, i, 0):p.at(n, i+1, 0)]
			h := b.row*g.Stride + i - g.PadTop
			if h < 0 || h >= g.H || first == end {
				clear(row)
				continue
			}
			clear(row[:first*p.channels])
			clear(row[end*p.channels:])
			x.read(row[first*p.channels:end*p.channels], p.channels, g, b.image+n, h, first-g.PadLeft, c0, c1)
		}
	}
}
