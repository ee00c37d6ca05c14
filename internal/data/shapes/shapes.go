// Package shapes draws the synthetic data set: one anti-aliased coloured shape
// (disc, ring, square, triangle or cross) on a gently shaded background.
//
// Image number index of the set with seed seed is a function of those two
// alone, so images can be drawn in any order, on any number of threads, with no
// storage. Eight 24-bit uniforms u0..u7 come from two Philox blocks:
//
//	class      = floor(5 u0)
//	background = floor(2 u1)
//	phi        = 2 pi u2                                 direction of the shading
//	r          = 0.30 + 0.10 u3                          radius
//	c          = 0.5 + (1 - 2 (r + 0.04)) (u - 0.5)      centre, x from u4, y from u5
//	theta      = 0.2 (2 u6 - 1)                          tilt; u7 is unused
//
// Lengths are fractions of the image side, y points down, angles are radians.
// The pixel in row i, column j of an S x S image has its centre at
// (px, py) = ((j + 0.5)/S, (i + 0.5)/S) and the colour
//
//	back  = background + 0.06 (cos phi (2 px - 1) + sin phi (2 py - 1))
//	x, y  = (px - cx, py - cy) turned by -theta and divided by r
//	alpha = clamp(0.5 - Distance(x, y) r S, 0, 1)        one pixel of ramp
//	value = back + alpha (colour - back)
//	byte  = floor(255 value + 0.5)
//
// No value leaves [0, 1]. Of 16 x 16 images, discs, rings and squares never touch
// the outermost pixels; tips of triangles and crosses, whose Distance is a bound
// there, cover at most 0.43 of one, in 4 % of the images.
//
// Products that meet a sum are written float64(a*b): the conversion forbids the
// compiler to fuse them, so all architectures draw the same bytes.
package shapes

import (
	"math"

	"ddpm/internal/rng"
)

const (
	Size      = 16   // side of the images of the data set, pixels
	Gradient  = 0.06 // the background brightens by this from the centre to the edge
	RadiusMin = 0.30
	RadiusMax = 0.40
	Margin    = 0.04 // smallest distance from the shape's bounding circle to the border
	MaxTilt   = 0.2  // largest rotation either way, radians
)

// Class numbers, in the order of Classes.
const (
	Disc = iota
	Ring
	Square
	Triangle
	Cross
)

// Classes names the classes.
var Classes = [5]string{"disc", "ring", "square", "triangle", "cross"}

// Colours are the RGB colours of the classes, in [0, 1].
var Colours = [len(Classes)][3]float64{
	{255. / 255, 190. / 255, 40. / 255},
	{47. / 255, 128. / 255, 237. / 255},
	{230. / 255, 57. / 255, 70. / 255},
	{46. / 255, 168. / 255, 98. / 255},
	{155. / 255, 81. / 255, 224. / 255},
}

// Backgrounds are the RGB colours at the centre of a dark and a light
// background, in [0, 1].
var Backgrounds = [2][3]float64{
	{24. / 255, 28. / 255, 48. / 255},
	{232. / 255, 226. / 255, 212. / 255},
}

// Params describe one image; see the package comment for the units.
type Params struct {
	Class, Background int     // indices into Classes and Backgrounds
	Phi               float64 // direction in which the background brightens, [0, 2 pi)
	Radius            float64 // [RadiusMin, RadiusMax)
	CX, CY            float64 // centre of the shape
	Tilt              float64 // [-MaxTilt, MaxTilt)
}

// Words returns the eight 24-bit draws w of an image; u = w / 2^24.
func Words(seed, index uint64) [8]uint32 {
	key := rng.Key{Seed: seed, Stream: rng.Shapes, Step: uint32(index), Sample: uint32(index >> 32)}
	a, b := key.Block(0), key.Block(1)
	return [8]uint32{a[0] >> 8, a[1] >> 8, a[2] >> 8, a[3] >> 8, b[0] >> 8, b[1] >> 8, b[2] >> 8, b[3] >> 8}
}

// Draw returns the parameters of an image.
func Draw(seed, index uint64) Params {
	var u [8]float64
	for i, w := range Words(seed, index) {
		u[i] = float64(w) / (1 << 24)
	}
	r := RadiusMin + float64((RadiusMax-RadiusMin)*u[3])
	free := 1 - float64(2*(r+Margin)) // side of the square the centre may lie in
	return Params{
		Class:      int(u[0] * float64(len(Classes))),
		Background: int(u[1] * float64(len(Backgrounds))),
		Phi:        2 * math.Pi * u[2],
		Radius:     r,
		CX:         0.5 + float64(free*(u[4]-0.5)),
		CY:         0.5 + float64(free*(u[5]-0.5)),
		Tilt:       MaxTilt * (float64(2*u[6]) - 1),
	}
}

// Distance is the signed distance, negative inside, from (x, y) to the edge of
// a shape of radius 1 at the origin, y pointing down. It is exact inside and
// near the edge and a bound elsewhere, where the coverage is 0 or 1 anyway.
// A class outside Classes is taken for the last.
func Distance(class int, x, y float64) float64 {
	switch class {
	case Disc:
		return radius(x, y) - 0.86
	case Ring:
		return math.Abs(radius(x, y)-0.72) - 0.20
	case Square:
		return max(math.Abs(x), math.Abs(y)) - 0.72
	case Triangle: // equilateral, centred on its centroid
		const halfSqrt3 = 0.8660254037844386
		return max(y, float64(halfSqrt3*math.Abs(x))-float64(0.5*y)) - 0.5
	default: // Cross
		ax, ay := math.Abs(x), math.Abs(y)
		return max(min(ax, ay)-0.27, max(ax, ay)-0.92)
	}
}

func radius(x, y float64) float64 { return math.Sqrt(float64(x*x) + float64(y*y)) }

// Coverage fills dst, size*size values in row order, with the share of each
// pixel that the shape covers, in [0, 1].
func Coverage(p Params, size int, dst []float64) {
	sin, cos := math.Sincos(p.Tilt)
	side := float64(size)
	for i := range size {
		dy := (float64(i)+0.5)/side - p.CY
		row := dst[i*size : (i+1)*size]
		for j := range row {
			dx := (float64(j)+0.5)/side - p.CX
			row[j] = alpha(&p, cos, sin, dx, dy, side)
		}
	}
}

// alpha is the coverage of the pixel at (dx, dy) from the centre of the shape.
func alpha(p *Params, cos, sin, dx, dy, side float64) float64 {
	x := (float64(cos*dx) + float64(sin*dy)) / p.Radius
	y := (float64(cos*dy) - float64(sin*dx)) / p.Radius
	d := Distance(p.Class, x, y)
	return min(max(0.5-float64(d*p.Radius*side), 0), 1)
}

// Background fills dst, size*size*3 values HWC in [0, 1], with the image
// without its shape.
func Background(p Params, size int, dst []float64) {
	sin, cos := math.Sincos(p.Phi)
	side := float64(size)
	base := &Backgrounds[p.Background]
	for i := range size {
		up := sin * (float64((float64(i)+0.5)/side*2) - 1)
		row := dst[3*i*size : 3*(i+1)*size]
		for j := range size {
			ramp := float64(cos*(float64((float64(j)+0.5)/side*2)-1)) + up
			lift := float64(Gradient * ramp)
			row[3*j], row[3*j+1], row[3*j+2] = base[0]+lift, base[1]+lift, base[2]+lift
		}
	}
}

// Render fills dst, size*size*3 values HWC in [0, 1], with the image.
func Render(p Params, size int, dst []float64) {
	Background(p, size, dst)
	sin, cos := math.Sincos(p.Tilt)
	side := float64(size)
	colour := &Colours[p.Class]
	for i := range size {
		dy := (float64(i)+0.5)/side - p.CY
		row := dst[3*i*size : 3*(i+1)*size]
		for j := range size {
			dx := (float64(j)+0.5)/side - p.CX
			a := alpha(&p, cos, sin, dx, dy, side)
			for c, back := range row[3*j : 3*j+3] {
				row[3*j+c] = back + float64(a*(colour[c]-back))
			}
		}
	}
}

// Image draws image index of the set with the given seed into dst, Size*Size*3
// bytes HWC, and returns what it shows.
func Image(seed, index uint64, dst []byte) Params {
	p := Draw(seed, index)
	var values [Size * Size * 3]float64
	Render(p, Size, values[:])
	Quantise(values[:], dst)
	return p
}

// Quantise rounds values in [0, 1] to bytes; dst is as long as values.
func Quantise(values []float64, dst []byte) {
	for i, v := range values {
		dst[i] = byte(float64(v*255) + 0.5)
	}
}
