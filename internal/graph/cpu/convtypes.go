package cpu

// source is what a convolution reads: an image [N,H,W,C], two images side by
// side on channels without a copy, or an image that is doubled in height and
// width as it is read.
type source struct {
	a, b []float32 // [N,H,W,ca] and [N,H,W,cb]; b is nil where cb is 0
	// ca + cb are the convolution's C.
	ca, cb int
	// doubled says that pixel (i, j) of the convolution's input is pixel
	// (i/2, j/2) of a, which is [N,H/2,W/2,C]; there is no b.
	doubled bool
}

// plain is an image of c channels.
func plain(x []float32, c int) source { return source{a: x, ca: c} }

// read copies pixels j, j+1, ... of row i of image n, channels [c0, c1) of each,
// to dst, in which a pixel takes pitch elements; as many as dst has room for.
// g gives the extents of the convolution's input.
func (s source) read(dst []float32, pitch int, g convGeometry, n, i, j, c0, c1 int) {
	pixels := len(dst) / pitch
	if s.doubled {
		row := s.a[(n*(g.H/2)+i/2)*(g.W/2)*s.ca:]
		for q := range pixels {
			copy(dst[q*pitch:][:c1-c0], row[(j+q)/2*s.ca+c0:])
		}
		return
	}
	first := (n*g.H+i)*g.W + j
	split := min(max(c0, s.ca), c1) // where b begins
	copyPixels(dst, pitch, s.a, s.ca, first, pixels, c0, split)
	if split < c1 {
		copyPixels(dst[split-c0:], pitch, s.b, s.cb, first, pixels, split-s.ca, c1-s.ca)
	}
}

// copyPixels copies channels [c0, c1) of pixels from first on of an image of c
// channels.
func copyPixels(dst []float32, pitch int, x []float32, c, first, pixels, c0, c1 int) {
	width := c1 - c0
	if width == c && pitch == c {
		copy(dst[:pixels*c], x[first*c:])
		return
	}
	if width == 0 {
		return
	}
	for q := range pixels {
		copy(dst[q*pitch:][:width], x[(first+q)*c+c0:])
	}
}

// epilogue is what a convolution adds to its output [N,OH,OW,K] while it is
// still in registers or in the cache. Each may be nil.
type epilogue struct {
	bias      []float32 // [K]
	perSample []float32 // [N,K], added to every pixel of a sample
	residual  []float32 // [N,OH,OW,K]
}
