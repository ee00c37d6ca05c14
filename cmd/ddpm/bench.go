package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ddpm/internal/bench"
	"ddpm/internal/config"
	"ddpm/internal/graph"
)

func newBench() *cobra.Command {
	b := &benchCommand{}
	c := &cobra.Command{
		Use:   "bench",
		Short: "Time the training step and the sampling step",
		Long: `Time what a run does again and again: the training step, which is all of it but
reading data, and the sampling step, the network on the averaged weights and the
sampler's update. Images are made up, nothing is written, and no memory is taken
that the step does not need.

Printed are the median and the best of the steps after warm-up. GFLOP/s count two
operations for each multiply-add of convolutions, linear layers and attention, and
a training step as three forward passes. Memory is the peak of the process. On a
machine with other work, compare the best.

--ops adds where the time goes: each operation at its fastest, its share of the
step, GFLOP/s and their share of the peak, which is measured at the start with a
product that stays in the cache, or GB/s of operands and results.`,
		Example: `  ddpm bench
  ddpm bench --config cifar --threads 2
  ddpm bench --config cifar --mode train --ops
  ddpm bench --config cifar --mode sample --batch 64 --steps 20 --json`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			if b.mode != bothModes && !slices.Contains(bench.Modes, b.mode) {
				return usage(c, "--mode %q: want one of %s, %s", b.mode, bothModes, strings.Join(bench.Modes, ", "))
			}
			if b.steps < 0 || b.warmup < 0 {
				return usage(c, "--steps %d, --warmup %d: want at least 0", b.steps, b.warmup)
			}
			return b.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	b.add(f)
	f.StringVar(&b.mode, "mode", bothModes, "train, sample or both; for the peak memory of one of them, time that alone")
	f.IntVar(&b.batch, "batch", 16, "images a step, in place of train.batch and sample.batch")
	f.IntVar(&b.steps, "steps", 0, "steps to time; 0 is as many as fit four seconds, at least 5")
	f.IntVar(&b.warmup, "warmup", 2, "steps before them")
	b.addMachine(f)
	f.BoolVar(&b.ops, "ops", false, "add where the time goes, by operation")
	f.BoolVar(&b.json, "json", false, "print one JSON object a mode, on a line each")
	return c
}

const bothModes = "both"

type benchCommand struct {
	settings
	mode          string
	batch         int
	steps, warmup int
	ops, json     bool
}

func (b *benchCommand) run(ctx context.Context, out, errs io.Writer) (err error) {
	r, err := b.load(config.Options{Config: b.config})
	if err != nil {
		return err
	}
	for _, key := range []string{"train.batch", "sample.batch"} {
		if err := r.Set(key, strconv.Itoa(b.batch), "--batch"); err != nil {
			return err
		}
	}
	if err := r.Validate(); err != nil {
		return err
	}
	backend, err := openDevice(errs, &r.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()

	m := machineOf(backend)
	if b.ops && m.processor != nil {
		m.peak = m.processor.Peak()
	}
	if !b.json {
		row(out, "config", "%s", r.Source)
		row(out, "device", "%s", backend.Name())
		row(out, "precision", "%s", backend.Precision())
		row(out, "batch", "%s", counted(b.batch, "image"))
	}
	for _, mode := range bench.Modes {
		if b.mode != mode && b.mode != bothModes {
			continue
		}
		result, err := bench.Run(ctx, mode, bench.Options{
			Setup: setupOf(&r.Config, backend), Warmup: b.warmup, Steps: b.steps, Ops: b.ops,
		})
		if err != nil {
			return err
		}
		if b.json {
			report := reportOf(result, m)
			report.Config, report.DType = r.Source, string(backend.Precision())
			encoder := json.NewEncoder(out)
			encoder.SetEscapeHTML(false) // 64->128
			if err := encoder.Encode(report); err != nil {
				return err
			}
			continue
		}
		printResult(out, result)
		if b.ops {
			printOps(out, result.Ops, m.peak)
		}
	}
	return nil
}

// machine is what the network runs on.
type machine struct {
	name      string
	threads   *int            // nil if it is not a processor
	processor graph.Processor // likewise
	peak      float64         // floating-point operations a second; 0 is not measured
}

func machineOf(b graph.Backend) machine {
	p, ok := b.(graph.Processor)
	if !ok {
		return machine{name: b.Name()}
	}
	threads := p.Threads()
	return machine{name: "cpu", threads: &threads, processor: p}
}

// benchReport is what bench prints as JSON, under the keys of the PyTorch
// benchmark in scripts/reference. What is unknown is null.
type benchReport struct {
	Mode                string     `json:"mode"`
	Config              string     `json:"config"`
	Device              string     `json:"device"`
	ISA                 string     `json:"isa,omitempty"`
	DType               string     `json:"dtype"`
	Threads             *int       `json:"threads"`
	Batch               int        `json:"batch"`
	Steps               int        `json:"steps"`
	StepMedian          float64    `json:"step_median_s"`
	StepMin             float64    `json:"step_min_s"`
	CPUStepMedian       *float64   `json:"cpu_step_median_s"`
	ImagesPerSecond     float64    `json:"images_per_s"`
	ImagesPerSecondBest float64    `json:"images_per_s_best"`
	ForwardGFlop        float64    `json:"forward_gflop_per_image"`
	StepGFlop           float64    `json:"step_gflop"`
	TFlops              float64    `json:"tflop_per_s"`
	TFlopsBest          float64    `json:"tflop_per_s_best"`
	PeakMemory          *float64   `json:"peak_memory_mib"`
	Allocations         int64      `json:"allocations_per_step"`
	PeakGFlops          float64    `json:"peak_gflop_per_s,omitempty"`
	Ops                 []opReport `json:"ops,omitempty"`
}

// opReport is a row of --ops.
type opReport struct {
	Op     string  `json:"op"`
	Shape  string  `json:"shape,omitempty"`
	Calls  int     `json:"calls"`
	Time   float64 `json:"s"`
	Share  float64 `json:"share"`
	GFlops float64 `json:"gflop_per_s,omitempty"`
	OfPeak float64 `json:"share_of_peak,omitempty"`
	GBytes float64 `json:"gb_per_s,omitempty"`
}

func reportOf(r *bench.Result, m machine) benchReport {
	report := benchReport{
		Mode: r.Mode, Device: m.name, Threads: m.threads, Batch: r.Batch, Steps: r.Steps,
		StepMedian: r.Step.Median.Seconds(), StepMin: r.Step.Least.Seconds(),
		ImagesPerSecond: r.ImagesPerSecond(r.Step.Median), ImagesPerSecondBest: r.ImagesPerSecond(r.Step.Least),
		ForwardGFlop: float64(r.ForwardFlops) / 1e9, StepGFlop: float64(r.StepFlops) / 1e9,
		TFlops: r.FlopsPerSecond(r.Step.Median) / 1e12, TFlopsBest: r.FlopsPerSecond(r.Step.Least) / 1e12,
		Allocations: r.Allocations, PeakGFlops: m.peak / 1e9,
	}
	if m.processor != nil {
		report.ISA = m.processor.InstructionSet()
	}
	if r.CPU.Median > 0 {
		seconds := r.CPU.Median.Seconds()
		report.CPUStepMedian = &seconds
	}
	if r.PeakMemory > 0 {
		mib := float64(r.PeakMemory) / (1 << 20)
		report.PeakMemory = &mib
	}
	for _, op := range r.Ops {
		rate := rateOf(op, m.peak)
		report.Ops = append(report.Ops, opReport{
			Op: op.Kind, Shape: op.Class, Calls: op.Calls, Time: op.Time.Seconds(), Share: op.Share,
			GFlops: rate.flops / 1e9, OfPeak: rate.ofPeak, GBytes: rate.bytes / 1e9,
		})
	}
	return report
}

// rate is how fast an operation is, by what bounds it; 0 does not apply.
type rate struct{ flops, ofPeak, bytes float64 }

func rateOf(op bench.Op, peak float64) (r rate) {
	seconds := op.Time.Seconds()
	switch {
	case seconds == 0:
	case op.Flops > 0:
		r.flops = float64(op.Flops) / seconds
		if peak > 0 {
			r.ofPeak = r.flops / peak
		}
	default:
		r.bytes = float64(op.Bytes) / seconds
	}
	return r
}

func printResult(out io.Writer, r *bench.Result) {
	fmt.Fprintln(out)
	line := func(label string, step time.Duration) {
		row(out, label, "%10s  %8.4g images/s  %8.4g GFLOP/s", short(step), r.ImagesPerSecond(step), r.FlopsPerSecond(step)/1e9)
	}
	row(out, r.Mode, "%s a step of %s, %s timed", flops(r.StepFlops), counted(r.Batch, "image"), counted(r.Steps, "step"))
	line("  median", r.Step.Median)
	line("  best", r.Step.Least)
	if r.CPU.Median > 0 {
		row(out, "  processor", "%10s  of all threads", short(r.CPU.Median))
	}
	memory := "unknown"
	if r.PeakMemory > 0 {
		memory = graph.Bytes(r.PeakMemory)
	}
	row(out, "  memory", "%10s  at the peak", memory)
	row(out, "  allocated", "%10d  times a step", r.Allocations)
}

// leastShare is that of a shape worth a line among others of its kind.
const leastShare = 0.0005

// printOps prints the kinds of operation, the longest first, and under each the
// shapes it runs on.
func printOps(out io.Writer, ops []bench.Op, peak float64) {
	fmt.Fprintln(out)
	if peak > 0 {
		row(out, "peak", "%.4g GFLOP/s (measured, cache-resident product, fp32)", peak/1e9)
	}
	fmt.Fprintf(out, "%7s %10s %6s %8s %7s %6s\n", "share", "time", "calls", "GFLOP/s", "of peak", "GB/s")
	line := func(op bench.Op, name string) {
		calls, gflops, ofPeak, gbytes := "", "", "", ""
		r := rateOf(op, peak)
		if op.Calls > 0 {
			calls = strconv.Itoa(op.Calls)
		}
		if r.flops > 0 {
			gflops = fmt.Sprintf("%.4g", r.flops/1e9)
		}
		if r.ofPeak > 0 {
			ofPeak = fmt.Sprintf("%.0f %%", 100*r.ofPeak)
		}
		if r.bytes > 0 {
			gbytes = fmt.Sprintf("%.3g", r.bytes/1e9)
		}
		fmt.Fprintf(out, "%5.1f %% %10s %6s %8s %7s %6s  %s\n", 100*op.Share, short(op.Time), calls, gflops, ofPeak, gbytes, name)
	}
	for _, kind := range bench.ByKind(ops) {
		if len(kind.Members) == 1 {
			line(kind.Op, strings.TrimSpace(kind.Kind+"  "+kind.Members[0].Class))
			continue
		}
		line(kind.Op, kind.Kind)
		for _, op := range kind.Members {
			if op.Share > leastShare {
				line(op, "  "+op.Class)
			}
		}
	}
}
