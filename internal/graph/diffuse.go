package graph

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"ddpm/internal/rng"
)

// QSample is the forward process q(x_t | x_0) and the network's target, for each
// image of a batch with its own coefficients:
//
//	x_0    = byte/127.5 - 1, mirrored left to right where flip is 1
//	x_t    = signal x_0 + noise eps,   eps ~ N(0, I)
//	target = targetSignal x_0 + targetNoise eps
//
// Operands: bytes [N,H,W,C], flip [N], keys [N,4], signal, noise, targetSignal
// and targetNoise [N]. A key is the words of the seed, low then high, the step
// and the sample of an rng.Key, whose Stream eps is drawn from. The result is
// x_t, then the target: [2,N,H,W,C].
type QSample struct{ Stream rng.Stream }

// PSample is a step of the reverse process, from the network's output at x_t:
//
//	x_0     = X0OnXt x_t + X0OnOut out, clipped to [-1, 1] if Clip; NaN if not finite
//	eps     = EpsOnXt x_t + EpsOnOut out
//	x_prev  = PrevOnXt x_t + PrevOnX0 x_0 + PrevOnEps eps + PrevOnNoise s z + sum_j KeptCoef(0, j) kept_j,   z ~ N(0, I)
//	kept_i' = the same, of KeptRow(i): no z
//
// s is 1, or if Learned the standard deviation that the network predicts (Nichol &
// Dhariwal 2021, eq. 15): out has twice the channels then, of which the second half v
// gives log s^2 = (1+v)/2 LogVarMax + (1-v)/2 LogVarMin. Without Learned, channels of out beyond
// those of x_t are not read.
//
// Where Limited, each image has a limit l >= 1, see X0Limit, and x_0 is clipped to
// [-l, l] and divided by l (Saharia et al., "Photorealistic Text-to-Image Diffusion
// Models", 2022, section 2.3).
//
// The Kept values are what a multistep solver remembers from one call of the network
// to the next.
//
// Operands: x_t [N,...,C] and out [N,...,C or 2C], keys [N,4] as those of QSample, whose
// Stream z is drawn from, the coefficients [Coefs()] in the order of their constants,
// then limits [N] if Limited, then the Kept values [N,...,C], one after the other. The result is
// x_prev, x_0, then the new kept values: [2+Kept,N,...,C].
type PSample struct {
	Stream  rng.Stream
	Clip    bool
	Limited bool
	Learned bool
	Kept    int
}

// The coefficients of PSample. Those of the kept values follow: KeptCoef and KeptRow.
const (
	X0OnXt = iota
	X0OnOut
	EpsOnXt
	EpsOnOut
	PrevOnXt
	PrevOnX0
	PrevOnEps
	PrevOnNoise
	LogVarMin
	LogVarMax
	PSampleCoefs // how many there are without kept values
)

// Coefs is the number of coefficients of o.
func (o PSample) Coefs() int { return PSampleCoefs + o.Kept + o.Kept*(3+o.Kept) }

// KeptCoef is the index of the coefficient of the old kept value j in x_prev.
func (o PSample) KeptCoef(j int) int { return PSampleCoefs + j }

// KeptRow is the index of the first coefficient of the new kept value i: those of
// x_t, x_0 and eps, then one for each old kept value.
func (o PSample) KeptRow(i int) int { return PSampleCoefs + o.Kept + i*(3+o.Kept) }

// X0Limit is the limit that dynamic thresholding puts on the predicted x_0 of each
// image, from operands x_t [N,...,C], out [N,...,C or 2C] and the coefficients of PSample:
// of the D values of |x_0| the ceil(Quantile D)-th smallest, but at least 1; NaN counts
// as the largest. The result is [N].
type X0Limit struct{ Quantile float64 }

// Dropout zeroes each element with probability P and scales the others by
// 1/(1-P). The mask is a function of keys [N,4] and Stream, so the gradient
// draws it again instead of keeping it. Operands: x, keys.
type Dropout struct {
	P      float64
	Stream rng.Stream
}

// QSample adds the forward process and returns x_t and the target. The operands
// after keys are one value for each image.
func (b *Builder) QSample(stream rng.Stream, images, flip, keys, signal, noise, targetSignal, targetNoise *Node) (xt, target *Node) {
	packed := b.Apply(QSample{stream}, images, flip, keys, signal, noise, targetSignal, targetNoise)
	return b.halves(packed)
}

// PSample adds a step of the reverse process and returns x_prev, x_0 and the new kept
// values. limits is nil unless op is Limited.
func (b *Builder) PSample(op PSample, xt, out, keys, coefs, limits *Node, kept ...*Node) (prev, x0 *Node, keptNew []*Node) {
	operands := []*Node{xt, out, keys, coefs}
	if op.Limited {
		operands = append(operands, limits)
	}
	packed := b.Apply(op, append(operands, kept...)...)
	for i := range op.Kept {
		keptNew = append(keptNew, b.View(packed, 2+i))
	}
	prev, x0 = b.halves(packed)
	return prev, x0, keptNew
}

// X0Limit adds the limits of dynamic thresholding.
func (b *Builder) X0Limit(op X0Limit, xt, out, coefs *Node) *Node { return b.Apply(op, xt, out, coefs) }

func (b *Builder) halves(packed *Node) (first, second *Node) {
	return b.View(packed, 0), b.View(packed, 1)
}

// Dropout adds dropout of probability p, whose masks come from stream.
func (b *Builder) Dropout(x, keys *Node, p float64, stream rng.Stream) *Node {
	return b.Apply(Dropout{p, stream}, x, keys)
}

func key(keys []float64, sample int, stream rng.Stream) rng.Key {
	k := keys[4*sample : 4*sample+4]
	return rng.Key{Seed: uint64(k[0]) | uint64(k[1])<<32, Stream: stream, Step: uint32(k[2]), Sample: uint32(k[3])}
}

func checkKeys(keys Shape, n int) error {
	if !keys.Eq(Shape{n, 4}) {
		return fmt.Errorf("keys %v, want [%d,4]", keys, n)
	}
	return nil
}

func (QSample) Infer(in []Shape) (Shape, error) {
	images, keys := in[0], in[2]
	if len(images) != 4 {
		return nil, fmt.Errorf("q sample: want images [N,H,W,C], have %v", images)
	}
	n := images[0]
	for _, i := range []int{1, 3, 4, 5, 6} {
		if !in[i].Eq(Shape{n}) {
			return nil, fmt.Errorf("q sample: operand %d is %v, want one value for each of %d images", i, in[i], n)
		}
	}
	return append(Shape{2}, images...), checkKeys(keys, n)
}

func (o QSample) Eval(out Operand, in []Operand) {
	images := in[0].Shape
	w, c := images[2], images[3]
	size := images[1] * w * c
	eps := make([]float32, size)
	xt, target := out.Data[:len(out.Data)/2], out.Data[len(out.Data)/2:]
	for n := range images[0] {
		key(in[2].Data, n, o.Stream).Normals(eps)
		for i, e := range eps {
			from := i
			if in[1].Data[n] != 0 {
				column := i / c % w
				from += (w - 1 - 2*column) * c
			}
			x0 := in[0].Data[n*size+from]/127.5 - 1
			xt[n*size+i] = in[3].Data[n]*x0 + in[4].Data[n]*float64(e)
			target[n*size+i] = in[5].Data[n]*x0 + in[6].Data[n]*float64(e)
		}
	}
}

// checkWide accepts out [N,...,C] or [N,...,2C] for x [N,...,C], and [N] for [N].
func checkWide(x, out Shape) error {
	if len(x) == 0 || !out.Eq(x) && (len(x) == 1 || !out.Eq(withLast(x, 2*last(x)))) {
		return fmt.Errorf("a network's output %v does not fit images %v: want as many channels, or twice as many", out, x)
	}
	return nil
}

func (o PSample) Infer(in []Shape) (Shape, error) {
	x, out, keys, coefs := in[0], in[1], in[2], in[3]
	if err := checkWide(x, out); err != nil {
		return nil, fmt.Errorf("p sample: %w", err)
	}
	rest := in[4:]
	if o.Limited {
		if len(rest) == 0 || !rest[0].Eq(x[:1]) {
			return nil, fmt.Errorf("p sample: want a limit for each of %d images, have %v", x[0], rest)
		}
		rest = rest[1:]
	}
	switch {
	case o.Learned && out.Eq(x):
		return nil, fmt.Errorf("p sample: the output %v has no variances", out)
	case !coefs.Eq(Shape{o.Coefs()}):
		return nil, fmt.Errorf("p sample: coefficients %v, want %d", coefs, o.Coefs())
	case len(rest) != o.Kept:
		return nil, fmt.Errorf("p sample: %d kept values, want %d", len(rest), o.Kept)
	}
	for _, kept := range rest {
		if !kept.Eq(x) {
			return nil, fmt.Errorf("p sample: a kept value %v, want %v", kept, x)
		}
	}
	return append(Shape{2 + o.Kept}, x...), checkKeys(keys, x[0])
}

// predictX0 is the prediction of x_0 at element i of x, and where its output is.
func predictX0(x, out Operand, c []float64, i int) (x0 float64, at int) {
	channels, wide := last(x.Shape), last(out.Shape)
	at = i/channels*wide + i%channels
	x0 = c[X0OnXt]*x.Data[i] + c[X0OnOut]*out.Data[at]
	if x0-x0 != 0 {
		x0 = math.NaN()
	}
	return x0, at
}

func (o PSample) Eval(out Operand, in []Operand) {
	x, y, c := in[0], in[1], in[3].Data
	size := len(x.Data) / x.Shape[0]
	rest := in[4:]
	var limits []float64
	if o.Limited {
		limits, rest = rest[0].Data, rest[1:]
	}
	z := make([]float32, size)
	for i, xt := range x.Data {
		if i%size == 0 {
			key(in[2].Data, i/size, o.Stream).Normals(z)
		}
		x0, at := predictX0(x, y, c, i)
		limit := 1.0
		if o.Limited {
			limit = limits[i/size]
		}
		if o.Clip || o.Limited {
			x0 = min(max(x0, -limit), limit) / limit
		}
		eps := c[EpsOnXt]*xt + c[EpsOnOut]*y.Data[at]
		deviation := 1.0
		if o.Learned {
			v := y.Data[at+last(x.Shape)]
			deviation = math.Exp(0.5 * ((1+v)/2*c[LogVarMax] + (1-v)/2*c[LogVarMin]))
		}
		prev := c[PrevOnXt]*xt + c[PrevOnX0]*x0 + c[PrevOnEps]*eps + c[PrevOnNoise]*deviation*float64(z[i%size])
		for j, kept := range rest {
			prev += c[o.KeptCoef(j)] * kept.Data[i]
		}
		out.Data[i] = prev
		out.Data[len(x.Data)+i] = x0
		for k := range rest {
			row := c[o.KeptRow(k):]
			value := row[0]*xt + row[1]*x0 + row[2]*eps
			for j, kept := range rest {
				value += row[3+j] * kept.Data[i]
			}
			out.Data[(2+k)*len(x.Data)+i] = value
		}
	}
}

func (o X0Limit) Infer(in []Shape) (Shape, error) {
	if err := checkWide(in[0], in[1]); err != nil {
		return nil, fmt.Errorf("x0 limit: %w", err)
	}
	if len(in[2]) != 1 || in[2][0] < PSampleCoefs {
		return nil, fmt.Errorf("x0 limit: coefficients %v, want those of p sample", in[2])
	}
	if !(o.Quantile > 0 && o.Quantile <= 1) {
		return nil, fmt.Errorf("x0 limit: quantile %g, want above 0 and at most 1", o.Quantile)
	}
	return in[0][:1].Clone(), nil
}

// Rank is the place of the limit among d values of |x_0| sorted upwards, from 0.
func (o X0Limit) Rank(d int) int { return max(int(math.Ceil(o.Quantile*float64(d))), 1) - 1 }

func (o X0Limit) Eval(out Operand, in []Operand) {
	size := len(in[0].Data) / len(out.Data)
	values := make([]float64, size)
	for n := range out.Data {
		for i := range values {
			x0, _ := predictX0(in[0], in[1], in[2].Data, n*size+i)
			values[i] = math.Abs(x0)
		}
		slices.SortFunc(values, func(a, b float64) int { return cmp.Compare(-b, -a) }) // NaN last
		out.Data[n] = max(values[o.Rank(size)], 1)
	}
}

func (o Dropout) Infer(in []Shape) (Shape, error) {
	return in[0].Clone(), checkKeys(in[1], in[0][0])
}

func (Dropout) InPlace()      {}
func (Dropout) Recomputable() {}

func (o Dropout) Eval(out Operand, in []Operand) {
	size := len(out.Data) / out.Shape[0]
	for i, x := range in[0].Data {
		word := key(in[1].Data, i/size, o.Stream).Block(uint32(i % size / 4))[i%size%4]
		out.Data[i] = 0
		if rng.Uniform(word) >= o.P {
			out.Data[i] = x / (1 - o.P)
		}
	}
}

func (o Dropout) Wrt() []bool { return []bool{true, false} }

func (o Dropout) Grad(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(o, dy, in[1]), nil}
}
