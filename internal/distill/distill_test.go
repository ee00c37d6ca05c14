package distill

import (
	"context"
	"math"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/rng"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// gaussian is a perfect network for values distributed as N(mean, variance), each on its own.
type gaussian struct {
	schedule *sched.Schedule
	of       sched.Parametrization
	// x0 is what it says that x at a node was.
	x0 func(x float64, n sched.Node) float64
}

const mean, variance = 0.2, 0.3

func (g gaussian) OutValues() int { return testSize.Values() }
func (g gaussian) Close() error   { return nil }

func (g gaussian) Predict(_ context.Context, x []float32, t []float64, _ []int, out []float32) error {
	values := len(x) / len(t)
	for i, x := range x {
		n := g.schedule.Node(t[i/values])
		onXt, onOut := g.of.XStartCoefs(n)
		out[i] = float32((g.x0(float64(x), n) - onXt*float64(x)) / onOut)
		if onOut == 0 {
			out[i] = 1e6 // does not matter
		}
	}
	return nil
}

// expected is E[x_0 | x_t], what a teacher says.
func expected(x float64, n sched.Node) float64 {
	return mean + n.Signal*variance/spread2(n)*(x-n.Signal*mean)
}

func spread2(n sched.Node) float64 { return n.Signal*n.Signal*variance + n.Noise*n.Noise }

// ended is where the diffusion ODE through x ends: x_t - Signal mean keeps its place in the distribution of x_t.
func ended(x float64, n, end sched.Node) float64 {
	return mean + math.Sqrt(spread2(end)/spread2(n))*(x-n.Signal*mean)/end.Signal
}

var testSize = model.Size{Height: 1, Width: 3, Channels: 1}

// newTest is the teaching of n images by a gaussian.
func newTest(t *testing.T, c Config, prediction string, n int) *teaching {
	t.Helper()
	s := train.Setup{
		Seed: 1, Size: testSize,
		Diffusion: sched.Config{T: 1000, Schedule: "cosine", Prediction: prediction, Consistency: c.Method == Consistency},
	}
	schedule, err := sched.New(s.Diffusion)
	if err != nil {
		t.Fatal(err)
	}
	p, err := sched.ParsePrediction(prediction)
	if err != nil {
		t.Fatal(err)
	}
	teacher := gaussian{schedule, sched.Parametrization{Prediction: p}, expected}
	lesson, err := newTeaching(c, s, n, teacher, false)
	if err != nil {
		t.Fatal(err)
	}
	return lesson
}

func consistencyOf(t *testing.T, lesson *teaching, target network) *consistency {
	t.Helper()
	c, err := newConsistency(lesson, target)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// distance is the largest |f(x_t, t) - where the ODE ends| if the student meets its target.
func distance(t *testing.T, config Config, from int, prediction string) float64 {
	t.Helper()
	lesson := newTest(t, config, prediction, 1)
	start := lesson.schedule.Node(0)
	exact := func(x float64, n sched.Node) float64 { return ended(x, n, start) }
	c := consistencyOf(t, lesson, gaussian{lesson.schedule, lesson.of, exact})
	c.ts[0], c.start[0] = from, c.schedule.Node(float64(from))
	copy(c.xt, []float32{-1.5, 0.1, 1.3})
	if err := c.aim(context.Background()); err != nil {
		t.Fatal(err)
	}
	onXt, onOut := c.of.XStartCoefs(c.start[0])
	if got := float64(c.weight[0]); math.Abs(got/(onOut*onOut)-1) > 1e-6 {
		t.Errorf("weight %g, want %g: that of the output in x_0", got, onOut*onOut)
	}
	var most float64
	for i, x := range c.xt {
		f := onXt*float64(x) + onOut*float64(c.goal[i])
		most = max(most, math.Abs(f-exact(float64(x), c.start[0])))
	}
	return most
}

// The target of a student that is right further on is right but for the teacher's step: its error falls
// with the square of the step for ddim, and with the third power for heun.
func TestConsistencyTargetIsTheEndOfTheODE(t *testing.T) {
	for _, prediction := range sched.PredictionNames() {
		for _, c := range []struct {
			solver string
			order  float64
		}{{ddim, 2}, {heun, 3}} {
			config := Config{Method: Consistency, Solver: c.solver, Skip: 80, SolverSteps: 1}
			coarse := distance(t, config, 500, prediction)
			config.Skip = 40
			fine := distance(t, config, 500, prediction)
			// The steps are not infinitely small.
			if got := math.Log2(coarse / fine); math.Abs(got-c.order) > 0.35 || fine > 0.02 {
				t.Errorf("%s, %s: errors %g and %g, of order %.2f, want %g", c.solver, prediction, coarse, fine, got, c.order)
			}
		}
	}
}

// At t = 0 the target is what the teacher's step leads to; what the student says there does not matter.
func TestConsistencyTargetAtTheBoundary(t *testing.T) {
	lesson := newTest(t, Config{Method: Consistency, Solver: ddim, Skip: 7, SolverSteps: 1}, "v", 1)
	c := consistencyOf(t, lesson, gaussian{lesson.schedule, lesson.of, func(float64, sched.Node) float64 { return 7 }})
	c.ts[0], c.start[0] = 5, c.schedule.Node(5)
	copy(c.xt, []float32{-0.5, 0.1, 0.9})
	if err := c.aim(context.Background()); err != nil {
		t.Fatal(err)
	}
	onXt, onOut := c.of.XStartCoefs(c.start[0])
	for i, x := range c.xt {
		f := onXt*float64(x) + onOut*float64(c.goal[i])
		onX, onX0 := step(c.start[0], c.schedule.Node(0))
		want := (onX*float64(x) + onX0*expected(float64(x), c.start[0])) / c.schedule.Node(0).Signal
		if math.Abs(f-want) > 1e-5 {
			t.Errorf("x_t %g: target %g, want %g", x, f, want)
		}
	}
}

// A student that meets its target makes in one step of the sampler ddim two of its teacher's.
func TestProgressiveTargetIsTwoSteps(t *testing.T) {
	for _, prediction := range []string{"v", "x0"} {
		c := Config{Method: Progressive, StartSteps: 8, StageSteps: 10}
		lesson := newTest(t, c, prediction, 4)
		lesson.loaded = true
		p := newProgressive(lesson)
		if err := p.Begin(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
		for i := range p.at {
			p.at[i], p.start[i] = 2*i, p.nodes[2*i]
			copy(p.xt[i*testSize.Values():], []float32{-1.2, 0.3, 1})
		}
		if err := p.aim(context.Background()); err != nil {
			t.Fatal(err)
		}
		for i, from := range p.start {
			nodes := p.nodes[2*i:]
			onXt, onOut := p.of.XStartCoefs(from)
			snr := from.Signal * from.Signal / from.Noise / from.Noise
			if want := onOut * onOut * max(snr, 1); math.Abs(float64(p.weight[i])/want-1) > 1e-5 {
				t.Errorf("t = %g: weight %g, want %g", from.T, p.weight[i], want)
			}
			for j := i * testSize.Values(); j < (i+1)*testSize.Values(); j++ {
				x := float64(p.xt[j])
				want := sampled(t, lesson, x, nodes[:3], expected)
				got := sampled(t, lesson, x, []sched.Node{from, nodes[2]}, func(x float64, _ sched.Node) float64 {
					return onXt*x + onOut*float64(p.goal[j])
				})
				if math.Abs(got-want) > 2e-5 {
					t.Errorf("%s, t = %g: %g leads to %g, want %g", prediction, from.T, x, got, want)
				}
			}
		}
	}
}

// sampled is where the sampler ddim takes x through nodes, with predictions x0.
func sampled(t *testing.T, lesson *teaching, x float64, nodes []sched.Node, x0 func(x float64, n sched.Node) float64) float64 {
	t.Helper()
	c := sched.SamplerConfig{Sampler: "ddim", Variance: "fixed_small"}
	steps, err := c.StepList(lesson.schedule, nodes)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		clean := x0(x, s.Node)
		eps := (x - s.Signal*clean) / s.Noise
		x = s.Prev.OnXt*x + s.Prev.OnX0*clean + s.Prev.OnEps*eps
	}
	return x
}

// The student learns at all t but 0, where there is nothing to learn, or at the nodes.
func TestConsistencyTimesteps(t *testing.T) {
	for _, c := range []struct {
		nodes, n int
		want     []int
	}{
		{0, 20_000, []int{1, 2, 500, 998, 999}},
		{4, 200, []int{249, 499, 749, 999}},
	} {
		f := consistencyOf(t, newTest(t, Config{Method: Consistency, Skip: 1, SolverSteps: 1, Nodes: c.nodes}, "v", 1), gaussian{})
		seen := map[int]int{}
		for _, at := range f.Timesteps(7, 0, c.n) {
			seen[at]++
		}
		for _, at := range c.want {
			if seen[at] == 0 {
				t.Errorf("nodes %d: t = %d is never drawn", c.nodes, at)
			}
		}
		if all := c.nodes; seen[0] > 0 || all > 0 && len(seen) != all || len(seen) > 999 {
			t.Errorf("nodes %d: %d different t, t = 0 %d times", c.nodes, len(seen), seen[0])
		}
	}
}

// A solver of several steps goes as far and is more exact.
func TestSolverSteps(t *testing.T) {
	c := Config{Method: Consistency, Solver: ddim, Skip: 200, SolverSteps: 1}
	one := distance(t, c, 500, "v")
	c.SolverSteps = 4
	if four := distance(t, c, 500, "v"); four > one/3 || four < one/6 {
		t.Errorf("error %g in 4 steps, %g in one: want about a quarter", four, one)
	}
}

// The t of a stage are those that the sampler visits with the student's steps.
func TestProgressiveTimesteps(t *testing.T) {
	lesson := newTest(t, Config{Method: Progressive, StartSteps: 8, StageSteps: 10}, "v", 200)
	lesson.loaded = true
	p := newProgressive(lesson)
	for _, c := range []struct {
		step int
		want []int
	}{
		{0, []int{999, 749, 499, 249}},
		{12, []int{999, 499}},
		{29, []int{999}},
	} {
		if err := p.Begin(context.Background(), c.step); err != nil {
			t.Fatal(err)
		}
		seen := map[int]int{}
		for _, at := range p.Timesteps(c.step, 0, 200) {
			seen[at]++
		}
		for _, at := range c.want {
			if n := seen[at]; n < 100/len(c.want) {
				t.Errorf("step %d: t = %d comes %d times of 200, want about %d", c.step, at, n, 200/len(c.want))
			}
		}
		if len(seen) != len(c.want) {
			t.Errorf("step %d: t = %v, want %v", c.step, seen, c.want)
		}
	}
}

// telling says its class, so that guidance is seen; -1 is none.
type telling struct{ gaussian }

func (telling) Predict(_ context.Context, x []float32, t []float64, class []int, out []float32) error {
	values := len(x) / len(t)
	for i := range out {
		out[i] = x[i] + float32(class[i/values])
	}
	return nil
}

// A guided teacher says without + w (with - without), in one call.
func TestTeacherIsGuided(t *testing.T) {
	s := train.Setup{
		Size:      testSize,
		Model:     model.Config{Classes: 10},
		Diffusion: sched.Config{T: 1000, Schedule: "cosine", Prediction: "x0"},
	}
	lesson, err := newTeaching(Config{Method: Consistency, Guidance: 3, GuidanceTo: 1}, s, 2, telling{}, true)
	if err != nil {
		t.Fatal(err)
	}
	for i := range lesson.from {
		lesson.start[i], lesson.from[i] = lesson.schedule.Node(500), lesson.schedule.Node(500)
	}
	lesson.noise(0, 0, make([]byte, 2*testSize.Values()), []int32{4, -1})
	if lesson.class[0] != 4 || lesson.class[1] != 10 {
		t.Errorf("the student is told %v, want 4 and 10, none", lesson.class)
	}
	if err := lesson.teach(context.Background(), lesson.xt, lesson.from, lesson.x0); err != nil {
		t.Fatal(err)
	}
	for i, x := range lesson.xt {
		want := x + 10 + 3*(4-10)
		if i >= testSize.Values() {
			want = x + 10
		}
		if math.Abs(float64(lesson.x0[i]-want)) > 1e-4 {
			t.Errorf("value %d: %g, want %g", i, lesson.x0[i], want)
		}
	}
}

// Images are noised as in training: x_t = Signal x_0 + Noise eps, mirrored or not.
func TestNoise(t *testing.T) {
	lesson := newTest(t, Config{Method: Consistency, Skip: 1}, "v", 400)
	lesson.setup.Data.Flip = true
	images := make([]byte, 400*3)
	for i := range lesson.start {
		lesson.start[i] = sched.Node{T: 3, Signal: 0.8, Noise: 0.6}
		copy(images[3*i:], []byte{255, 127, 0})
	}
	labels := make([]int32, 400)
	lesson.noise(2, 0, images, labels)
	var left, right, square float64
	for i := range 400 {
		a, b := float64(lesson.xt[3*i]), float64(lesson.xt[3*i+2])
		left, right, square = left+a/400, right+b/400, square+(a*a+b*b)/800
		if lesson.t[i] != 3 {
			t.Fatalf("t %g, want 3", lesson.t[i])
		}
	}
	// Half of the images are mirrored: means 0 and squares 0.8^2 + 0.6^2.
	if math.Abs(left) > 0.2 || math.Abs(right) > 0.2 || math.Abs(square-1) > 0.15 {
		t.Errorf("means %g and %g, mean square %g, want 0, 0 and 1", left, right, square)
	}
	// Noise that were that of the draw of t would depend on t.
	var drawn [4]float32
	lesson.key(2, 0, rng.Distillation).Normals(drawn[:])
	for i, x := range lesson.xt[:3] {
		for _, x0 := range []float32{1, -1} {
			if math.Abs(float64(x-0.8*x0-0.6*drawn[i])) < 1e-5 {
				t.Errorf("value %d has the noise that t is drawn from", i)
			}
		}
	}
	first := lesson.xt[0]
	lesson.setup.Data.Flip = false
	lesson.noise(2, 0, images, labels)
	var kept float64
	for i := range 400 {
		kept += float64(lesson.xt[3*i]) / 400
	}
	if math.Abs(kept-0.8) > 0.12 {
		t.Errorf("without flips the mean is %g, want 0.8", kept)
	}
	lesson.noise(3, 0, images, labels)
	if lesson.xt[0] == first {
		t.Error("another step has the same noise")
	}
}

// spread says what depends on the class and the value, so that guidance changes the contrast.
type spread struct{ gaussian }

func (spread) OutValues() int { return 2 * testSize.Values() } // with variances, which are not guided

func (spread) Predict(_ context.Context, x []float32, t []float64, class []int, out []float32) error {
	values := len(out) / len(t)
	for i := range out {
		out[i] = float32(math.Sin(float64(i%values))) * float32(1+class[i/values])
	}
	return nil
}

// The teacher is guided where it is in sampling, and as graph.Guidance says.
func TestTeacherIsGuidedInItsInterval(t *testing.T) {
	s := train.Setup{
		Size:      testSize,
		Model:     model.Config{Classes: 10, LearnSigma: true},
		Diffusion: sched.Config{T: 1000, Schedule: "cosine", Prediction: "x0"},
	}
	c := Config{Method: Consistency, Guidance: 3, GuidanceFrom: 0.25, GuidanceTo: 0.75, GuidanceRescale: 0.6}
	ts, labels := []float64{100, 249, 250, 749, 750}, []int32{1, 2, 3, 4, 5}
	lesson, err := newTeaching(c, s, len(ts), spread{}, true)
	if err != nil {
		t.Fatal(err)
	}
	for i, at := range ts {
		lesson.start[i], lesson.from[i] = lesson.schedule.Node(at), lesson.schedule.Node(at)
	}
	lesson.noise(0, 0, make([]byte, len(ts)*testSize.Values()), labels)
	if err := lesson.teach(context.Background(), lesson.xt, lesson.from, lesson.x0); err != nil {
		t.Fatal(err)
	}
	values := testSize.Values()
	for i, at := range ts {
		both := make([]float32, 4*values)
		if err := (spread{}).Predict(context.Background(), nil, []float64{at, at}, []int{int(labels[i]), 10}, both); err != nil {
			t.Fatal(err)
		}
		shape := graph.Shape{1, testSize.Height, testSize.Width, 2 * testSize.Channels}
		want := graph.Operand{Shape: shape, Data: make([]float64, 2*values)}
		in := graph.Operand{Data: make([]float64, 4*values)}
		for j, v := range both {
			in.Data[j] = float64(v)
		}
		graph.Guidance{Channels: testSize.Channels, Rescale: 0.6}.Eval(want, []graph.Operand{in, {Data: []float64{3}}})
		if at < 250 || at > 749 {
			copy(want.Data, in.Data)
		}
		for j := range values {
			if got := float64(lesson.x0[i*values+j]); math.Abs(got-want.Data[2*j]) > 1e-5 {
				t.Errorf("t = %g, value %d: %g, want %g", at, j, got, want.Data[2*j])
			}
		}
	}
}
