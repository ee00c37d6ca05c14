package bench

import (
	"context"
	"errors"
	"math"
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
				if r.Step.Least <= 0 || r.Step.Median < r.Step.Least {
					t.Errorf("%s: steps of %v", mode, r.Step)
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
	kinds := ByKind(r.Ops)
	n := 0
	for _, k := range kinds {
		n += len(k.Members)
		if k.Calls != calls[k.Kind] {
			t.Errorf("%s: %d calls of %s, want %d", r.Mode, k.Calls, k.Kind, calls[k.Kind])
		}
	}
	if n != len(r.Ops) || len(kinds) != len(calls) {
		t.Errorf("%s: %d operations of %d kinds, want %d of %d", r.Mode, n, len(kinds), len(r.Ops), len(calls))
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
		w.lap()
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
		w.wall, w.spent = make([]time.Duration, c.timed), c.spent
		if w.done() != c.want {
			t.Errorf("done after %d steps in %v: %t", c.timed, c.spent, !c.want)
		}
	}
	// What is allocated in warm-up is not counted.
	w = newStopwatch(Options{Warmup: 1, Steps: 1})
	w.start()
	waste = make([]byte, 100)
	w.lap()
	w.lap()
	w.stop()
	if w.allocations != 0 {
		t.Errorf("%d allocations in warm-up counted", w.allocations)
	}
	// Nor what is allocated between two runs of steps.
	w = newStopwatch(Options{Steps: 2})
	for range 2 {
		w.start()
		w.lap()
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

// A profile keeps the least of each row, so that what happened in one step to one
// of them does not show.
func TestProfileLap(t *testing.T) {
	p := &profile{rest: math.MaxInt64}
	p.add(Op{Kind: "a"})
	p.add(Op{Kind: "b"})
	p.step = make([]time.Duration, 2)
	for _, step := range [][3]time.Duration{{10, 90, 105}, {30, 20, 60}} {
		copy(p.step, step[:2])
		p.lap(step[2])
	}
	p.step[0] = 1 // of a step that is dropped
	p.forget()
	copy(p.step, []time.Duration{40, 40})
	p.lap(100)
	want := []Op{{Kind: "b", Time: 20}, {Kind: "a", Time: 10}, {Kind: "the rest", Time: 5}}
	for i, op := range p.ops() {
		want[i].Share = want[i].Time.Seconds() / (35 * time.Nanosecond).Seconds()
		if op.Kind != want[i].Kind || op.Time != want[i].Time || math.Abs(op.Share-want[i].Share) > 1e-9 {
			t.Errorf("row %d: %+v, want %+v", i, op, want[i])
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
		op   graph.Op
		in   shapes
		want string
	}{
		{same, shapes{image(8, 9, 4), kernel, bias}, "Conv2D: 3x3 8x9 4->6"},
		{half, shapes{image(8, 8, 4), kernel, bias}, "Conv2D: 3x3 8x8 4->6 stride 2"},
		{graph.Conv2DGradData{Conv2D: half, Height: 8, Width: 8}, shapes{kernel, image(4, 4, 6)}, "Conv2DGradData: 3x3 8x8 4->6 stride 2"},
		{graph.Conv2DGradWeight{Conv2D: same, R: 3, S: 3}, shapes{image(8, 8, 4), image(8, 8, 6)}, "Conv2DGradWeight: 3x3 8x8 4->6"},
		{graph.Joined{Of: same}, shapes{image(8, 8, 1), image(8, 8, 3), kernel, bias}, "Concat+Conv2D: 3x3 8x8 4->6"},
		{graph.Doubled{Of: same}, shapes{image(4, 5, 4), kernel, bias}, "Upsample+Conv2D: 3x3 8x10 4->6"},
		{
			graph.Plus{Of: graph.PlusPerSample{Of: graph.Joined{Of: same}}},
			shapes{image(8, 8, 1), image(8, 8, 3), kernel, bias, {5, 6}, image(8, 8, 6)},
			"Concat+Conv2D+AddPerSample+Add: 3x3 8x8 4->6",
		},
		{graph.Linear{}, shapes{{5, 2, 3, 4}, {4, 6}, {6}}, "Linear: 30 rows 4->6"},
		{graph.LinearGradData{}, shapes{{4, 6}, {5, 6}}, "LinearGradData: 5 rows 4->6"},
		{graph.LinearGradWeight{}, shapes{{5, 4}, {5, 6}}, "LinearGradWeight: 5 rows 4->6"},
		{graph.Attention{Heads: 1}, shapes{image(4, 4, 6), image(4, 4, 6), image(4, 4, 6)}, "Attention: 4x4x6"},
		{graph.AttentionGrad{Heads: 1}, shapes{image(4, 4, 6), image(4, 4, 6), image(4, 4, 6), image(4, 4, 6)}, "AttentionGrad: 4x4x6"},
		{graph.GroupNormStats{Groups: 2}, shapes{image(8, 8, 4)}, "GroupNormStats: 8x8x4"},
		{graph.Concat{}, shapes{image(8, 8, 4), image(8, 8, 2)}, "Concat: 8x8x6"},
		{graph.SumRows{}, shapes{image(8, 8, 4)}, "SumRows: 8x8x4"},
		{graph.Mean{}, shapes{{5}}, "Mean: 5"},
	} {
		out, err := c.op.Infer(c.in)
		if err != nil {
			t.Fatalf("%s: %v", c.want, err)
		}
		in := graph.Instruction{Op: c.op, Out: graph.Ref{Shape: out, DType: graph.Float32}}
		for _, s := range c.in {
			in.In = append(in.In, graph.Ref{Shape: s, DType: graph.Float32})
		}
		if key := describe(in); key[0]+": "+key[1] != c.want {
			t.Errorf("%s: %s, want %s", key[0], key[1], c.want)
		}
	}
}

func TestBytesOf(t *testing.T) {
	in := graph.Instruction{
		Out: graph.Ref{Shape: graph.Shape{2, 3}, DType: graph.Float32},
		In: []graph.Ref{
			{Space: graph.Fed, Shape: graph.Shape{2, 3}, DType: graph.Uint8},
			{Space: graph.Weights, Shape: graph.Shape{3}, DType: graph.Float32},
			{Space: graph.Constant, DType: graph.Float32},
		},
	}
	if got := bytesOf(in); got != 24+6+12 {
		t.Errorf("%d bytes, want 42", got)
	}
}
