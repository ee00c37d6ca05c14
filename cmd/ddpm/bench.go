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

Printed are the median and the best of the steps after warm-up; where the device
runs behind the host, of means over a few steps. GFLOP/s count two operations for
each multiply-add of convolutions, linear layers and attention, and a training step
as three forward passes. The first step ends so long after the program began: that
is opening the device, planning, weights, and the step itself. Memory is the peak of
the process, and on a GPU what the plan takes there. On a machine with other work,
compare the best.

--ops adds where the time goes, by group and by operation: its time at the fastest,
its share of the step, its speed, and the share of the ceilings that it reaches. They
are measured at the end: a product whose operands stay beside the arithmetic, in the
precision of the device, and a copy of memory. The least time of an operation is
that of its multiply-adds or that of its bytes, whichever is longer; "bound" says
which, and "of it" is that time beside its own. MFU, model FLOP utilisation, is the
speed of the step beside the ceiling.`,
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
			b.batchGiven = c.Flags().Changed("batch")
			return b.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	b.add(f)
	f.StringVar(&b.mode, "mode", bothModes, "train, sample or both; for the peak memory of one of them, time that alone")
	f.IntVar(&b.batch, "batch", 16, "images a step, unless --set gives train.batch or sample.batch")
	f.IntVar(&b.steps, "steps", 0, "steps to time; 0 is as many as fit four seconds, at least 5")
	f.IntVar(&b.warmup, "warmup", 2, "steps before them")
	b.addMachine(f)
	f.BoolVar(&b.ops, "ops", false, "add where the time goes, by operation, and the device's ceilings")
	f.BoolVar(&b.json, "json", false, "print one JSON object a mode, on a line each")
	return c
}

const bothModes = "both"

type benchCommand struct {
	settings
	mode          string
	batch         int
	batchGiven    bool
	steps, warmup int
	ops, json     bool
}

// began is when the program did, but for what the system and the runtime do before.
var began = time.Now()

func (b *benchCommand) run(ctx context.Context, out, errs io.Writer) (err error) {
	r, err := b.loadRun()
	if err != nil {
		return err
	}
	if err := b.setBatch(r); err != nil {
		return err
	}
	backend, err := openDevice(errs, &r.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()

	m := machineOf(backend)
	m.opened = time.Since(began)
	if !b.json {
		row(out, "config", "%s", r.Source)
		row(out, "device", "%s", backend.Name())
		row(out, "precision", "%s", backend.Precision())
	}
	show := func(result *bench.Result) error {
		if b.json {
			report := reportOf(result, m)
			report.Config, report.DType = r.Source, string(backend.Precision())
			encoder := json.NewEncoder(out)
			encoder.SetEscapeHTML(false) // 64->128
			return encoder.Encode(report)
		}
		printResult(out, result, m)
		if b.ops {
			printOps(out, result, m)
		}
		return nil
	}
	var results []*bench.Result
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
		results = append(results, result)
		if b.ops {
			continue
		}
		if err := show(result); err != nil {
			return err
		}
	}
	if !b.ops {
		return nil
	}
	// Now that nobody asks for the peak of memory any more.
	m.measure(backend)
	for _, result := range results {
		if err := show(result); err != nil {
			return err
		}
	}
	return nil
}

// setBatch makes --batch the batch of both steps, but where --set says another.
func (b *benchCommand) setBatch(r *config.Resolved) error {
	for _, key := range []string{"train.batch", "sample.batch"} {
		if r.Origins[key] == config.OriginSet {
			if b.batchGiven {
				return fmt.Errorf("--batch %d and --set %s: want one of them", b.batch, key)
			}
			continue
		}
		if err := r.Set(key, strconv.Itoa(b.batch), "--batch"); err != nil {
			return err
		}
	}
	return r.Validate()
}

// machine is what the network runs on.
type machine struct {
	name      string
	opened    time.Duration   // since the program began
	threads   *int            // nil if it is not a processor
	processor graph.Processor // likewise
	ceilings  *graph.Ceilings // nil if they were not measured
	unknown   error           // why not
}

func machineOf(b graph.Backend) machine {
	p, ok := b.(graph.Processor)
	if !ok {
		return machine{name: b.Name()}
	}
	threads := p.Threads()
	return machine{name: "cpu", threads: &threads, processor: p}
}

// measure finds the ceilings. That there are none is told in their place.
func (m *machine) measure(b graph.Backend) {
	measurable, ok := b.(graph.Measurable)
	if !ok {
		m.unknown = fmt.Errorf("%s does not measure them", b.Name())
		return
	}
	c, err := measurable.Ceilings()
	if err != nil {
		m.unknown = err
		return
	}
	m.ceilings = &c
}

// benchReport is what bench prints as JSON, under the keys of the PyTorch
// benchmark in scripts/reference. What is unknown is null or left out.
type benchReport struct {
	Mode                string   `json:"mode"`
	Config              string   `json:"config"`
	Device              string   `json:"device"`
	ISA                 string   `json:"isa,omitempty"`
	DType               string   `json:"dtype"`
	Threads             *int     `json:"threads"`
	Batch               int      `json:"batch"`
	Steps               int      `json:"steps"`
	FirstStep           float64  `json:"first_step_s"` // since the program began
	StepMedian          float64  `json:"step_median_s"`
	StepMin             float64  `json:"step_min_s"`
	CPUStepMedian       *float64 `json:"cpu_step_median_s"`
	ImagesPerSecond     float64  `json:"images_per_s"`
	ImagesPerSecondBest float64  `json:"images_per_s_best"`
	ForwardGFlop        float64  `json:"forward_gflop_per_image"`
	StepGFlop           float64  `json:"step_gflop"`
	TFlops              float64  `json:"tflop_per_s"`
	TFlopsBest          float64  `json:"tflop_per_s_best"`
	PeakMemory          *float64 `json:"peak_memory_mib"` // of the device
	HostMemory          *float64 `json:"host_memory_mib"`
	Allocations         int64    `json:"allocations_per_step"`
	*roofReport
}

// roofReport is what --ops adds.
type roofReport struct {
	*ceilingReport
	Unknown string        `json:"no_ceilings,omitempty"` // why there are none
	Groups  []groupReport `json:"groups"`
	Ops     []opReport    `json:"ops"`
}

// ceilingReport is of the device, and of the whole step.
type ceilingReport struct {
	PeakGFlops   float64 `json:"peak_gflop_per_s"`
	PeakProduct  string  `json:"peak_product"`
	ListedGFlops float64 `json:"datasheet_gflop_per_s,omitempty"`
	CopyGBytes   float64 `json:"copy_gb_per_s"`
	Floor        float64 `json:"floor_s"`
	MFU          float64 `json:"mfu"` // of the median step
	MFUBest      float64 `json:"mfu_best"`
	MFUListed    float64 `json:"mfu_datasheet,omitempty"`
}

// workReport is a row of --ops.
type workReport struct {
	Calls   int     `json:"calls"`
	Time    float64 `json:"s"`
	Share   float64 `json:"share"`
	Flops   int64   `json:"flop,omitempty"`
	GFlops  float64 `json:"gflop_per_s,omitempty"`
	OfPeak  float64 `json:"share_of_peak,omitempty"`
	Bytes   int64   `json:"bytes,omitempty"`
	GBytes  float64 `json:"gb_per_s,omitempty"`
	OfCopy  float64 `json:"share_of_copy,omitempty"`
	Floor   float64 `json:"floor_s,omitempty"`
	Bound   string  `json:"bound,omitempty"`
	OfFloor float64 `json:"share_of_bound,omitempty"`
}

type groupReport struct {
	Group string `json:"group"`
	workReport
}

type opReport struct {
	Op    string `json:"op"`
	Shape string `json:"shape,omitempty"`
	Group string `json:"group"`
	workReport
}

func reportOf(r *bench.Result, m machine) benchReport {
	report := benchReport{
		Mode: r.Mode, Device: m.name, Threads: m.threads, Batch: r.Batch, Steps: r.Steps,
		FirstStep: (m.opened + r.First).Seconds(), StepMedian: r.Step.Median.Seconds(), StepMin: r.Step.Least.Seconds(),
		ImagesPerSecond: r.ImagesPerSecond(r.Step.Median), ImagesPerSecondBest: r.ImagesPerSecond(r.Step.Least),
		ForwardGFlop: float64(r.ForwardFlops) / 1e9, StepGFlop: float64(r.StepFlops) / 1e9,
		TFlops: r.FlopsPerSecond(r.Step.Median) / 1e12, TFlopsBest: r.FlopsPerSecond(r.Step.Least) / 1e12,
		Allocations: r.Allocations,
	}
	if m.processor != nil {
		report.ISA = m.processor.InstructionSet()
	}
	if r.CPU.Median > 0 {
		seconds := r.CPU.Median.Seconds()
		report.CPUStepMedian = &seconds
	}
	mib := func(bytes int64) *float64 {
		if bytes == 0 {
			return nil
		}
		mib := float64(bytes) / (1 << 20)
		return &mib
	}
	report.PeakMemory, report.HostMemory = mib(r.PeakMemory), mib(r.PeakMemory)
	if r.DeviceMemory > 0 {
		report.PeakMemory = mib(r.DeviceMemory)
	}
	if r.Ops != nil {
		report.roofReport = roofOf(r, m)
	}
	return report
}

func roofOf(r *bench.Result, m machine) *roofReport {
	table := bench.Roofline(r.Ops, m.ceilings)
	report := &roofReport{}
	if c := m.ceilings; c != nil {
		report.ceilingReport = &ceilingReport{
			PeakGFlops: c.Flops / 1e9, PeakProduct: c.Product, ListedGFlops: c.Listed / 1e9, CopyGBytes: c.Bytes / 1e9,
			Floor: table.Total.Floor,
			MFU:   r.FlopsPerSecond(r.Step.Median) / c.Flops, MFUBest: r.FlopsPerSecond(r.Step.Least) / c.Flops,
		}
		if c.Listed > 0 {
			report.MFUListed = r.FlopsPerSecond(r.Step.Median) / c.Listed
		}
	} else {
		report.Unknown = m.unknown.Error()
	}
	for _, g := range table.Groups {
		report.Groups = append(report.Groups, groupReport{g.Group, workOf(g.Row, m.ceilings)})
	}
	for _, op := range r.Ops {
		report.Ops = append(report.Ops, opReport{op.Kind, op.Class, op.Group, workOf(bench.NewRow(op, m.ceilings), m.ceilings)})
	}
	return report
}

func workOf(row bench.Row, c *graph.Ceilings) workReport {
	report := workReport{
		Calls: row.Calls, Time: row.Time.Seconds(), Share: row.Share,
		Flops: row.Flops, GFlops: row.FlopsPerSecond() / 1e9, Bytes: row.Bytes, GBytes: row.BytesPerSecond() / 1e9,
	}
	if c != nil {
		report.OfPeak, report.OfCopy = row.FlopsPerSecond()/c.Flops, row.BytesPerSecond()/c.Bytes
		report.Floor, report.Bound, report.OfFloor = row.Floor, bound(row), row.OfFloor()
	}
	return report
}

// bound is what a row waits for at its floor; "" is unknown.
func bound(row bench.Row) string {
	switch {
	case row.Floor == 0:
		return ""
	case row.Computing:
		return "compute"
	}
	return "memory"
}

func printResult(out io.Writer, r *bench.Result, m machine) {
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
	row(out, "  first step", "%10s  after the program began", short(m.opened+r.First))
	memory := "unknown"
	if r.PeakMemory > 0 {
		memory = graph.Bytes(r.PeakMemory)
	}
	if r.DeviceMemory > 0 {
		row(out, "  memory", "%10s  on the device, by the plan", graph.Bytes(r.DeviceMemory))
		row(out, "", "%10s  at the peak, on the host", memory)
	} else {
		row(out, "  memory", "%10s  at the peak", memory)
	}
	row(out, "  allocated", "%10d  times a step", r.Allocations)
}

// leastShare is that of a shape worth a line among others of its kind.
const leastShare = 0.0005

// printOps prints the groups of operations, the longest first, and under each what
// they are made of; then how far the step is from its ceilings.
func printOps(out io.Writer, r *bench.Result, m machine) {
	fmt.Fprintln(out)
	t := newRoofPrinter(out, m.ceilings)
	table := bench.Roofline(r.Ops, m.ceilings)
	if c := m.ceilings; c != nil {
		row(out, "ceilings", "%s (measured: %s), %s (a copy, read and written)", t.rate(c.Flops, "FLOP/s"), c.Product, t.rate(c.Bytes, "B/s"))
	} else {
		row(out, "ceilings", "not measured: %v", m.unknown)
	}
	t.heading()
	for _, group := range table.Groups {
		t.line(group.Row, group.Group)
		for _, op := range group.Members {
			if op.Share > leastShare && op.Kind != group.Group {
				t.line(op, "  "+strings.TrimSpace(op.Kind+"  "+op.Class))
			}
		}
	}
	t.line(table.Total, table.Total.Group)
	c := m.ceilings
	if c == nil {
		return
	}
	step := r.Step.Median.Seconds()
	fmt.Fprintln(out)
	row(out, "floor", "%10s  if every operation reached its ceiling, %.0f %% of the step", short(seconds(table.Total.Floor)), 100*table.Total.Floor/step)
	row(out, "step", "%10s  %.4g images/s, %s", short(r.Step.Median), r.ImagesPerSecond(r.Step.Median), t.rate(r.FlopsPerSecond(r.Step.Median), "FLOP/s"))
	text := fmt.Sprintf("%8.1f %%  of the measured %s", 100*r.FlopsPerSecond(r.Step.Median)/c.Flops, t.rate(c.Flops, "FLOP/s"))
	if c.Listed > 0 {
		text += fmt.Sprintf(", %.1f %% of the data sheet's %s", 100*r.FlopsPerSecond(r.Step.Median)/c.Listed, t.rate(c.Listed, "FLOP/s"))
	}
	row(out, "MFU", "%s", text)
}
