package cpu

import (
	"math"

	"ddpm/internal/graph"
)

// boundTerms are the operands of graph.VLB. The arithmetic is in float64: terms are small
// differences of logarithms, and of tails that are nearly equal.
type boundTerms struct {
	wide
	out, xt, target []float32
	coefs           []float32 // [N, graph.VLBCoefs]
}

// imageTerms is what the terms of an image have in common.
type imageTerms struct {
	x0OnXt, x0OnOut float64
	distance        float64 // of the means, on out - target
	logVarTrue, varTrue,
	middle, reach float64 // log s^2 = middle + reach v
	decoder bool
}

func (b boundTerms) image(n int) imageTerms {
	c := (*[graph.VLBCoefs]float32)(b.coefs[n*graph.VLBCoefs:])
	of := func(i int) float64 { return float64(c[i]) }
	image := imageTerms{
		x0OnXt: of(graph.VLBX0OnXt), x0OnOut: of(graph.VLBX0OnOut), distance: of(graph.VLBMeanOnX0) * of(graph.VLBX0OnOut),
		logVarTrue: of(graph.VLBLogVarTrue), varTrue: math.Exp(of(graph.VLBLogVarTrue)),
		middle: of(graph.VLBLogVarMax), decoder: c[graph.VLBDecoder] != 0,
	}
	if b.K > b.C {
		image.middle = (of(graph.VLBLogVarMax) + of(graph.VLBLogVarMin)) / 2
		image.reach = (of(graph.VLBLogVarMax) - of(graph.VLBLogVarMin)) / 2
	}
	return image
}

// term is one dimension's in nats, with its derivatives in the output and in v.
func (t *imageTerms) term(out, v, xt, target float32) (term, dOut, dV float64) {
	d := t.distance * (float64(out) - float64(target))
	logVar := t.middle + t.reach*float64(v)
	var dD, dL float64
	if t.decoder {
		x0 := t.x0OnXt*float64(xt) + t.x0OnOut*float64(target)
		term, dD, dL = graph.DecoderTerm(x0, d, logVar)
	} else {
		precision := math.Exp(-logVar)
		ratio, square := t.varTrue*precision, d*d*precision
		term, dD, dL = (logVar-t.logVarTrue-1+ratio+square)/2, d*precision, (1-ratio-square)/2
	}
	return term, dD * t.distance, dL * t.reach
}

// each calls do with elements [from, to) of sample n, where their outputs are, and the
// variances there, 0 without any.
func (b boundTerms) each(n, from, to int, do func(at, here int, v float32)) {
	at := b.at(n, from)
	for i := from; i < to; i++ {
		var v float32
		if b.K > b.C {
			v = b.out[at+b.C]
		}
		do(at, n*b.D+i, v)
		at += b.next(i)
	}
}

// vlb computes graph.VLB: terms [N].
func (e *engine) vlb(b boundTerms, terms []float32) func() {
	return forRange(e.pool, b.N, 1, func(n, _ int) {
		image := b.image(n)
		var sum float64
		b.each(n, 0, b.D, func(at, here int, v float32) {
			term, _, _ := image.term(b.out[at], v, b.xt[here], b.target[here])
			sum += term
		})
		terms[n] = float32(sum / float64(b.D) / math.Ln2)
	})
}

// vlbGrad computes graph.VLBGrad: dout like out, from dterms [N].
func (e *engine) vlbGrad(b boundTerms, dout, dterms []float32, stopMean bool) func() {
	return forSamples(e.pool, b.N, b.D, expGrain, func(n, from, to int) {
		image := b.image(n)
		scale := float64(dterms[n]) / float64(b.D) / math.Ln2
		b.each(n, from, to, func(at, here int, v float32) {
			_, dOut, dV := image.term(b.out[at], v, b.xt[here], b.target[here])
			dout[at] = float32(scale * dOut)
			if stopMean {
				dout[at] = 0
			}
			if b.K > b.C {
				dout[at+b.C] = float32(scale * dV)
			}
		})
	})
}
