package distill

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"ddpm/internal/model"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// The values of distill.method.
const (
	None        = "none"
	Consistency = "consistency"
	Progressive = "progressive"
)

// Methods lists the values of distill.method.
func Methods() []string { return []string{None, Consistency, Progressive} }

const (
	ddim = "ddim"
	heun = "heun"

	l2    = "l2"
	huber = "huber"

	trailing = "trailing"

	averaged = "averaged"
	current  = "current"
)

// Solvers lists the values of distill.solver.
func Solvers() []string { return []string{ddim, heun} }

// Losses lists the values of distill.loss.
func Losses() []string { return []string{l2, huber} }

// Targets lists the values of distill.target.
func Targets() []string { return []string{averaged, current} }

// Config is how a student learns from its teacher.
type Config struct {
	Method   string  `mapstructure:"method" doc:"how ddpm distill teaches a student that samples in few steps: none (an ordinary run), consistency (1 to 4 steps) or progressive (half the steps at each stage)"`
	Teacher  string  `mapstructure:"teacher" doc:"the model that the student learned from; ddpm distill --from sets it"`
	Guidance float64 `mapstructure:"guidance" doc:"weight of classifier-free guidance of a teacher with classes, which the student then needs none of; 1 is none"`

	GuidanceFrom    float64 `mapstructure:"guidance_from" doc:"least noise at which the teacher is guided, as a share of t; its sample.guidance_from by default"`
	GuidanceTo      float64 `mapstructure:"guidance_to" doc:"most noise at which the teacher is guided, as a share of t; its sample.guidance_to by default"`
	GuidanceRescale float64 `mapstructure:"guidance_rescale" doc:"how far the teacher's guided predictions get back the contrast of unguided ones, 0 to 1; its sample.guidance_rescale by default"`

	Loss   string  `mapstructure:"loss" doc:"of the student's x0: l2 (mean square) or huber (pseudo-Huber: about its root, so that no image dominates)"`
	HuberC float64 `mapstructure:"huber_c" doc:"huber: root mean square of an image's errors below which they count by their square"`

	Solver      string `mapstructure:"solver" doc:"consistency: how the teacher gets there: ddim (a call a step) or heun (two calls, second order)"`
	SolverSteps int    `mapstructure:"solver_steps" doc:"consistency: steps of the teacher's solver over skip timesteps"`
	Skip        int    `mapstructure:"skip" doc:"consistency: timesteps that the teacher leads on, from where the student learns to where it says what the target is; diffusion.t - 1 is to the end, without the student's word"`
	Nodes       int    `mapstructure:"nodes" doc:"consistency: the student learns at the t that trailing spacing visits with so many steps, to draw in as many or a divisor of them, sample.steps; 0 is all t"`
	Target      string `mapstructure:"target" doc:"consistency: the student's weights that say where the target lies, averaged (train.ema) or current"`

	StartSteps int `mapstructure:"start_steps" doc:"progressive: ddim steps of the teacher at the first stage, a power of two times those of the student"`
	StageSteps int `mapstructure:"stage_steps" doc:"progressive: optimiser steps of a stage, which halves the ddim steps; train.steps is a multiple"`
}

// Validate checks every value on its own. An error starts with the full key.
func (c Config) Validate() error {
	for _, w := range []struct {
		key, value string
		want       []string
	}{
		{"distill.method", c.Method, Methods()},
		{"distill.solver", c.Solver, Solvers()},
		{"distill.loss", c.Loss, Losses()},
		{"distill.target", c.Target, Targets()},
	} {
		if !slices.Contains(w.want, w.value) {
			return fmt.Errorf("%s %q: want one of %s", w.key, w.value, strings.Join(w.want, ", "))
		}
	}
	switch {
	case !(c.Guidance >= 0) || math.IsInf(c.Guidance, 1):
		return fmt.Errorf("distill.guidance %g: want a number from 0, 1 for none", c.Guidance)
	case !(c.GuidanceFrom >= 0 && c.GuidanceFrom <= 1):
		return fmt.Errorf("distill.guidance_from %g: want 0 to 1", c.GuidanceFrom)
	case !(c.GuidanceTo >= c.GuidanceFrom && c.GuidanceTo <= 1):
		return fmt.Errorf("distill.guidance_to %g: want distill.guidance_from (%g) to 1", c.GuidanceTo, c.GuidanceFrom)
	case !(c.GuidanceRescale >= 0 && c.GuidanceRescale <= 1):
		return fmt.Errorf("distill.guidance_rescale %g: want 0 to 1", c.GuidanceRescale)
	case !(c.HuberC > 0) || math.IsInf(c.HuberC, 1):
		return fmt.Errorf("distill.huber_c %g: want a number above 0", c.HuberC)
	case c.Skip < 1:
		return fmt.Errorf("distill.skip %d: want at least 1", c.Skip)
	case c.Nodes < 0:
		return fmt.Errorf("distill.nodes %d: want a number of steps, or 0 for all t", c.Nodes)
	case c.SolverSteps < 1 || c.SolverSteps > c.Skip:
		return fmt.Errorf("distill.solver_steps %d: want 1 to %d, distill.skip", c.SolverSteps, c.Skip)
	case c.StartSteps < 2:
		return fmt.Errorf("distill.start_steps %d: want at least 2", c.StartSteps)
	case c.StageSteps < 1:
		return fmt.Errorf("distill.stage_steps %d: want at least 1", c.StageSteps)
	}
	return nil
}

// Check checks the section against those of the model, the diffusion process, the training run and
// sampling. There is nothing to check without a method.
func (c Config) Check(m model.Config, d sched.Config, t train.Config, s sched.SamplerConfig) error {
	if c.Method == None {
		return nil
	}
	for _, w := range []struct{ key, value, want string }{
		{"train.loss", t.Loss, "simple"},
		{"train.weighting", t.Weighting, "none"},
		{"train.timesteps", t.Timesteps, "uniform"},
	} {
		if w.value != w.want {
			return fmt.Errorf("%s %s: want %s with distill.method %s, which has a loss of its own", w.key, w.value, w.want, c.Method)
		}
	}
	if c.Guidance != 1 && m.Classes == 0 {
		return fmt.Errorf("distill.guidance %g: want 1: the teacher knows no classes", c.Guidance)
	}
	if c.Method == Consistency {
		if c.Skip > d.T-1 {
			return fmt.Errorf("distill.skip %d: want 1 to %d, below diffusion.t", c.Skip, d.T-1)
		}
		if c.Nodes > d.T/2 {
			return fmt.Errorf("distill.nodes %d: want at most %d, half of diffusion.t, or 0 for all t", c.Nodes, d.T/2)
		}
		if c.Nodes > 0 && c.Nodes%s.Steps > 0 {
			return fmt.Errorf("sample.steps %d: want a divisor of distill.nodes %d, as the student learns at no other t", s.Steps, c.Nodes)
		}
		if c.Nodes > 0 && s.Spacing != trailing {
			return fmt.Errorf("sample.spacing %s: want trailing with distill.nodes %d, as the student learns at no other t", s.Spacing, c.Nodes)
		}
		return nil
	}
	if d.Prediction == sched.Eps.String() {
		return fmt.Errorf("distill.method progressive: want a teacher that predicts v or x0: diffusion.prediction eps does not tell x_0 in few steps")
	}
	_, err := c.Steps(d.T, t.Steps)
	return err
}

// Sampling is how a student draws where nothing says it, of a run of trainSteps steps: a consistency student in
// distill.nodes steps, or 4, a progressive one as it has learned. ok is false without a method.
func (c Config) Sampling(T, trainSteps int) (sampler, spacing string, steps int, ok bool) {
	switch c.Method {
	case Consistency:
		if c.Nodes > 0 {
			return "consistency", trailing, c.Nodes, true
		}
		return "consistency", trailing, min(4, T), true
	case Progressive:
		steps, _ := c.Steps(T, trainSteps) // Check reports the error
		return ddim, trailing, max(1, steps), true
	}
	return "", "", 0, false
}

// Steps is the number of DDIM steps that a progressive student draws in at the end: half of
// StartSteps for each stage.
func (c Config) Steps(T, trainSteps int) (int, error) {
	if c.StageSteps < 1 || c.StartSteps < 1 {
		return 0, c.Validate()
	}
	stages, halvings := trainSteps/c.StageSteps, bits.TrailingZeros(uint(c.StartSteps))
	switch {
	case c.StartSteps > T:
		return 0, fmt.Errorf("distill.start_steps %d: want at most %d (diffusion.t)", c.StartSteps, T)
	case trainSteps%c.StageSteps > 0:
		return 0, fmt.Errorf("distill.stage_steps %d: want a divisor of train.steps %d", c.StageSteps, trainSteps)
	case stages > halvings:
		return 0, fmt.Errorf("distill.start_steps %d: it can be halved %d times, and train.steps %d make %d stages of distill.stage_steps %d: want fewer, longer stages",
			c.StartSteps, halvings, trainSteps, stages, c.StageSteps)
	}
	return c.StartSteps >> stages, nil
}
