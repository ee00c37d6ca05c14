package train

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/checkpoint"
	"ddpm/internal/picture"
	"ddpm/internal/progress/progresstest"
)

// importanceSetup is a run whose draws of t depend on the losses from half way on.
func importanceSetup(t *testing.T) Setup {
	s := newSetup(t)
	s.Train.Timesteps, s.Diffusion.T, s.Sample.Steps = "importance", 3, 2
	s.Train.Steps, s.Train.Batch, s.Train.Samples = 14, 8, 1
	s.Model.LearnSigma, s.Train.Loss, s.Train.VLBWeight = true, "hybrid", 0.001
	s.Train.Weighting, s.Train.MinSNRGamma = "min_snr", 5
	return s
}

// remembered is what the objective remembers at a step.
func remembered(t *testing.T, s Setup, step int) *importance {
	t.Helper()
	f, err := checkpoint.Open(s.Dir.Checkpoint(step))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := newImportance(s.Diffusion.T, s.Train.Batch)
	if ok, err := f.Objective(m.tensors()); !ok || err != nil {
		t.Fatalf("the checkpoint of step %d does not hold the history: %v", step, err)
	}
	return m
}

func TestResumedImportanceSamplingEqualsUnbrokenOne(t *testing.T) {
	unbroken := importanceSetup(t)
	unbroken.Train.Accumulate = 2
	run(t, unbroken)
	if m := remembered(t, unbroken, 14); slices.Min(m.counts) < importanceHistory {
		t.Fatalf("%v losses of each t: the draws were uniform to the end", m.counts)
	}
	broken := unbroken
	broken.Dir = newDir(t)
	stopAfter(t, broken, 2)
	broken.Resume = true
	stopAfter(t, broken, 9)
	if m := remembered(t, broken, 9); slices.Min(m.counts) < importanceHistory || slices.Min(m.waitingT) < 0 {
		t.Errorf("stopped with %v losses of each t, and losses at %v that wait", m.counts, m.waitingT)
	}
	stopAfter(t, broken, 10)
	run(t, broken)
	if !bytes.Equal(content(t, unbroken.Dir.Checkpoint(14)), content(t, broken.Dir.Checkpoint(14))) {
		t.Error("the checkpoints differ")
	}

	// It is another run than one with uniform draws.
	uniform := unbroken
	uniform.Dir, uniform.Train.Timesteps = newDir(t), "uniform"
	run(t, uniform)
	if slices.Equal(weights(t, uniform), weights(t, unbroken)) {
		t.Error("importance sampling changes nothing")
	}
}

// A run that goes on with importance sampling without having begun so starts its history,
// and says so; one that goes on without it forgets its own.
func TestResumeWithAnotherObjective(t *testing.T) {
	s := importanceSetup(t)
	s.Train.Timesteps = "uniform"
	stopAfter(t, s, 2)
	var notes []string
	s.Resume, s.Train.Timesteps = true, "importance"
	s.Progress = progresstest.Lines(func(line string) { notes = append(notes, line) })
	s.Train.Steps = 4
	run(t, s)
	note := s.Dir.Checkpoint(2) + " does not hold what the objective remembers of earlier steps: it starts anew"
	if !strings.Contains(strings.Join(notes, ""), note) {
		t.Errorf("notes %q, want %q", notes, note)
	}
	if m := remembered(t, s, 4); m.counts[0]+m.counts[1]+m.counts[2] != 8 {
		t.Errorf("%v losses of each t, want those of the step that does not wait", m.counts)
	}
	s.Train.Timesteps, s.Train.Steps = "uniform", 5
	notes = nil
	run(t, s)
	if strings.Contains(strings.Join(notes, ""), "objective") {
		t.Errorf("notes %q", notes)
	}
}

func TestWhatChangesTheObjective(t *testing.T) {
	seen := map[string]float64{}
	for name, edit := range map[string]func(*Setup){
		"nothing":        func(*Setup) {},
		"loss":           func(s *Setup) { s.Train.Loss = "vlb" },
		"vlb_weight":     func(s *Setup) { s.Train.VLBWeight = 0.1 },
		"min_snr":        func(s *Setup) { s.Train.Weighting = "min_snr" },
		"min_snr_gamma":  func(s *Setup) { s.Train.Weighting, s.Train.MinSNRGamma = "min_snr", 1 },
		"p2":             func(s *Setup) { s.Train.Weighting = "p2" },
		"p2_gamma":       func(s *Setup) { s.Train.Weighting, s.Train.P2Gamma = "p2", 0.5 },
		"p2_k":           func(s *Setup) { s.Train.Weighting, s.Train.P2K = "p2", 3 },
		"lognormal":      func(s *Setup) { s.Train.Timesteps = "lognormal" },
		"lognormal_mean": func(s *Setup) { s.Train.Timesteps, s.Train.LognormalMean = "lognormal", 1 },
		"lognormal_std":  func(s *Setup) { s.Train.Timesteps, s.Train.LognormalStd = "lognormal", 0.1 },
	} {
		s := objectiveSetup(t, func(s *Setup) {
			s.Model.LearnSigma = true
			s.Train.Loss, s.Train.VLBWeight, s.Train.MinSNRGamma, s.Train.P2Gamma, s.Train.P2K = "hybrid", 0.001, 5, 1, 1
			s.Train.LognormalMean, s.Train.LognormalStd = -1.2, 1.2
		})
		edit(&s)
		loss := pass(t, s).loss
		for other, same := range seen {
			if loss == same {
				t.Errorf("%s and %s give the same loss", name, other)
			}
		}
		seen[name] = loss
	}
}

func TestConditionalRun(t *testing.T) {
	s := newSetup(t)
	s.Model.Classes, s.Train.ClassDropout, s.Sample.Guidance = 5, 0.1, 1
	compareResumed(t, s, 2)
	dir := s.Dir

	f, err := checkpoint.Open(dir.Checkpoint(6))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var at Counters
	if err := f.Counters(&at); err != nil || !slices.Equal(at.Classes, []string{"disc", "ring", "square", "triangle", "cross"}) {
		t.Errorf("classes %v, %v", at.Classes, err)
	}

	// The network is told the labels of the images.
	without := s
	without.Dir, without.Train.ClassDropout = newDir(t), 1
	run(t, without)
	if slices.Equal(weights(t, s), weights(t, without)) {
		t.Error("classes change nothing")
	}
	plan, err := NewPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	// With guidance a step of sampling, and so a grid, takes the network twice.
	guided := s
	guided.Sample.Guidance = 3
	twice, err := NewPlan(guided)
	if err != nil {
		t.Fatal(err)
	}
	if twice.ForwardFlops() != plan.ForwardFlops() || twice.callFlops() != 2*plan.ForwardFlops() {
		t.Errorf("%d and %d operations of the network, %d of a guided step of sampling",
			plan.ForwardFlops(), twice.ForwardFlops(), twice.callFlops())
	}
	timing, err := twice.Probe(t.Context(), 1)
	if err != nil {
		t.Fatalf("measuring: %v", err)
	}
	calls := timing.Grid.Seconds() * timing.Flops / float64(plan.ForwardFlops()*int64(s.Train.Samples))
	if want := float64(2 * s.Sample.Steps); math.Abs(calls-want) > 0.01 {
		t.Errorf("a grid takes as long as %.3f calls of the network an image, want %g", calls, want)
	}

	for _, c := range []struct {
		edit func(*Setup)
		want string
	}{
		{func(s *Setup) { s.Model.Classes = 10 }, "model.classes 10: shapes has 5 classes: set it to 5, or to 0 to train without"},
		{func(s *Setup) { s.Model.Classes = 4 }, "model.classes 4: shapes has 5 classes: set it to 5, or to 0 to train without"},
	} {
		s := s
		c.edit(&s)
		_, err := Prepare(s)
		wantError(t, err, c.want)
	}
}

func TestClassesOfADataSet(t *testing.T) {
	folder := t.TempDir()
	for _, class := range []string{"cat", "dog"} {
		if err := os.Mkdir(filepath.Join(folder, class), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := picture.WritePNG(filepath.Join(folder, class, "1.png"), picture.Image(make([]byte, 8*8*3), 8, 8, 3)); err != nil {
			t.Fatal(err)
		}
	}
	s := newSetup(t)
	s.Data.Name, s.Data.Path, s.Model.Classes, s.Train.Steps, s.Train.Samples = "folder", folder, 2, 1, 1
	_, err := Prepare(s)
	wantError(t, err, "model.classes 2: folder has no classes: set data.classes to true if its folders name them, or model.classes to 0")
	s.Data.Classes = true
	run(t, s)
	if err := os.Rename(filepath.Join(folder, "dog"), filepath.Join(folder, "cow")); err != nil {
		t.Fatal(err)
	}
	s.Resume, s.Train.Steps = true, 2
	_, err = Prepare(s)
	wantError(t, err, fmt.Sprintf("data.path %q: the run learned the classes cat, dog, this data set has cat, cow: resume it with its own", folder))
	if err := os.Rename(filepath.Join(folder, "cow"), filepath.Join(folder, "dog")); err != nil {
		t.Fatal(err)
	}
	run(t, s)
}
