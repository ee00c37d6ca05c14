package sched

import "math"

// Node is a place on the way from noise to an image, x_t = Signal x_0 + Noise eps, and the
// time by which the network knows it. Between the T timesteps of a schedule, where solvers
// of higher order need to look, T has a fraction.
type Node struct {
	T             float64
	Signal, Noise float64 // Signal^2 + Noise^2 = 1
}

// Clean is the end of the way: x_0.
var Clean = Node{T: -1, Signal: 1}

// Lambda is half the logarithm of the signal-to-noise ratio, log(Signal / Noise): the time
// in which the diffusion ODE is nearly linear (Lu et al., "DPM-Solver", 2022). It is +Inf
// at Clean and -Inf where there is no signal.
func (n Node) Lambda() float64 { return math.Log(n.Signal / n.Noise) }

// Sigma is the noise relative to the signal, the time of Karras et al., "Elucidating
// the Design Space of Diffusion-Based Generative Models" (2022).
func (n Node) Sigma() float64 { return n.Noise / n.Signal }

// Within reports whether from <= t/(T-1) <= to at a node, as an interval of guidance says (Kynkäänniemi
// et al., "Applying Guidance in a Limited Interval", 2024).
func (s *Schedule) Within(n Node, from, to float64) bool {
	share := n.T / float64(max(1, s.T()-1))
	return share >= from && share <= to
}

// nodeOf is the node of a Lambda.
func nodeOf(t, lambda float64) Node {
	return Node{T: t, Signal: 1 / math.Sqrt(1+math.Exp(-2*lambda)), Noise: 1 / math.Sqrt(1+math.Exp(2*lambda))}
}

// Node is the place of time t, 0 <= t <= T-1. Between timesteps Lambda is linear in t; in front
// of a last timestep without signal, where no line leads, Signal / Noise is.
func (s *Schedule) Node(t float64) Node {
	below := int(t)
	if float64(below) == t {
		return Node{T: t, Signal: s.SqrtAlphasCumprod[below], Noise: s.SqrtOneMinusAlphasCumprod[below]}
	}
	share := t - float64(below)
	from, to := s.HalfLogSNR(below), s.HalfLogSNR(below+1)
	if math.IsInf(to, -1) {
		return nodeOf(t, from+math.Log(1-share))
	}
	return nodeOf(t, (1-share)*from+share*to)
}
