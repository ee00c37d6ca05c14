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
		term := s.VLBTerm(x0, xt, predicted, t, variance)
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
	wantError(t, err, `sample.variance "large"`, "fixed_small, fixed_large")
}
