package sched

import (
	"fmt"
	"math"
	"testing"
)

func TestNormalKL(t *testing.T) {
	if kl := NormalKL(0.3, -1.2, 0.3, -1.2); kl != 0 {
		t.Errorf("KL of a Gaussian to itself: %g, want 0", kl)
	}
	// Against the defining integral of p log(p/q).
	mean1, logVar1, mean2, logVar2 := 0.5, -0.7, -0.2, 0.4
	logDensity := func(x, mean, logVar float64) float64 {
		return -0.5 * (math.Log(2*math.Pi) + logVar + (x-mean)*(x-mean)/math.Exp(logVar))
	}
	var sum float64
	const dx = 1e-3
	for i := -10_000; i <= 10_000; i++ {
		x := mean1 + float64(i)*dx
		p, q := logDensity(x, mean1, logVar1), logDensity(x, mean2, logVar2)
		sum += math.Exp(p) * (p - q) * dx
	}
	if kl := NormalKL(mean1, logVar1, mean2, logVar2); !within(kl, sum, 1e-9) {
		t.Errorf("KL %.12g, by integration %.12g", kl, sum)
	}
}

func TestDecoderSharesAllMassAmongTheBins(t *testing.T) {
	for _, c := range []struct{ mean, std float64 }{
		{0, 0.5}, {0.3, 0.0074}, {-0.9999, 0.02}, {1, 0.003}, {1.3, 0.1}, {-2, 0.5}, {0.1, 40},
	} {
		var sum float64
		for pixel := range 256 {
			sum += math.Exp(DecoderLogLikelihood(float64(float32(pixel)/127.5-1), c.mean, 2*math.Log(c.std)))
		}
		if math.Abs(sum-1) > 1e-6 { // float32 pixels leave gaps of 1e-7 between bins
			t.Errorf("mean %g, std %g: the bins share %.9g, want 1", c.mean, c.std, sum)
		}
	}
}

func TestDecoderLogLikelihood(t *testing.T) {
	// A wide Gaussian is flat over a bin: density times width.
	x0, mean, std := 127/127.5-1, 0.4, 0.3
	want := -0.5*(x0-mean)*(x0-mean)/(std*std) - math.Log(std*math.Sqrt(2*math.Pi)) + math.Log(2.0/255)
	if got := DecoderLogLikelihood(x0, mean, 2*math.Log(std)); math.Abs(got-want) > 1e-4 {
		t.Errorf("log-likelihood %g, want %g", got, want)
	}
	// Both tails alike, down to the floor.
	for _, distance := range []float64{0.001, 0.03, 0.06, 5} {
		below, above := DecoderLogLikelihood(-distance/2, distance/2, 2*math.Log(0.01)), DecoderLogLikelihood(distance/2, -distance/2, 2*math.Log(0.01))
		if !within(below, above, 1e-12) || below < math.Log(1e-12) {
			t.Errorf("at %g from the mean: %g below it and %g above it", distance, below, above)
		}
	}
	if got := DecoderLogLikelihood(0.5, -0.5, 2*math.Log(0.001)); got != math.Log(1e-12) {
		t.Errorf("a wild pixel has log-likelihood %g, want the floor %g", got, math.Log(1e-12))
	}
}

func TestPriorKL(t *testing.T) {
	s := mustNew(t, "linear", 20) // too short to reach pure noise, so the term is large
	a := s.AlphasCumprod[19]
	x0 := []float32{1, -1, 0.5}
	want := 0.5 * (a*(1+1+0.25)/3 + (1 - a) - 1 - math.Log(1-a))
	if got := s.PriorKL(x0); !within(got, want, 1e-7) {
		t.Errorf("prior KL %g nats, want %g", got, want)
	}
	if got := BitsPerDim(math.Ln2 * 3); !within(got, 3, 1e-15) {
		t.Errorf("3 ln 2 nats are %g bits, want 3", got)
	}
}

// gaussianBound averages the whole bound over draws of data N(0, v) with its
// exact denoiser E[x_0 | x_t] = sqrt(a) v / (a v + 1 - a) x_t.
func gaussianBound(s *Schedule, v float64, variance Variance, n int) (prior, kl, decoder float64) {
	x0, xt, predicted := normals(n, 1000), make([]float32, n), make([]float32, n)
	for i := range x0 {
		x0[i] *= float32(math.Sqrt(v))
	}
	for t := range s.T() {
		a := s.AlphasCumprod[t]
		s.QSample(x0, t, normals(n, uint32(t)), xt)
		combine(predicted, math.Sqrt(a)*v/(a*v+1-a), xt, 0, xt)
		term := s.VLBTerm(x0, xt, predicted, nil, t, variance)
		if t == 0 {
			decoder = term
		} else {
			kl += term
		}
	}
	return s.PriorKL(x0), kl, decoder
}

// Every expectation is known: the error of the exact denoiser is
// v (1 - a) / (a v + 1 - a).
func TestBoundOfGaussianData(t *testing.T) {
	const n, v = 20_000, 0.04 // std 0.2: the open bins at -1 and 1 stay empty
	s, err := FromBetas(Linear(40, 0.01, 0.3))
	if err != nil {
		t.Fatal(err)
	}
	for _, variance := range []Variance{FixedSmall, FixedLarge} {
		t.Run(fmt.Sprint(variance), func(t *testing.T) {
			last := s.AlphasCumprod[s.T()-1]
			wantPrior := 0.5 * (last*v + 1 - last - 1 - math.Log(1-last))
			var wantKL, wantDecoder float64
			for step := range s.T() {
				a, logVar := s.AlphasCumprod[step], s.LogVariance(variance, step)
				coef1 := s.PosteriorMeanCoef1[step]
				meanSquare := coef1 * coef1 * v * (1 - a) / (a*v + 1 - a)
				if step == 0 {
					wantDecoder = 0.5*(math.Log(2*math.Pi)+logVar+meanSquare/math.Exp(logVar)) - math.Log(2.0/255)
				} else {
					ratio := s.PosteriorVariance[step] / math.Exp(logVar)
					wantKL += 0.5 * (ratio - 1 - math.Log(ratio) + meanSquare/math.Exp(logVar))
				}
			}
			prior, kl, decoder := gaussianBound(s, v, variance, n)
			for _, c := range []struct {
				name      string
				got, want float64
				tolerance float64 // of 20,000 draws
			}{
				{"prior", prior, wantPrior, 0.02},
				{"KL terms", kl, wantKL, 0.01},
				{"decoder", decoder, wantDecoder, 0.01},
				{"whole bound", prior + kl + decoder, wantPrior + wantKL + wantDecoder, 0.01},
			} {
				if !within(c.got, c.want, c.tolerance) {
					t.Errorf("%s: %.5g nats, want %.5g", c.name, c.got, c.want)
				}
			}
			// A bound may not beat the entropy of the data, in bins of 2/255.
			if entropy := 0.5*math.Log(2*math.Pi*math.E*v) - math.Log(2.0/255); prior+kl+decoder < 0.99*entropy {
				t.Errorf("bound of %g nats is below the entropy %g", prior+kl+decoder, entropy)
			}
		})
	}
}

// For data N(0, 1) the reverse process with FixedLarge is exact, so L_1 .. L_T
// add up to the mutual information of x_0 and x_1, -log(beta_0) / 2.
func TestBoundIsTightForNormalData(t *testing.T) {
	s := mustNew(t, "cosine", 100)
	prior, kl, _ := gaussianBound(s, 1, FixedLarge, 20_000)
	if got, want := prior+kl, -0.5*math.Log(s.Betas[0]); !within(got, want, 0.01) {
		t.Errorf("L_1 .. L_T are %g nats, want %g", got, want)
	}
}

// exactBound is the bound on -log p(x_0), in nats, for data N(0, v) and a network that predicts
// p perfectly and says learned(t) of the variance. Its terms are quadratic in x_0 and the noise, so
// their mean over x_0 = +-sqrt(v) and noise = +-1 is that over the normal distributions. The
// decoder's bins are narrow here: without their width, its masses are densities.
func exactBound(s *Schedule, p Prediction, v float64, variance Variance, learned func(t int) float64) float64 {
	root := float32(math.Sqrt(v))
	x0, eps := []float32{root, root, -root, -root}, []float32{1, -1, 1, -1}
	xt, out, predicted, vs := make([]float32, 4), make([]float32, 4), make([]float32, 4), make([]float32, 4)
	bound := s.PriorKL(x0) - math.Log(255.0/2)
	for t := range s.T() {
		s.QSample(x0, t, eps, xt)
		// E[x_0 | x_t] and E[eps | x_t] are these multiples of x_t.
		n := s.Node(float64(t))
		marginal := n.Signal*n.Signal*v + n.Noise*n.Noise
		onX0, onEps := p.Target(s, t)
		combine(out, onX0*n.Signal*v/marginal+onEps*n.Noise/marginal, xt, 0, xt)
		onXt, onOut := p.XStartCoefs(n)
		combine(predicted, onXt, xt, onOut, out)
		for i := range vs {
			vs[i] = float32(learned(t))
		}
		bound += s.VLBTerm(x0, xt, predicted, vs, t, variance)
	}
	return bound
}

// optimal is the v of the variance of q(x_{t-1} | x_t) for data N(0, v): that of
// q(x_{t-1} | x_t, x_0), and what x_t leaves open about x_0.
func optimal(s *Schedule, v float64) func(t int) float64 {
	return func(t int) float64 {
		a, coef1 := s.AlphasCumprod[t], s.PosteriorMeanCoef1[t]
		variance := s.PosteriorVariance[t] + coef1*coef1*v*(1-a)/(a*v+1-a)
		small, large := s.LogVarianceRange(t)
		return 2*(math.Log(variance)-small)/(large-small) - 1
	}
}

// With the variance of the true reverse step every q(x_{t-1} | x_t) of Gaussian data is Gaussian and
// exact, and the bound is no more a bound: it is the entropy of the data, and
// what the prior misses of q(x_T).
func TestBoundWithLearnedVarianceIsTheLikelihood(t *testing.T) {
	const v = 0.25
	betas := Linear(30, 0.05, 0.4)
	for _, c := range []struct {
		name  string
		betas []float64
		kinds []Prediction
	}{
		{"plain", betas, []Prediction{Eps, V, XStart}},
		{"zero terminal SNR", ZeroTerminalSNR(betas), []Prediction{V, XStart}},
	} {
		s, err := FromBetas(c.betas)
		if err != nil {
			t.Fatal(err)
		}
		a := s.AlphasCumprod[s.T()-1]
		want := 0.5*math.Log(2*math.Pi*math.E*v) + NormalKL(0, math.Log(a*v+1-a), 0, 0)
		best := optimal(s, v)
		for step := range s.T() {
			if share := best(step); !(share > -1 && share < 1) {
				t.Fatalf("%s, t=%d: v = %g, want it inside -1..1", c.name, step, share)
			}
		}
		for _, p := range c.kinds {
			got := exactBound(s, p, v, Learned, best)
			if !within(got, want, 1e-6) {
				t.Errorf("%s, %s: bound of %.9g nats, want %.9g", c.name, p, got, want)
			}
			for name, worse := range map[string]float64{
				"a little less noise": exactBound(s, p, v, Learned, func(t int) float64 { return best(t) - 0.05 }),
				"a little more noise": exactBound(s, p, v, Learned, func(t int) float64 { return best(t) + 0.05 }),
				"v = -1":              exactBound(s, p, v, Learned, func(int) float64 { return -1 }),
				"v = 1":               exactBound(s, p, v, Learned, func(int) float64 { return 1 }),
				"fixed_small":         exactBound(s, p, v, FixedSmall, best),
				"fixed_large":         exactBound(s, p, v, FixedLarge, best),
			} {
				if !(worse > got+1e-4) {
					t.Errorf("%s, %s: bound of %.9g nats with %s, want more than %.9g", c.name, p, worse, name, got)
				}
			}
		}
	}
}

// Above t = 0 the ends of a learned variance are the fixed ones.
func TestLearnedVarianceRange(t *testing.T) {
	s := mustNew(t, "cosine", 50)
	x0, xt, predicted := normals(8, 1), normals(8, 2), normals(8, 3)
	ones := func(v float32) []float32 { return []float32{v, v, v, v, v, v, v, v} }
	for step := range s.T() {
		small, large := s.LogVarianceRange(step)
		if small != s.LogVariance(FixedSmall, step) || large != math.Log(s.Betas[step]) {
			t.Errorf("t=%d: log variance from %g to %g", step, small, large)
		}
		for v, fixed := range map[float32]Variance{-1: FixedSmall, 1: FixedLarge} {
			if step == 0 && v == 1 {
				continue // log(Betas[0]), which FixedLarge departs from
			}
			got, want := s.VLBTerm(x0, xt, predicted, ones(v), step, Learned), s.VLBTerm(x0, xt, predicted, nil, step, fixed)
			if got != want {
				t.Errorf("t=%d: %g nats with v = %g, %g with %s", step, got, v, want, fixed)
			}
		}
	}
}

func TestVariances(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	for _, c := range []struct {
		name string
		want float64
	}{
		{"fixed_small", s.PosteriorVariance[500]},
		{"fixed_large", s.Betas[500]},
	} {
		v, err := ParseVariance(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := math.Exp(s.LogVariance(v, 500)); v.String() != c.name || !within(got, c.want, 1e-13) {
			t.Errorf("%s (%s): variance %g, want %g", c.name, v, got, c.want)
		}
	}
	_, err := ParseVariance("large")
	wantError(t, err, `sample.variance "large"`, "fixed_small, fixed_large, learned")
}
