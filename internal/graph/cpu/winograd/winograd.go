// Package winograd has the transforms of Winograd's minimal filtering
// F(4x4, 3x3), after Lavin & Gray, "Fast Algorithms for Convolutional Neural
// Networks" (2015). A 3x3 convolution of stride 1 is cut into tiles of 4x4 output
// pixels, each of which sees a window d of 6x6 input pixels:
//
//	Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A
//
// The elementwise product, summed over the input channels, is 36 matrix
// products, one for each element of the 6x6: [tiles, C] [C, K]. They take 36
// multiplications for 16 outputs where the definition takes 144. Each of the 36
// matrices is a plane here; plane 6j+i is element (i, j).
//
// The gradient with respect to the data is such a convolution too. That with
// respect to the weights g is, from the same linear maps transposed,
//
//	dg = Gᵀ [ sum over tiles of (Bᵀ d B) ⊙ (A dY Aᵀ) ] G
//
// # Points
//
// The maps come from the interpolation of a polynomial of degree 5 at 0, ±a, ±b
// and infinity (Toom and Cook). With M(x) = x (x²-a²) (x²-b²), row p of Aᵀ's
// transpose is 1, p, p², p³; row p of G is (1, p, p²) / M'(p); row p of Bᵀ has
// the coefficients of M(x) / (x-p); and infinity gives the last coefficients:
//
//	     ⎡ a²b²  0    -a²-b²  0      1  0 ⎤        ⎡ 1  1   1   1   1   0 ⎤
//	     ⎢ 0    -ab²  -b²     a      1  0 ⎥   Aᵀ = ⎢ 0  a  -a   b  -b   0 ⎥
//	Bᵀ = ⎢ 0     ab²  -b²    -a      1  0 ⎥        ⎢ 0  a²  a²  b²  b²  0 ⎥
//	     ⎢ 0    -a²b  -a²     b      1  0 ⎥        ⎣ 0  a³ -a³  b³ -b³  1 ⎦
//	     ⎢ 0     a²b  -a²    -b      1  0 ⎥
//	     ⎣ 0     a²b²  0    -a²-b²   0  1 ⎦
//
// The usual points are ±1 and ±2. Here they are ±5/8 and ±3/2, closer to each
// other on either side of 1, so that the rows of a map differ less in size: in
// float32 the rounding error is less than half, and B and A are still exact.
// Relative to the greatest output of random data, sums over 512 channels, in
// chains of 256, are off by 2e-6, and so is direct convolution; the usual points
// are off by more than twice that.
package winograd

//go:generate go run ./gen

import "ddpm/internal/graph/cpu/isa"

// The extents of a tile's output and of the window that it sees, and the number
// of planes.
const (
	Tile   = 4
	Window = 6
	Planes = Window * Window
)

// The points of interpolation besides 0 and infinity are ±A and ±B.
const (
	A = 5. / 8
	B = 3. / 2
)

// The squares of the points, and M'(x) at 0, ±A and ±B.
const (
	a2, b2     = A * A, B * B
	n0, na, nb = a2 * b2, 2 * a2 * (a2 - b2), 2 * b2 * (b2 - a2)
)

// Kernels are the transforms in one instruction set.
type Kernels struct{ set isa.Set }

// New returns the kernels of a supported instruction set.
func New(set isa.Set) Kernels { return Kernels{set} }

// Lanes is the number of channels that the kernels write to planes at once: they
// round numbers of channels up to a multiple of it, with zeros.
func (k Kernels) Lanes() int {
	switch k.set {
	case isa.AVX512:
		return 16
	case isa.AVX2:
		return 8
	}
	return genericLanes
}

func (k Kernels) roundUp(channels int) int {
	lanes := k.Lanes()
	return (channels + lanes - 1) / lanes * lanes
}

// Image is an image [Height,Width,Channels] that windows are taken from. With
// Doubled, what is stored in Data is half as high and as wide, and is read as if
// each pixel were four.
type Image struct {
	Data                    []float32
	Height, Width, Channels int
	Doubled                 bool
}

// Pixels points to the pixels of a square of up to 6x6, six a row.
type Pixels struct {
	at       [Planes]*float32
	channels int
}

// Take points to the size x size pixels of an image that begin at (row, column).
// Those outside of the image are zeros, which must be as many as it has channels.
func (p *Pixels) Take(m *Image, row, column, size int, zeros []float32) {
	shift := 0
	if m.Doubled {
		shift = 1
	}
	stride := (m.Width >> shift) * m.Channels
	_, _ = m.Data[(m.Height>>shift)*stride-1], zeros[m.Channels-1]
	p.channels = m.Channels
	for i := range size {
		line := p.at[i*Window:][:size]
		r := row + i
		if uint(r) >= uint(m.Height) {
			for j := range line {
				line[j] = &zeros[0]
			}
			continue
		}
		pixels := m.Data[(r>>shift)*stride:]
		for j := range line {
			if c := column + j; uint(c) < uint(m.Width) {
				line[j] = &pixels[(c>>shift)*m.Channels]
			} else {
				line[j] = &zeros[0]
			}
		}
	}
}

// Input writes Bᵀ d B of a window of 6x6 pixels, for some of their channels, to
// dst[p*plane:] for each plane p.
func (k Kernels) Input(dst []float32, plane int, pixels *Pixels, first, channels int) {
	k.checkGather(dst, plane, pixels, first, channels)
	if k.set == isa.Generic {
		gatherGeneric(dst, plane, pixels, first, channels, Window, inputLine)
		return
	}
	k.gather(dst, plane, pixels, first, channels, false)
}

// Gradient writes A dY Aᵀ of a tile of 4x4 pixels, for some of their channels, to
// dst[p*plane:] for each plane p.
func (k Kernels) Gradient(dst []float32, plane int, pixels *Pixels, first, channels int) {
	k.checkGather(dst, plane, pixels, first, channels)
	if k.set == isa.Generic {
		gatherGeneric(dst, plane, pixels, first, channels, Tile, gradientLine)
		return
	}
	k.gather(dst, plane, pixels, first, channels, true)
}

func (k Kernels) checkGather(dst []float32, plane int, pixels *Pixels, first, channels int) {
	if channels < 1 || first < 0 || first+channels > pixels.channels || plane < 0 ||
		(Planes-1)*plane+k.roundUp(channels) > len(dst) {
		panic("winograd: transform reaches beyond its operands")
	}
}

// Output is one tile of products, [Planes][Channels], and where its transform
// Aᵀ M A goes: the first Rows x Columns of 4x4 pixels of Channels elements.
type Output struct {
	Src   []float32
	Plane int // elements between the planes of Src

	Dst           []float32
	Pixel, Row    int // elements between the pixels and rows of Dst
	Rows, Columns int
	Channels      int

	// What is added: to every pixel, and to each its own, laid out as Dst. Each
	// may be nil.
	Bias, PerSample, Residual []float32
}

// Output writes one tile of the output.
func (k Kernels) Output(o *Output) {
	reach := (o.Rows-1)*o.Row + (o.Columns-1)*o.Pixel + o.Channels
	if o.Channels < 1 || o.Rows < 1 || o.Columns < 1 || o.Rows > Tile || o.Columns > Tile ||
		o.Plane < 0 || o.Pixel < 0 || o.Row < 0 ||
		reach > len(o.Dst) || (Planes-1)*o.Plane+k.roundUp(o.Channels) > len(o.Src) ||
		o.Bias != nil && o.Channels > len(o.Bias) ||
		o.PerSample != nil && o.Channels > len(o.PerSample) ||
		o.Residual != nil && reach > len(o.Residual) {
		panic("winograd: output reaches beyond its operands")
	}
	if k.set == isa.Generic {
		o.generic()
		return
	}
	k.output(o)
}

// Taps is some rows of 3x3 matrices [3,3][Rows,Columns] and their planes. The
// rows of a plane follow each other without a gap, each of Columns rounded up to
// a multiple of Lanes.
type Taps struct {
	Planes []float32
	Plane  int // elements between planes

	Taps          []float32
	Tap, Row      int // elements between taps and between their rows
	Rows, Columns int

	// Flipped says that tap (2-r, 2-s) of the memory is to be tap (r, s).
	Flipped bool
}

func (k Kernels) checkTaps(t *Taps) {
	if t.Rows < 1 || t.Columns < 1 || t.Tap < 0 || t.Row < 0 || t.Plane < 0 ||
		8*t.Tap+(t.Rows-1)*t.Row+t.Columns > len(t.Taps) ||
		(Planes-1)*t.Plane+t.Rows*k.roundUp(t.Columns) > len(t.Planes) {
		panic("winograd: taps reach beyond their operands")
	}
}

// Weights computes the planes G g Gᵀ from the taps g.
func (k Kernels) Weights(t *Taps) {
	k.checkTaps(t)
	if k.set == isa.Generic {
		t.weightsGeneric()
		return
	}
	k.taps(t, true)
}

// WeightGradient computes the taps Gᵀ Z G from the planes Z.
func (k Kernels) WeightGradient(t *Taps) {
	k.checkTaps(t)
	if k.set == isa.Generic {
		t.gradientGeneric()
		return
	}
	k.taps(t, false)
}

// Transpose writes the transpose of src, rows x columns elements whose rows lie
// srcRow elements apart, to dst, whose rows lie dstRow apart.
func (k Kernels) Transpose(dst []float32, dstRow int, src []float32, srcRow, rows, columns int) {
	if lanes := k.Lanes(); k.set != isa.Generic && rows == lanes && columns == lanes {
		_, _ = dst[(columns-1)*dstRow+rows-1], src[(rows-1)*srcRow+columns-1]
		k.transposeBlock(dst, dstRow, src, srcRow)
		return
	}
	for j := range columns {
		line := dst[j*dstRow:][:rows]
		for i := range line {
			line[i] = src[i*srcRow+j]
		}
	}
}
