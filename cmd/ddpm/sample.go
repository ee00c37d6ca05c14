package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/picture"
	"ddpm/internal/progress"
	"ddpm/internal/samples"
	"ddpm/internal/trained"
)

func newSample() *cobra.Command {
	s := &sampleCommand{}
	c := &cobra.Command{
		Use:   "sample",
		Short: "Draw images from a trained model",
		Long: `Draw images from a trained model: the newest run in runs/, or the one that --run
names. The model and its way of sampling are in the checkpoint; flags change the
way of sampling. Image i depends on the seed and on i alone, not on how many are
drawn or in what batches. Products are of float32 operands unless --precision says
otherwise, whatever the run was trained in.

PNG files go to a new folder, with grid.png; the other formats are one file with
the tensor samples [n,C,H,W], float32 in the model's range [-1, 1], not rounded.
Nothing is overwritten.`,
		Example: `  ddpm sample
  ddpm sample -n 64 --steps 1000
  ddpm sample --run runs/shapes --sampler ddpm --steps 1000 --seed 7
  ddpm sample --run models/ddpm-cifar10-32 -n 16
  ddpm sample -n 50000 --format npz --out samples.npz
  ddpm sample --noise noise.safetensors --format safetensors --out ours.safetensors
  ddpm sample -n 8 --trajectory`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			s.counted = c.Flags().Changed("n")
			if suffix := s.suffix(); !c.Flags().Changed("format") && suffix != "" {
				s.format = suffix
			}
			if !c.Flags().Changed("grid") {
				s.grid = s.format == "png"
			}
			return s.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.IntVarP(&s.n, "n", "n", 64, "number of images; with --noise as many as it holds")
	f.StringVar(&s.path, "run", "", "a run's folder, a checkpoint, or a diffusers pipeline folder (default the newest run)")
	s.key(f, "steps", "sample.steps", "N", "network calls an image")
	s.key(f, "sampler", "sample.sampler", "NAME", "ddpm or ddim")
	s.key(f, "eta", "sample.eta", "X", "ddim: 0 is deterministic, 1 as noisy as ddpm")
	s.key(f, "spacing", "sample.spacing", "NAME", "which t the steps visit: leading, trailing or linspace")
	s.key(f, "variance", "sample.variance", "NAME", "ddpm: fixed_small or fixed_large")
	s.key(f, "clip", "sample.clip", "bool", "clip the prediction of x0 to [-1, 1]")
	s.key(f, "seed", "seed", "N", "seed of the noise (default that of the run)")
	s.key(f, "batch", "sample.batch", "N", "images drawn at a time")
	f.BoolVar(&s.ema, "ema", true, "use the averaged weights")
	f.StringVar(&s.out, "out", "", "folder of the PNG files, or file of the other formats (default below generated/ in the run)")
	f.StringVar(&s.format, "format", "png", strings.Join(samples.Formats(), ", ")+"; by default what the name of --out ends with, or png")
	f.BoolVar(&s.grid, "grid", false, fmt.Sprintf("draw the first %d images in one picture (default true for png)", gridImages))
	f.StringVar(&s.noise, "noise", "", "safetensors file with the tensor noise [n,C,H,W] to start from")
	f.BoolVar(&s.trajectory, "trajectory", false, "draw how the first images form, in one picture")
	s.addMachine(f)
	return c
}

// maxImages is the most images that a command draws or measures.
const maxImages = 1 << 24

const (
	gridImages        = 256
	trajectoryImages  = 8
	trajectoryMoments = 10
)

type sampleCommand struct {
	keyFlags
	n          int
	counted    bool // n was given
	path       string
	ema        bool
	out        string
	format     string
	grid       bool
	noise      string
	trajectory bool
}

func (s *sampleCommand) run(ctx context.Context, out, errs io.Writer) (err error) {
	if s.n < 1 || s.n > maxImages {
		return fmt.Errorf("-n %d: want 1 to %d", s.n, maxImages)
	}
	if suffix := s.suffix(); suffix != "" && suffix != s.format {
		return fmt.Errorf("--out %s: --format is %s: want --format %s or another name", s.out, s.format, suffix)
	}
	m, closeModel, err := openModel(errs, s.path, s.keyFlags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeModel()) }()
	noise, err := s.readNoise(m)
	if err != nil {
		return err
	}
	weights := graph.EMA
	if !s.ema {
		weights = graph.Params
	}
	g, err := m.Generator(weights, min(s.n, m.Config.Sample.Batch))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Reverse.Close()) }()

	w, paths, err := s.open(m)
	if err != nil {
		return err
	}
	bar := progress.New(errs, progress.Options{Total: s.n, Unit: "image"})
	trajectory := generate.Trajectory{Images: trajectoryImages, Moments: trajectoryMoments}
	g.OnMoment = func(at generate.Moment) error {
		bar.Update(drawn(at))
		if s.trajectory {
			return trajectory.Add(at)
		}
		return nil
	}
	err = g.Draw(ctx, s.n, noise, func(_ int, images []float32) error { return w.Append(images) })
	bar.Finish()
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), w.Close()) // which says what is there
	}
	if err != nil {
		w.Close() // says only that samples are missing
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if s.trajectory {
		if err := picture.WritePNG(paths.trajectory, trajectory.Picture(m.Size)); err != nil {
			return err
		}
	}
	row(out, "model", "%s", m.Path)
	row(out, "device", "%s", m.Device())
	row(out, "samples", "%s", paths.samples)
	if s.grid {
		row(out, "grid", "%s", paths.grid)
	}
	if s.trajectory {
		row(out, "trajectory", "%s", paths.trajectory)
	}
	return nil
}

// suffix is the format that the name of --out ends with; "" is none.
func (s *sampleCommand) suffix() string {
	suffix := strings.TrimPrefix(filepath.Ext(s.out), ".")
	if !slices.Contains(samples.Formats(), suffix) {
		return ""
	}
	return suffix
}

// readNoise returns the noise to start from, nil if no file gives it, and sets n
// to the number of images if the user did not.
func (s *sampleCommand) readNoise(m *trained.Model) ([]float32, error) {
	if s.noise == "" {
		return nil, nil
	}
	n := s.n
	if !s.counted {
		n = 0
	}
	noise, err := samples.ReadNoise(s.noise, n, m.Size.Height, m.Size.Width, m.Size.Channels)
	if err != nil {
		return nil, err
	}
	s.n = len(noise) / m.Size.Values()
	return noise, nil
}

// outputs are the files of one call.
type outputs struct{ samples, grid, trajectory string }

// open starts the files.
func (s *sampleCommand) open(m *trained.Model) (samples.Writer, outputs, error) {
	var p outputs
	if p.samples = s.out; p.samples == "" {
		p.samples = samples.Unused(s.defaultOut(m))
	}
	if s.format == "png" {
		p.grid, p.trajectory = filepath.Join(p.samples, "grid.png"), filepath.Join(p.samples, "trajectory.png")
	} else {
		base := strings.TrimSuffix(p.samples, filepath.Ext(p.samples))
		p.grid, p.trajectory = base+"-grid.png", base+"-trajectory.png"
		if err := samples.Vacant(p.grid); s.grid && err != nil {
			return nil, p, err
		}
		if err := samples.Vacant(p.trajectory); s.trajectory && err != nil {
			return nil, p, err
		}
	}
	h, w, c := m.Size.Height, m.Size.Width, m.Size.Channels
	writer, err := samples.New(p.samples, s.format, s.n, h, w, c)
	if err == nil && s.grid {
		writer = samples.WithGrid(writer, p.grid, gridImages, h, w, c)
	}
	return writer, p, err
}

// defaultOut names the model, the way of sampling and the seed.
func (s *sampleCommand) defaultOut(m *trained.Model) string {
	c := m.Config.Sample
	name := fmt.Sprintf("%s-%s-%d-seed%d", m.Name(), c.Sampler, c.Steps, m.Config.Seed)
	if s.format != "png" {
		name += "." + s.format
	}
	return filepath.Join(string(m.Run), "generated", name)
}
