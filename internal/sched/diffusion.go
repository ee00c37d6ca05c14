package sched

import "slices"

// QSample draws x_t of q(x_t | x_0) in one step from standard normal eps:
//
//	x_t = sqrt(a) x_0 + sqrt(1 - a) eps,   a = AlphasCumprod[t]
//
// The slices have equal lengths; xt may be x0 or eps.
func (s *Schedule) QSample(x0 []float32, t int, eps, xt []float32) {
	combine(xt, s.SqrtAlphasCumprod[t], x0, s.SqrtOneMinusAlphasCumprod[t], eps)
}

// PredictXStart recovers x_0 from x_t and the noise in it, which a = 0 leaves no way to:
//
//	x_0 = sqrt(1/a) x_t - sqrt(1/a - 1) eps
func (s *Schedule) PredictXStart(xt []float32, t int, eps, x0 []float32) {
	combine(x0, s.SqrtRecipAlphasCumprod[t], xt, -s.SqrtRecipm1AlphasCumprod[t], eps)
}

// PredictEps recovers the noise from x_t and x_0:
//
//	eps = (x_t - sqrt(a) x_0) / sqrt(1 - a)
func (s *Schedule) PredictEps(xt []float32, t int, x0, eps []float32) {
	onXt, onX0 := XStart.EpsCoefs(s.Node(float64(t)))
	combine(eps, onXt, xt, onX0, x0)
}

// QPosterior writes the mean of q(x_{t-1} | x_t, x_0) to mean and returns the
// variance and its logarithm, clipped at t = 0.
func (s *Schedule) QPosterior(x0, xt []float32, t int, mean []float32) (variance, logVarianceClipped float64) {
	combine(mean, s.PosteriorMeanCoef1[t], x0, s.PosteriorMeanCoef2[t], xt)
	return s.PosteriorVariance[t], s.PosteriorLogVarianceClipped[t]
}

// combine sets dst to a x + b y, in float32.
func combine(dst []float32, a float64, x []float32, b float64, y []float32) {
	onX, onY := float32(a), float32(b)
	for i := range dst {
		dst[i] = onX*x[i] + onY*y[i]
	}
}

// Prediction is what the network is trained to output.
type Prediction int

const (
	Eps    Prediction = iota // the noise (Ho et al. 2020, eq. 14)
	V                        // sqrt(a) eps - sqrt(1-a) x_0 (Salimans & Ho, "Progressive Distillation", 2022, section 4)
	XStart                   // the clean image x_0
)

var predictionNames = []string{Eps: "eps", V: "v", XStart: "x0"}

// PredictionNames lists the values of diffusion.prediction.
func PredictionNames() []string { return slices.Clone(predictionNames) }

// ParsePrediction is the Prediction called eps, v or x0.
func ParsePrediction(name string) (Prediction, error) {
	i := slices.Index(predictionNames, name)
	if i < 0 {
		return 0, unknown("diffusion.prediction", name, predictionNames)
	}
	return Prediction(i), nil
}

func (p Prediction) String() string { return predictionNames[p] }

// Target gives the regression target: onX0 x_0 + onEps eps.
func (p Prediction) Target(s *Schedule, t int) (onX0, onEps float64) {
	switch p {
	case V:
		return -s.SqrtOneMinusAlphasCumprod[t], s.SqrtAlphasCumprod[t]
	case XStart:
		return 1, 0
	}
	return 0, 1
}

// XStartCoefs recovers the clean image from the network's output at a node:
// x_0 = onXt x_t + onOut out.
func (p Prediction) XStartCoefs(n Node) (onXt, onOut float64) {
	switch p {
	case V:
		return n.Signal, -n.Noise
	case XStart:
		return 0, 1
	}
	return 1 / n.Signal, -n.Noise / n.Signal
}

// EpsCoefs recovers the noise from the network's output at a node:
// eps = onXt x_t + onOut out.
func (p Prediction) EpsCoefs(n Node) (onXt, onOut float64) {
	switch p {
	case V:
		return n.Noise, n.Signal
	case XStart:
		return 1 / n.Noise, -n.Signal / n.Noise
	}
	return 0, 1
}
