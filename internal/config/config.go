// Package config is the door for settings: one typed tree, filled from
// defaults in code, a YAML file, the environment and --set, in that order, and
// checked as a whole. It is the only package that knows viper; everything
// behind the door takes plain structs.
//
// The sections belong to the packages they configure (data, model, sched,
// train); their field tags give the key and its description.
//
// Nothing is guessed. An unknown key, a value of another type and a value out
// of range are errors that name the key, the value, what would fit and where
// the value came from.
package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"ddpm/internal/data"
	"ddpm/internal/distill"
	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// Config is every setting of a run.
type Config struct {
	Seed      uint64       `mapstructure:"seed" doc:"seed of every random number of the run"`
	Device    string       `mapstructure:"device" doc:"what the network runs on: auto (a GPU if there is one), cpu, cuda, or cuda:1 for the second GPU"`
	Threads   int          `mapstructure:"threads" doc:"CPU threads; 0 uses all cores"`
	Precision string       `mapstructure:"precision" doc:"operands of convolutions and linear layers: fp32, tf32 (GPUs) or bf16 (GPUs, and processors with instructions for it), sums are fp32; auto is bf16 on a GPU and fp32 on a CPU"`
	Data      data.Config  `mapstructure:"data"`
	Model     model.Config `mapstructure:"model"`
	Diffusion sched.Config `mapstructure:"diffusion"`
	Train     train.Config `mapstructure:"train"`
	Sample    Sample       `mapstructure:"sample"`

	Distill distill.Config `mapstructure:"distill"`
}

// autoPrecision leaves the choice of Precision to the device.
const autoPrecision = "auto"

// Backend are the options that the network's device is opened with.
func (c *Config) Backend() graph.Options {
	o := graph.Options{Threads: c.Threads}
	if c.Precision != autoPrecision {
		o.Precision = graph.Precision(c.Precision)
	}
	return o
}

// Sample is how pictures are drawn, by ddpm sample and for the grids a training
// run writes.
type Sample struct {
	sched.SamplerConfig `mapstructure:",squash"`
	Batch               int `mapstructure:"batch" doc:"images drawn at a time"`
}

// Default is what a key has that no file sets: a U-Net of medium size on the
// data set that needs no download, trained long, with the settings that are
// good for most pictures. The presets give whole runs.
func Default() Config {
	return Config{
		Seed:    0,
		Device:  "auto",
		Threads: 0,

		Precision: autoPrecision,

		Data: data.Config{
			Name:       "shapes",
			Width:      16,
			Height:     16,
			Channels:   3,
			Holdout:    0.05,
			Workers:    2,
			Prefetch:   4,
			MaxSkipped: 100,
		},
		Model: model.Config{
			Block:        "resnet",
			Channels:     64,
			Mult:         []float64{1, 2, 2},
			Blocks:       2,
			Attention:    []int{},
			MidAttention: true,
			Groups:       32,
			NormEps:      1e-6,
			Init:         "pytorch",
			Conv:         string(graph.AutoConv),
			FreqShift:    1,
		},
		Diffusion: sched.Config{
			T:          1000,
			Schedule:   "cosine",
			BetaStart:  1e-4,
			BetaEnd:    0.02,
			Prediction: "v",
		},
		Train: train.Config{
			Steps:           100_000,
			Batch:           32,
			Accumulate:      1,
			Loss:            "simple",
			VLBWeight:       0.001,
			Weighting:       "none",
			MinSNRGamma:     5,
			P2Gamma:         1,
			P2K:             1,
			Timesteps:       "uniform",
			LognormalMean:   -1.2,
			LognormalStd:    1.2,
			ClassDropout:    0.1,
			LR:              2e-4,
			Warmup:          1000,
			Decay:           "cosine",
			Beta1:           0.9,
			Beta2:           0.999,
			AdamEps:         1e-8,
			Clip:            1,
			EMA:             0.999,
			LogEvery:        50,
			PlotEvery:       1000,
			Samples:         64,
			CheckpointEvery: 1000,
			KeepLast:        3,
		},
		Sample: Sample{
			SamplerConfig: sched.SamplerConfig{
				Sampler:  "ddim",
				Steps:    50,
				Spacing:  "trailing",
				Variance: "fixed_large",
				Clip:     true,

				Guidance:   1,
				GuidanceTo: 1,
			},
			Batch: 64,
		},
		Distill: distill.Config{
			Method:      distill.None,
			Guidance:    1,
			Loss:        "huber",
			HuberC:      0.03,
			Solver:      "ddim",
			SolverSteps: 5,
			Skip:        250,
			Target:      "averaged",
			StartSteps:  64,
			StageSteps:  20_000,
			GuidanceTo:  1,
		},
	}
}

// checkDistill checks the section distill against the others.
func (c *Config) checkDistill() error {
	if err := c.Distill.Validate(); err != nil {
		return err
	}
	student := c.Distill.Method == distill.Consistency
	switch {
	case student && !c.Diffusion.Consistency:
		return fmt.Errorf("diffusion.consistency false: want true with distill.method consistency, which makes consistency models")
	case c.Diffusion.Consistency && !student:
		return fmt.Errorf("diffusion.consistency true: want distill.method consistency: ddpm distill makes such models")
	case c.Sample.Sampler == "consistency" && !c.Diffusion.Consistency && !student:
		return fmt.Errorf("sample.sampler consistency: want a consistency model, as ddpm distill makes them; for this one dpmpp_2m draws in few steps")
	}
	return c.Distill.Check(c.Model, c.Diffusion, c.Train, c.Sample.SamplerConfig)
}

// Validate checks every value and the sections against each other. An error
// starts with the full key.
func (c *Config) Validate() error {
	for _, l := range leaves {
		text, ok := l.get(c).(string)
		if !ok {
			continue
		}
		if !utf8.ValidString(text) {
			return fmt.Errorf("%s %q: want text in UTF-8", l.key, text)
		}
		if names := l.choices(); names != nil && !slices.Contains(names, text) && !(l.key == "device" && graph.ValidDevice(text)) {
			return fmt.Errorf("%s %q: want one of %s%s", l.key, text, strings.Join(names, ", "), didYouMean(nearest(text, names)))
		}
	}
	if c.Threads < 0 {
		return fmt.Errorf("threads %d: want at least 1, or 0 for all cores", c.Threads)
	}
	if err := c.Data.Validate(); err != nil {
		return err
	}
	if err := c.Model.Validate(c.Data.Width, c.Data.Height, c.Data.Channels); err != nil {
		return err
	}
	if err := c.Diffusion.Validate(); err != nil {
		return err
	}
	if err := c.Train.Validate(); err != nil {
		return err
	}
	if err := c.Sample.Validate(c.Diffusion.T); err != nil {
		return err
	}
	if c.Sample.Variance == sched.Learned.String() && !c.Model.LearnSigma {
		return fmt.Errorf("sample.variance %s: want a model with model.learn_sigma, which predicts variances, or a fixed variance", c.Sample.Variance)
	}
	if c.Sample.Guidance != 1 && c.Model.Classes > 0 && c.Train.ClassDropout == 0 {
		return fmt.Errorf("sample.guidance %g: want 1 with train.class_dropout 0, which trains no network without a class for guidance to lead away from", c.Sample.Guidance)
	}
	if c.Sample.Batch < 1 || c.Sample.Batch > train.MaxImages {
		return fmt.Errorf("sample.batch %d: want 1 to %d", c.Sample.Batch, train.MaxImages)
	}
	return c.checkDistill()
}

// Size is the size of the images.
func (c *Config) Size() model.Size {
	return model.Size{Height: c.Data.Height, Width: c.Data.Width, Channels: c.Data.Channels}
}

// Set gives one key a value written as in --set. Values are checked against
// each other by Validate, once all are set. origin says in an error where the
// value came from; "" says nothing.
func (c *Config) Set(key, value, origin string) error {
	l, v, err := parseSetting(key, value)
	if err != nil {
		return from(err, origin)
	}
	l.set(c, v)
	return nil
}
