package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ddpm/internal/checkpoint"
	"ddpm/internal/data"
	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/model"
	"ddpm/internal/picture"
	"ddpm/internal/progress/progresstest"
	"ddpm/internal/runs"
	"ddpm/internal/sched"
)

// newSetup is a run of 6 steps on small shapes, with dropout and mirroring.
func newSetup(t *testing.T) Setup {
	t.Helper()
	b := cpu.New(2, isa.Detect())
	t.Cleanup(func() { b.Close() })
	return setupOn(t, b)
}

func setupOn(t *testing.T, b graph.Backend) Setup {
	s := Setup{
		Seed: 1,
		Data: data.Config{Name: "shapes", Width: 8, Height: 8, Channels: 3, Workers: 2, Prefetch: 2, MaxSkipped: 1, Flip: true},
		Model: model.Config{
			Block: "resnet", Channels: 4, Mult: []float64{1, 2}, Blocks: 1, MidAttention: true,
			Groups: 2, NormEps: 1e-6, Dropout: 0.1, Init: "pytorch", FreqShift: 1,
		},
		Size:      model.Size{Height: 8, Width: 8, Channels: 3},
		Diffusion: sched.Config{T: 20, Schedule: "cosine", Prediction: "v"},
		Train: Config{
			Steps: 6, Batch: 4, Accumulate: 1, LR: 1e-2, Warmup: 2, Decay: "cosine", Beta1: 0.9, Beta2: 0.999, AdamEps: 1e-8,
			Clip: 1, EMA: 0.9, LogEvery: 2, Samples: 3, KeepLast: 1,
		},
		Sample: sched.SamplerConfig{Sampler: "ddim", Steps: 2, Spacing: "trailing", Variance: "fixed_small"},
		Batch:  2, Config: "the configuration", Backend: b,
		Progress: progresstest.Lines(func(string) {}),
	}
	s.Dir = newDir(t)
	return s
}

func newDir(t *testing.T) runs.Dir {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run")
	if err := runs.Create(path); err != nil {
		t.Fatal(err)
	}
	return runs.Dir(path)
}

func run(t *testing.T, s Setup) {
	t.Helper()
	if err := Run(context.Background(), s); err != nil {
		t.Fatal(err)
	}
}

// stopAfter runs until a step is reported, then ends the context.
func stopAfter(t *testing.T, s Setup, step int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.Progress = progresstest.At(step, cancel)
	err := Run(ctx, s)
	var stopped *Stopped
	if !errors.As(err, &stopped) || stopped.Step != step || stopped.Steps != s.Train.Steps {
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

func steps(t *testing.T, d runs.Dir) []int {
	t.Helper()
	steps, err := d.Checkpoints()
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func wantError(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error %v, want %q", err, w)
		}
	}
}

func TestResumedRunEqualsUnbrokenOne(t *testing.T) {
	for _, accumulate := range []int{1, 2} {
		compareResumed(t, newSetup(t), accumulate)
	}
}

// compareResumed compares a run with one that is stopped twice, everything they
// leave on the disk.
func compareResumed(t *testing.T, unbroken Setup, accumulate int) {
	unbroken.Train.Accumulate = accumulate
	run(t, unbroken)

	broken := unbroken
	broken.Dir = newDir(t)
	stopAfter(t, broken, 1)
	broken.Resume = true
	stopAfter(t, broken, 4)
	run(t, broken)
	if !bytes.Equal(content(t, unbroken.Dir.Checkpoint(6)), content(t, broken.Dir.Checkpoint(6))) {
		t.Errorf("accumulate %d: the checkpoints differ", accumulate)
	}
	if !bytes.Equal(content(t, unbroken.Dir.SampleGrid(6)), content(t, broken.Dir.SampleGrid(6))) {
		t.Errorf("accumulate %d: the sample grids differ", accumulate)
	}
	if want := []int{6}; !slices.Equal(steps(t, broken.Dir), want) {
		t.Errorf("checkpoints %v, want %v", steps(t, broken.Dir), want)
	}
	a, b := metrics(t, unbroken.Dir), metrics(t, broken.Dir)
	for i := range a {
		a[i].ImagesPerSecond, a[i].DataWait, b[i].ImagesPerSecond, b[i].DataWait = 0, 0, 0, 0
	}
	if !slices.Equal(a, b) || len(a) != 3 {
		t.Errorf("metrics %v\nand %v", a, b)
	}
}

func metrics(t *testing.T, d runs.Dir) []Metrics {
	t.Helper()
	m, err := ReadMetrics(d)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestThreadsChangeNothing(t *testing.T) {
	var want []byte
	for _, threads := range []int{1, 2, 3} {
		s := newSetup(t)
		b := cpu.New(threads, isa.Detect())
		defer b.Close()
		s.Backend = b
		run(t, s)
		got := content(t, s.Dir.Checkpoint(6))
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d threads give another checkpoint than 1", threads)
		}
	}
}

func TestWhatChangesARun(t *testing.T) {
	base := newSetup(t)
	run(t, base)
	want := weights(t, base)
	for name, edit := range map[string]func(*Setup){
		"seed":       func(s *Setup) { s.Seed++ },
		"flip":       func(s *Setup) { s.Data.Flip = false },
		"dropout":    func(s *Setup) { s.Model.Dropout = 0 },
		"prediction": func(s *Setup) { s.Diffusion.Prediction = "eps" },
		"schedule":   func(s *Setup) { s.Diffusion.Schedule, s.Diffusion.BetaStart, s.Diffusion.BetaEnd = "linear", 1e-3, 0.3 },
		"clip":       func(s *Setup) { s.Train.Clip = 0.01 },
		"warmup":     func(s *Setup) { s.Train.Warmup = 0 },
		"decay":      func(s *Setup) { s.Train.Decay = "constant" },
	} {
		s := newSetup(t)
		edit(&s)
		run(t, s)
		if slices.Equal(weights(t, s), want) {
			t.Errorf("%s changes nothing", name)
		}
	}
}

// weights are those at the end of a run.
func weights(t *testing.T, s Setup) []float32 {
	t.Helper()
	layout, err := model.Layout(s.Model, s.Size)
	if err != nil {
		t.Fatal(err)
	}
	f, err := checkpoint.Open(s.Dir.Checkpoint(s.Train.Steps))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := f.Arena(graph.Params, layout)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A batch in parts is the same batch: the same t and noise, and the mean of the
// parts' gradients. Only rounding differs, which Adam enlarges where a gradient
// is nearly zero.
func TestAccumulate(t *testing.T) {
	whole := newSetup(t)
	run(t, whole)
	parts := newSetup(t)
	parts.Train.Accumulate = 4
	run(t, parts)
	a, b := metrics(t, whole.Dir), metrics(t, parts.Dir)
	for i := range a {
		if d := math.Abs(a[i].Loss/b[i].Loss - 1); d > 1e-4 {
			t.Errorf("step %d: loss %v and %v", a[i].Step, a[i].Loss, b[i].Loss)
		}
		if d := math.Abs(a[i].GradNorm/b[i].GradNorm - 1); d > 1e-3 {
			t.Errorf("step %d: gradient norm %v and %v", a[i].Step, a[i].GradNorm, b[i].GradNorm)
		}
	}
	var squares float64
	wa, wb := weights(t, whole), weights(t, parts)
	for i := range wa {
		squares += math.Pow(float64(wa[i]-wb[i]), 2)
	}
	// Six steps move a weight by up to 6 lr = 0.06.
	if rms := math.Sqrt(squares / float64(len(wa))); rms > 1e-3 {
		t.Errorf("the weights differ by %.2g", rms)
	}
}

func TestLossThatIsNotFiniteStops(t *testing.T) {
	s := newSetup(t)
	s.Train.LR, s.Train.Clip, s.Train.Warmup = 1e30, 0, 0
	err := Run(context.Background(), s)
	wantError(t, err, "at step 2, with t = ", "there is no checkpoint yet: start again with a lower train.lr")
	if got := steps(t, s.Dir); len(got) != 0 {
		t.Errorf("checkpoints %v of a run that blew up", got)
	}

	s = newSetup(t)
	s.Train.CheckpointEvery = 3
	stopAfter(t, s, 4)
	s.Resume, s.Train.LR, s.Train.Clip = true, 1e30, 0
	wantError(t, Run(context.Background(), s), "at step 6", "the last good checkpoint is "+s.Dir.Checkpoint(4)+": resume from it")
	if got := steps(t, s.Dir); !slices.Equal(got, []int{4}) {
		t.Errorf("checkpoints %v, want the last good one", got)
	}
}

// A run that was killed has metrics after its last checkpoint.
func TestResumeDropsMetricsAfterTheCheckpoint(t *testing.T) {
	s := newSetup(t)
	s.Train.LogEvery = 1
	stopAfter(t, s, 3)
	f, err := os.OpenFile(s.Dir.MetricsJSONL(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "{\"step\":4,\"loss\":9}\n{\"step\":5,\"lo")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.Resume = true
	run(t, s)
	var got []int
	for _, m := range metrics(t, s.Dir) {
		got = append(got, m.Step)
		if m.Loss == 9 || m.Images != 4*m.Step || !(m.ImagesPerSecond > 0) || !(m.GradNorm > 0) {
			t.Errorf("line %+v", m)
		}
	}
	if want := []int{1, 2, 3, 4, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("lines of steps %v, want %v", got, want)
	}
	csv := strings.Split(strings.TrimSpace(string(content(t, s.Dir.MetricsCSV()))), "\n")
	if len(csv) != 7 || csv[0]+"\n" != header || !strings.HasPrefix(csv[6], "6,24,") {
		t.Errorf("metrics.csv: %q", csv)
	}
}

func TestRetention(t *testing.T) {
	s := newSetup(t)
	s.Train.CheckpointEvery, s.Train.KeepLast, s.Train.KeepEvery = 1, 2, 3
	s.Train.PlotEvery = 4
	run(t, s)
	if got, want := steps(t, s.Dir), []int{3, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("checkpoints %v, want %v", got, want)
	}
	for _, step := range []int{4, 6} {
		content(t, s.Dir.SampleGrid(step))
	}
	if _, err := os.Stat(s.Dir.SampleGrid(5)); err == nil {
		t.Error("a sample grid after step 5")
	}
	content(t, s.Dir.LossPlot())
}

// A picture that cannot be drawn does not end a run; a checkpoint that cannot be
// written does.
func TestFailuresOfTheDisk(t *testing.T) {
	s := newSetup(t)
	if err := os.Mkdir(s.Dir.SampleGrid(6), 0o777); err != nil {
		t.Fatal(err)
	}
	var notes []string
	s.Progress = progresstest.Lines(func(line string) { notes = append(notes, line) })
	run(t, s)
	if last := notes[len(notes)-1]; !strings.HasPrefix(last, "no samples of step 6: ") {
		t.Errorf("the last line is %q", last)
	}

	s = newSetup(t)
	if err := os.MkdirAll(filepath.Join(s.Dir.Checkpoint(6), "in the way"), 0o777); err != nil {
		t.Fatal(err)
	}
	wantError(t, Run(context.Background(), s), "cannot write "+s.Dir.Checkpoint(6))
}

// A run is stopped only when it is safe.
func TestStopThatCannotBeSaved(t *testing.T) {
	s := newSetup(t)
	if err := os.MkdirAll(filepath.Join(s.Dir.Checkpoint(0), "in the way"), 0o777); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := Run(ctx, s)
	var stopped *Stopped
	if errors.As(err, &stopped) {
		t.Errorf("got %v", err)
	}
	wantError(t, err, "stopping after step 0: ", "cannot write "+s.Dir.Checkpoint(0))
}

func TestUnreadableImagesAreSkippedUpToALimit(t *testing.T) {
	folder := t.TempDir()
	for i := range 6 {
		pixels := bytes.Repeat([]byte{byte(40 * i)}, 8*8*3)
		if err := picture.WritePNG(filepath.Join(folder, fmt.Sprint(i, ".png")), picture.Image(pixels, 8, 8, 3)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "bad.png"), []byte("no image"), 0o666); err != nil {
		t.Fatal(err)
	}
	s := newSetup(t)
	s.Data.Name, s.Data.Path, s.Data.MaxSkipped = "folder", folder, 10
	var notes []string
	s.Progress = progresstest.Lines(func(line string) { notes = append(notes, line) })
	run(t, s)
	skipped := slices.DeleteFunc(notes, func(line string) bool { return !strings.HasPrefix(line, "skipped: ") })
	if len(skipped) == 0 || !strings.Contains(skipped[0], "bad.png") {
		t.Errorf("notes %q, want the file that was skipped", skipped)
	}

	// The steps before are safe.
	s.Dir, s.Data.MaxSkipped = newDir(t), 0
	wantError(t, Run(context.Background(), s), "bad.png", "data.max_skipped")
	if got := steps(t, s.Dir); len(got) != 1 {
		t.Errorf("checkpoints %v, want one", got)
	}
}

func TestPrepareRefuses(t *testing.T) {
	for _, c := range []struct {
		edit func(*Setup)
		want string
	}{
		{func(s *Setup) { s.Data.Name = "folder" }, "folder has no path"},
		{func(s *Setup) { s.Diffusion.Schedule = "square" }, `diffusion.schedule "square"`},
		{func(s *Setup) { s.Diffusion.Prediction = "w" }, `diffusion.prediction "w"`},
		{func(s *Setup) { s.Resume = true }, "holds no checkpoint yet"},
		{func(s *Setup) { s.Train.Batch, s.Backend = 1<<12, small{s.Backend} }, "train.batch 4096, train.accumulate 1: this needs "},
		{func(s *Setup) { s.Train.Batch, s.Backend = 1, small{s.Backend} }, "model.channels 4: this needs "},
	} {
		s := newSetup(t)
		c.edit(&s)
		_, err := Prepare(s)
		wantError(t, err, c.want)
	}
}

// small is a device with hardly any memory.
type small struct{ graph.Backend }

func (small) Memory() int64 { return 1 << 10 }

// limited is a device with so many bytes of memory.
type limited struct {
	graph.Backend
	memory int64
}

func (l limited) Memory() int64 { return l.memory }

func TestSplitFitsTheDevice(t *testing.T) {
	s := newSetup(t)
	s.Train.Batch = 96
	need := func(parts int) int64 {
		s := s
		s.Train.Accumulate, s.Backend = parts, limited{s.Backend, 0}
		p, err := NewPlan(s)
		if err != nil {
			t.Fatal(err)
		}
		return p.TotalMemory()
	}
	for _, c := range []struct {
		memory            int64
		configured, parts int
	}{
		{need(1), 1, 1}, {need(1) - 1, 1, 2}, {need(2), 1, 2}, {need(4), 2, 4}, {need(12), 1, 12}, {need(1), 3, 3},
		{1 << 10, 2, 2}, // nothing fits: as configured
	} {
		s := s
		s.Train.Accumulate, s.Backend = c.configured, limited{s.Backend, c.memory}
		parts, err := Split(s)
		if err != nil || parts != c.parts {
			t.Errorf("%d bytes for %d parts: split into %d (%v), want %d", c.memory, c.configured, parts, err, c.parts)
		}
	}
}

func TestPlan(t *testing.T) {
	s := newSetup(t)
	s.Train.Accumulate, s.Train.PlotEvery = 2, 4
	p, err := NewPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	// A backward pass costs about twice a forward pass.
	if ratio := float64(p.Flops()) / float64(p.ForwardFlops()*4); ratio < 2.5 || ratio > 3 {
		t.Errorf("a step takes %.2f times the operations of a forward pass", ratio)
	}
	kinds := map[string]int64{}
	var total int64
	for _, m := range p.Memory() {
		if m.Bytes <= 0 {
			t.Errorf("%s: %d bytes", m.Kind, m.Bytes)
		}
		kinds[m.Kind] = m.Bytes
		total += m.Bytes
	}
	arena := 4 * int64(p.Layout.Size)
	if kinds["weights"] != arena || kinds["Adam moments"] != 2*arena || kinds["gradient sum"] != arena || total != p.TotalMemory() {
		t.Errorf("memory %v, total %d, of an arena of %d", kinds, p.TotalMemory(), arena)
	}
	run(t, s)
	if size, want := int64(len(content(t, s.Dir.Checkpoint(6)))), p.CheckpointBytes(); size < want || size > want+60_000 {
		t.Errorf("a checkpoint has %d bytes, planned %d and a header", size, want)
	}
	timing, err := p.Probe(context.Background(), 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if timing.Step <= 0 || timing.Grid <= 0 || timing.Flops <= 0 {
		t.Errorf("timing %+v", timing)
	}
	if got, want := p.Total(Timing{Step: time.Second, Grid: time.Minute}), 6*time.Second+2*time.Minute; got != want {
		t.Errorf("6 steps and 2 grids take %v, want %v", got, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Probe(ctx, time.Second); !errors.Is(err, context.Canceled) {
		t.Errorf("probing goes on after the context ended: %v", err)
	}
}

func TestLearningRate(t *testing.T) {
	c := Config{LR: 2, Warmup: 4, Steps: 8, Decay: "constant"}
	for k, want := range []float64{0.5, 1, 1.5, 2, 2, 2, 2, 2} {
		if got := c.learningRate(k); math.Abs(got-want) > 1e-12 {
			t.Errorf("constant, step %d: %v, want %v", k, got, want)
		}
	}
	c.Warmup, c.Decay = 0, "cosine"
	for k, want := range map[int]float64{0: 2, 2: 1 + math.Sqrt2/2, 4: 1, 8: 0} {
		if got := c.learningRate(k); math.Abs(got-want) > 1e-12 {
			t.Errorf("cosine, step %d: %v, want %v", k, got, want)
		}
	}
	c.EMA = 0.5
	for k, want := range map[int]float64{0: 0.1, 1: 2. / 11, 8: 0.5, 1000: 0.5} {
		if got := c.emaDecay(k); got != want {
			t.Errorf("EMA decay of step %d: %v, want %v", k, got, want)
		}
	}
}

// TestBF16TrainsLikeFP32 trains a small network on shapes in both precisions, with
// the fastest kernels of this machine. The loss over the last steps is to agree
// within 2 %.
func TestBF16TrainsLikeFP32(t *testing.T) {
	const steps, counted = 100, 25
	mean := func(kind isa.BF16Kind, rounded bool) float64 {
		b := cpu.New(2, isa.Detect())
		defer b.Close()
		if rounded {
			b.RoundTo(kind)
		}
		s := newSetup(t)
		s.Backend = b
		s.Model.Channels, s.Model.Groups, s.Model.Dropout, s.Model.Conv = 16, 4, 0, string(graph.DirectConv)
		s.Train.Steps, s.Train.Batch, s.Train.LR = steps, 16, 2e-3
		plan, err := CompileStep(s)
		if err != nil {
			t.Fatal(err)
		}
		state, err := b.NewState(plan.Graph.Layout, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := state.Write(graph.Params, plan.Graph.Layout.InitialWeights(s.Seed)); err != nil {
			t.Fatal(err)
		}
		stepper, err := NewStepper(s, plan, state)
		if err != nil {
			t.Fatal(err)
		}
		images, err := data.Open(s.Data, data.Train)
		if err != nil {
			t.Fatal(err)
		}
		defer images.Close()
		batch := make([]byte, s.Train.Batch*s.Size.Values())
		var total float64
		for k := range steps {
			for i := range s.Train.Batch {
				if _, err := images.Read(k*s.Train.Batch+i, batch[i*s.Size.Values():][:s.Size.Values()]); err != nil {
					t.Fatal(err)
				}
			}
			loss, err := stepper.Step(t.Context(), k, batch)
			if err != nil {
				t.Fatal(err)
			}
			if k >= steps-counted {
				total += loss / counted
			}
		}
		return total
	}
	want := mean(0, false)
	kinds := isa.SupportedBF16()
	kind := kinds[len(kinds)-1]
	got := mean(kind, true)
	if math.Abs(got/want-1) > 0.02 {
		t.Errorf("%v: loss %.4f, want that in fp32, %.4f, within 2 %%", kind, got, want)
	}
	if got == want {
		t.Errorf("%v: the loss is that in fp32 to the last bit: nothing was rounded", kind)
	}
}

// stoppable is an Objective that tells of each Feed, whose own context must not end.
type stoppable struct {
	Objective
	ahead bool
	told  func()
}

type stoppableFeeder struct {
	Feeder
	*stoppable
}

func (o *stoppable) Open(s Setup, state graph.State) (Feeder, error) {
	f, err := o.Objective.Open(s, state)
	return stoppableFeeder{f, o}, err
}

func (f stoppableFeeder) Ahead() bool                    { return f.ahead }
func (f stoppableFeeder) Memory(Setup) ([]Memory, error) { return nil, nil }
func (f stoppableFeeder) Begin(ctx context.Context, k int) error {
	return errors.Join(ctx.Err(), f.Feeder.Begin(ctx, k))
}

func (f stoppableFeeder) Feed(ctx context.Context, k, first int, images []byte, labels []int32) (graph.Feeds, error) {
	f.told()
	feeds, err := f.Feeder.Feed(ctx, k, first, images, labels)
	return feeds, errors.Join(ctx.Err(), err)
}

// A run that is stopped while a step is fed finishes the step, or the one before it where that is still running,
// and its work is in a checkpoint.
func TestStopWhileFeeding(t *testing.T) {
	for _, c := range []struct {
		ahead           bool
		feed, want, all int
	}{
		{false, 1, 1, 6}, // of the first step, before there is any checkpoint
		{false, 3, 3, 6},
		{true, 1, 1, 6},
		{true, 3, 2, 6}, // the third step is staged beside the second, and not started
	} {
		s := newSetup(t)
		ctx, cancel := context.WithCancel(t.Context())
		feeds := 0
		s.Objective = &stoppable{Denoising{}, c.ahead, func() {
			if feeds++; feeds == c.feed {
				cancel()
			}
		}}
		err := Run(ctx, s)
		var stopped *Stopped
		if !errors.As(err, &stopped) || *stopped != (Stopped{c.want, c.all}) {
			t.Errorf("%+v: error %v", c, err)
		}
		if got := steps(t, s.Dir); !slices.Equal(got, []int{c.want}) {
			t.Errorf("%+v: checkpoints %v", c, got)
		}
	}
}

// stalled is a data set of which all images but the first few take until its release.
type stalled struct {
	data.Dataset
	from int
}

var release chan struct{}

func init() {
	data.Register("stalled", func(c data.Config, split data.Split) (data.Dataset, error) {
		c.Name = "shapes"
		ds, err := data.Open(c, split)
		return &stalled{ds, 8}, err
	})
}

func (s *stalled) Read(index int, image []byte) (int, error) {
	if index >= s.from {
		<-release
	}
	return s.Dataset.Read(index, image)
}

// A run that is stopped while it waits for data is stopped like any other.
func TestStopWhileReading(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		release = make(chan struct{})
		s := newSetup(t)
		s.Data.Name = "stalled"
		ctx, cancel := context.WithCancel(t.Context())
		s.Objective = &stoppable{Denoising{}, ahead, func() {}}
		s.Progress = progresstest.Lines(func(line string) {
			// The third batch is read beside the second step, if ahead.
			if ahead && strings.HasPrefix(line, "step 1 ") || !ahead && strings.HasPrefix(line, "step 2 ") {
				time.AfterFunc(50*time.Millisecond, cancel)
				time.AfterFunc(100*time.Millisecond, sync.OnceFunc(func() { close(release) }))
			}
		})
		err := Run(ctx, s)
		var stopped *Stopped
		if !errors.As(err, &stopped) || stopped.Step > 2 {
			t.Fatalf("ahead %t: error %v", ahead, err)
		}
		if got := steps(t, s.Dir); !slices.Equal(got, []int{stopped.Step}) {
			t.Errorf("ahead %t: checkpoints %v after step %d", ahead, got, stopped.Step)
		}
	}
}
