package sched

import (
	"context"
	"fmt"
)

// Network evaluates the model on every sample of the flat batch x at the same t,
// 0..T-1, and fills out, of equal length, with the raw output. It must neither
// change x nor keep either slice.
type Network func(ctx context.Context, x []float32, t int, out []float32) error

// Denoiser reads a network's raw output as x_0 and eps, so that a sampler need
// not know what the network predicts. It has no state: several samplers may
// share one if the network allows it.
type Denoiser struct {
	Schedule   *Schedule
	Prediction Prediction
	Network    Network
}

// Denoise fills x0 and eps, each as long as x, with the prediction from x at t.
// x_t = sqrt(a) x0 + sqrt(1-a) eps holds for the result.
func (d *Denoiser) Denoise(ctx context.Context, x []float32, t int, x0, eps []float32) error {
	out := eps
	if err := d.Network(ctx, x, t, out); err != nil {
		return fmt.Errorf("sched: network at t=%d: %w", t, err)
	}
	if !finite(out) {
		return fmt.Errorf("sched: the network's output at t=%d is not finite: its weights are damaged, or its input is not finite", t)
	}
	onXt, onOut := d.Prediction.XStartCoefs(d.Schedule, t)
	combine(x0, onXt, x, onOut, out)
	onXt, onOut = d.Prediction.EpsCoefs(d.Schedule, t)
	combine(eps, onXt, x, onOut, out)
	return nil
}

// finite reports whether no value is infinite or NaN: v - v is 0 or NaN.
func finite(values []float32) bool {
	var probe float32
	for _, v := range values {
		probe += v - v
	}
	return probe == 0
}

// Options are the settings of one sampling run. A sampler ignores what it does
// not use.
type Options struct {
	Timesteps []int    // visited in this order, strictly falling; see Timesteps
	Eta       float64  // ddim: 0 to 1
	Variance  Variance // ddpm
	Clip      bool     // clip each prediction of x_0 to [-1, 1]

	// Noise fills dst, as long as the batch, with standard normal numbers. It is
	// called once for each step that adds noise, with the step's index in
	// Timesteps: 0 is the first and noisiest. Nil will do where no step does.
	Noise func(step int, dst []float32)
	// OnStep, if not nil, sees the prediction of x_0 (clipped, if Clip) after each
	// network call. x0 is valid until it returns and must not be changed.
	OnStep func(step, t int, x0 []float32)
}

// Sampler turns x, a batch of x_T in and of x_0 out, by visiting the timesteps.
// It allocates before its first step only. After an error x is undefined.
type Sampler func(ctx context.Context, d *Denoiser, x []float32, opt Options) error

var samplers = newRegistry[Sampler]("sample.sampler")

// RegisterSampler adds a sampler.
func RegisterSampler(name string, sampler Sampler) { samplers.register(name, sampler) }

// SamplerNames lists the samplers, sorted.
func SamplerNames() []string { return samplers.names() }

// SamplerByName finds a registered sampler.
func SamplerByName(name string) (Sampler, error) { return samplers.find(name) }

// Options are the Options that c describes for a model trained with s, without
// the callbacks.
func (c SamplerConfig) Options(s *Schedule) (Options, error) {
	if err := c.Validate(s.T()); err != nil {
		return Options{}, err
	}
	variance, err := ParseVariance(c.Variance)
	if err != nil {
		return Options{}, err
	}
	timesteps, err := Timesteps(c.Spacing, s, c.Steps)
	if err != nil {
		return Options{}, err
	}
	return Options{Timesteps: timesteps, Eta: c.Eta, Variance: variance, Clip: c.Clip}, nil
}

// check refuses what would fail, or silently go wrong, inside the loop of the
// named sampler.
func (o *Options) check(sampler string, d *Denoiser, x []float32, noisy bool) error {
	if len(x) == 0 {
		return fmt.Errorf("sched: %s: the batch is empty: want at least one sample", sampler)
	}
	if err := checkTimesteps(o.Timesteps, d.Schedule.T()); err != nil {
		return fmt.Errorf("sched: %s: %w", sampler, err)
	}
	if noisy && o.Noise == nil {
		return fmt.Errorf("sched: %s: Options.Noise is nil, but steps add noise", sampler)
	}
	return nil
}

// denoise is the network call of step k: it leaves the prediction in x0, clipped
// if asked, and in eps, which is not recomputed from a clipped x0.
func (o *Options) denoise(ctx context.Context, d *Denoiser, k int, x, x0, eps []float32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := o.Timesteps[k]
	if err := d.Denoise(ctx, x, t, x0, eps); err != nil {
		return err
	}
	if o.Clip {
		for i, v := range x0 {
			x0[i] = min(max(v, -1), 1)
		}
	}
	if o.OnStep != nil {
		o.OnStep(k, t, x0)
	}
	return nil
}
