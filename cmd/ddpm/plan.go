package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ddpm/internal/graph"
	"ddpm/internal/progress"
	"ddpm/internal/train"
)

func newPlan() *cobra.Command {
	p := &planCommand{}
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say what a run will take before it starts",
		Long: `Print the parameters, the floating-point operations, the memory by kind and the
size of a checkpoint of a run, all of which follow from its configuration, and an
estimate of its time, for which a few steps are timed on made-up images. The data
need not be there, and nothing is written.

--roofline says instead what the steps would take at the least on a device that need
not be there: one that computes so many TFLOP/s and copies so many TB/s, read and
written, in bf16 or the --precision given. Every operation takes the time of its
multiply-adds or of its operands and results, each moved once, whichever is longer.
No device reaches all ceilings; kernels that get by with fewer passes over memory or
fewer multiply-adds than the plan has can be faster than it says.`,
		Example: `  ddpm plan
  ddpm plan --config cifar
  ddpm plan --config cifar --roofline 790,4.3
  ddpm plan --config cifar --set train.accumulate=8
  ddpm plan --json`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			if f := c.Flags(); f.Changed("roofline") {
				if f.Changed("device") || f.Changed("threads") {
					return usage(c, "--roofline is about a device that is not used: it goes without --device and --threads")
				}
				ceilings, ok := parseCeilings(p.roofline)
				if !ok {
					return usage(c, "--roofline %q: want TFLOP/s and TB/s of a device, such as 790,4.3", p.roofline)
				}
				return p.predict(c.OutOrStdout(), ceilings)
			}
			return p.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	p.add(f)
	p.addMachine(f)
	f.BoolVar(&p.json, "json", false, "print one JSON object; bytes, operations and seconds are not rounded")
	f.StringVar(&p.roofline, "roofline", "", "`TFLOP/s,TB/s` of a device: say what steps take there at the least, and nothing else")
	return c
}

type planCommand struct {
	settings
	json     bool
	roofline string
}

// planReport is what plan prints as JSON.
type planReport struct {
	Config          string           `json:"config"`
	Device          string           `json:"device"`
	Parameters      int              `json:"parameters"`
	StepFlops       int64            `json:"step_flops"`
	ForwardFlops    int64            `json:"forward_flops"` // of one image
	Memory          map[string]int64 `json:"memory_bytes"`
	TotalMemory     int64            `json:"total_memory_bytes"` // of the device
	FreeMemory      int64            `json:"free_memory_bytes,omitempty"`
	Accumulate      int              `json:"accumulate"`
	CheckpointBytes int64            `json:"checkpoint_bytes"`
	Steps           int              `json:"steps"`
	StepSeconds     float64          `json:"step_seconds,omitempty"`
	TotalSeconds    float64          `json:"total_seconds,omitempty"`
	TooLarge        string           `json:"too_large,omitempty"`
}

// probeTime is about how long plan takes to measure the machine.
const probeTime = 2 * time.Second

func (p *planCommand) run(ctx context.Context, out, errs io.Writer) (err error) {
	r, err := p.loadRun()
	if err != nil {
		return err
	}
	backend, err := openDevice(errs, &r.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	if err := fit(errs, &r.Config, backend); err != nil {
		return err
	}
	plan, err := train.NewPlan(setupOf(&r.Config, backend))
	if err != nil {
		return err
	}
	report := planReport{
		Config: r.Source, Device: backend.Name(), Parameters: plan.Layout.Count,
		StepFlops: plan.Flops(), ForwardFlops: plan.ForwardFlops(),
		Memory: map[string]int64{}, TotalMemory: plan.TotalMemory(), CheckpointBytes: plan.CheckpointBytes(),
		Steps: r.Train.Steps, Accumulate: r.Train.Accumulate,
	}
	if s, ok := backend.(graph.Sized); ok {
		report.FreeMemory = s.Memory()
	}
	for _, m := range plan.Memory() {
		report.Memory[strings.ReplaceAll(m.Kind, " ", "_")] = m.Bytes
	}
	var timing train.Timing
	if tooLarge := plan.CheckMemory(); tooLarge != nil {
		report.TooLarge = tooLarge.Error()
	} else {
		if timing, err = plan.Probe(ctx, probeTime); err != nil {
			return err
		}
		report.StepSeconds, report.TotalSeconds = timing.Step.Seconds(), plan.Total(timing).Seconds()
	}
	if p.json {
		return json.NewEncoder(out).Encode(report)
	}
	report.print(out, plan, timing)
	return nil
}

func (r *planReport) print(out io.Writer, plan *train.Plan, timing train.Timing) {
	row(out, "config", "%s", r.Config)
	row(out, "device", "%s", r.Device)
	row(out, "model", "%d parameters", r.Parameters)
	row(out, "forward", "%s an image", flops(r.ForwardFlops))
	of := "forward and backward"
	if o, ok := plan.Objective.(train.Teaching); ok {
		of += fmt.Sprintf(" and %d forward passes for targets", o.Forwards(plan.Setup))
	}
	row(out, "step", "%s, %s of %d images", flops(r.StepFlops), of, plan.Train.Batch)
	row(out, "checkpoint", "%s, kept %s", graph.Bytes(r.CheckpointBytes), kept(plan.Train))
	row(out, "memory", "%s", graph.Bytes(r.TotalMemory))
	for _, m := range plan.Memory() {
		kind := m.Kind
		if m.Host {
			kind += ", on the host"
		}
		row(out, "", "%10s  %s", graph.Bytes(m.Bytes), kind)
	}
	if r.FreeMemory > 0 {
		row(out, "free", "%s on the device", graph.Bytes(r.FreeMemory))
	}
	if r.TooLarge != "" {
		row(out, "time", "not measured")
		row(out, "too large", "%s", r.TooLarge)
		return
	}
	row(out, "time", "about %s for %d steps (%s each, at %s/s) and their sample grids",
		progress.Duration(plan.Total(timing)), r.Steps, short(timing.Step), flops(int64(timing.Flops)))
}

// short writes a time of which fractions of a second matter.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", 1e3*d.Seconds())
	case d < 100*time.Second:
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
	return progress.Duration(d)
}

func kept(c train.Config) string {
	text := fmt.Sprintf("the last %d", c.KeepLast)
	if c.KeepEvery > 0 {
		text += fmt.Sprintf(" and every %d steps", c.KeepEvery)
	}
	return text
}
