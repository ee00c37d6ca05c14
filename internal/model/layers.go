package model

import (
	"math"

	"ddpm/internal/graph"
)

// The layers here own their parameters: they name, shape and initialise them.

// conv is a size x size convolution of stride 1 that keeps height and width.
func (n *network) conv(b *graph.Builder, name string, x *graph.Node, out, size int) *graph.Node {
	pad := size / 2
	return n.convolve(b, name, graph.Conv2D{Stride: 1, Top: pad, Bottom: pad, Left: pad, Right: pad}, x, out, size)
}

func (n *network) convolve(b *graph.Builder, name string, op graph.Conv2D, x *graph.Node, out, size int) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	b = b.Scope(name)
	in := channelsOf(x)
	op.Algorithm = graph.ConvAlgorithm(n.Conv)
	weight, bias := n.inits(size*size*in, size*size*out)
	w := b.Param("weight", graph.ConvWeight, weight, size, size, in, out)
	return b.Conv(op, x, w, b.Param("bias", graph.Vector, bias, out))
}

// linear maps the last dimension of x to out.
func (n *network) linear(b *graph.Builder, name string, x *graph.Node, out int) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	b = b.Scope(name)
	in := channelsOf(x)
	weight, bias := n.inits(in, out)
	w := b.Param("weight", graph.LinearWeight, weight, in, out)
	return b.Linear(x, w, b.Param("bias", graph.Vector, bias, out))
}

// norm is a group normalisation, followed by SiLU if silu.
func (n *network) norm(b *graph.Builder, name string, x *graph.Node, silu bool) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	b = b.Scope(name)
	c := channelsOf(x)
	gamma := b.Param("weight", graph.Vector, graph.Init{Value: 1}, c)
	beta := b.Param("bias", graph.Vector, graph.Init{}, c)
	return b.GroupNorm(x, gamma, beta, n.Groups, n.NormEps, silu)
}

// inits returns the initial distributions of a weight and its bias.
//
// pytorch is its default for linear and convolution layers: both uniform within
// 1/sqrt(fanIn). ddpm is that of Ho et al.: the weight uniform with variance
// scale/mean(fanIn, fanOut), scale 1, or 1e-10 at the end of a branch, and the
// bias zero.
func (n *network) inits(fanIn, fanOut int) (weight, bias graph.Init) {
	if n.Init == "ddpm" {
		scale := 1.0
		if n.ending {
			scale = 1e-10
		}
		return graph.Init{Bound: math.Sqrt(3 * scale / (float64(fanIn+fanOut) / 2))}, graph.Init{}
	}
	uniform := graph.Init{Bound: 1 / math.Sqrt(float64(fanIn))}
	return uniform, uniform
}
