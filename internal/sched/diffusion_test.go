package sched

import (
	"math"
	"testing"

	"ddpm/internal/rng"
)

func normals(n int, sample uint32) []float32 {
	z := make([]float32, n)
	rng.Key{Seed: 11, Stream: rng.Noise, Sample: sample}.Normals(z)
	return z
}

func largestDifference(a, b []float32) float64 {
	var largest float64
	for i := range a {
		largest = max(largest, math.Abs(float64(a[i])-float64(b[i])))
	}
	return largest
}

func TestQSampleHasTheStatedMoments(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	x0, eps, xt := []float32{1, -0.5, 0}, []float32{0, 2, -1}, make([]float32, 3)
	s.QSample(x0, 300, eps, xt)
	a := s.AlphasCumprod[300]
	for i := range xt {
		want := math.Sqrt(a)*float64(x0[i]) + math.Sqrt(1-a)*float64(eps[i])
		if math.Abs(float64(xt[i])-want) > 1e-6 {
			t.Errorf("x_t[%d] = %g, want %g", i, xt[i], want)
		}
	}
	// xt may be one of its inputs.
	s.QSample(x0, 300, eps, eps)
	if largestDifference(eps, xt) != 0 {
		t.Errorf("in place: %v, want %v", eps, xt)
	}
}

// A network that outputs the exact target of any kind must give x_0 and eps
// back.
func TestPredictionRoundTrips(t *testing.T) {
	const n = 64
	x0, eps := normals(n, 1), normals(n, 2)
	for _, name := range PredictionNames() {
		p, err := ParsePrediction(name)
		if err != nil {
			t.Fatal(err)
		}
		if p.String() != name {
			t.Errorf("%q became %q", name, p)
		}
		for _, schedule := range Names() {
			s := mustNew(t, schedule, 1000)
			for _, step := range []int{0, 1, 10, 500, 900, 990} {
				xt, out := make([]float32, n), make([]float32, n)
				s.QSample(x0, step, eps, xt)
				onX0, onEps := p.Target(s, step)
				combine(out, onX0, x0, onEps, eps)

				onXt, onOut := p.XStartCoefs(s.Node(float64(step)))
				got := make([]float32, n)
				combine(got, onXt, xt, onOut, out)
				// Rounding of x_t, 3e-7, is multiplied by what undoes the noise.
				if d := largestDifference(got, x0); d > 1e-6*(1+math.Abs(onXt)) {
					t.Errorf("%s, %s, t=%d: x_0 is off by %g", name, schedule, step, d)
				}
				onXt, onOut = p.EpsCoefs(s.Node(float64(step)))
				combine(got, onXt, xt, onOut, out)
				if d := largestDifference(got, eps); d > 1e-6*(1+math.Abs(onXt)) {
					t.Errorf("%s, %s, t=%d: eps is off by %g", name, schedule, step, d)
				}
			}
		}
	}
	_, err := ParsePrediction("V")
	wantError(t, err, `diffusion.prediction "V"`, "eps, v, x0")
}

func TestTargets(t *testing.T) {
	s := mustNew(t, "cosine", 100)
	a := s.AlphasCumprod[40]
	for _, c := range []struct {
		p           Prediction
		onX0, onEps float64
	}{
		{Eps, 0, 1},
		{V, -math.Sqrt(1 - a), math.Sqrt(a)},
		{XStart, 1, 0},
	} {
		if onX0, onEps := c.p.Target(s, 40); onX0 != c.onX0 || onEps != c.onEps {
			t.Errorf("target of %s: %g x_0 + %g eps, want %g and %g", c.p, onX0, onEps, c.onX0, c.onEps)
		}
	}
}

func TestPredictXStartAndEpsInvertQSample(t *testing.T) {
	const n = 64
	s := mustNew(t, "linear", 1000)
	x0, eps := normals(n, 3), normals(n, 4)
	xt, got := make([]float32, n), make([]float32, n)
	for _, step := range []int{0, 250, 700} {
		s.QSample(x0, step, eps, xt)
		s.PredictXStart(xt, step, eps, got)
		if d := largestDifference(got, x0); d > 1e-5 {
			t.Errorf("t=%d: x_0 is off by %g", step, d)
		}
		s.PredictEps(xt, step, x0, got)
		if d := largestDifference(got, eps); d > 1e-4 {
			t.Errorf("t=%d: eps is off by %g", step, d)
		}
	}
}

// By Bayes' rule the posterior's precision is the sum of the precisions of
// q(x_t | x_{t-1}) and q(x_{t-1} | x_0), and its mean weighs both.
func TestQPosteriorIsBayesRule(t *testing.T) {
	for _, name := range Names() {
		s := mustNew(t, name, 1000)
		for _, step := range []int{1, 2, 100, 998} {
			x0, xt, mean := []float32{0.7}, []float32{-0.3}, make([]float32, 1)
			variance, logVariance := s.QPosterior(x0, xt, step, mean)

			alpha, beta, aPrev := s.Alphas[step], s.Betas[step], s.AlphasCumprodPrev[step]
			precision := alpha/beta + 1/(1-aPrev)
			wantMean := (math.Sqrt(alpha)/beta*float64(xt[0]) + math.Sqrt(aPrev)/(1-aPrev)*float64(x0[0])) / precision
			if !within(variance, 1/precision, 1e-9) || !within(logVariance, math.Log(variance), 1e-14) {
				t.Errorf("%s, t=%d: variance %g (log %g), want %g", name, step, variance, logVariance, 1/precision)
			}
			if math.Abs(float64(mean[0])-wantMean) > 1e-6 {
				t.Errorf("%s, t=%d: mean %g, want %g", name, step, mean[0], wantMean)
			}
		}
		mean := make([]float32, 1)
		if variance, logVariance := s.QPosterior([]float32{0.7}, []float32{5}, 0, mean); variance != 0 || logVariance != s.PosteriorLogVarianceClipped[1] || math.Abs(float64(mean[0])-0.7) > 1e-6 {
			t.Errorf("%s, t=0: mean %g, variance %g, log %g", name, mean[0], variance, logVariance)
		}
	}
}
