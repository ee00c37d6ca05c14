package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"ddpm/internal/config"
	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/train"
)

func newTune() *cobra.Command {
	t := &tuneCommand{}
	c := &cobra.Command{
		Use:   "tune",
		Short: "Measure the fastest kernels for a configuration on a GPU",
		Long: `Measure, for each product of matrices in the training step and the sampling step of a
configuration, which of the kernels that could compute it is the fastest on this GPU,
and keep that for all runs that come. Without it they take what fits most GPUs.

Results do not change by a bit: only kernels that add in the same order compete, and one
whose result differs from the default's in a byte is reported and not taken. The choice
depends on the extents of a product, so tune with the batch that you train with. It is
kept with the GPU's name, driver and kernels in the folder ddpm of the user's cache
folder, or in the folder that DDPM_CACHE names.`,
		Example: `  ddpm tune --config cifar
  ddpm tune --config cifar --batch 512 --seconds 60
  ddpm tune --config folder --set model.channels=96 --device cuda:1
  ddpm tune --config cifar --json`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			if t.batch < 0 {
				return usage(c, "--batch %d: want at least 1, or 0 for those of the configuration", t.batch)
			}
			if !(t.seconds > 0) {
				return usage(c, "--seconds %g: want more than 0", t.seconds)
			}
			return t.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	t.add(f)
	f.IntVar(&t.batch, "batch", 0, "images a step, in place of train.batch and sample.batch; 0 keeps these")
	f.Float64Var(&t.seconds, "seconds", 20, "about how long to measure")
	t.addMachine(f)
	f.BoolVar(&t.json, "json", false, "print one JSON object; seconds are not rounded")
	return c
}

type tuneCommand struct {
	settings
	batch   int
	seconds float64
	json    bool
}

// tuneReport is what tune prints as JSON.
type tuneReport struct {
	Config   string          `json:"config"`
	Device   string          `json:"device"`
	Products []productReport `json:"products"`
	File     string          `json:"file,omitempty"` // where the choice is kept
}

type productReport struct {
	Product string      `json:"product"`
	Calls   int         `json:"calls"`
	Best    string      `json:"best"`
	Ways    []wayReport `json:"ways"` // the default first
}

type wayReport struct {
	Way     string  `json:"way"`
	Time    float64 `json:"s,omitempty"`
	Differs bool    `json:"differs,omitempty"`
}

func (t *tuneCommand) run(ctx context.Context, out, errs io.Writer) (err error) {
	r, err := t.loadRun()
	if err != nil {
		return err
	}
	if t.batch > 0 {
		for _, key := range []string{"train.batch", "sample.batch"} {
			if err := r.Set(key, strconv.Itoa(t.batch), "--batch"); err != nil {
				return err
			}
		}
		if err := r.Validate(); err != nil {
			return err
		}
	}
	backend, err := openDevice(errs, &r.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	tuner, ok := backend.(graph.Tuner)
	if !ok {
		fmt.Fprintf(out, "nothing to tune on %s: it has one way to compute each product; GPUs have several\n", backend.Name())
		return nil
	}
	if err := fit(errs, &r.Config, backend); err != nil {
		return err
	}
	plans, err := plansOf(&r.Config, backend)
	if err != nil {
		return err
	}
	report := tuneReport{Config: r.Source, Device: backend.Name(), Products: []productReport{}}
	if !t.json {
		row(out, "config", "%s", r.Source)
		row(out, "device", "%s", backend.Name())
		row(out, "batch", "%s of training, %s of sampling", counted(r.Train.Batch/r.Train.Accumulate, "image"), counted(r.Sample.Batch, "image"))
	}
	table := tuneTable{out: out}
	file, err := tuner.Tune(ctx, plans, time.Duration(t.seconds*float64(time.Second)), func(p graph.Tuning) {
		if t.json {
			report.Products = append(report.Products, productOf(p))
		} else {
			table.add(p)
		}
	})
	if err != nil {
		return err
	}
	if t.json {
		report.File = file
		return json.NewEncoder(out).Encode(report)
	}
	table.end(file)
	return nil
}

// plansOf are the plans of a run's training step and of its sampling step.
func plansOf(c *config.Config, b graph.Backend) ([]*graph.Plan, error) {
	s := setupOf(c, b)
	step, err := train.CompileStep(s)
	if err != nil {
		return nil, err
	}
	g, err := generate.Graph(generate.Resolve(s.Sample, s.Diffusion, s.Model), s.Model, s.Size, s.Batch)
	if err != nil {
		return nil, err
	}
	sampling, err := graph.Compile(g, b)
	return []*graph.Plan{step, sampling}, err
}

func productOf(p graph.Tuning) productReport {
	r := productReport{Product: p.Product, Calls: p.Calls, Best: p.Ways[p.Best].Name}
	for _, w := range p.Ways {
		r.Ways = append(r.Ways, wayReport{w.Name, w.Time.Seconds(), w.Differs})
	}
	return r
}

// tuneTable prints what was measured, as it comes.
type tuneTable struct {
	out            io.Writer
	rows, faster   int
	before, spared time.Duration // of all calls by the default, and what the best saves
}

func (t *tuneTable) add(p graph.Tuning) {
	const format = "%-36s %5s  %-20s %9s  %-20s %9s %7s\n"
	if t.rows == 0 {
		fmt.Fprintf(t.out, "\n"+format, "product", "calls", "default", "time", "fastest", "time", "gain")
	}
	t.rows++
	first, best := p.Ways[0], p.Ways[p.Best]
	calls := time.Duration(p.Calls)
	t.before += calls * first.Time
	t.spared += calls * (first.Time - best.Time)
	if p.Best == 0 {
		fmt.Fprintf(t.out, format, p.Product, strconv.Itoa(p.Calls), first.Name, short(first.Time), "the default", "", "")
	} else {
		t.faster++
		gain := fmt.Sprintf("%.1f %%", 100*(1-best.Time.Seconds()/first.Time.Seconds()))
		fmt.Fprintf(t.out, format, p.Product, strconv.Itoa(p.Calls), first.Name, short(first.Time), best.Name, short(best.Time), gain)
	}
	for _, w := range p.Ways {
		if w.Differs {
			fmt.Fprintf(t.out, "  %s is not taken: its result differs from the default's\n", w.Name)
		}
	}
}

// end prints the sum of a table, which is kept in a file.
func (t *tuneTable) end(file string) {
	if t.rows == 0 {
		fmt.Fprintln(t.out, "nothing to tune: there is one way to compute each product of this configuration")
		return
	}
	fmt.Fprintln(t.out)
	row(t.out, "kept", "%s", file)
	row(t.out, "faster", "%d of %s, by %s of %s that all take in a training and a sampling step",
		t.faster, counted(t.rows, "product"), short(t.spared), short(t.before))
}
