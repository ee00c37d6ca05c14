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
	"ddpm/internal/sched"
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
Nothing is overwritten.

A model with classes draws images of all of them in turn, or of the one that --class
names; --guidance makes them more typical of it.

Images can also be made from others, given as files or folders of them, which are
scaled and cropped as those of a data set are. Of a folder, grid.png and trajectory.png
are left out, so that one with samples can be given:
  --init         draws over them: noises them up to --strength of the way and removes
                 the noise again; with --mask draws anew where the mask is white, keeps
                 the rest as it is, and goes the whole way unless --strength is given;
                 the mask has as many pixels, across and down, as the image
  --invert       finds the noise that they are drawn from and writes it for --noise
  --interpolate  draws images that lead from one to the other
The last two want a sampler without noise, ddim with --eta 0 or euler, and draw with
--clip=false and no guidance.`,
		Example: `  ddpm sample
  ddpm sample -n 64 --steps 1000
  ddpm sample --run runs/shapes --sampler ddpm --steps 1000 --seed 7
  ddpm sample --list
  ddpm sample --sampler auto --steps 10
  ddpm sample --run runs/shapes-cond -n 8 --class ring --guidance 3
  ddpm sample --run models/ddpm-cifar10-32 -n 16
  ddpm sample -n 50000 --format npz --out samples.npz
  ddpm sample --noise noise.safetensors --format safetensors --out ours.safetensors
  ddpm sample -n 8 --trajectory
  ddpm sample -n 8 --init photo.png --strength 0.6
  ddpm sample -n 8 --init photo.png --mask mask.png
  ddpm sample --invert photo.png --out noise.safetensors
  ddpm sample --noise noise.safetensors --clip=false
  ddpm sample -n 10 --interpolate a.png,b.png`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.list {
				return sched.WriteSamplers(c.OutOrStdout())
			}
			s.given = c.Flags().Changed
			if suffix := s.suffix(); !s.given("format") && suffix != "" {
				s.format = suffix
			}
			if !s.given("grid") {
				s.grid = s.format == "png"
			}
			return s.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.IntVarP(&s.n, "n", "n", 64, "number of images; with --noise or --init as many as there are, with --interpolate 8")
	f.StringVar(&s.path, "run", "", "a run's folder, a checkpoint, or a diffusers pipeline folder (default the newest run)")
	s.key(f, "steps", "sample.steps", "N", "network calls an image")
	s.key(f, "sampler", "sample.sampler", "NAME", "one of --list; auto is a good one for so many steps")
	f.BoolVar(&s.list, "list", false, "list the samplers, and do nothing else")
	s.key(f, "eta", "sample.eta", "X", "ddim: 0 is deterministic, 1 as noisy as ddpm")
	s.key(f, "spacing", "sample.spacing", "NAME", "which t the steps visit: "+strings.Join(sched.SpacingNames(), ", "))
	s.key(f, "variance", "sample.variance", "NAME", "ddpm: "+strings.Join(sched.VarianceNames(), ", "))
	s.key(f, "clip", "sample.clip", "bool", "clip the prediction of x0 to [-1, 1]")
	s.key(f, "threshold", "sample.threshold", "X", "in place of --clip: the share of the values of x0, such as 0.995, that is scaled to [-1, 1]")
	f.StringVar(&s.className, "class", "", "class of the images, by name or number, or none; all is all in turn (default all)")
	s.key(f, "guidance", "sample.guidance", "X", "weight of classifier-free guidance; 1 is none")
	s.key(f, "guidance-from", "sample.guidance_from", "X", "least noise with guidance, as a share of t")
	s.key(f, "guidance-to", "sample.guidance_to", "X", "most noise with guidance, as a share of t")
	s.key(f, "guidance-rescale", "sample.guidance_rescale", "X", "how far guided images get back the contrast of unguided ones, 0 to 1")
	s.key(f, "seed", "seed", "N", "seed of the noise (default that of the run)")
	s.key(f, "batch", "sample.batch", "N", "images drawn at a time")
	f.BoolVar(&s.ema, "ema", true, "use the averaged weights")
	f.StringVar(&s.out, "out", "", "folder of the PNG files, or file of the other formats (default below generated/ in the run)")
	f.StringVar(&s.format, "format", "png", strings.Join(samples.Formats(), ", ")+"; by default what the name of --out ends with, or png")
	f.BoolVar(&s.grid, "grid", false, fmt.Sprintf("draw the first %d images in one picture (default true for png)", gridImages))
	f.StringVar(&s.noise, "noise", "", "safetensors file with the tensor noise [n,C,H,W] to start from")
	f.BoolVar(&s.trajectory, "trajectory", false, "draw how the first images form, in one picture")
	s.editing.add(f)
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

// What a folder of samples has besides them.
const (
	gridName       = "grid.png"
	trajectoryName = "trajectory.png"
)

// pictureSuffixes are those of files that no format writes.
var pictureSuffixes = []string{".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"}

type sampleCommand struct {
	keyFlags
	editing
	given      func(flag string) bool
	n          int
	path       string
	list       bool
	className  string
	class      classes
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
	if err := s.checkEditing(); err != nil {
		return err
	}
	if slices.Contains(pictureSuffixes, strings.ToLower(filepath.Ext(s.out))) {
		return fmt.Errorf("--out %s: PNG files go to a folder: want a name that does not end as an image's", s.out)
	}
	if suffix := s.suffix(); suffix != "" && suffix != s.format {
		return fmt.Errorf("--out %s: --format is %s: want --format %s or another name", s.out, s.format, suffix)
	}
	m, closeModel, err := openModel(errs, s.path, s.keyFlags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeModel()) }()
	if err := s.fit(m); err != nil {
		return err
	}
	if s.invert != "" {
		return s.encode(ctx, out, errs, m)
	}
	g := m.Generator()
	g.Class = s.class.of
	noise, err := s.start(ctx, errs, m, g)
	if err != nil {
		return err
	}
	if err := m.Compile(g, s.weights(), min(s.n, m.Config.Sample.Batch)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()

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
	err = g.Draw(ctx, s.n, noise, func(first int, images []float32) error {
		s.compare(first, images)
		return w.Append(images)
	})
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
	s.rows(out, m)
	row(out, "samples", "%s", paths.samples)
	if s.grid {
		row(out, "grid", "%s", paths.grid)
	}
	if s.trajectory {
		row(out, "trajectory", "%s", paths.trajectory)
	}
	if len(s.ends) > 0 {
		row(out, "round trip", "%v", s.trip)
	}
	return nil
}

// rows says what draws, on what, and how.
func (s *sampleCommand) rows(out io.Writer, m *trained.Model) {
	c := m.Sampling()
	row(out, "model", "%s", m.Path)
	row(out, "device", "%s", m.Device())
	row(out, "sampler", "%s, %s, %s", c.Sampler, c.Spacing, counted(c.Steps, "step"))
}

func (s *sampleCommand) weights() graph.Arena {
	if s.ema {
		return graph.EMA
	}
	return graph.Params
}

// suffix is the format that the name of --out ends with; "" is none.
func (s *sampleCommand) suffix() string {
	suffix := strings.TrimPrefix(filepath.Ext(s.out), ".")
	if !slices.Contains(samples.Formats(), suffix) {
		return ""
	}
	return suffix
}

// fit checks the flags against the model, and finds the class.
func (s *sampleCommand) fit(m *trained.Model) error {
	c := m.Sampling()
	sampler, err := sched.SamplerByName(c.Sampler)
	if err != nil {
		return err
	}
	for _, setting := range []string{"eta", "variance"} {
		if s.given(setting) && !slices.Contains(sampler.Uses, setting) {
			return fmt.Errorf("--%s: %s has no use for it, only %s", setting, c.Sampler, strings.Join(usersOf(setting), ", "))
		}
	}
	if m.Config.Sample.Sampler == sched.Auto && s.given("spacing") {
		return fmt.Errorf("--spacing: the sampler auto chooses the spacing too: leave it out, or name a sampler")
	}
	if s.given("clip") && s.given("threshold") && c.Clip && c.Threshold > 0 {
		return fmt.Errorf("--threshold %g and --clip: one takes the place of the other: leave one out", c.Threshold)
	}
	s.fitAuto(m)
	if s.class, err = classesOf(s.className, m); err != nil {
		return err
	}
	if err := s.fitGuidance(m); err != nil {
		return err
	}
	if s.invert != "" || len(s.interpolate) > 0 {
		return s.fitInversion(m)
	}
	return nil
}

// usersOf lists the samplers for which a setting makes a difference.
func usersOf(setting string) []string {
	return slices.DeleteFunc(sched.SamplerNames(), func(name string) bool {
		s, err := sched.SamplerByName(name)
		return err != nil || !slices.Contains(s.Uses, setting)
	})
}

// start gives the noise to start from, nil for that of the seed, and what else the images begin
// with. It sets n to the number of images if the user did not.
func (s *sampleCommand) start(ctx context.Context, errs io.Writer, m *trained.Model, g *generate.Generator) ([]float32, error) {
	switch {
	case s.init != "":
		return nil, s.drawOver(m, g)
	case len(s.interpolate) > 0:
		return s.between(ctx, errs, m)
	case s.noise == "":
		return nil, nil
	}
	n := s.n
	if !s.given("n") {
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
		p.grid, p.trajectory = filepath.Join(p.samples, gridName), filepath.Join(p.samples, trajectoryName)
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
		writer = samples.WithGrid(writer, p.grid, gridImages, h, w, c, s.class.grid(s.n))
	}
	return writer, p, err
}

// defaultOut names the model, the way of sampling and the seed.
func (s *sampleCommand) defaultOut(m *trained.Model) string {
	c := m.Sampling()
	name := fmt.Sprintf("%s-%s-%d%s", m.Name(), c.Sampler, c.Steps, s.class)
	if generate.Guided(c, m.Config.Model) {
		name += fmt.Sprintf("-guidance%g", c.Guidance)
	}
	name += fmt.Sprintf("%s-seed%d", s.editing, m.Config.Seed)
	if s.format != "png" {
		name += "." + s.format
	}
	return filepath.Join(string(m.Run), "generated", name)
}
