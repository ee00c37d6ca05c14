package graph

import (
	"fmt"
	"math"
)

// VLB is a term of the variational bound on -log2 p(x_0) for each image of a batch (Ho et
// al. 2020, eq. 5), in bits per dimension, from operands out [N,...,C or 2C], x_t and target
// [N,...,C] of the network, and coefs [N,VLBCoefs]:
//
//	d      = MeanOnX0 X0OnOut (out - target)                  how far the model's mean is from the true one
//	log s^2 = (1+v)/2 LogVarMax + (1-v)/2 LogVarMin            v the second half of out's channels
//	KL     = (log s^2 - LogVarTrue - 1 + exp(LogVarTrue - log s^2) + d^2 exp(-log s^2)) / 2
//
// as all predictions make x_0 a linear function of x_t and the target. Without v, log s^2 is
// LogVarMax. Where Decoder is 1 the term is instead -log of the mass that N(x_0 + d, s^2)
// gives to x_0 = X0OnXt x_t + X0OnOut target in 8-bit steps (eq. 13): within 1/255 of x_0, from -1 down and
// from 1 up without end, and at least 1e-12. The term is the mean over the dimensions divided by ln 2.
//
// It is differentiable in out; with StopMean in v alone, which then learns nothing about the
// mean (Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021,
// section 3.1).
type VLB struct{ StopMean bool }

// VLBGrad is d loss/dout of VLB, from its operands and the gradient [N] of its terms.
type VLBGrad struct{ StopMean bool }

// The columns of VLB's coefficients, one row for each image.
const (
	VLBX0OnXt = iota
	VLBX0OnOut
	VLBMeanOnX0 // of x_0 in the mean of the posterior q(x_{t-1} | x_t, x_0)
	VLBLogVarTrue
	VLBLogVarMin
	VLBLogVarMax
	VLBDecoder // 1 for t = 0, else 0
	VLBCoefs   // how many there are
)

// VLB adds the terms of the variational bound.
func (b *Builder) VLB(op VLB, out, xt, target, coefs *Node) *Node {
	return b.Apply(op, out, xt, target, coefs)
}

func checkVLB(in []Shape) error {
	if err := checkWide(in[1], in[0]); err != nil {
		return fmt.Errorf("vlb: %w", err)
	}
	if !in[1].Eq(in[2]) || !in[3].Eq(Shape{in[1][0], VLBCoefs}) {
		return fmt.Errorf("vlb: images %v, target %v and coefficients %v do not fit", in[1], in[2], in[3])
	}
	return nil
}

func (VLB) Infer(in []Shape) (Shape, error) {
	if err := checkVLB(in); err != nil {
		return nil, err
	}
	return in[1][:1].Clone(), nil
}

func (VLB) Eval(out Operand, in []Operand) {
	clear(out.Data)
	size := len(in[1].Data) / len(out.Data)
	for i := range in[1].Data {
		term, _, _, _ := vlbTerm(in, i)
		out.Data[i/size] += term / float64(size) / math.Ln2
	}
}

// vlbTerm is the term of dimension i in nats, its derivatives in the output and in v, and
// where the output is.
func vlbTerm(in []Operand, i int) (term, dOut, dV float64, at int) {
	out, xt, target := in[0], in[1], in[2]
	channels, wide := last(xt.Shape), last(out.Shape)
	n := i / (len(xt.Data) / xt.Shape[0])
	c := in[3].Data[n*VLBCoefs : (n+1)*VLBCoefs]
	at = i/channels*wide + i%channels
	onOut := c[VLBMeanOnX0] * c[VLBX0OnOut]
	d := onOut * (out.Data[at] - target.Data[i])
	logVar, dLogVar := c[VLBLogVarMax], 0.0
	if wide > channels {
		v := out.Data[at+channels]
		logVar = (1+v)/2*c[VLBLogVarMax] + (1-v)/2*c[VLBLogVarMin]
		dLogVar = (c[VLBLogVarMax] - c[VLBLogVarMin]) / 2
	}
	var dD, dL float64
	if c[VLBDecoder] == 0 {
		precision := math.Exp(-logVar)
		ratio := math.Exp(c[VLBLogVarTrue] - logVar)
		term = 0.5 * (logVar - c[VLBLogVarTrue] - 1 + ratio + d*d*precision)
		dD, dL = d*precision, 0.5*(1-ratio-d*d*precision)
	} else {
		x0 := c[VLBX0OnXt]*xt.Data[i] + c[VLBX0OnOut]*target.Data[i]
		term, dD, dL = DecoderTerm(x0, d, logVar)
	}
	return term, dD * onOut, dL * dLogVar, at
}

// DecoderTerm is -log of the mass that N(x0 + d, exp(logVar)) gives to the 8-bit step of x0,
// in nats, with its derivatives in d and logVar.
func DecoderTerm(x0, d, logVar float64) (term, dD, dLogVar float64) {
	const halfBin, edge, smallest = 1.0 / 255, 0.999, 1e-12
	invStd := math.Exp(-0.5 * logVar)
	lower, upper := (-halfBin-d)*invStd, (halfBin-d)*invStd
	if x0 < -edge {
		lower = math.Inf(-1)
	}
	if x0 > edge {
		upper = math.Inf(1)
	}
	a, b := lower, upper
	if a > 0 {
		a, b = -b, -a // the lower tail does not cancel against 1
	}
	mass := 0.5 * (math.Erfc(-b/math.Sqrt2) - math.Erfc(-a/math.Sqrt2))
	if mass < smallest {
		return -math.Log(smallest), 0, 0
	}
	density := func(z float64) (p, zp float64) {
		if math.IsInf(z, 0) {
			return 0, 0
		}
		p = math.Exp(-0.5*z*z) / math.Sqrt(2*math.Pi)
		return p, z * p
	}
	pl, zpl := density(lower)
	pu, zpu := density(upper)
	return -math.Log(mass), (pu - pl) * invStd / mass, 0.5 * (zpu - zpl) / mass
}

func (VLB) Wrt() []bool { return []bool{true, false, false, false} }

func (o VLB) Grad(b *Builder, in []*Node, _, derr *Node) []*Node {
	return []*Node{b.Apply(VLBGrad(o), append(in[:4:4], derr)...), nil, nil, nil}
}

func (VLBGrad) Infer(in []Shape) (Shape, error) {
	if err := checkVLB(in); err != nil {
		return nil, err
	}
	if !in[4].Eq(in[1][:1]) {
		return nil, fmt.Errorf("vlb gradient: gradient %v, want one for each of %d images", in[4], in[1][0])
	}
	return in[0].Clone(), nil
}

func (o VLBGrad) Eval(out Operand, in []Operand) {
	clear(out.Data)
	size, channels := len(in[1].Data)/in[1].Shape[0], last(in[1].Shape)
	for i := range in[1].Data {
		_, dOut, dV, at := vlbTerm(in, i)
		scale := in[4].Data[i/size] / float64(size) / math.Ln2
		if !o.StopMean {
			out.Data[at] = scale * dOut
		}
		if last(in[0].Shape) > channels {
			out.Data[at+channels] = scale * dV
		}
	}
}
