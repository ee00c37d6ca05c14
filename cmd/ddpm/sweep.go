package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ddpm/internal/eval"
	"ddpm/internal/files"
	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/picture"
	"ddpm/internal/progress"
	"ddpm/internal/samples"
	"ddpm/internal/sched"
	"ddpm/internal/trained"
)

func newSweep() *cobra.Command {
	s := &sweepCommand{}
	c := &cobra.Command{
		Use:   "sweep",
		Short: "Compare samplers by quality and time",
		Long: `Draw images of a shapes model with every sampler, or the ones that --sampler lists, at
several numbers of network calls, and print the score of each and the seconds it takes to
draw a thousand images. Everything else is as the model's configuration says; all draws start
from the same noise. --plot draws the scores. A sweep that is stopped prints what it has.`,
		Example: `  ddpm sweep
  ddpm sweep --run runs/shapes --sampler ddim,unipc --steps 5,10,20 -n 1000
  ddpm sweep --spacing trailing,logsnr,karras --plot samplers.png`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&s.path, "run", "", "a run's folder or a checkpoint (default the newest run)")
	f.StringSliceVar(&s.samplers, "sampler", nil, "samplers to compare (default all that are meant for the model)")
	f.StringSliceVar(&s.spacings, "spacing", nil, "spacings to try with each (default the model's)")
	f.IntSliceVar(&s.steps, "steps", []int{5, 10, 20, 50, 1000}, "network calls an image to try; those the model has no timesteps for are left out")
	f.IntVarP(&s.n, "n", "n", 256, "images to draw for each")
	f.BoolVar(&s.json, "json", false, "print one JSON array")
	f.StringVar(&s.plot, "plot", "", "PNG file to draw the scores to")
	s.key(f, "seed", "seed", "N", "seed of the noise (default that of the run)")
	s.key(f, "batch", "sample.batch", "N", "images drawn at a time")
	s.addMachine(f)
	return c
}

type sweepCommand struct {
	keyFlags
	path               string
	samplers, spacings []string
	steps              []int
	n                  int
	json               bool
	plot               string
}

// sweepResult is one draw.
type sweepResult struct {
	Sampler string           `json:"sampler"`
	Spacing string           `json:"spacing"`
	Steps   int              `json:"steps"`
	Score   eval.ShapesScore `json:"score"`
}

func (s *sweepCommand) run(ctx context.Context, out, errs io.Writer) (err error) {
	if s.n < 1 || s.n > maxImages {
		return fmt.Errorf("-n %d: want 1 to %d", s.n, maxImages)
	}
	if err := s.checkPlot(); err != nil {
		return err
	}
	m, closeModel, err := openModel(errs, s.path, s.keyFlags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeModel()) }()
	if !m.DrawsShapes() {
		return fmt.Errorf("%s: only models of shapes of 16x16 pixels with 3 channels have a score", m.Path)
	}
	if err := s.choose(m); err != nil {
		return err
	}
	results, err := s.drawAll(ctx, errs, m)
	if len(results) > 0 { // what there is, also of a sweep that was stopped
		if s.json {
			err = errors.Join(err, json.NewEncoder(out).Encode(results))
		} else {
			err = errors.Join(err, s.print(out, results))
		}
	}
	if err != nil || s.plot == "" {
		return err
	}
	name := m.Name()
	if m.Run != "" {
		name = filepath.Base(string(m.Run))
	}
	return picture.Sweep(s.plot, name+": quality by sampler", "score", s.series(results))
}

// drawAll scores images of all samplers. After an error it returns the results until then.
func (s *sweepCommand) drawAll(ctx context.Context, errs io.Writer, m *trained.Model) (results []sweepResult, err error) {
	calls := 0 // of the network, for an image of each sampler
	for _, steps := range s.steps {
		calls += len(s.samplers) * len(s.spacings) * steps
	}
	bar := progress.New(errs, progress.Options{Total: calls * s.n, Unit: "call"})
	defer bar.Finish()
	done := 0
	for _, sampler := range s.samplers {
		for _, spacing := range s.spacings {
			for _, steps := range s.steps {
				score, err := s.draw(ctx, m, sampler, spacing, steps, func(at generate.Moment) error {
					status := drawn(at)
					bar.Update(images(done + steps*status.Step + int(float64(steps)*status.Part)))
					return nil
				})
				if ctx.Err() != nil {
					return results, context.Cause(ctx)
				}
				if err != nil {
					return results, fmt.Errorf("%s, %s, %d steps: %w", sampler, spacing, steps, err)
				}
				done += s.n * steps
				results = append(results, sweepResult{sampler, spacing, steps, *score})
			}
		}
	}
	return results, nil
}

// checkPlot makes sure that the picture can be written before there is one.
func (s *sweepCommand) checkPlot() error {
	if s.plot == "" {
		return nil
	}
	if filepath.Ext(s.plot) != ".png" {
		return fmt.Errorf("--plot %s: want a name that ends in .png", s.plot)
	}
	if err := samples.Vacant(s.plot); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.plot), 0o777); err != nil {
		return fmt.Errorf("--plot %s: cannot make its folder: %w", s.plot, files.Cause(err))
	}
	return nil
}

// choose fills in what the user left open and checks the rest.
func (s *sweepCommand) choose(m *trained.Model) error {
	if s.samplers == nil {
		for _, name := range sched.SamplerNames() {
			if sampler, _ := sched.SamplerByName(name); (sampler.Order == 0) == m.Parametrization.Consistency {
				s.samplers = append(s.samplers, name)
			}
		}
	}
	s.samplers, s.spacings = distinct(s.samplers), distinct(s.spacings)
	if s.spacings == nil {
		s.spacings = []string{m.Config.Sample.Spacing}
	}
	s.steps = slices.DeleteFunc(s.steps, func(steps int) bool { return steps > m.Schedule.T() })
	slices.Sort(s.steps)
	s.steps = slices.Compact(s.steps)
	if len(s.steps) == 0 {
		return fmt.Errorf("--steps: the model has only %d timesteps: want fewer steps", m.Schedule.T())
	}
	c := m.Config
	for _, sampler := range s.samplers {
		for _, spacing := range s.spacings {
			for _, steps := range s.steps {
				c.Sample.Sampler, c.Sample.Spacing, c.Sample.Steps = sampler, spacing, steps
				if err := c.Validate(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// distinct leaves out what was named before.
func distinct(names []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(names, func(name string) bool {
		again := seen[name]
		seen[name] = true
		return again
	})
}

// draw scores images of one sampler.
func (s *sweepCommand) draw(ctx context.Context, m *trained.Model, sampler, spacing string, steps int, onMoment func(generate.Moment) error) (*eval.ShapesScore, error) {
	configured := m.Config.Sample
	defer func() { m.Config.Sample = configured }()
	c := &m.Config.Sample
	c.Sampler, c.Spacing, c.Steps = sampler, spacing, steps
	return m.ShapesScore(ctx, graph.EMA, s.n, onMoment)
}

// name tells the rows apart.
func (s *sweepCommand) name(r sweepResult) string {
	if len(s.spacings) == 1 {
		return r.Sampler
	}
	return r.Sampler + ", " + r.Spacing
}

// print writes a row for each sampler, with the score and the seconds for a thousand images
// at each number of steps.
func (s *sweepCommand) print(out io.Writer, results []sweepResult) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "score (s)")
	for _, steps := range s.steps {
		fmt.Fprintf(table, "\t%d", steps)
	}
	for row := range slices.Chunk(results, len(s.steps)) { // the last may be short
		fmt.Fprintf(table, "\n%s", s.name(row[0]))
		for _, r := range row {
			fmt.Fprintf(table, "\t%.1f (%.3g)", r.Score.Score, r.Score.Seconds)
		}
	}
	fmt.Fprintln(table)
	return table.Flush()
}

func (s *sweepCommand) series(results []sweepResult) []picture.SweepSeries {
	var series []picture.SweepSeries
	for row := range slices.Chunk(results, len(s.steps)) {
		sampler, _ := sched.SamplerByName(row[0].Sampler)
		line := picture.SweepSeries{Name: s.name(row[0]), Noisy: sampler.Stochastic}
		for _, r := range row {
			line.Calls, line.Value = append(line.Calls, r.Steps), append(line.Value, r.Score.Score)
		}
		series = append(series, line)
	}
	return series
}
