package train

import (
	"maps"
	"math"
	"slices"

	"ddpm/internal/sched"
)

// weightingNone is the train.weighting without weights.
const weightingNone = "none"

// weightings are the others: what each weighs the squared error of x_0 by.
var weightings = map[string]func(c Config, snr float64) float64{
	"min_snr": func(c Config, snr float64) float64 { return min(snr, c.MinSNRGamma) },
	"p2":      func(c Config, snr float64) float64 { return snr / math.Pow(c.P2K+snr, c.P2Gamma) },
}

// WeightingKinds lists the values of train.weighting.
func WeightingKinds() []string {
	return append([]string{weightingNone}, slices.Sorted(maps.Keys(weightings))...)
}

// weighted reports whether there are weights.
func (c Config) weighted() bool { return weightings[c.Weighting] != nil }

// weights are what the squared error of an image at each t is multiplied by, [T]; nil is
// nothing. With snr = abar_t / (1 - abar_t) they are, for a network that predicts
//
//	           x_0                    eps                   v
//	min_snr    min(snr, gamma)        min(1, gamma/snr)     min(snr, gamma) / (snr + 1)
//	p2         snr / (k + snr)^gamma  1 / (k + snr)^gamma   snr / (snr + 1) / (k + snr)^gamma
//
// (Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023; Choi et
// al., "Perception Prioritized Training of Diffusion Models", 2022, whose weight is relative
// to the loss of eps). Each row is one weight of the error of x_0, which is a multiple of
// the error of the output.
func (c Config) weights(s *sched.Schedule, p sched.Prediction) []float64 {
	ofXStart := weightings[c.Weighting]
	if ofXStart == nil {
		return nil
	}
	weights := make([]float64, s.T())
	for t := range weights {
		a := s.AlphasCumprod[t]
		_, onOut := p.XStartCoefs(s.Node(float64(t)))
		weights[t] = ofXStart(c, a/(1-a)) * onOut * onOut
	}
	return weights
}
