package sched

import (
	"math"
	"testing"
)

// A consistency model returns its input at t = 0, whatever the network says, and elsewhere x_0 and
// eps add up to x_t.
func TestConsistencyParametrization(t *testing.T) {
	for _, c := range []Config{
		{T: 1000, Schedule: "cosine", Prediction: "v", Consistency: true},
		{T: 1000, Schedule: "linear", BetaStart: 1e-4, BetaEnd: 0.02, Prediction: "eps", Consistency: true},
		{T: 10, Schedule: "cosine", Prediction: "x0", Consistency: true},
	} {
		p, err := c.Parametrization()
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		onXt, onOut := p.XStartCoefs(s.Node(0))
		if math.Abs(onXt*s.Node(0).Signal-1) > 1e-12 || math.Abs(onOut) > 1e-12 {
			t.Errorf("%s: x_0 = %g x_t + %g out at t = 0, want %g x_t", c.Prediction, onXt, onOut, 1/s.Node(0).Signal)
		}
		last := s.Node(float64(s.T() - 1))
		plainXt, plainOut := p.Prediction.XStartCoefs(last)
		onXt, onOut = p.XStartCoefs(last)
		if math.Abs(onXt-plainXt) > 0.01*(1+math.Abs(plainXt)) || math.Abs(onOut/plainOut-1) > 0.01 {
			t.Errorf("%s: x_0 = %g x_t + %g out at the end, want the prediction's %g and %g", c.Prediction, onXt, onOut, plainXt, plainOut)
		}
		for _, at := range []float64{1, 2.5, float64(s.T() - 1)} {
			n := s.Node(at)
			onXt, onOut = p.XStartCoefs(n)
			epsXt, epsOut := p.EpsCoefs(n)
			if sum := n.Signal*onXt + n.Noise*epsXt; math.Abs(sum-1) > 1e-9 {
				t.Errorf("%s, t = %g: x_t comes back as %g x_t", c.Prediction, at, sum)
			}
			if sum := n.Signal*onOut + n.Noise*epsOut; math.Abs(sum) > 1e-9 {
				t.Errorf("%s, t = %g: x_t comes back with %g out", c.Prediction, at, sum)
			}
		}
	}
}

// Without a signal, at the end of a schedule of zero terminal SNR, the coefficients are finite.
func TestConsistencyWithoutSignal(t *testing.T) {
	p := Parametrization{Prediction: V, Consistency: true, SigmaMin: 0.01}
	if onXt, onOut := p.XStartCoefs(Node{T: 9, Noise: 1}); onXt != 0 || onOut != -1 {
		t.Errorf("x_0 = %g x_t + %g out, want -out", onXt, onOut)
	}
}

// Each step ends at its prediction, noised to the next node; the last is not noised.
func TestConsistencySteps(t *testing.T) {
	s, err := New(Config{T: 10, Schedule: "cosine"})
	if err != nil {
		t.Fatal(err)
	}
	c := SamplerConfig{Sampler: "consistency", Steps: 2, Spacing: "trailing", Variance: "fixed_small"}
	nodes := []Node{s.Node(9), s.Node(4), Clean}
	steps, err := c.StepList(s, nodes)
	if err != nil {
		t.Fatal(err)
	}
	want := []Step{
		{Node: nodes[0], Prev: Row{OnX0: nodes[1].Signal, OnNoise: nodes[1].Noise}},
		{Node: nodes[1], Prev: Row{OnX0: 1}},
	}
	if len(steps) != 2 || steps[0] != want[0] || steps[1] != want[1] {
		t.Errorf("steps %+v, want %+v", steps, want)
	}
}
