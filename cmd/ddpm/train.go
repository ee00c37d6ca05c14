package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ddpm/internal/checkpoint"
	"ddpm/internal/config"
	"ddpm/internal/data"
	"ddpm/internal/distill"
	"ddpm/internal/graph"
	"ddpm/internal/progress"
	"ddpm/internal/runs"
	"ddpm/internal/train"
)

func newTrain() *cobra.Command {
	t := &trainCommand{}
	c := &cobra.Command{
		Use:   "train",
		Short: "Train a model, or continue training one",
		Long: `Train a model. Without --config it is the default run, shapes, which needs no
data. Everything goes to one folder, runs/NAME or the one that --out names:
checkpoints, metrics, sample grids and the loss curve.

Ctrl-C, SIGTERM or a closed terminal finishes the step and writes a checkpoint; the
exit code is 130, 143 or 129 then. Once more stops at once, and what came after the newest
checkpoint is lost. --resume continues a run with the configuration in its
checkpoint, or the one that --config names in its place; --set and the other flags
make changes to it, and what differs from the checkpoint is listed. A run that
was stopped and resumed gives, byte for byte, what it would have given anyway.`,
		Example: `  ddpm train
  ddpm train --config cifar --set data.path=cifar-10-binary.tar.gz
  ddpm train --config my.yaml --set train.lr=1e-4 --out runs/slow
  ddpm train --config my.yaml --dry-run
  ddpm train --resume
  ddpm train --resume --out runs/slow --steps 200000`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			return t.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	t.add(f)
	t.addRun(f)
	return c
}

type trainCommand struct {
	settings
	out    string
	resume bool
	dryRun bool
}

// addRun adds the flags of every command that makes a run.
func (t *trainCommand) addRun(f *pflag.FlagSet) {
	f.StringVar(&t.out, "out", "", "folder of the run (default runs/NAME, NAME being that of the configuration)")
	f.BoolVar(&t.resume, "resume", false, "continue the run in --out, of --config, or else the newest in runs/")
	t.key(f, "steps", "train.steps", "N", "optimiser steps of the whole run")
	t.key(f, "seed", "seed", "N", "seed of every random number")
	t.addMachine(f)
	f.BoolVar(&t.dryRun, "dry-run", false, "check everything and say what would be done, but write nothing")
}

// assignment is a run to be made, or to be continued.
type assignment struct {
	*config.Resolved
	dir     runs.Dir
	changes []config.Change // in what a resumed run differs from its checkpoint
	teacher []float32       // weights that a student starts from; nil where there is none, or it is resumed
	classes []string        // that the teacher knows; nil if it does not say
}

func (t *trainCommand) run(ctx context.Context, out, errs io.Writer) error {
	a, err := t.resolve()
	if err != nil {
		return err
	}
	return t.make(ctx, out, errs, a)
}

// make makes a run or continues it.
func (t *trainCommand) make(ctx context.Context, out, errs io.Writer, a assignment) (err error) {
	r, dir := a.Resolved, a.dir
	if t.resume && !t.dryRun {
		unlock, err := dir.Lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	backend, err := openDevice(errs, &r.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()

	// A run that goes on keeps its parts: how sums are split shows in the last bits.
	if !t.resume {
		if err := fit(errs, &r.Config, backend); err != nil {
			return err
		}
	}
	setup := setupOf(&r.Config, backend)
	setup.Dir, setup.Resume = dir, t.resume
	if a.teacher != nil {
		setup.Objective = distill.Objective{Config: r.Distill, Teacher: a.teacher}
	}
	job, err := train.Prepare(setup)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close()) }()

	if has := job.Info().Classes; r.Model.Classes > 0 && a.classes != nil && !slices.Equal(a.classes, has) {
		return fmt.Errorf("data.path %q: the teacher learned the classes %s, this data set has %s: distil it with its own",
			r.Data.Path, strings.Join(a.classes, ", "), strings.Join(has, ", "))
	}
	if job.At.Step > r.Train.Steps {
		return fmt.Errorf("train.steps %d: %s has made %d steps already: want more", r.Train.Steps, dir, job.At.Step)
	}
	if job.At.Step == r.Train.Steps {
		fmt.Fprintf(out, "%s is complete: it has made %d of %d steps; to go on, add --steps with more\n", dir, job.At.Step, r.Train.Steps)
		return nil
	}
	t.describe(out, r, job, a.changes)
	if t.dryRun {
		fmt.Fprintln(out, "dry run: nothing is written")
		return nil
	}
	if !t.resume {
		if err := runs.Create(string(dir)); err != nil {
			return err
		}
		unlock, err := dir.Lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	if err := dir.WriteConfig(config.Marshal(&r.Config)); err != nil {
		return err
	}
	job.Progress = progress.New(errs, progress.Options{Total: r.Train.Steps, Start: job.At.Step})
	stop := context.AfterFunc(ctx, func() { job.Progress.Note("stopping after this step; once more stops at once") })
	defer stop()
	err = job.Run(ctx)
	job.Progress.Finish()
	var stopped *train.Stopped
	if errors.As(err, &stopped) {
		command := "train"
		if r.Distill.Method != distill.None {
			command = "distill"
		}
		return fmt.Errorf("%w: checkpoint written; resume with: ddpm %s --resume --out %s", stopped, command, dir)
	}
	if err != nil {
		return err
	}
	row(out, "checkpoint", "%s", dir.Checkpoint(r.Train.Steps))
	for _, picture := range []struct{ label, path string }{
		{"loss", dir.LossPlot()},
		{"samples", dir.SampleGrid(r.Train.Steps)},
	} {
		// One that could not be drawn has been noted already.
		if _, err := os.Stat(picture.path); err == nil {
			row(out, picture.label, "%s", picture.path)
		}
	}
	row(out, "next", "ddpm sample --run %s", dir)
	return nil
}

// resolve finds the configuration, the folder, and in what a resumed run differs
// from its checkpoint.
func (t *trainCommand) resolve() (a assignment, err error) {
	if t.config != "" || !t.resume {
		if a.Resolved, err = t.load(config.Options{Config: t.config}); err != nil {
			return a, err
		}
	}
	a.dir = t.folder(a.Resolved)
	if !t.resume {
		if method := a.Distill.Method; method != distill.None {
			return a, fmt.Errorf("distill.method %s: ddpm train has no teacher: use ddpm distill --from RUN, or set distill.method to none", method)
		}
		return a, runs.Vacant(string(a.dir))
	}
	if a.dir == "" {
		if a.dir, err = runs.Newest(runs.Root); err != nil {
			return a, err
		}
	}
	path, err := a.dir.Latest()
	if err != nil {
		return a, err
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		return a, err
	}
	defer f.Close()
	saved, err := config.Parse([]byte(f.Config))
	if err != nil {
		return a, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case a.Resolved == nil:
		a.Resolved, err = t.load(config.Options{Config: path, Text: []byte(f.Config), Saved: saved})
	case saved.Distill.Method != distill.None:
		// A student's own network is its teacher's, but for guidance.
		teacher := *saved
		teacher.Sample.GuidanceFrom, teacher.Sample.GuidanceTo = saved.Distill.GuidanceFrom, saved.Distill.GuidanceTo
		teacher.Sample.GuidanceRescale = saved.Distill.GuidanceRescale
		if a.Resolved, err = t.load(config.Options{Config: t.config, Teacher: &teacher}); err == nil {
			err = enrol(a.Resolved, saved, saved.Distill.Teacher)
		}
	}
	if err != nil {
		return a, err
	}
	portable := a.Portable()
	a.changes = config.Changes(saved, &portable)
	return a, nil
}

// folder is that of a run: --out, or else one named after the configuration; "" without either.
func (t *trainCommand) folder(r *config.Resolved) runs.Dir {
	switch {
	case t.out != "":
		return runs.Dir(filepath.Clean(t.out))
	case r != nil:
		return runs.Dir(filepath.Join(runs.Root, r.Name))
	}
	return ""
}

// setupOf is the run that a configuration describes.
func setupOf(c *config.Config, b graph.Backend) train.Setup {
	portable := c.Portable()
	s := train.Setup{
		Seed: c.Seed, Data: c.Data, Model: c.Model, Size: c.Size(), Diffusion: c.Diffusion, Train: c.Train,
		Sample: c.Sample.SamplerConfig, Batch: c.Sample.Batch,
		Config: string(config.Marshal(&portable)), Backend: b,
	}
	if c.Distill.Method != distill.None {
		s.Objective = distill.Objective{Config: c.Distill}
	}
	return s
}

// fit splits the batch of a run into more parts if the device's memory asks for it,
// and says so.
func fit(errs io.Writer, c *config.Config, b graph.Backend) error {
	parts, err := train.Split(setupOf(c, b))
	if err != nil || parts == c.Train.Accumulate {
		return err
	}
	c.Train.Accumulate = parts
	fmt.Fprintf(errs, "train.accumulate %d: %d images at a time, as more do not fit into the memory of %s\n",
		parts, c.Train.Batch/parts, b.Name())
	return nil
}

// describe prints what the run is, in a few lines.
func (t *trainCommand) describe(out io.Writer, r *config.Resolved, job *train.Job, changes []config.Change) {
	row(out, "config", "%s", r.Source)
	row(out, "data", "%s", describeData(job.Info(), r.Data))
	if r.Model.Classes > 0 {
		row(out, "classes", "%s", listed(job.Info().Classes))
	}
	if r.Distill.Method != distill.None {
		row(out, "teacher", "%s, %s distillation", r.Distill.Teacher, r.Distill.Method)
	}
	row(out, "model", "%d parameters, %s a step of %d images", job.Layout.Count, flops(job.Flops()), r.Train.Batch)
	if text := describeObjective(r.Train); text != "" {
		row(out, "objective", "%s", text)
	}
	row(out, "memory", "%s", graph.Bytes(job.TotalMemory()))
	row(out, "device", "%s", job.Backend.Name())
	if t.resume {
		row(out, "run", "%s, step %d to %d", job.Dir, job.At.Step, r.Train.Steps)
	} else {
		row(out, "run", "%s, %d steps", job.Dir, r.Train.Steps)
	}
	for _, c := range changes {
		row(out, "changed", "%s from %s to %s (%s)", c.Key, c.From, c.To, r.Origins[c.Key])
	}
}

func describeData(info data.Info, c data.Config) string {
	count := "endless"
	if info.Len > 0 {
		count = fmt.Sprint(info.Len, " images")
	}
	text := fmt.Sprintf("%s, %s, %dx%d with %d channels", info.Name, count, info.Width, info.Height, info.Channels)
	if c.Path != "" {
		text += " from " + c.Path
	}
	return text
}

// describeObjective names what is not as in DDPM.
func describeObjective(c train.Config) string {
	plain := config.Default().Train
	var parts []string
	for _, choice := range []struct{ key, value, plain string }{
		{"loss", c.Loss, plain.Loss},
		{"weighting", c.Weighting, plain.Weighting},
		{"timesteps", c.Timesteps, plain.Timesteps},
	} {
		if choice.value != choice.plain {
			parts = append(parts, choice.key+" "+choice.value)
		}
	}
	return strings.Join(parts, ", ")
}

// listed is the first few of some names.
func listed(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// flops writes a number of floating-point operations for people.
func flops(n int64) string {
	value, prefix := float64(n)/1e6, "M"
	for _, next := range []string{"G", "T", "P"} {
		if value < 999.5 {
			break
		}
		value, prefix = value/1000, next
	}
	return fmt.Sprintf("%.3g %sFLOP", value, prefix)
}
