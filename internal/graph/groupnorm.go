package graph

import (
	"fmt"
	"math"
)

// GroupNormStats computes, for each image and each of Groups groups of
// neighbouring channels of x [N,H,W,C], the mean and 1/sqrt(variance + Eps),
// biased variance: [N,Groups,2].
type GroupNormStats struct {
	Groups int
	Eps    float64
}

// GroupNorm (Wu & He, 2018) normalises x by the statistics of its group, then
// scales and shifts each channel and, with SiLU, applies z*sigmoid(z):
//
//	xhat = (x - mean) rstd   z = xhat gamma + beta
//
// Operands: x, stats of GroupNormStats, gamma [C], beta [C].
type GroupNorm struct {
	Groups int
	SiLU   bool
}

// GroupNormGradSums is [N,2,C], from which the gradients follow: for each image
// and channel the sum over pixels of dz xhat, then that of dz, where dz is
// d loss/dz. Operands: those of GroupNorm, then dy.
type GroupNormGradSums struct {
	Groups int
	SiLU   bool
}

// GroupNormGradData is the whole d loss/dx of GroupNorm, through the statistics
// too: with m the number of elements of a group and sums over it,
//
//	dx = rstd (gamma dz - sum(gamma dz)/m - xhat sum(gamma dz xhat)/m)
//
// Operands: those of GroupNorm, then dy and GroupNormGradSums.
type GroupNormGradData struct {
	Groups int
	SiLU   bool
}

// GroupNormGradAffine is [2,C], d loss/dgamma, then d loss/dbeta: the sum over
// images of GroupNormGradSums.
type GroupNormGradAffine struct{}

// GroupNorm adds a group normalisation of x, optionally followed by SiLU.
func (b *Builder) GroupNorm(x, gamma, beta *Node, groups int, eps float64, silu bool) *Node {
	stats := b.Apply(GroupNormStats{Groups: groups, Eps: eps}, x)
	return b.Apply(GroupNorm{Groups: groups, SiLU: silu}, x, stats, gamma, beta)
}

func (o GroupNormStats) Infer(in []Shape) (Shape, error) {
	if len(in[0]) != 4 {
		return nil, fmt.Errorf("group norm: want [N,H,W,C], have %v", in[0])
	}
	if o.Groups < 1 || in[0][3]%o.Groups != 0 {
		return nil, fmt.Errorf("group norm: %d channels not divisible by %d groups", in[0][3], o.Groups)
	}
	return Shape{in[0][0], o.Groups, 2}, nil
}

// eachGroup calls f with the offset of every element, grouped: once for each
// image and group.
func eachGroup(x Shape, groups int, f func(group int, elements func(yield func(i int) bool))) {
	pixels, c := x[1]*x[2], x[3]
	width := c / groups
	for n := range x[0] {
		for g := range groups {
			f(n*groups+g, func(yield func(int) bool) {
				for p := range pixels {
					for j := range width {
						if !yield((n*pixels+p)*c + g*width + j) {
							return
						}
					}
				}
			})
		}
	}
}

func (o GroupNormStats) Eval(out Operand, in []Operand) {
	x := in[0]
	size := float64(elements(x.Shape) / (x.Shape[0] * o.Groups))
	eachGroup(x.Shape, o.Groups, func(group int, members func(func(int) bool)) {
		var mean, variance float64
		for i := range members {
			mean += x.Data[i] / size
		}
		for i := range members {
			variance += (x.Data[i] - mean) * (x.Data[i] - mean) / size
		}
		out.Data[2*group], out.Data[2*group+1] = mean, 1/math.Sqrt(variance+o.Eps)
	})
}

func (o GroupNorm) Infer(in []Shape) (Shape, error) {
	x, stats, gamma, beta := in[0], in[1], in[2], in[3]
	if len(x) != 4 || !stats.Eq(Shape{x[0], o.Groups, 2}) || !gamma.Eq(Shape{x[3]}) || !beta.Eq(gamma) {
		return nil, fmt.Errorf("group norm: input %v, statistics %v, scale %v and shift %v do not fit", x, stats, gamma, beta)
	}
	return x.Clone(), nil
}

func (o GroupNorm) Eval(out Operand, in []Operand) {
	x, stats, gamma, beta := in[0], in[1], in[2], in[3]
	c := x.Shape[3]
	eachGroup(x.Shape, o.Groups, func(group int, members func(func(int) bool)) {
		mean, rstd := stats.Data[2*group], stats.Data[2*group+1]
		for i := range members {
			z := (x.Data[i]-mean)*rstd*gamma.Data[i%c] + beta.Data[i%c]
			if o.SiLU {
				z *= sigmoid(z)
			}
			out.Data[i] = z
		}
	})
}

func (GroupNorm) Recomputable() {}

func (o GroupNorm) Wrt() []bool { return []bool{true, false, true, true} }

func (o GroupNorm) Grad(b *Builder, in []*Node, _, dy *Node) []*Node {
	operands := append(append([]*Node{}, in...), dy)
	sums := b.Apply(GroupNormGradSums(o), operands...)
	dx := b.Apply(GroupNormGradData(o), append(operands, sums)...)
	affine := b.Apply(GroupNormGradAffine{}, sums)
	return []*Node{dx, nil, b.View(affine, 0), b.View(affine, 1)}
}

func (o GroupNormGradSums) Infer(in []Shape) (Shape, error) {
	x, err := inferGrad(GroupNorm(o), in)
	if err != nil {
		return nil, err
	}
	return Shape{x[0], 2, x[3]}, nil
}

// inferGrad is the shape of x, which dy, the operand after those of GroupNorm,
// must have.
func inferGrad(o GroupNorm, in []Shape) (Shape, error) {
	x, err := o.Infer(in)
	if err != nil {
		return nil, err
	}
	return sameShape("group norm gradient", []Shape{x, in[4]})
}

func (o GroupNormGradData) Infer(in []Shape) (Shape, error) {
	x, err := inferGrad(GroupNorm(o), in)
	if err != nil {
		return nil, err
	}
	if sums := in[len(in)-1]; !sums.Eq(Shape{x[0], 2, x[3]}) {
		return nil, fmt.Errorf("group norm gradient: input %v and sums %v do not fit", x, sums)
	}
	return x, nil
}

// normGrad calls f for each element i of a group with xhat = (x-mean) rstd and
// d loss/dz, z the value before SiLU.
func normGrad(o GroupNorm, in []Operand, group int, members func(func(int) bool), f func(i int, xhat, dz float64)) {
	x, stats, gamma, beta, dy := in[0], in[1], in[2], in[3], in[4]
	c := x.Shape[3]
	mean, rstd := stats.Data[2*group], stats.Data[2*group+1]
	for i := range members {
		xhat := (x.Data[i] - mean) * rstd
		dz := dy.Data[i]
		if o.SiLU {
			dz *= siluSlope(xhat*gamma.Data[i%c] + beta.Data[i%c])
		}
		f(i, xhat, dz)
	}
}

func (o GroupNormGradSums) Eval(out Operand, in []Operand) {
	x := in[0].Shape
	size, c := x[1]*x[2]*x[3], x[3]
	clear(out.Data)
	eachGroup(x, o.Groups, func(group int, members func(func(int) bool)) {
		normGrad(GroupNorm(o), in, group, members, func(i int, xhat, dz float64) {
			sums := out.Data[i/size*2*c:]
			sums[i%c] += dz * xhat
			sums[c+i%c] += dz
		})
	})
}

func (o GroupNormGradData) Eval(out Operand, in []Operand) {
	x, stats, gamma, sums := in[0], in[1], in[2], in[5]
	c := x.Shape[3]
	width := c / o.Groups
	size := float64(x.Shape[1] * x.Shape[2] * width)
	eachGroup(x.Shape, o.Groups, func(group int, members func(func(int) bool)) {
		var sum, dot float64
		image, first := group/o.Groups, group%o.Groups*width
		for channel := first; channel < first+width; channel++ {
			dot += gamma.Data[channel] * sums.Data[image*2*c+channel] / size
			sum += gamma.Data[channel] * sums.Data[image*2*c+c+channel] / size
		}
		rstd := stats.Data[2*group+1]
		normGrad(GroupNorm(o), in, group, members, func(i int, xhat, dz float64) {
			out.Data[i] = rstd * (dz*gamma.Data[i%c] - sum - xhat*dot)
		})
	})
}

func (GroupNormGradAffine) Infer(in []Shape) (Shape, error) {
	if len(in[0]) != 3 {
		return nil, fmt.Errorf("group norm gradient: want sums [N,2,C], have %v", in[0])
	}
	return in[0][1:].Clone(), nil
}

func (GroupNormGradAffine) Eval(out Operand, in []Operand) {
	clear(out.Data)
	for i, sum := range in[0].Data {
		out.Data[i%len(out.Data)] += sum
	}
}
