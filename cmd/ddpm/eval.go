package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ddpm/internal/data"
	"ddpm/internal/eval"
	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/progress"
	"ddpm/internal/trained"
)

func newEval() *cobra.Command {
	e := &evalCommand{}
	c := &cobra.Command{
		Use:   "eval",
		Short: "Measure a trained model on held-out images",
		Long: `Measure a trained model, with its averaged and with its raw weights, on images it
was not trained on: the loss L_simple, overall and by quarter of the timesteps,
and the variational bound in bits per dimension, with its parts. Every --stride-th
timestep is taken and stands for the others; --stride 1 is exact. A network that
predicts variances is measured with them, unless --set sample.variance names another.
For a model of shapes, images are drawn too, and scored: of all classes in turn, if it
knows them, and then also for being of the class. --score-only does nothing else.`,
		Example: `  ddpm eval
  ddpm eval --run runs/shapes --json
  ddpm eval --run runs/cifar --images 1000 --stride 1
  ddpm eval --run runs/cifar --set data.path=/data/cifar-10-binary.tar.gz
  ddpm eval --score-only --samples 1000 --set sample.sampler=unipc --set sample.steps=10`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			e.scored = c.Flags().Changed("samples")
			for _, flag := range []string{"images", "stride", "seed"} {
				if e.only && c.Flags().Changed(flag) {
					return fmt.Errorf("--%s: --score-only measures no held-out images: leave one of them out", flag)
				}
			}
			return e.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&e.path, "run", "", "a run's folder, a checkpoint, or a diffusers pipeline folder (default the newest run)")
	f.BoolVar(&e.json, "json", false, "print one JSON object")
	f.IntVar(&e.images, "images", 256, "held-out images to take; 0 takes all")
	f.IntVar(&e.stride, "stride", 10, "take every N-th timestep")
	f.IntVar(&e.samples, "samples", 256, "images to draw for the score of a shapes model; 0 skips it")
	f.BoolVar(&e.only, "score-only", false, "draw and score images of a shapes model, and measure no held-out ones")
	f.StringArrayVar(&e.set, "set", nil, "change where the data are or how the score's images are drawn, as in data.path=DIR; may be repeated")
	f.Uint64Var(&e.seed, "seed", 0, "seed of the noise")
	e.key(f, "batch", "sample.batch", "N", "images in a network call")
	e.addMachine(f)
	return c
}

type evalCommand struct {
	keyFlags
	path    string
	set     []string
	json    bool
	images  int
	stride  int
	samples int
	scored  bool // samples was given
	only    bool // score-only
	seed    uint64

	variance string // sample.variance, if it was given
}

func (e *evalCommand) run(ctx context.Context, out, errs io.Writer) (err error) {
	if e.samples < 0 || e.samples > maxImages {
		return fmt.Errorf("--samples %d: want 1 to %d, or 0 for no score", e.samples, maxImages)
	}
	if e.images < 0 || e.images > maxImages {
		return fmt.Errorf("--images %d: want 1 to %d, or 0 for all", e.images, maxImages)
	}
	m, closeModel, err := openModel(errs, e.path, e.keyFlags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeModel()) }()
	if err := e.change(m); err != nil {
		return err
	}
	if (e.scored && e.samples > 0 || e.only) && !m.DrawsShapes() {
		flag := "--score-only"
		if e.scored {
			flag = fmt.Sprintf("--samples %d", e.samples)
		}
		return fmt.Errorf("%s: only models of shapes of 16x16 pixels with 3 channels have a score", flag)
	}
	if e.only {
		return e.score(ctx, out, errs, m)
	}
	if T := m.Schedule.T(); e.stride < 1 || e.stride > T {
		return fmt.Errorf("--stride %d: want 1 (every timestep) to %d", e.stride, T)
	}
	ds, err := data.Open(m.Config.Data, data.Test)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ds.Close()) }()
	if e.images == 0 && ds.Info().Len == 0 {
		return fmt.Errorf("--images 0: %s is endless: want how many to take", m.Config.Data.Name)
	}
	if err := m.Measurable(ds.Info(), e.variance); err != nil {
		return err
	}

	s := eval.Summary{Model: m.Path, Step: m.Step, Data: m.Config.Data.Name}
	if m.Averaged {
		if s.EMA, err = e.measure(ctx, errs, m, graph.EMA, ds); err != nil {
			return err
		}
	}
	if s.Raw, err = e.measure(ctx, errs, m, graph.Params, ds); err != nil {
		return err
	}
	if e.samples > 0 && m.DrawsShapes() {
		if s.Shapes, err = e.draw(ctx, errs, m); err != nil {
			return err
		}
	}
	if e.json {
		return json.NewEncoder(out).Encode(s)
	}
	return s.WriteText(out)
}

// draw draws images and scores them.
func (e *evalCommand) draw(ctx context.Context, errs io.Writer, m *trained.Model) (*eval.ShapesScore, error) {
	bar := progress.New(errs, progress.Options{Total: e.samples, Unit: "image"})
	defer bar.Finish()
	fmt.Fprintln(errs, "drawing images to score")
	return m.ShapesScore(ctx, graph.EMA, e.samples, func(at generate.Moment) error {
		bar.Update(drawn(at))
		return nil
	})
}

// scoreReport is what --score-only prints as JSON: a row for a table of ways of sampling.
type scoreReport struct {
	Model    string            `json:"model"`
	Step     int               `json:"step"`
	Sampler  string            `json:"sampler"`
	Steps    int               `json:"steps"`
	Spacing  string            `json:"spacing"`
	Guidance float64           `json:"guidance"`
	Shapes   *eval.ShapesScore `json:"shapes_score"`
}

// score draws and scores images, and nothing else.
func (e *evalCommand) score(ctx context.Context, out, errs io.Writer, m *trained.Model) error {
	if e.samples == 0 {
		return fmt.Errorf("--samples 0: --score-only wants at least 1")
	}
	s, err := e.draw(ctx, errs, m)
	if err != nil {
		return err
	}
	c := m.Sampling()
	r := scoreReport{m.Path, m.Step, c.Sampler, c.Steps, c.Spacing, c.Guidance, s}
	if e.json {
		return json.NewEncoder(out).Encode(r)
	}
	_, err = fmt.Fprintf(out, "%s\n%d samples of %s, %s: %v\n", r.Model, s.Images, r.Sampler, counted(r.Steps, "step"), s)
	return err
}

// change applies --set.
func (e *evalCommand) change(m *trained.Model) error {
	for _, entry := range e.set {
		key, value, found := strings.Cut(entry, "=")
		if !found {
			return fmt.Errorf("--set %q: want key=value, such as data.path=DIR", entry)
		}
		section, name, _ := strings.Cut(key, ".")
		size := section == "data" && slices.Contains([]string{"width", "height", "channels"}, name)
		if size || section != "data" && section != "sample" {
			return fmt.Errorf("--set %q: the model is fixed: want a key of data or sample, but for the size of the images", entry)
		}
		if section == "sample" && strings.HasPrefix(name, "guidance") && m.Config.Model.Classes == 0 {
			return fmt.Errorf("--set %q: the model knows no classes, which guidance is about", entry)
		}
		if err := m.Config.Set(key, value, "--set"); err != nil {
			return err
		}
		if key == "sample.variance" {
			e.variance = value
		}
	}
	return m.Config.Validate()
}

func (e *evalCommand) measure(ctx context.Context, errs io.Writer, m *trained.Model, weights graph.Arena, ds data.Dataset) (*eval.Report, error) {
	fmt.Fprintf(errs, "measuring the %v\n", weights)
	var bar *progress.Reporter
	report, err := m.Evaluate(ctx, weights, ds, trained.Evaluation{
		Images: e.images, Stride: e.stride, Seed: e.seed, Variance: e.variance,
		OnSkip: func(err error) { fmt.Fprintln(errs, "skipped:", err) },
		OnProgress: func(done, total int) {
			if bar == nil {
				bar = progress.New(errs, progress.Options{Total: total, Unit: "image"})
			}
			bar.Update(images(done))
		},
	})
	if bar != nil {
		bar.Finish()
	}
	return report, err
}
