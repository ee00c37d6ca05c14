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

	"ddpm/internal/config"
	"ddpm/internal/distill"
	"ddpm/internal/graph"
	"ddpm/internal/runs"
	"ddpm/internal/trained"
)

// distillPreset is how a student learns where --config does not say it.
const distillPreset = "shapes-distill"

func newDistill() *cobra.Command {
	d := &distillCommand{}
	c := &cobra.Command{
		Use:   "distill",
		Short: "Teach a student to sample in 1 to 4 steps what a trained model samples in many",
		Long: `Teach a student to sample in 1 to 4 steps what a trained model, its teacher, samples in
many. --from names the teacher: a run's folder, a checkpoint, or a diffusers pipeline
folder. The student has its architecture and starts from its averaged weights; data, model
and diffusion are the teacher's, unless --set data.path=DIR says where the data are now.
train, sample and distill are those of --config, the preset ` + distillPreset + ` by default.

distill.method consistency makes a consistency model, for 1 to 4 steps of the sampler
consistency; progressive halves the steps of ddim in stages. With distill.guidance the
student of a teacher with classes learns what the teacher draws guided, and needs no guidance;
where and how is as in the teacher's sample.guidance_from, _to and _rescale.

The run is like one of ddpm train, its checkpoints, pictures, Ctrl-C and --resume too.
Its checkpoints hold the teacher's weights: --resume does not need the teacher.`,
		Example: `  ddpm distill --from runs/shapes
  ddpm distill --from runs/shapes --set distill.method=progressive
  ddpm distill --from runs/cifar-cond --set distill.guidance=2 --out runs/cifar-fast
  ddpm distill --resume`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			return d.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&d.from, "from", "", "the teacher: a run's folder, a checkpoint, or a diffusers pipeline folder")
	f.StringVar(&d.config, "config", "", "a YAML file, a file in configs/, or a preset (default "+distillPreset+")")
	f.StringArrayVar(&d.set, "set", nil, "change one key, as in distill.skip=50; may be repeated")
	d.addRun(f)
	return c
}

type distillCommand struct {
	trainCommand
	from string
}

func (d *distillCommand) run(ctx context.Context, out, errs io.Writer) error {
	a, err := d.assign()
	if err != nil {
		return err
	}
	return d.make(ctx, out, errs, a)
}

// assign finds the configuration, the folder and the teacher.
func (d *distillCommand) assign() (a assignment, err error) {
	switch {
	case d.resume && d.from != "":
		return a, fmt.Errorf("--from %s and --resume: want one of them: the checkpoint of a run holds its teacher", d.from)
	case d.resume:
		a, err = d.resolve()
		if err == nil && a.Distill.Method == distill.None {
			err = fmt.Errorf("%s has no teacher: continue it with ddpm train --resume", a.dir)
		}
		return a, err
	case d.from == "":
		return a, fmt.Errorf("--from is missing: name the teacher, as in --from %s", filepath.Join(runs.Root, config.DefaultPreset))
	}
	teacher, weights, classes, err := readTeacher(d.from)
	if err != nil {
		return a, err
	}
	name := d.config
	if name == "" {
		name = distillPreset
	}
	r, err := d.load(config.Options{Config: name, Teacher: teacher})
	if err != nil {
		return a, err
	}
	if w := r.Distill.Guidance; w != 1 && teacher.Train.ClassDropout == 0 {
		return a, fmt.Errorf("distill.guidance %g: want 1: the teacher was trained with train.class_dropout 0, and knows no images without a class (%s)",
			w, r.Origins["distill.guidance"])
	}
	a = assignment{Resolved: r, dir: d.folder(r), teacher: weights, classes: classes}
	if err := enrol(r, teacher, d.from); err != nil {
		return a, err
	}
	return a, runs.Vacant(string(a.dir))
}

// readTeacher reads the configuration, the averaged weights and the classes of a trained model. The processor will do:
// the run's own device need not hold them twice.
func readTeacher(path string) (c *config.Config, weights []float32, classes []string, err error) {
	b, _, err := graph.Open("cpu", graph.Options{Threads: 1})
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	m, err := trained.Open(path, b)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("the teacher: %w", err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if m.Config.Diffusion.Consistency {
		return nil, nil, nil, fmt.Errorf("the teacher %s is a consistency model: name the model it was distilled from, %s", path, m.Config.Distill.Teacher)
	}
	weights = make([]float32, m.State.Layout().Size)
	return &m.Config, weights, m.Classes, m.State.Read(graph.EMA, weights)
}

// own are the keys of model and diffusion in which a student may differ from its teacher.
var own = []string{"model.dropout", "model.conv", "diffusion.consistency"}

// enrol completes the configuration of a student with its teacher, and compares both.
func enrol(r *config.Resolved, teacher *config.Config, path string) error {
	method := r.Distill.Method
	if method == distill.None {
		return fmt.Errorf("distill.method none: want consistency or progressive (%s)", r.Origins["distill.method"])
	}
	for _, c := range config.Changes(teacher, &r.Config) {
		section, _, _ := strings.Cut(c.Key, ".")
		size := slices.Contains([]string{"data.width", "data.height", "data.channels"}, c.Key)
		if (size || section == "model" || section == "diffusion") && !slices.Contains(own, c.Key) {
			return fmt.Errorf("%s %s: want %s, as the teacher has it (%s)", c.Key, c.To, c.From, r.Origins[c.Key])
		}
	}
	r.Distill.Teacher = path
	return r.Validate()
}
