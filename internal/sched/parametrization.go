package sched

// Parametrization is how x_0 and the noise follow from a network's output.
type Parametrization struct {
	Prediction
	// Consistency says that the network is a consistency model, see XStartCoefs.
	Consistency bool
	// SigmaMin is Sigma at t = 0, where a consistency model returns its input.
	SigmaMin float64
}

// Parametrization is the one that c describes.
func (c Config) Parametrization() (Parametrization, error) {
	prediction, err := ParsePrediction(c.Prediction)
	p := Parametrization{Prediction: prediction, Consistency: c.Consistency}
	if err != nil || !c.Consistency {
		return p, err
	}
	s, err := New(c)
	if err != nil {
		return p, err
	}
	p.SigmaMin = s.Node(0).Sigma()
	return p, nil
}

// consistencyData is sigma_data of Song et al., "Consistency Models" (2023): the noise
// relative to the signal at which a consistency model changes from its input to its prediction.
const consistencyData = 0.05

// XStartCoefs recovers the clean image from the network's output at a node:
// x_0 = onXt x_t + onOut out. Of a consistency model it is
//
//	x_0 = skip x_t / Signal + (1 - skip) (x_0 of the Prediction),   skip = d^2 / ((Sigma - SigmaMin)^2 + d^2)
//
// so that at t = 0 it is the input itself, as eq. 5 of Song et al. asks. They have the network's
// raw output in place of its x_0; with x_0, the teacher's weights are a good start.
func (p Parametrization) XStartCoefs(n Node) (onXt, onOut float64) {
	onXt, onOut = p.Prediction.XStartCoefs(n)
	if !p.Consistency {
		return onXt, onOut
	}
	// Numerator and denominator times Signal^2, which may be 0.
	above, d := n.Noise-n.Signal*p.SigmaMin, n.Signal*consistencyData
	sum := above*above + d*d
	rest := above * above / sum // 1 - skip
	return d*consistencyData/sum + rest*onXt, rest * onOut
}

// EpsCoefs recovers the noise: eps = onXt x_t + onOut out = (x_t - Signal x_0) / Noise.
func (p Parametrization) EpsCoefs(n Node) (onXt, onOut float64) {
	if !p.Consistency {
		return p.Prediction.EpsCoefs(n)
	}
	onXt, onOut = p.XStartCoefs(n)
	return (1 - n.Signal*onXt) / n.Noise, -n.Signal * onOut / n.Noise
}
