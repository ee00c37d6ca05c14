package graph

import "fmt"

// Conv2D is a two-dimensional cross-correlation with zero padding,
//
//	y[n,i,j,k] = bias[k] + sum_{r,s,c} x[n, i*Stride+r-Top, j*Stride+s-Left, c] w[r,s,c,k]
//
// on x [N,H,W,C], w [R,S,C,K], bias [K]: y [N,OH,OW,K].
type Conv2D struct {
	Stride                   int
	Top, Bottom, Left, Right int // padding
	// Algorithm is a wish: a backend has its own for what it cannot run so.
	Algorithm ConvAlgorithm
}

// ConvAlgorithm is how a convolution is computed.
type ConvAlgorithm string

const (
	// AutoConv is Winograd where that is faster.
	AutoConv ConvAlgorithm = "auto"
	// DirectConv multiplies every weight with every pixel it meets.
	DirectConv ConvAlgorithm = "direct"
	// WinogradConv is F(4x4,3x3) of Lavin & Gray, "Fast Algorithms for
	// Convolutional Neural Networks" (2015): a quarter of the multiplications of
	// a 3x3 convolution of stride 1, with rounding errors up to twice as large.
	WinogradConv ConvAlgorithm = "winograd"
)

// ConvAlgorithms lists the names of algorithms. No name is AutoConv.
func ConvAlgorithms() []string {
	return []string{string(AutoConv), string(DirectConv), string(WinogradConv)}
}

// Conv2DGradData is d loss/dx of a Conv2D, from w and dy. Height and Width are
// those of x.
type Conv2DGradData struct {
	Conv2D
	Height, Width int
}

// Conv2DGradWeight is d loss/dw of a Conv2D, from x and dy. R and S are the
// kernel's height and width.
type Conv2DGradWeight struct {
	Conv2D
	R, S int
}

// ConvGeometry is a convolution with every extent spelled out.
type ConvGeometry struct {
	N, H, W, C      int // input
	OH, OW, K       int // output
	R, S            int // kernel
	Stride          int
	PadTop, PadLeft int
}

// Conv adds the convolution of x with weights w and a bias.
func (b *Builder) Conv(op Conv2D, x, w, bias *Node) *Node { return b.Apply(op, x, w, bias) }

// Geometry spells out the convolution of an input of shape x with weights of
// shape w.
func (o Conv2D) Geometry(x, w Shape) (ConvGeometry, error) {
	if len(x) != 4 || len(w) != 4 {
		return ConvGeometry{}, fmt.Errorf("conv2d: want input [N,H,W,C] and weights [R,S,C,K], have %v and %v", x, w)
	}
	g := ConvGeometry{
		N: x[0], H: x[1], W: x[2], C: x[3], R: w[0], S: w[1], K: w[3],
		Stride: o.Stride, PadTop: o.Top, PadLeft: o.Left,
	}
	if w[2] != g.C {
		return g, fmt.Errorf("conv2d: weights for %d channels, input has %d", w[2], g.C)
	}
	rows, columns := g.H+o.Top+o.Bottom-g.R, g.W+o.Left+o.Right-g.S
	if rows < 0 || columns < 0 {
		return g, fmt.Errorf("conv2d: a %dx%d kernel does not fit into a %dx%d image", g.R, g.S, g.H, g.W)
	}
	g.OH, g.OW = rows/o.Stride+1, columns/o.Stride+1
	return g, nil
}

// visit calls f with the offsets of every product x*w that goes into y.
func (g ConvGeometry) visit(f func(x, w, y int)) {
	for n := range g.N {
		for i := range g.OH {
			for j := range g.OW {
				for r := range g.R {
					for s := range g.S {
						h, v := i*g.Stride+r-g.PadTop, j*g.Stride+s-g.PadLeft
						if h < 0 || h >= g.H || v < 0 || v >= g.W {
							continue
						}
						x := ((n*g.H+h)*g.W + v) * g.C
						y := ((n*g.OH+i)*g.OW + j) * g.K
						w := (r*g.S + s) * g.C * g.K
						for c := range g.C {
							for k := range g.K {
								f(x+c, w+c*g.K+k, y+k)
							}
						}
					}
				}
			}
		}
	}
}

func (g ConvGeometry) flops() int64 {
	return 2 * int64(g.N*g.OH*g.OW*g.K) * int64(g.R*g.S*g.C)
}

func (o Conv2D) Infer(in []Shape) (Shape, error) {
	g, err := o.Geometry(in[0], in[1])
	if err == nil && (len(in[2]) != 1 || in[2][0] != g.K) {
		err = fmt.Errorf("conv2d: bias %v, want [%d]", in[2], g.K)
	}
	return Shape{g.N, g.OH, g.OW, g.K}, err
}

func (o Conv2D) Eval(out Operand, in []Operand) {
	g, _ := o.Geometry(in[0].Shape, in[1].Shape)
	for i := range out.Data {
		out.Data[i] = in[2].Data[i%g.K]
	}
	g.visit(func(x, w, y int) { out.Data[y] += in[0].Data[x] * in[1].Data[w] })
}

func (o Conv2D) Flops(_ Shape, in []Shape) int64 {
	g, _ := o.Geometry(in[0], in[1])
	return g.flops()
}

func (Conv2D) WeightsAt() int { return 1 }

func (o Conv2D) Wrt() []bool { return []bool{true, true, true} }

func (o Conv2D) Grad(b *Builder, in []*Node, _, dy *Node) []*Node {
	x, w := in[0].Shape(), in[1].Shape()
	return []*Node{
		b.Apply(Conv2DGradData{o, x[1], x[2]}, in[1], dy),
		b.Apply(Conv2DGradWeight{o, w[0], w[1]}, in[0], dy),
		b.Apply(SumRows{}, dy),
	}
}

// GeometryOf spells out the convolution whose weights and output gradient have
// the given shapes.
func (o Conv2DGradData) GeometryOf(w, dy Shape) (ConvGeometry, error) {
	return o.Geometry(Shape{dy[0], o.Height, o.Width, w[2]}, w)
}

func (o Conv2DGradData) Infer(in []Shape) (Shape, error) {
	g, err := o.GeometryOf(in[0], in[1])
	if err == nil && !in[1].Eq(Shape{g.N, g.OH, g.OW, g.K}) {
		err = fmt.Errorf("conv2d: output gradient %v, want %v", in[1], Shape{g.N, g.OH, g.OW, g.K})
	}
	return Shape{g.N, g.H, g.W, g.C}, err
}

func (o Conv2DGradData) Eval(out Operand, in []Operand) {
	g, _ := o.GeometryOf(in[0].Shape, in[1].Shape)
	clear(out.Data)
	g.visit(func(x, w, y int) { out.Data[x] += in[0].Data[w] * in[1].Data[y] })
}

func (o Conv2DGradData) Flops(_ Shape, in []Shape) int64 {
	g, _ := o.GeometryOf(in[0], in[1])
	return g.flops()
}

func (Conv2DGradData) WeightsAt() int { return 0 }

// GeometryOf spells out the convolution whose input and output gradient have
// the given shapes.
func (o Conv2DGradWeight) GeometryOf(x, dy Shape) (ConvGeometry, error) {
	return o.Geometry(x, Shape{o.R, o.S, x[3], dy[3]})
}

func (o Conv2DGradWeight) Infer(in []Shape) (Shape, error) {
	g, err := o.GeometryOf(in[0], in[1])
	return Shape{g.R, g.S, g.C, g.K}, err
}

func (o Conv2DGradWeight) Eval(out Operand, in []Operand) {
	g, _ := o.GeometryOf(in[0].Shape, in[1].Shape)
	clear(out.Data)
	g.visit(func(x, w, y int) { out.Data[w] += in[0].Data[x] * in[1].Data[y] })
}

func (o Conv2DGradWeight) Flops(_ Shape, in []Shape) int64 {
	g, _ := o.GeometryOf(in[0], in[1])
	return g.flops()
}
