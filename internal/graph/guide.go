package graph

import (
	"fmt"
	"math"
)

// Twice lays a batch out twice: x [N,...] to [2N,...]. Guidance reads the network's
// outputs for it.
type Twice struct{}

// Guidance is classifier-free guidance (Ho & Salimans 2022): from the network's outputs
// [2N,...,K], of images with their class and then of the same images without one, and a
// weight w [1],
//
//	g = without + w (with - without)
//
// in the first Channels channels; the others, variances, are those with a class. With
// Rescale r > 0 the guided channels of each image are multiplied by
//
//	r std(with) / std(g) + 1 - r
//
// the standard deviations being those of the image's guided values (Lin et al., "Common
// Diffusion Noise Schedules and Sample Steps are Flawed", 2024, eq. 15, 16); where std(g) is 0 by 1.
// The result is [N,...,K].
type Guidance struct {
	Channels int
	Rescale  float64
}

// Twice adds x [N,...] laid out twice.
func (b *Builder) Twice(x *Node) *Node { return b.Apply(Twice{}, x) }

// Guidance adds classifier-free guidance of weight w [1].
func (b *Builder) Guidance(op Guidance, out, w *Node) *Node { return b.Apply(op, out, w) }

func (Twice) Infer(in []Shape) (Shape, error) {
	if len(in[0]) == 0 {
		return nil, fmt.Errorf("twice: want a batch [N,...], have a scalar")
	}
	s := in[0].Clone()
	s[0] *= 2
	return s, nil
}

func (Twice) Eval(out Operand, in []Operand) {
	copy(out.Data[copy(out.Data, in[0].Data):], in[0].Data)
}

func (o Guidance) Infer(in []Shape) (Shape, error) {
	s := in[0].Clone()
	if len(s) < 2 || s[0]%2 != 0 || !in[1].Eq(Shape{1}) || o.Channels < 1 || o.Channels > last(s) {
		return nil, fmt.Errorf("guidance: outputs %v, weight %v and %d guided channels do not fit", in[0], in[1], o.Channels)
	}
	s[0] /= 2
	return s, nil
}

func (o Guidance) Eval(out Operand, in []Operand) {
	w, k := in[1].Data[0], last(out.Shape)
	size := len(out.Data) / out.Shape[0]
	for n := range out.Shape[0] {
		with, without := in[0].Data[n*size:(n+1)*size], in[0].Data[len(out.Data)+n*size:][:size]
		g := out.Data[n*size : (n+1)*size]
		var guided, original []float64
		for i := range g {
			g[i] = with[i]
			if i%k < o.Channels {
				g[i] = without[i] + w*(with[i]-without[i])
				guided, original = append(guided, g[i]), append(original, with[i])
			}
		}
		if o.Rescale == 0 {
			continue
		}
		if deviation := standardDeviation(guided); deviation > 0 {
			scale := o.Rescale*standardDeviation(original)/deviation + 1 - o.Rescale
			for i := range g {
				if i%k < o.Channels {
					g[i] *= scale
				}
			}
		}
	}
}

func standardDeviation(values []float64) float64 {
	var mean, squares float64
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		squares += (v - mean) * (v - mean) / float64(len(values))
	}
	return math.Sqrt(squares)
}
