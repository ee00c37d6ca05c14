package generate

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// pictures are n images, smooth and different.
func pictures(n int) []float32 {
	x := make([]float32, n*size.Values())
	for k := range x {
		x[k] = float32(0.8 * math.Sin(float64(k)/17+float64(k%3)))
	}
	return x
}

func rmse(a, b []float32) float64 {
	var squares float64
	for k := range a {
		d := float64(a[k]) - float64(b[k])
		squares += d * d
	}
	return math.Sqrt(squares / float64(len(a)))
}

// noised are images at a node, with the noise that they would start from otherwise.
func noised(g *Generator, x []float32, n int, at sched.Node) []float32 {
	z := make([]float32, n*size.Values())
	g.Prior(z, 0)
	for k := range z {
		z[k] = float32(at.Signal)*x[k%len(x)] + float32(at.Noise)*z[k]
	}
	return z
}

func TestDrawOver(t *testing.T) {
	const n = 5 // over two images
	x := pictures(2)
	for _, sampler := range sched.SamplerNames() {
		g := newGenerator(t, sampler, 2)
		nodes, err := g.Config.Nodes(g.Schedule)
		if err != nil {
			t.Fatal(err)
		}
		// All of the way is the way from the noised images.
		start := noised(g, x, n, nodes[0])
		plain := draw(t, g, n, start)
		g.Init, g.Strength = x, 1
		if got := draw(t, g, n, nil); !slices.Equal(got, plain) {
			t.Errorf("%s: strength 1 is not the whole way from the noised images", sampler)
		}
		// Half of the way visits the later half of the nodes.
		g.Strength = 0.5
		steps := 0
		g.OnMoment = func(m Moment) error {
			if visited := len(nodes) - 1; m.Step == 1 && m.T != int(nodes[visited/2].T) {
				t.Errorf("%s: strength 0.5 starts at t = %d, the nodes being %v", sampler, m.T, nodes)
			}
			steps = m.Steps
			return nil
		}
		half := draw(t, g, n, nil)
		if steps < 1 || steps >= g.Config.Steps {
			t.Errorf("%s: %d steps for strength 0.5 of %d", sampler, steps, g.Config.Steps)
		}
		g.OnMoment = nil
		for _, batch := range []int{1, 5} {
			other := newGenerator(t, sampler, batch)
			other.Init, other.Strength = x, 0.5
			if !slices.Equal(draw(t, other, n, nil), half) {
				t.Errorf("%s: batches of %d give other images", sampler, batch)
			}
		}
		g.Strength = 1 / float64(len(nodes)-1) // a step
		if got := draw(t, g, n, nil); slices.Equal(got, half) != (len(nodes)-1 == 2) {
			t.Errorf("%s: strengths of a step and of a half, the nodes being %v: the same images: %t", sampler, nodes, slices.Equal(got, half))
		}
	}
	for _, c := range []struct {
		sampler  string
		steps    int
		strength float64
		want     string // "" is no error
	}{
		{"ddim", 1, 1, ""},
		{"ddim", 3, 1 / 3., ""},
		{"ddim", 1, 0.5, "sample.steps 1: a strength of 0.5 is less than one step of ddim: want at least 2"},
		{"ddim", 2, 0.3, "want at least 4"},
		{"heun", 3, 0.5, ""}, // two steps, of two calls and of one
		{"heun", 3, 0.3, "want at least 6"},
		{"ddim", 2, 1e-9, "want more than the 20 that the model has, or more strength"},
	} {
		way := sampling(c.sampler)
		way.Steps = c.steps
		g := newPlain(t, way)
		g.Init, g.Strength = x, c.strength
		_, _, err := g.way()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, %d steps, strength %g: got %v, want %q", c.sampler, c.steps, c.strength, err, c.want)
		}
	}
}

// kept is a part of a generator's images: the left half.
func known(g *Generator, x []float32, jump, times int) {
	g.Known = &Known{Images: x, Paint: make([]bool, size.Height*size.Width), Jump: jump, Times: times}
	for p := range g.Known.Paint {
		g.Known.Paint[p] = p%size.Width >= size.Width/2
	}
}

func TestRepaint(t *testing.T) {
	const n = 4 // around three images
	x := pictures(3)
	for _, name := range []string{"ddpm", "ddim", "euler", "euler_ancestral"} {
		g := newGenerator(t, name, 2)
		var ts []int
		g.OnMoment = func(m Moment) error {
			if m.First == 0 {
				ts = append(ts, m.T)
			}
			if m.Steps != 12 {
				t.Errorf("%d steps, want 12", m.Steps)
			}
			return nil
		}
		known(g, x, 3, 3)
		got := draw(t, g, n, nil)
		// Four steps, in pieces of three and one.
		if want := []int{19, 14, 9, 19, 14, 9, 19, 14, 9, 4, 4, 4}; !slices.Equal(ts, want) {
			t.Errorf("%s: steps at %v, want %v", name, ts, want)
		}
		free := newGenerator(t, name, 2)
		painted := draw(t, free, n, nil)
		changed := 0
		for k, v := range got {
			switch in := g.Known.Paint[k/size.Channels%(size.Height*size.Width)]; {
			case !in && v != x[k%len(x)]:
				t.Fatalf("%s: value %d is known to be %v, and is %v", name, k, x[k%len(x)], v)
			case in && v != painted[k]:
				changed++
			}
		}
		if changed < len(got)/4 { // of a half; some are clipped
			t.Errorf("%s: only %d of %d values depend on the known part", name, changed, len(got)/2)
		}
		other := newGenerator(t, name, 5)
		known(other, x, 3, 3)
		if !slices.Equal(draw(t, other, n, nil), got) {
			t.Errorf("%s: the batch makes a difference", name)
		}
		known(other, x, 3, 1)
		if slices.Equal(draw(t, other, n, nil), got) {
			t.Errorf("%s: going back makes no difference", name)
		}
	}
	g := newPlain(t, sampling("unipc"))
	known(g, x, 1, 1)
	b, state := newState(t, config)
	if err := g.Compile(b, state, graph.EMA, config, size, 1); err == nil ||
		!strings.Contains(err.Error(), `sample.sampler "unipc": a known part is put back after each step, which wants a sampler of one network call a step that remembers nothing: one of `) {
		t.Errorf("a sampler that remembers: got %v, want an error", err)
	}
	for _, name := range []string{"consistency", "heun"} {
		g := newPlain(t, sampling(name))
		known(g, x, 1, 1)
		if _, _, err := g.way(); err == nil || strings.Count(err.Error(), name) != 1 {
			t.Errorf("%s: got %v, want an error with other samplers", name, err)
		}
	}
	g = newPlain(t, sampling("ddim"))
	known(g, x, 0, 1)
	if err := g.Compile(b, state, graph.EMA, config, size, 1); err == nil || !strings.Contains(err.Error(), "want at least 1 of each") {
		t.Errorf("a jump of no step: got %v, want an error", err)
	}
}

// Where all is to be painted, going once is plain sampling.
func TestRepaintAll(t *testing.T) {
	x := pictures(1)
	g := newGenerator(t, "ddpm", 2)
	want := draw(t, g, 2, nil)
	known(g, x, 2, 1)
	for p := range g.Known.Paint {
		g.Known.Paint[p] = true
	}
	if !slices.Equal(draw(t, g, 2, nil), want) {
		t.Error("all painted, once: not the images of plain sampling")
	}
	// No noise comes twice.
	w := &walk{Generator: g, count: 1}
	var all [][]float32
	for range 2 {
		w.normals(func(_ int, z []float32) { all = append(all, slices.Clone(z)) })
	}
	if slices.Equal(all[0], all[1]) {
		t.Error("the noise of two steps is the same")
	}
	// Back at an earlier node, there is as much of the image and of noise as is due there.
	n, earlier := sched.Node{Signal: 0.8, Noise: 0.6}, sched.Node{Signal: 0.28, Noise: 0.96}
	const images = 400
	w = &walk{Generator: g, x: make([]float32, images*size.Values()), count: images}
	for i := range images {
		z := w.x[i*size.Values() : (i+1)*size.Values()]
		rng.Key{Seed: 1, Stream: rng.Noise, Sample: uint32(i)}.Normals(z)
		for k := range z {
			z[k] = float32(n.Signal*0.5 + n.Noise*float64(z[k])) // x_0 = 0.5
		}
	}
	w.back(n, earlier)
	var mean, squares float64
	for _, v := range w.x {
		mean += float64(v) / float64(len(w.x))
	}
	for _, v := range w.x {
		squares += (float64(v) - mean) * (float64(v) - mean) / float64(len(w.x))
	}
	// 38400 values: the mean's standard error is 0.005, that of the variance 0.007.
	if math.Abs(mean-earlier.Signal*0.5) > 0.02 || math.Abs(squares-earlier.Noise*earlier.Noise) > 0.03 {
		t.Errorf("back in time: mean %.3f and variance %.3f, want %.3f and %.3f", mean, squares, earlier.Signal*0.5, earlier.Noise*earlier.Noise)
	}
}

// The error of a trained network's round trip is in the documents; a random one is smoother.
func TestInvert(t *testing.T) {
	const n = 3
	x := pictures(n)
	// Where there is next to no signal, eps of a network that knows nothing of images says
	// nothing of them: the noise is not as strong there.
	mild := sched.Config{T: 20, Schedule: "linear", BetaStart: 1e-3, BetaEnd: 0.1}
	for _, c := range []struct {
		name, sampler string
		prediction    sched.Prediction
		schedule      sched.Config
		goal          float64
	}{
		{"v", "ddim", sched.V, sched.Config{T: 20, Schedule: "cosine"}, 1e-5},
		{"v, euler", "euler", sched.V, mild, 1e-5},
		{"eps", "ddim", sched.Eps, mild, 1e-5},
	} {
		way := sampling(c.sampler)
		way.Clip, way.Eta, way.Steps = false, 0, 10
		g := compiled(t, conditional(), way, 2)
		g.Parametrization.Prediction = c.prediction
		var err error
		if g.Schedule, err = sched.New(c.schedule); err != nil {
			t.Fatal(err)
		}
		g.Class = func(int) int { return 1 }
		done := 0
		invert := func(batch int) []float32 {
			v := Inverter{
				Network: newNetwork(t, conditional(), batch), Schedule: g.Schedule, Parametrization: g.Parametrization, Config: way, Class: 1,
				OnProgress: func(d, total int) {
					if done = d; total != 10*n {
						t.Errorf("%d steps of images, want %d", total, 10*n)
					}
				},
			}
			noise, err := v.Invert(context.Background(), x)
			if err != nil {
				t.Fatal(err)
			}
			return noise
		}
		noise := invert(2)
		if done != 10*n {
			t.Errorf("%s: %d steps told of", c.name, done)
		}
		if again := rmse(draw(t, g, n, noise), x); !(again < c.goal) {
			t.Errorf("%s: the images come back with an RMSE of %.2g, want less than %.2g", c.name, again, c.goal)
		}
		if !slices.Equal(invert(5), noise) {
			t.Errorf("%s: the noise depends on the batch", c.name)
		}
		g.Class = func(int) int { return 2 }
		if other := rmse(draw(t, g, n, noise), x); other < 100*c.goal {
			t.Errorf("%s: the noise of another class gives the images, with an RMSE of %.2g", c.name, other)
		}
	}
	for sampler, eta := range map[string]float64{"ddpm": 0, "ddim": 0.5, "heun": 0} {
		way := sampling(sampler)
		way.Eta = eta
		g := newPlain(t, way)
		v := Inverter{Schedule: g.Schedule, Parametrization: g.Parametrization, Config: way}
		if _, err := v.Invert(context.Background(), x); err == nil || !strings.Contains(err.Error(), "cannot be undone: want euler, or ddim with sample.eta 0") {
			t.Errorf("%s: got %v, want an error", sampler, err)
		}
	}
}

// Where repetitions lead nowhere, the best of them counts.
func TestSolutionKeepsTheBest(t *testing.T) {
	x := []float32{1, 2}
	s := newSolution(x)
	var best []float32
	for _, r := range []float64{1, 0.1, 5, 0.2} {
		if r == 0.1 {
			best = slices.Clone(s.x)
		}
		s.r[0], s.r[1] = r, -r
		s.next()
	}
	// x is where the result is wanted; its root-mean-square was sqrt(2.5).
	if want := 0.1 / math.Sqrt(2.5); !slices.Equal(x, best) || math.Abs(s.error-want) > 1e-12 {
		t.Errorf("%v of error %v, want %v of error %v", x, s.error, best, want)
	}
}

func TestBetween(t *testing.T) {
	a, b := make([]float32, 3000), make([]float32, 3000)
	rng.Key{Seed: 1, Stream: rng.Noise}.Normals(a)
	rng.Key{Seed: 2, Stream: rng.Noise}.Normals(b)
	zero := make([]float32, len(a))
	length := func(x []float32) float64 { return rmse(x, zero) }
	if d := rmse(Between(a, b, 0), a) + rmse(Between(a, b, 1), b); d > 1e-7 {
		t.Errorf("the ends are off by %v", d)
	}
	// On the arc, unlike on the line, noise keeps its size; the middle is as near to one as to the other.
	middle := Between(a, b, 0.5)
	if want := (length(a) + length(b)) / 2; math.Abs(length(middle)-want) > 0.01 {
		t.Errorf("the middle has a size of %.4f, want %.4f", length(middle), want)
	}
	if near, other := rmse(middle, a), rmse(middle, b); math.Abs(near-other) > 0.03*near {
		t.Errorf("the middle is %.4f from one and %.4f from the other", near, other)
	}
	if got := Between(a, a, 0.3); !(rmse(got, a) < 1e-7) {
		t.Error("between noise and itself is something else")
	}
}
