package generate

import (
	"context"
	"fmt"
	"math"
	"slices"

	"ddpm/internal/sched"
)

// Inverter finds the noise from which a sampler that adds none draws given images.
//
// A step of such a sampler from node s to node e is x_e = f(x_s), where f is linear in
// x_s and in the network's output there. From the images up, each step is solved for
// x_s. From x_s = x_e on,
//
//	x_s <- x_s + 3/4 r,   r = (x_e - f(x_s)) / (Signal_s Signal_e + Noise_s Noise_e)
//
// is repeated. The divisor is f' where the data have unit variance, 3/4 keeps from
// overshooting where they have more. (The first repetition with 1 in place of 3/4 is how
// Song et al. 2021, section 5.4, encode.)
type Inverter struct {
	Network         *Network
	Schedule        *sched.Schedule
	Parametrization sched.Parametrization
	Config          sched.SamplerConfig // its clip, threshold and guidance do not count
	Class           int                 // of the images, negative for none

	OnProgress func(done, total int) // steps of the images; may be nil
}

const (
	inversionGoal = 1e-6 // root-mean-square of r, relative to that of x_e, at which a step is solved
	maxRepeats    = 100  // of a step, after which the best of them counts
)

// Invert returns the noise, [n,H,W,C], that n images of values in [-1, 1] are drawn from.
// That of an image does not depend on the others.
func (v *Inverter) Invert(ctx context.Context, images []float32) ([]float32, error) {
	nodes, steps, err := v.way()
	if err != nil {
		return nil, err
	}
	x := slices.Clone(images)
	n := len(x) / v.Network.size.Values()
	for k, s := range slices.Backward(steps) {
		if err := v.undo(ctx, x, s, nodes[k+1]); err != nil {
			return nil, err
		}
		if v.OnProgress != nil {
			v.OnProgress(n*(len(steps)-k), n*len(steps))
		}
	}
	return x, nil
}

// Check refuses a sampler whose steps cannot be undone.
func (v *Inverter) Check() error {
	_, _, err := v.way()
	return err
}

// way lists the nodes of the sampler, the end included, and the steps through them.
func (v *Inverter) way() ([]sched.Node, []sched.Step, error) {
	nodes, err := v.Config.Nodes(v.Schedule)
	if err != nil {
		return nil, nil, err
	}
	steps, err := v.Config.StepList(v.Schedule, nodes)
	if err != nil {
		return nil, nil, err
	}
	noisy := func(s sched.Step) bool { return s.Prev.OnNoise != 0 }
	if single(v.Config.Sampler) != nil || slices.ContainsFunc(steps, noisy) {
		return nil, nil, fmt.Errorf("sample.sampler %q: steps that add noise or remember others cannot be undone: want euler, or ddim with sample.eta 0", v.Config.Sampler)
	}
	return nodes, steps, nil
}

// undo turns x, images at a node, into those that a step there came from.
func (v *Inverter) undo(ctx context.Context, x []float32, s sched.Step, to sched.Node) error {
	values, channels := v.Network.size.Values(), v.Network.size.Channels
	pixel := v.Network.OutValues() / (values / channels) // values of the output: the channels, and perhaps variances
	onXt, onOut := v.linear(s)
	divisor := s.Signal*to.Signal + s.Noise*to.Noise
	var open []*solution
	for i := 0; i < len(x); i += values {
		open = append(open, newSolution(x[i:i+values]))
	}
	for range maxRepeats {
		out, err := v.predict(ctx, open, s.T)
		if err != nil {
			return err
		}
		for i, o := range open {
			own := out[i*v.Network.OutValues():]
			for k, xt := range o.x {
				f := onXt*float64(xt) + onOut*float64(own[k/channels*pixel+k%channels])
				o.r[k] = (float64(o.want[k]) - f) / divisor
			}
			o.next()
		}
		if open = slices.DeleteFunc(open, func(o *solution) bool { return o.error <= inversionGoal }); len(open) == 0 {
			break
		}
	}
	return nil
}

// linear are the coefficients of a step on x_t and on the network's output there.
func (v *Inverter) linear(s sched.Step) (onXt, onOut float64) {
	x0OnXt, x0OnOut := v.Parametrization.XStartCoefs(s.Node)
	epsOnXt, epsOnOut := v.Parametrization.EpsCoefs(s.Node)
	return s.Prev.OnXt + s.Prev.OnX0*x0OnXt + s.Prev.OnEps*epsOnXt, s.Prev.OnX0*x0OnOut + s.Prev.OnEps*epsOnOut
}

// predict is the network's output at the next tries of some solutions.
func (v *Inverter) predict(ctx context.Context, open []*solution, t float64) ([]float32, error) {
	var x []float32
	for _, o := range open {
		x = append(x, o.x...)
	}
	var class []int
	if v.Class >= 0 {
		class = slices.Repeat([]int{v.Class}, len(open))
	}
	out := make([]float32, len(open)*v.Network.OutValues())
	return out, v.Network.Predict(ctx, x, slices.Repeat([]float64{t}, len(open)), class, out)
}

// solution is an x_s on its way to f(x_s) = want.
type solution struct {
	want  []float32 // x_e
	best  []float32 // x_s so far, in place of what was x_e
	x     []float32 // the next try
	r     []float64 // of the last one
	error float64   // root-mean-square of r, relative to that of want, for best
}

func newSolution(x []float32) *solution {
	want := slices.Clone(x)
	return &solution{want: want, best: x, x: slices.Clone(want), r: make([]float64, len(x)), error: math.Inf(1)}
}

// next goes from the try x, and its r, to the next one.
func (s *solution) next() {
	var squares, all float64
	for k, r := range s.r {
		squares += r * r
		all += float64(s.want[k]) * float64(s.want[k])
	}
	if error := math.Sqrt(squares / all); error < s.error {
		s.error = error
		copy(s.best, s.x)
	}
	for k, r := range s.r {
		s.x[k] += float32(0.75 * r)
	}
}

// Between is the way from the noise a to the noise b, at a share u of it: on an arc, so
// that it is noise all along. With w the angle between them,
//
//	sin((1-u) w)/sin(w) a + sin(u w)/sin(w) b
func Between(a, b []float32, u float64) []float32 {
	var ab, aa, bb float64
	for k := range a {
		x, y := float64(a[k]), float64(b[k])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	onA, onB := 1-u, u // where both point the same way
	if w := math.Acos(min(max(ab/math.Sqrt(aa*bb), -1), 1)); math.Sin(w) > 1e-6 {
		onA, onB = math.Sin((1-u)*w)/math.Sin(w), math.Sin(u*w)/math.Sin(w)
	}
	between := make([]float32, len(a))
	for k := range between {
		between[k] = float32(onA*float64(a[k]) + onB*float64(b[k]))
	}
	return between
}
