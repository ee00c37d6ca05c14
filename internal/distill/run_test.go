package distill

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ddpm/internal/checkpoint"
	"ddpm/internal/data"
	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/model"
	"ddpm/internal/progress/progresstest"
	"ddpm/internal/runs"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// newSetup is a run of 6 steps on small shapes, of a student of a teacher with random weights, dropout, classes
// and predicted variances.
func newSetup(t *testing.T, c Config, threads int) train.Setup {
	t.Helper()
	b := cpu.New(threads, isa.Detect())
	t.Cleanup(func() { b.Close() })
	s := train.Setup{
		Seed: 1,
		Data: data.Config{Name: "shapes", Width: 8, Height: 8, Channels: 3, Workers: 2, Prefetch: 2, MaxSkipped: 1, Flip: true},
		Model: model.Config{
			Block: "resnet", Channels: 4, Mult: []float64{1, 2}, Blocks: 1, MidAttention: true, Classes: 5, LearnSigma: true,
			Groups: 2, NormEps: 1e-6, Dropout: 0.1, Init: "pytorch", FreqShift: 1,
		},
		Size:      model.Size{Height: 8, Width: 8, Channels: 3},
		Diffusion: sched.Config{T: 20, Schedule: "cosine", Prediction: "v", Consistency: c.Method == Consistency},
		Train: train.Config{
			Steps: 6, Batch: 4, Accumulate: 2, LR: 1e-2, Warmup: 1, Decay: "cosine", Beta1: 0.9, Beta2: 0.999, AdamEps: 1e-8,
			Clip: 1, EMA: 0.9, LogEvery: 2, Samples: 2, KeepLast: 10, CheckpointEvery: 1,
		},
		Sample: sched.SamplerConfig{Sampler: "ddim", Steps: 2, Spacing: "trailing", Variance: "fixed_small"},
		Batch:  2, Config: "the configuration", Backend: b,
		Progress: progresstest.Lines(func(string) {}),
	}
	layout, err := model.Layout(s.Model, s.Size)
	if err != nil {
		t.Fatal(err)
	}
	s.Objective = Objective{Config: c, Teacher: layout.InitialWeights(3)}
	path := filepath.Join(t.TempDir(), "run")
	if err := runs.Create(path); err != nil {
		t.Fatal(err)
	}
	s.Dir = runs.Dir(path)
	return s
}

// stopAfter runs until a step is reported, then ends the context.
func stopAfter(t *testing.T, s train.Setup, step int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.Progress = progresstest.At(step, cancel)
	err := train.Run(ctx, s)
	var stopped *train.Stopped
	if !errors.As(err, &stopped) || stopped.Step != step {
		t.Fatalf("got %v, want to stop after step %d", err, step)
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var methods = map[string]Config{
	"consistency": {Method: Consistency, Solver: ddim, Skip: 8, SolverSteps: 3, Loss: huber, HuberC: 0.03, Target: averaged, Guidance: 2, GuidanceTo: 1},
	"heun":        {Method: Consistency, Solver: heun, Skip: 3, SolverSteps: 1, Loss: l2, Target: current, Guidance: 1},
	"progressive": {Method: Progressive, StartSteps: 8, StageSteps: 2, Loss: l2, Guidance: 1},
}

// A run is a function of its setup: not of the number of threads, nor of where it was stopped, inside a stage
// or at its end. A run that is resumed has no teacher but that of its checkpoint.
func TestRunsAreReproducible(t *testing.T) {
	for name, c := range methods {
		unbroken := newSetup(t, c, 1)
		if err := train.Run(context.Background(), unbroken); err != nil {
			t.Fatal(err)
		}
		want := content(t, unbroken.Dir.Checkpoint(6))
		for _, stops := range [][]int{{}, {1, 2}, {3}} {
			s := newSetup(t, c, 2)
			for _, step := range stops {
				stopAfter(t, s, step)
				s.Resume, s.Objective = true, Objective{Config: c}
			}
			if err := train.Run(context.Background(), s); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(content(t, s.Dir.Checkpoint(6)), want) {
				t.Errorf("%s: a run on 2 threads, stopped after steps %v, ends otherwise than one on 1 thread", name, stops)
			}
		}
	}
}

// weightsAt reads the weights of a checkpoint and what it holds of the teacher.
func weightsAt(t *testing.T, s train.Setup, step int, a graph.Arena) (weights, teacher []float32) {
	t.Helper()
	f, err := checkpoint.Open(s.Dir.Checkpoint(step))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	layout, err := model.Layout(s.Model, s.Size)
	if err != nil {
		t.Fatal(err)
	}
	if weights, err = f.Arena(a, layout); err != nil {
		t.Fatal(err)
	}
	teacher = make([]float32, layout.Size)
	if ok, err := f.Objective(map[string][]float32{tensor: teacher}); !ok || err != nil {
		t.Fatalf("the teacher is in the checkpoint: %t, %v", ok, err)
	}
	return weights, teacher
}

// distanceOf is the largest difference of two sets of weights.
func distanceOf(a, b []float32) float32 {
	var most float32
	for i := range a {
		most = max(most, a[i]-b[i], b[i]-a[i])
	}
	return most
}

// A progressive student is the teacher of the next stage, which begins with its averaged weights and with Adam's
// first, largest step; a consistency student has one teacher.
func TestStages(t *testing.T) {
	s := newSetup(t, methods["progressive"], 2)
	s.Train.Warmup, s.Train.Decay = 0, "constant"
	if err := train.Run(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	ofTeacher := s.Objective.(Objective).Teacher
	_, first := weightsAt(t, s, 2, graph.EMA) // written before the next stage begins
	student, _ := weightsAt(t, s, 2, graph.EMA)
	next, second := weightsAt(t, s, 3, graph.Params)
	if distanceOf(first, ofTeacher) != 0 || distanceOf(second, student) != 0 {
		t.Errorf("the teachers of two stages are %g from the teacher and %g from the student of the first, want 0", distanceOf(first, ofTeacher), distanceOf(second, student))
	}
	// The first step of Adam moves each weight that has a gradient by the learning rate.
	moved, whole := 0, 0
	for i := range next {
		d := math.Abs(float64(next[i] - student[i]))
		if d > 0 {
			moved++
		}
		if math.Abs(d-0.01) < 1e-4 {
			whole++
		}
	}
	if moved < 1000 || whole < moved*9/10 {
		t.Errorf("the first step of a stage moves %d weights, %d of them by train.lr", moved, whole)
	}
	c := newSetup(t, methods["heun"], 2)
	if err := train.Run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	if _, teacher := weightsAt(t, c, 6, graph.EMA); distanceOf(teacher, c.Objective.(Objective).Teacher) != 0 {
		t.Error("the teacher has changed")
	}
}

// Whose word the target is makes a difference.
func TestTarget(t *testing.T) {
	var ends [][]byte
	for _, target := range Targets() {
		c := methods["heun"]
		c.Target = target
		s := newSetup(t, c, 2)
		if err := train.Run(context.Background(), s); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, content(t, s.Dir.Checkpoint(6)))
	}
	if bytes.Equal(ends[0], ends[1]) {
		t.Error("averaged and current weights give the same student")
	}
}

// The student starts from its teacher: a first step of hardly any length leaves its weights.
func TestStudentStartsFromTeacher(t *testing.T) {
	s := newSetup(t, methods["heun"], 2)
	s.Train.LR = 1e-12
	if err := train.Run(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	weights, teacher := weightsAt(t, s, 1, graph.Params)
	if d := distanceOf(weights, teacher); d > 1e-6 {
		t.Errorf("the student is %g from its teacher", d)
	}
}

// The plan counts the teacher.
func TestMemory(t *testing.T) {
	s := newSetup(t, methods["consistency"], 1)
	p, err := train.NewPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int64{}
	for _, m := range p.Memory() {
		found[m.Kind] = m.Bytes
	}
	if err := train.Run(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	size := int64(len(content(t, s.Dir.Checkpoint(6)))) // names and shapes, too
	if planned := p.CheckpointBytes(); planned > size || planned < size*8/10 {
		t.Errorf("a checkpoint of %d bytes, planned %d", size, planned)
	}
	if got, want := found["the teacher's weights"], int64(8*p.Layout.Size); got != want {
		t.Errorf("%d bytes of teacher, want %d", got, want)
	}
	plain := s
	plain.Objective = Objective{Config: methods["progressive"]}
	q, err := train.NewPlan(plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range q.Memory() {
		// Without guidance and without a target network there is less to compute.
		if m.Kind == "targets in the making" && !(m.Bytes > 0 && m.Bytes < found[m.Kind]) {
			t.Errorf("%d bytes for targets, and %d with guidance", m.Bytes, found[m.Kind])
		}
	}
}

// A checkpoint without its teacher is no help.
func TestResumeWantsTheTeacher(t *testing.T) {
	s := newSetup(t, methods["heun"], 1)
	stopAfter(t, s, 1)
	state, err := s.Backend.NewState(mustLayout(t, s), true)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	f, err := checkpoint.Open(s.Dir.Checkpoint(1))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var at train.Counters
	if err := errors.Join(f.Counters(&at), f.Restore(state)); err != nil {
		t.Fatal(err)
	}
	if err := checkpoint.Write(s.Dir.Checkpoint(1), f.Config, at, state, nil); err != nil {
		t.Fatal(err)
	}
	s.Resume, s.Objective = true, Objective{Config: Config{Method: Consistency, Solver: ddim, Skip: 1, SolverSteps: 1, Loss: l2, Guidance: 1, Teacher: "runs/x"}}
	if err := train.Run(context.Background(), s); err == nil || !strings.Contains(err.Error(), "does not hold the teacher's weights: distil again from runs/x") {
		t.Errorf("error %v", err)
	}
}

func mustLayout(t *testing.T, s train.Setup) *graph.Layout {
	t.Helper()
	l, err := model.Layout(s.Model, s.Size)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A step counts the passes that make its targets: the solver's, of a guided teacher twice each, and the student's.
func TestFlops(t *testing.T) {
	for name, want := range map[string]int{"consistency": 2*3 + 1, "heun": 2 + 1, "progressive": 2} {
		s := newSetup(t, methods[name], 1)
		p, err := train.NewPlan(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Flops() - p.Step.Flops()*int64(s.Train.Accumulate); got != int64(want*s.Train.Batch)*p.ForwardFlops() {
			t.Errorf("%s: %d operations besides, want %d passes of %d for %d images", name, got, want, p.ForwardFlops(), s.Train.Batch)
		}
	}
}
