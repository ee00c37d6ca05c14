package winograd

import "unsafe"

// The transforms in plain Go, one channel at a time: the oracle of the others.

const genericLanes = 4

// line is up to six values of a row or a column.
type line = [Window]float32

// inputLine is Bᵀ d.
func inputLine(d line) line {
	evenA, oddA := d[4]-b2*d[2], A*(d[3]-b2*d[1])
	evenB, oddB := d[4]-a2*d[2], B*(d[3]-a2*d[1])
	return line{
		n0*d[0] - (a2+b2)*d[2] + d[4],
		evenA + oddA, evenA - oddA,
		evenB + oddB, evenB - oddB,
		n0*d[1] - (a2+b2)*d[3] + d[5],
	}
}

// gradientLine is A y.
func gradientLine(y line) line {
	evenA, oddA := y[0]+a2*y[2], A*(y[1]+a2*y[3])
	evenB, oddB := y[0]+b2*y[2], B*(y[1]+b2*y[3])
	return line{y[0], evenA + oddA, evenA - oddA, evenB + oddB, evenB - oddB, y[3]}
}

// outputLine is Aᵀ m.
func outputLine(m line) line {
	evenA, oddA := m[1]+m[2], m[1]-m[2]
	evenB, oddB := m[3]+m[4], m[3]-m[4]
	return line{
		m[0] + evenA + evenB,
		A*oddA + B*oddB,
		a2*evenA + b2*evenB,
		A*a2*oddA + B*b2*oddB + m[5],
	}
}

// weightsLine is G g.
func weightsLine(g line) line {
	evenA, oddA := (1/na)*g[0]+(a2/na)*g[2], (A/na)*g[1]
	evenB, oddB := (1/nb)*g[0]+(b2/nb)*g[2], (B/nb)*g[1]
	return line{(1 / n0) * g[0], evenA + oddA, evenA - oddA, evenB + oddB, evenB - oddB, g[2]}
}

// weightGradientLine is Gᵀ z.
func weightGradientLine(z line) line {
	evenA, oddA := z[1]+z[2], z[1]-z[2]
	evenB, oddB := z[3]+z[4], z[3]-z[4]
	return line{
		(1/n0)*z[0] + (1/na)*evenA + (1/nb)*evenB,
		(A/na)*oddA + (B/nb)*oddB,
		(a2/na)*evenA + (b2/nb)*evenB + z[5],
	}
}

// square maps the rows of a square of in x in values, then the columns, and
// returns out x out values.
func square(x [Window]line, in, out int, transform func(line) line) (y [Window]line) {
	var half [Window]line // transposed
	for i := range in {
		for j, v := range transform(x[i]) {
			half[j][i] = v
		}
	}
	for j := range out {
		for i, v := range transform(half[j]) {
			y[i][j] = v
		}
	}
	return y
}

// planeAt is the plane of element (i, j).
func planeAt(i, j int) int { return Window*j + i }

// element is one channel of pixel (i, j).
func (p *Pixels) element(i, j, channel int) float32 {
	return *(*float32)(unsafe.Add(unsafe.Pointer(p.at[i*Window+j]), 4*channel))
}

func gatherGeneric(dst []float32, plane int, pixels *Pixels, first, channels, size int, transform func(line) line) {
	for c := range channels {
		var d [Window]line
		for i := range size {
			for j := range size {
				d[i][j] = pixels.element(i, j, first+c)
			}
		}
		d = square(d, size, Window, transform)
		for p := range Planes {
			dst[p*plane+c] = d[p%Window][p/Window]
		}
	}
	for p := range Planes {
		clear(dst[p*plane+channels : p*plane+(channels+genericLanes-1)/genericLanes*genericLanes])
	}
}

func (o *Output) generic() {
	for c := range o.Channels {
		var m [Window]line
		for p := range Planes {
			m[p%Window][p/Window] = o.Src[p*o.Plane+c]
		}
		m = square(m, Window, Tile, outputLine)
		for i := range o.Rows {
			for j := range o.Columns {
				at := i*o.Row + j*o.Pixel + c
				y := m[i][j]
				if o.Bias != nil {
					y += o.Bias[c]
				}
				if o.PerSample != nil {
					y += o.PerSample[c]
				}
				if o.Residual != nil {
					y += o.Residual[at]
				}
				o.Dst[at] = y
			}
		}
	}
}

// tap is where tap (r, s) begins.
func (t *Taps) tap(r, s int) int {
	if t.Flipped {
		r, s = 2-r, 2-s
	}
	return (3*r + s) * t.Tap
}

func (t *Taps) weightsGeneric() {
	width := (t.Columns + genericLanes - 1) / genericLanes * genericLanes
	for row := range t.Rows {
		for c := range width {
			var g [Window]line
			if c < t.Columns {
				for i := range 9 {
					g[i/3][i%3] = t.Taps[t.tap(i/3, i%3)+row*t.Row+c]
				}
			}
			g = square(g, 3, Window, weightsLine)
			for p := range Planes {
				t.Planes[p*t.Plane+row*width+c] = g[p%Window][p/Window]
			}
		}
	}
}

func (t *Taps) gradientGeneric() {
	width := (t.Columns + genericLanes - 1) / genericLanes * genericLanes
	for row := range t.Rows {
		for c := range t.Columns {
			var z [Window]line
			for p := range Planes {
				z[p%Window][p/Window] = t.Planes[p*t.Plane+row*width+c]
			}
			z = square(z, Window, 3, weightGradientLine)
			for i := range 9 {
				t.Taps[t.tap(i/3, i%3)+row*t.Row+c] = z[i/3][i%3]
			}
		}
	}
}
