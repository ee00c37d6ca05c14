package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"ddpm/internal/checkpoint"
	"ddpm/internal/config"
	"ddpm/internal/data"
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
	f.StringVar(&t.out, "out", "", "folder of the run (default runs/NAME, NAME being that of the configuration)")
	f.BoolVar(&t.resume, "resume", false, "continue the run in --out, of --config, or else the newest in runs/")
	t.key(f, "steps", "train.steps", "N", "optimiser steps of the whole run")
	t.key(f, "seed", "seed", "N", "seed of every random number")
	t.addMachine(f)
	f.BoolVar(&t.dryRun, "dry-run", false, "check everything and say what would be done, but write nothing")
	return c
}

type trainCommand struct {
	settings
	out    string
	resume bool
	dryRun bool
}

func (t *trainCommand) run(ctx context.Context, out, errs io.Writer) (err error) {
	r, dir, changes, err := t.resolve()
	if err != nil {
		return err
	}
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
	job, err := train.Prepare(setup)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close()) }()

	if job.At.Step > r.Train.Steps {
		return fmt.Errorf("train.steps %d: %s has made %d steps already: want more", r.Train.Steps, dir, job.At.Step)
	}
	if job.At.Step == r.Train.Steps {
		fmt.Fprintf(out, "%s is complete: it has made %d of %d steps; to go on, add --steps with more\n", dir, job.At.Step, r.Train.Steps)
		return nil
	}
	t.describe(out, r, job, changes)
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
		return fmt.Errorf("%w: checkpoint written; resume with: ddpm train --resume --out %s", stopped, dir)
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
func (t *trainCommand) resolve() (r *config.Resolved, dir runs.Dir, changes []config.Change, err error) {
	if t.config != "" || !t.resume {
		if r, err = t.load(config.Options{Config: t.config}); err != nil {
			return nil, "", nil, err
		}
		dir = runs.Dir(filepath.Join(runs.Root, r.Name))
	}
	if t.out != "" {
		dir = runs.Dir(filepath.Clean(t.out))
	}
	if !t.resume {
		return r, dir, nil, runs.Vacant(string(dir))
	}
	if dir == "" {
		if dir, err = runs.Newest(runs.Root); err != nil {
			return nil, "", nil, err
		}
	}
	path, err := dir.Latest()
	if err != nil {
		return nil, "", nil, err
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, "", nil, err
	}
	defer f.Close()
	saved, err := config.Parse([]byte(f.Config))
	if err != nil {
		return nil, "", nil, fmt.Errorf("%s: %w", path, err)
	}
	if r == nil {
		if r, err = t.load(config.Options{Config: path, Text: []byte(f.Config)}); err != nil {
			return nil, "", nil, err
		}
	}
	portable := r.Portable()
	return r, dir, config.Changes(saved, &portable), nil
}

// setupOf is the run that a configuration describes.
func setupOf(c *config.Config, b graph.Backend) train.Setup {
	portable := c.Portable()
	return train.Setup{
		Seed: c.Seed, Data: c.Data, Model: c.Model, Size: c.Size(), Diffusion: c.Diffusion, Train: c.Train,
		Sample: c.Sample.SamplerConfig, Batch: c.Sample.Batch,
		Config: string(config.Marshal(&portable)), Backend: b,
	}
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
	row(out, "model", "%d parameters, %s a step of %d images", job.Layout.Count, flops(job.Flops()), r.Train.Batch)
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
