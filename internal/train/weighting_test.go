package train

import (
	"math"
	"testing"

	"ddpm/internal/sched"
)

func newSchedule(t *testing.T, T int) *sched.Schedule {
	t.Helper()
	s, err := sched.New(sched.Config{T: T, Schedule: "cosine"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWeightsClosedForms(t *testing.T) {
	s := newSchedule(t, 100)
	c := Config{MinSNRGamma: 5, P2Gamma: 0.7, P2K: 2}
	p2 := func(snr float64) float64 { return math.Pow(2+snr, -0.7) }
	for _, test := range []struct {
		weighting  string
		prediction sched.Prediction
		want       func(snr float64) float64
	}{
		{"min_snr", sched.XStart, func(snr float64) float64 { return min(snr, 5) }},
		{"min_snr", sched.Eps, func(snr float64) float64 { return min(1, 5/snr) }},
		{"min_snr", sched.V, func(snr float64) float64 { return min(snr, 5) / (snr + 1) }},
		{"p2", sched.XStart, func(snr float64) float64 { return snr * p2(snr) }},
		{"p2", sched.Eps, p2},
		{"p2", sched.V, func(snr float64) float64 { return snr / (snr + 1) * p2(snr) }},
	} {
		c.Weighting = test.weighting
		weights := c.weights(s, test.prediction)
		if len(weights) != s.T() {
			t.Fatalf("%s, %v: %d weights, want %d", test.weighting, test.prediction, len(weights), s.T())
		}
		for k, got := range weights {
			if want := test.want(math.Exp(2 * s.HalfLogSNR(k))); math.Abs(got/want-1) > 1e-9 {
				t.Errorf("%s, %v: weight %g at t = %d, want %g", test.weighting, test.prediction, got, k, want)
			}
		}
	}
	c.Weighting = weightingNone
	if c.weights(s, sched.V) != nil || c.weighted() {
		t.Error("none has weights")
	}
}
