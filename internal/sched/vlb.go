package sched

import (
	"math"
	"slices"
)

// The variational bound on -log p(x_0) (Ho et al. 2020, eq. 5) is a sum of T + 1
// terms, each an expectation over x_t of q(x_t | x_0):
//
//	L_T     = KL(q(x_T | x_0) || N(0, I))                              PriorKL
//	L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))            VLBTerm, t > 0
//	L_0     = -log p(x_0 | x_1), the image in 8-bit steps (eq. 13)     VLBTerm, t = 0
//
// p(x_{t-1} | x_t) has the mean of the posterior of eq. 6 at the predicted x_0, and
// a Variance. Everything is float64, in nats, and a mean over the dimensions (an
// image of 32 x 32 x 3 has 3072): terms of equal images add up and average.

// Variance is the variance of the reverse step p(x_{t-1} | x_t) (Ho et al. 2020,
// section 3.2). The two fixed ones are the extremes: FixedSmall is right when the
// data is one point, FixedLarge when the data is standard normal.
type Variance int

const (
	FixedSmall Variance = iota // PosteriorVariance
	FixedLarge                 // Betas
	Learned                    // of each dimension what the network says, see LogVarianceRange
)

var varianceNames = []string{FixedSmall: "fixed_small", FixedLarge: "fixed_large", Learned: "learned"}

// VarianceNames lists the values of sample.variance.
func VarianceNames() []string { return slices.Clone(varianceNames) }

// ParseVariance is the Variance called fixed_small, fixed_large or learned.
func ParseVariance(name string) (Variance, error) {
	i := slices.Index(varianceNames, name)
	if i < 0 {
		return 0, unknown("sample.variance", name, varianceNames)
	}
	return Variance(i), nil
}

func (v Variance) String() string { return varianceNames[v] }

// LogVariance is the logarithm of a fixed variance of p(x_{t-1} | x_t).
func (s *Schedule) LogVariance(v Variance, t int) float64 {
	if v == FixedLarge {
		return s.FixedLargeLogVariance[t]
	}
	return s.PosteriorLogVarianceClipped[t]
}

// LogVarianceRange bounds the logarithm of a Learned variance. The network's v, at most
// times in -1..1, interpolates (Nichol & Dhariwal 2021, eq. 15):
//
//	log variance = (1+v)/2 large + (1-v)/2 small
//
// large is log(Betas[t]) at t = 0 too, where FixedLarge departs from it.
func (s *Schedule) LogVarianceRange(t int) (small, large float64) {
	return s.PosteriorLogVarianceClipped[t], math.Log(s.Betas[t])
}

// BitsPerDim converts nats per dimension.
func BitsPerDim(nats float64) float64 { return nats / math.Ln2 }

// NormalKL is KL(N(mean1, exp(logVar1)) || N(mean2, exp(logVar2))) in nats: one
// dimension of a diagonal Gaussian.
func NormalKL(mean1, logVar1, mean2, logVar2 float64) float64 {
	d := mean1 - mean2
	return 0.5 * (logVar2 - logVar1 - 1 + math.Exp(logVar1-logVar2) + d*d*math.Exp(-logVar2))
}

// PriorKL is L_T in nats per dimension: how far x_T is from pure noise. No
// network can lower it.
func (s *Schedule) PriorKL(x0 []float32) float64 {
	last := s.T() - 1
	mean, logVar := s.SqrtAlphasCumprod[last], 2*math.Log(s.SqrtOneMinusAlphasCumprod[last])
	var sum float64
	for _, v := range x0 {
		sum += NormalKL(mean*float64(v), logVar, 0, 0)
	}
	return sum / float64(len(x0))
}

// VLBTerm is L_{t-1} in nats per dimension, of one draw of x_t and the x_0 that
// the network predicts from it. Ho et al. clip that prediction to [-1, 1] first;
// so must a caller who compares with them. learned is the network's v of each
// dimension, see LogVarianceRange, and only read if v is Learned.
func (s *Schedule) VLBTerm(x0, xt, predicted, learned []float32, t int, v Variance) float64 {
	coef1, coef2 := s.PosteriorMeanCoef1[t], s.PosteriorMeanCoef2[t]
	trueLogVar, logVar := s.PosteriorLogVarianceClipped[t], s.LogVariance(v, t)
	small, large := s.LogVarianceRange(t)
	var sum float64
	for i := range x0 {
		x0, xt := float64(x0[i]), float64(xt[i])
		mean := coef1*float64(predicted[i]) + coef2*xt
		if v == Learned {
			share := (1 + float64(learned[i])) / 2
			logVar = share*large + (1-share)*small
		}
		if t == 0 {
			sum -= DecoderLogLikelihood(x0, mean, logVar)
		} else {
			sum += NormalKL(coef1*x0+coef2*xt, trueLogVar, mean, logVar)
		}
	}
	return sum / float64(len(x0))
}

// DecoderLogLikelihood is log p(x0 | x1) in nats of one 8-bit value, scaled to
// x0 in [-1, 1]: the mass of N(mean, exp(logVar)) within 1/255 of x0. The bins of
// -1 and 1 reach to infinity, so the 256 bins share all the mass (eq. 13). As in
// Ho et al.'s code the mass is at least 1e-12, which bounds the price of a
// single wild pixel at 27.6 nats; their tanh approximation of the normal
// distribution function is not used.
func DecoderLogLikelihood(x0, mean, logVar float64) float64 {
	const halfBin, edge, smallest = 1.0 / 255, 0.999, 1e-12
	invStd := math.Exp(-0.5 * logVar)
	lower, upper := (x0-halfBin-mean)*invStd, (x0+halfBin-mean)*invStd
	if x0 < -edge {
		lower = math.Inf(-1)
	}
	if x0 > edge {
		upper = math.Inf(1)
	}
	if lower > 0 {
		lower, upper = -upper, -lower // the lower tail does not cancel against 1
	}
	return math.Log(max(normalCDF(upper)-normalCDF(lower), smallest))
}

// normalCDF is the standard normal distribution function.
func normalCDF(z float64) float64 { return 0.5 * math.Erfc(-z/math.Sqrt2) }
