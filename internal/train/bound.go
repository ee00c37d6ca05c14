package train

import (
	"ddpm/internal/graph"
	"ddpm/internal/sched"
)

// The values of train.loss.
const (
	lossSimple = "simple"
	lossVLB    = "vlb"
	lossHybrid = "hybrid"
)

// bound reports whether the variational bound is part of the loss.
func (c Config) bound() bool { return c.Loss == lossVLB || c.Loss == lossHybrid }

// boundWeight is what the bound's term at a t is multiplied by: L_vlb is T times the mean
// of the terms (Nichol & Dhariwal 2021, section 3.1).
func (c Config) boundWeight(T int) float64 {
	if c.Loss == lossHybrid {
		return c.VLBWeight * float64(T)
	}
	return float64(T)
}

// boundCoefs are the rows of coefficients of graph.VLB for each t, [T,VLBCoefs]. The
// variance of the reverse step is that of s.Sample, or with model.learn_sigma between the
// posterior's and beta_t.
func boundCoefs(s Setup, schedule *sched.Schedule, p sched.Prediction) ([]float32, error) {
	variance, err := sched.ParseVariance(s.Sample.Variance)
	if err != nil {
		return nil, err
	}
	coefs := make([]float32, schedule.T()*graph.VLBCoefs)
	for t := range schedule.T() {
		row := coefs[t*graph.VLBCoefs : (t+1)*graph.VLBCoefs]
		onXt, onOut := p.XStartCoefs(schedule.Node(float64(t)))
		row[graph.VLBX0OnXt], row[graph.VLBX0OnOut] = float32(onXt), float32(onOut)
		row[graph.VLBMeanOnX0] = float32(schedule.PosteriorMeanCoef1[t])
		row[graph.VLBLogVarTrue] = float32(schedule.PosteriorLogVarianceClipped[t])
		small, large := schedule.LogVarianceRange(t)
		if !s.Model.LearnSigma {
			large = schedule.LogVariance(variance, t)
		}
		row[graph.VLBLogVarMin], row[graph.VLBLogVarMax] = float32(small), float32(large)
		if t == 0 {
			row[graph.VLBDecoder] = 1
		}
	}
	return coefs, nil
}
