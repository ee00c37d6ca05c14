package bench

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"ddpm/internal/data"
	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/graph/reference"
	"ddpm/internal/model"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// tiny is a run on the smallest network that has every part.
func tiny(b graph.Backend) train.Setup {
	return train.Setup{
		Seed: 1,
		Data: data.Config{Flip: true},
		Model: model.Config{
			Block: "resnet", Channels: 4, Mult: []float64{1, 2}, Blocks: 1, MidAttention: true,
			Groups: 2, NormEps: 1e-6, Dropout: 0.1, Init: "pytorch", FreqShift: 1,
		},
		Size:      model.Size{Height: 8, Width: 8, Channels: 3},
		Diffusion: sched.Config{T: 4, Schedule: "cosine", Prediction: "v"},
		Train: train.Config{
			Steps: 100, Batch: 4, Accumulate: 1, LR: 1e-3, Warmup: 2, Decay: "cosine", Beta1: 0.9, Beta2: 0.999,
			AdamEps: 1e-8, Clip: 1, EMA: 0.9,
		},
		Sample:  sched.SamplerConfig{Sampler: "ddim", Steps: 2, Spacing: "trailing", Variance: "fixed_small", Clip: true},
		Batch:   3,
		Backend: b,
	}
}

// Both steps are timed as often as asked, with and without a profile, also where
// that takes more steps than an image has.
func TestRun(t *testing.T) {
	b := cpu.New(2, isa.Detect())
	defer b.Close()
	for _, mode := range Modes {
		for _, ops := range []bool{false, true} {
			for _, accumulate := range []int{1, 2} {
				s := tiny(b)
				s.Train.Accumulate = accumulate
				r, err := Run(t.Context(), mode, Options{Setup: s, Warmup: 2, Steps: 11, Ops: ops})
				if err != nil {
					t.Fatalf("%s: %v", mode, err)
				}
				batch, passes := 3, int64(1)
				if mode == "train" {
					batch, passes = 4, 3
				}
				if r.Mode != mode || r.Steps != 11 || r.Batch != batch || r.ForwardFlops <= 0 ||
					r.StepFlops != passes*int64(batch)*r.ForwardFlops {
					t.Errorf("%s: %+v", mode, r)
				}
				if r.Step.Least <= 0 || r.Step.Median < r.Step.Least || r.First < r.Step.Least {
					t.Errorf("%s: steps of %v, the first after %v", mode, r.Step, r.First)
				}
				if r.DeviceMemory != 0 {
					t.Errorf("%s: %d bytes of a device apart from the host", mode, r.DeviceMemory)
				}
				if (r.Ops != nil) != ops {
					t.Errorf("%s, profile %t: %d operations", mode, ops, len(r.Ops))
				}
				if ops {
					checkProfile(t, r, accumulate)
				}
			}
		}
	}
}

// A guided step calls the network twice on each image. A sampler is chosen, if none is named.
func TestRunGuided(t *testing.T) {
	b := cpu.New(2, isa.Detect())
	defer b.Close()
	s := tiny(b)
	s.Model.Classes, s.Model.LearnSigma, s.Sample.Guidance, s.Sample.GuidanceTo = 5, true, 3, 0.5
	s.Sample.Sampler = sched.Auto
	r, err := Run(t.Context(), "sample", Options{Setup: s, Warmup: 2, Steps: 11, Ops: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Steps != 11 || r.StepFlops != 2*int64(r.Batch)*r.ForwardFlops || r.Allocations != 0 {
		t.Errorf("%+v", r)
	}
	checkProfile(t, r, 1)
	kinds := map[string]bool{}
	for _, op := range r.Ops {
		kinds[op.Kind] = true
	}
	if !kinds["Guidance"] || !kinds["Twice"] || !kinds["Embedding"] {
		t.Errorf("operations %v, want those of guidance", kinds)
	}
	if _, err := Work("sample", s); err != nil {
		t.Error(err)
	}
}

// checkProfile checks that the rows account for the whole step.
func checkProfile(t *testing.T, r *Result, accumulate int) {
	t.Helper()
	var share float64
	var work int64
	calls := map[string]int{}
	for i, op := range r.Ops {
		share += op.Share
		work += op.Flops
		calls[op.Kind] += op.Calls
		if i > 0 && op.Time > r.Ops[i-1].Time {
			t.Errorf("%s: %v before %v", r.Mode, r.Ops[i-1], op)
		}
	}
	if math.Abs(share-1) > 1e-9 {
		t.Errorf("%s: the shares add up to %v", r.Mode, share)
	}
	// Nobody needs the gradient of the images, which three forward passes count.
	if slack := r.StepFlops / 20; work > r.StepFlops || work < r.StepFlops-slack {
		t.Errorf("%s: operations of %d in all, the step counts %d", r.Mode, work, r.StepFlops)
	}
	want := map[string]int{"Update": 0, "Accumulate": 0, "Mean": 0, "SquaredErrorGrad": 0}
	if r.Mode == "train" {
		want = map[string]int{"Update": 1, "Accumulate": 0, "Mean": accumulate, "SquaredErrorGrad": accumulate}
		if accumulate > 1 {
			want["Accumulate"] = accumulate
		}
	}
	for kind, n := range want {
		if calls[kind] != n {
			t.Errorf("%s in %d parts: %d calls of %s, want %d", r.Mode, accumulate, calls[kind], kind, n)
		}
	}
	table := Roofline(r.Ops, &graph.Ceilings{Flops: 1e12, Bytes: 1e11})
	members, n := 0, 0
	for _, g := range table.Groups {
		members += len(g.Members)
		n += g.Calls
	}
	if all := table.Total; members != len(r.Ops) || n != all.Calls || math.Abs(all.Share-1) > 1e-9 || all.Flops != work {
		t.Errorf("%s: %d operations of %d calls in groups, want %d; in all %+v", r.Mode, members, n, len(r.Ops), all)
	}
}

// No step allocates. That is what makes its memory known beforehand.
func TestStepsDoNotAllocate(t *testing.T) {
	b := cpu.New(2, isa.Detect())
	defer b.Close()
	for _, mode := range Modes {
		r, err := Run(t.Context(), mode, Options{Setup: tiny(b), Warmup: 2, Steps: 20})
		if err != nil {
			t.Fatal(err)
		}
		if r.Allocations != 0 {
			t.Errorf("%s: %d allocations a step", mode, r.Allocations)
		}
	}
}

func TestRunFails(t *testing.T) {
	b := cpu.New(1, isa.Detect())
	defer b.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, mode := range Modes {
		if _, err := Run(ended, mode, Options{Setup: tiny(b)}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: a context that has ended: %v", mode, err)
		}
		// The reference backend has no clock.
		_, err := Run(t.Context(), mode, Options{Setup: tiny(reference.Backend{}), Steps: 1, Ops: true})
		if err == nil || !strings.Contains(err.Error(), "does not time single operations") {
			t.Errorf("%s: a profile of a backend that makes none: %v", mode, err)
		}
	}
	s := tiny(b)
	s.Diffusion.T = 1
	if _, err := Run(t.Context(), "sample", Options{Setup: s}); err == nil || !strings.Contains(err.Error(), "diffusion.t 1: ") {
		t.Errorf("sampling in a single step: %v", err)
	}
}

func TestStopwatch(t *testing.T) {
	// As many as asked, warm-up aside.
	w := newStopwatch(Options{Warmup: 2, Steps: 3})
	w.start()
	laps := 0
	for ; !w.done(); laps++ {
		w.lap(1)
	}
	if laps != 5 || len(w.wall) != 3 {
		t.Errorf("%d laps, %d of them timed, want 5 and 3", laps, len(w.wall))
	}
	// Until there is enough, but some at the least.
	for _, c := range []struct {
		timed int
		spent time.Duration
		want  bool
	}{{leastSteps - 1, 2 * enoughTime, false}, {leastSteps, enoughTime, true}, {leastSteps, enoughTime / 2, false}, {mostSteps, 0, true}} {
		w := newStopwatch(Options{})
		w.timed, w.spent = c.timed, c.spent
		if w.done() != c.want {
			t.Errorf("done after %d steps in %v: %t", c.timed, c.spent, !c.want)
		}
	}
	// What is allocated in warm-up is not counted.
	w = newStopwatch(Options{Warmup: 1, Steps: 1})
	w.start()
	waste = make([]byte, 100)
	w.lap(1)
	w.lap(1)
	w.stop()
	if w.allocations != 0 {
		t.Errorf("%d allocations in warm-up counted", w.allocations)
	}
	// Nor what is allocated between two runs of steps.
	w = newStopwatch(Options{Steps: 2})
	for range 2 {
		w.start()
		w.lap(1)
		w.stop()
		waste = make([]byte, 100)
	}
	if w.allocations != 0 {
		t.Errorf("%d allocations outside of the steps counted", w.allocations)
	}
	w.start()
	waste = make([]byte, 100)
	w.stop()
	if w.allocations == 0 {
		t.Error("no allocation seen")
	}
}

var waste []byte

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		times []time.Duration
		want  Span
	}{
		{[]time.Duration{5}, Span{5, 5}},
		{[]time.Duration{9, 1, 4}, Span{4, 1}},
		{[]time.Duration{9, 1, 4, 6}, Span{5, 1}},
	} {
		if got := spanOf(c.times); got != c.want {
			t.Errorf("%v: %v, want %v", c.times, got, c.want)
		}
	}
}

// Where the device runs behind the host a lap is of several steps, and no more than
// were asked for.
func TestLapsOfADeviceThatRunsBehind(t *testing.T) {
	w := newStopwatch(Options{Warmup: 3, Steps: 25, Setup: train.Setup{Backend: behind{}}})
	var laps []int
	for w.start(); !w.done(); {
		laps = append(laps, w.stride())
		w.lap(w.stride())
	}
	if !slices.Equal(laps, []int{3, 10, 10, 5}) || w.timed != 25 || len(w.wall) != 3 {
		t.Errorf("laps of %v steps, %d steps timed in %d laps, want 3, then 25 in 3", laps, w.timed, len(w.wall))
	}
	if w := newStopwatch(Options{Setup: train.Setup{Backend: behind{}}}); w.stride() != aheadSteps {
		t.Errorf("a lap of %d steps, want %d", w.stride(), aheadSteps)
	}
	// A lap's time is that of one step.
	w = newStopwatch(Options{Steps: 10, Setup: train.Setup{Backend: behind{}}})
	w.start()
	time.Sleep(20 * time.Millisecond)
	w.lap(10)
	if r := w.result("sample", 1, 1, 1); r.Step.Median < 2*time.Millisecond || r.Step.Median > 20*time.Millisecond || r.Steps != 10 {
		t.Errorf("%d steps of %v, want 10 of 2 ms", r.Steps, r.Step.Median)
	}
}

// behind is a device that runs behind the host.
type behind struct{ graph.Backend }

func (behind) Wait() error { return nil }

// A sampling step is over when the device has waited for it, as often as there are
// laps and images begin.
func TestSamplingWaits(t *testing.T) {
	b := cpu.New(2, isa.Detect())
	defer b.Close()
	w := &waiting{Backend: b}
	s := tiny(w)
	s.Diffusion.T = 8
	begun := time.Now()
	r, err := Run(t.Context(), "sample", Options{Setup: s, Warmup: 2, Steps: 9})
	if err != nil {
		t.Fatal(err)
	}
	// Images of 8 calls have 7 steps behind the first: laps of 2 and 5 steps, then
	// of 4.
	if r.Steps != 9 || len(w.waits) != 5 {
		t.Fatalf("%d steps with %d waits, want 9 with 5", r.Steps, len(w.waits))
	}
	first, third := w.waits[0].Sub(begun), w.waits[1].Sub(begun)
	if r.First > (first+third)/2 {
		t.Errorf("the first step ended after %v, want %v; two more after %v", r.First, first, third)
	}
	if r.DeviceMemory == 0 {
		t.Error("a device apart from the host takes no memory")
	}
	w.err = errors.New("lost")
	if _, err := Run(t.Context(), "sample", Options{Setup: s, Steps: 1}); !errors.Is(err, w.err) {
		t.Errorf("a device that is lost while the host waits: %v", err)
	}
}

type waiting struct {
	graph.Backend
	waits []time.Time
	err   error
}

func (w *waiting) Wait() error {
	if len(w.waits) == 1 {
		time.Sleep(20 * time.Millisecond)
	}
	w.waits = append(w.waits, time.Now())
	return w.err
}

// A profile keeps the least of each row, so that what happened in one step to one
// of them does not show.
func TestProfileLap(t *testing.T) {
	p := &profile{
		rows: []Op{{Kind: "a", Time: math.MaxInt64}, {Kind: "b", Time: math.MaxInt64}},
		step: make([]time.Duration, 2), rest: math.MaxInt64,
	}
	for _, step := range [][3]time.Duration{{10, 90, 110}, {30, 20, 60}} {
		copy(p.step, step[:2])
		p.lap(step[2])
	}
	p.step[0] = 1 // of a step that is dropped
	p.forget()
	copy(p.step, []time.Duration{40, 40})
	p.lap(100)
	for fastest, rest := range map[time.Duration]time.Duration{70: 10, 35: 5, 25: 0} {
		want := []Op{{Kind: "b", Time: 20}, {Kind: "a", Time: 10}, {Kind: restGroup, Time: rest}}
		for i, op := range p.ops(fastest) {
			want[i].Share = want[i].Time.Seconds() / (30*time.Nanosecond + rest).Seconds()
			if op.Kind != want[i].Kind || op.Time != want[i].Time || math.Abs(op.Share-want[i].Share) > 1e-9 {
				t.Errorf("row %d beside steps of %v: %+v, want %+v", i, fastest, op, want[i])
			}
		}
	}
}

func TestDescribe(t *testing.T) {
	type shapes = []graph.Shape
	image := func(h, w, c int) graph.Shape { return graph.Shape{5, h, w, c} }
	same := graph.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}
	half := graph.Conv2D{Stride: 2, Bottom: 1, Right: 1}
	kernel, bias := graph.Shape{3, 3, 4, 6}, graph.Shape{6}
	for _, c := range []struct {
		op    graph.Op
		in    shapes
		want  string
		group string
	}{
		{same, shapes{image(8, 9, 4), kernel, bias}, "Conv2D: 3x3 8x9 4->6", "convolution forward 8x9"},
		{half, shapes{image(8, 8, 4), kernel, bias}, "Conv2D: 3x3 8x8 4->6 stride 2", "convolution forward 8x8"},
		{graph.Conv2DGradData{Conv2D: half, Height: 8, Width: 8}, shapes{kernel, image(4, 4, 6)}, "Conv2DGradData: 3x3 8x8 4->6 stride 2", "convolution data gradient 8x8"},
		{graph.Conv2DGradWeight{Conv2D: same, R: 3, S: 3}, shapes{image(8, 8, 4), image(8, 8, 6)}, "Conv2DGradWeight: 3x3 8x8 4->6", "convolution weight gradient 8x8"},
		{graph.Joined{Of: same}, shapes{image(8, 8, 1), image(8, 8, 3), kernel, bias}, "Concat+Conv2D: 3x3 8x8 4->6", "convolution forward 8x8"},
		{graph.Doubled{Of: same}, shapes{image(4, 5, 4), kernel, bias}, "Upsample+Conv2D: 3x3 8x10 4->6", "convolution forward 8x10"},
		{
			graph.Plus{Of: graph.PlusPerSample{Of: graph.Joined{Of: same}}},
			shapes{image(8, 8, 1), image(8, 8, 3), kernel, bias, {5, 6}, image(8, 8, 6)},
			"Concat+Conv2D+AddPerSample+Add: 3x3 8x8 4->6", "convolution forward 8x8",
		},
		{graph.Linear{}, shapes{{5, 2, 3, 4}, {4, 6}, {6}}, "Linear: 30 rows 4->6", "linear forward"},
		{graph.LinearGradData{}, shapes{{4, 6}, {5, 6}}, "LinearGradData: 5 rows 4->6", "linear data gradient"},
		{graph.LinearGradWeight{}, shapes{{5, 4}, {5, 6}}, "LinearGradWeight: 5 rows 4->6", "linear weight gradient"},
		{graph.Attention{Heads: 1}, shapes{image(4, 4, 6), image(4, 4, 6), image(4, 4, 6)}, "Attention: 4x4x6", "attention forward"},
		{graph.AttentionGrad{Heads: 1}, shapes{image(4, 4, 6), image(4, 4, 6), image(4, 4, 6), image(4, 4, 6)}, "AttentionGrad: 4x4x6", "attention gradient"},
		{graph.GroupNormStats{Groups: 2}, shapes{image(8, 8, 4)}, "GroupNormStats: 8x8x4", "group normalisation forward"},
		{graph.Concat{}, shapes{image(8, 8, 4), image(8, 8, 2)}, "Concat: 8x8x6", "elementwise and copies"},
		{graph.SumRows{}, shapes{image(8, 8, 4)}, "SumRows: 8x8x4", "sums for biases"},
		{graph.Mean{}, shapes{{5}}, "Mean: 5", "noise, loss, sampler"},
		{graph.VLB{}, shapes{image(8, 8, 6), image(8, 8, 3), image(8, 8, 3), {5, graph.VLBCoefs}}, "VLB: 8x8x6", "noise, loss, sampler"},
		{graph.Guidance{Channels: 3}, shapes{{10, 8, 8, 6}, {1}}, "Guidance: 8x8x6", "noise, loss, sampler"},
		{graph.Embedding{}, shapes{{11, 96}, {5}}, "Embedding: 11 rows of 96", "elementwise and copies"},
		{graph.EmbeddingGrad{Rows: 11}, shapes{{5}, {5, 96}}, "EmbeddingGrad: 11 rows of 96", "elementwise and copies"},
	} {
		out, err := c.op.Infer(c.in)
		if err != nil {
			t.Fatalf("%s: %v", c.want, err)
		}
		in := graph.Instruction{Op: c.op, Out: graph.Ref{Shape: out, DType: graph.Float32}}
		for _, s := range c.in {
			in.In = append(in.In, graph.Ref{Shape: s, DType: graph.Float32})
		}
		if got := describe(in); got.Kind+": "+got.Class != c.want || got.Group != c.group {
			t.Errorf("%s: %s in %q, want %s in %q", got.Kind, got.Class, got.Group, c.want, c.group)
		}
	}
}

func TestBytesOf(t *testing.T) {
	at := func(offset, n int) graph.Ref {
		return graph.Ref{Offset: offset, Shape: graph.Shape{n}, DType: graph.Float32}
	}
	sums := graph.Aside{Op: graph.GroupNormStats{Groups: 1}, In: []graph.Ref{at(0, 10)}, Out: at(70, 2)}
	from := sums
	from.In = []graph.Ref{at(0, 10), at(20, 5), at(40, 3)}
	for name, c := range map[string]struct {
		in   graph.Instruction
		want int64
	}{
		"element types, a constant": {graph.Instruction{
			Out: graph.Ref{Shape: graph.Shape{2, 3}, DType: graph.BFloat16},
			In: []graph.Ref{
				{Space: graph.Fed, Shape: graph.Shape{2, 3}, DType: graph.Uint8},
				{Space: graph.Weights, Shape: graph.Shape{3}, DType: graph.Float32},
				{Space: graph.Constant, DType: graph.Float32},
			},
		}, 12 + 6 + 12},
		"one value as two operands":   {graph.Instruction{Out: at(0, 10), In: []graph.Ref{at(20, 5), at(20, 5), at(25, 5)}}, 4 * 20},
		"written over an operand":     {graph.Instruction{Out: at(0, 10), In: []graph.Ref{at(20, 5), at(0, 10)}}, 4 * 25},
		"something beside the result": {graph.Instruction{Out: at(0, 10), In: []graph.Ref{at(20, 5)}, Aside: &sums}, 4 * 17},
		"that needs more":             {graph.Instruction{Out: at(0, 10), In: []graph.Ref{at(20, 5)}, Aside: &from}, 4 * 20},
		"found":                       {graph.Instruction{Out: at(0, 2), In: []graph.Ref{at(20, 100)}, Found: []graph.Ref{at(70, 4)}}, 4 * 6},
	} {
		if got := bytesOf(c.in); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
}
