package generate

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// byHand draws images 0 to n-1 in float64, but for the network, from the definitions: steps of
// package sched, guidance, thresholding and learned variances.
func byHand(t *testing.T, g *Generator, w way, n int) []float64 {
	t.Helper()
	net := newNetwork(t, w.m, n)
	values, channels := size.Values(), size.Channels
	nodes, err := w.c.Nodes(g.Schedule)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := w.c.StepList(g.Schedule, nodes)
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float64, n*values)
	for i := range n {
		z := make([]float32, values)
		rng.Key{Seed: g.Seed, Stream: rng.Prior, Sample: uint32(i)}.Normals(z)
		for k, v := range z {
			x[i*values+k] = float64(v)
		}
	}
	class := func(i int) int { // of all in turn
		if w.m.Classes == 0 {
			return 0
		}
		return i % w.m.Classes
	}
	kept := make([][]float64, sched.MaxKept)
	for j := range kept {
		kept[j] = make([]float64, len(x))
	}
	for k, s := range steps {
		with := predict(t, net, x, s.T, n, class)
		guided := with
		if share := s.T / 19; w.m.Classes > 0 && share >= w.c.GuidanceFrom && share <= w.c.GuidanceTo {
			without := predict(t, net, x, s.T, n, func(int) int { return w.m.NoClass() })
			guided = guideByHand(with, without, w.c, n)
		}
		next, newKept := slices.Clone(x), make([][]float64, len(kept))
		for j := range kept {
			newKept[j] = make([]float64, len(x))
		}
		for i := range n {
			z := make([]float32, values)
			rng.Key{Seed: g.Seed, Stream: rng.Ancestral, Step: uint32(k), Sample: uint32(i)}.Normals(z)
			x0, eps, std := make([]float64, values), make([]float64, values), make([]float64, values)
			for v := range values {
				out, xt := guided[i*net.OutValues()+v/channels*net.OutValues()/values*channels+v%channels], x[i*values+v]
				onXt, onOut := g.Parametrization.XStartCoefs(s.Node)
				x0[v] = onXt*xt + onOut*out
				onXt, onOut = g.Parametrization.EpsCoefs(s.Node)
				eps[v] = onXt*xt + onOut*out
				std[v] = 1
				if w.c.Variance == "learned" {
					f := guided[i*net.OutValues()+v/channels*2*channels+channels+v%channels]
					std[v] = math.Exp(0.5 * ((1+f)/2*s.LogVarMax + (1-f)/2*s.LogVarMin))
				}
			}
			limitByHand(x0, w.c)
			for v := range values {
				combine := func(r sched.Row) float64 {
					sum := r.OnXt*x[i*values+v] + r.OnX0*x0[v] + r.OnEps*eps[v] + r.OnNoise*std[v]*float64(z[v])
					for j := range kept {
						sum += r.OnKept[j] * kept[j][i*values+v]
					}
					return sum
				}
				next[i*values+v] = combine(s.Prev)
				for j := range kept {
					newKept[j][i*values+v] = combine(s.Kept[j])
				}
			}
		}
		x, kept = next, newKept
	}
	return x
}

func predict(t *testing.T, net *Network, x []float64, at float64, n int, class func(int) int) []float64 {
	t.Helper()
	in, out := make([]float32, len(x)), make([]float32, n*net.OutValues())
	for k, v := range x {
		in[k] = float32(v)
	}
	classes := make([]int, n)
	for i := range classes {
		classes[i] = class(i)
	}
	if err := net.Predict(context.Background(), in, slices.Repeat([]float64{at}, n), classes, out); err != nil {
		t.Fatal(err)
	}
	wide := make([]float64, len(out))
	for k, v := range out {
		wide[k] = float64(v)
	}
	return wide
}

// guideByHand guides the first half of the channels, and leaves the variances.
func guideByHand(with, without []float64, c sched.SamplerConfig, n int) []float64 {
	guided := slices.Clone(with)
	channels, per := size.Channels, len(with)/n
	for i := range n {
		var a, b []float64
		image := func(v int) int { return i*per + v }
		for v := range per {
			if v%(2*channels) < channels {
				k := image(v)
				guided[k] = without[k] + c.Guidance*(with[k]-without[k])
				a, b = append(a, with[k]), append(b, guided[k])
			}
		}
		scale := c.GuidanceRescale*deviation(a)/deviation(b) + 1 - c.GuidanceRescale
		for v := range per {
			if v%(2*channels) < channels {
				guided[image(v)] *= scale
			}
		}
	}
	return guided
}

func deviation(values []float64) float64 {
	var mean, squares float64
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	return math.Sqrt(squares / float64(len(values)))
}

func limitByHand(x0 []float64, c sched.SamplerConfig) {
	limit, scale := math.Inf(1), 1.0
	switch {
	case c.Threshold > 0:
		sizes := make([]float64, len(x0))
		for k, v := range x0 {
			sizes[k] = math.Abs(v)
		}
		slices.Sort(sizes)
		limit = max(1, sizes[int(math.Ceil(c.Threshold*float64(len(sizes))))-1])
		scale = limit
	case c.Clip:
		limit = 1
	}
	for k, v := range x0 {
		x0[k] = min(max(v, -limit), limit) / scale
	}
}

func TestEveryWayIsThatOfTheDefinitions(t *testing.T) {
	const n = 4
	for name, w := range ways() {
		g := compiled(t, w.m, w.c, n)
		got, want := draw(t, g, n, nil), byHand(t, g, w, n)
		worst := 0.0
		for k, v := range want {
			worst = max(worst, math.Abs(float64(got[k])-v)/(1+math.Abs(v)))
		}
		if !(worst < 2e-5) {
			t.Errorf("%s: up to %.2g from the definitions", name, worst)
		}
	}
}

// Only the programs that a run needs are compiled.
func TestGuidanceInterval(t *testing.T) {
	const n = 3
	c := sampling("ddim")
	c.Guidance = 3
	all := compiled(t, conditional(), c, n)
	if !all.Reverse.guided || all.Plain != nil {
		t.Errorf("guidance all the way: guided %t, plain %v", all.Reverse.guided, all.Plain)
	}
	// The steps are at t = 19, 14, 9 and 4.
	c.GuidanceFrom, c.GuidanceTo = 14./19, 0.9
	some := compiled(t, conditional(), c, n)
	if !some.Reverse.guided || some.Plain == nil || some.Plain.guided {
		t.Errorf("guidance of a step: guided %t, plain %v", some.Reverse.guided, some.Plain)
	}
	want := draw(t, some, n, nil)
	if slices.Equal(want, draw(t, all, n, nil)) {
		t.Error("the interval makes no difference")
	}
	if err := some.Plain.Close(); err != nil {
		t.Fatal(err)
	}
	some.Plain = nil // Reverse makes the other steps, with weight 1
	for k, v := range draw(t, some, n, nil) {
		if d := math.Abs(float64(v - want[k])); !(d < 1e-5) {
			t.Fatalf("value %d: %v with weight 1 in place of the plain program, %v with it", k, v, want[k])
		}
	}
	c.GuidanceFrom, c.GuidanceTo = 0.3, 0.4
	none := compiled(t, conditional(), c, n)
	if none.Reverse.guided || none.Plain != nil {
		t.Errorf("guidance of no step: guided %t, plain %v", none.Reverse.guided, none.Plain)
	}
	c.Guidance = 1
	if !slices.Equal(draw(t, none, n, nil), draw(t, compiled(t, conditional(), c, n), n, nil)) {
		t.Error("guidance of no step is not no guidance")
	}
}

func TestClasses(t *testing.T) {
	const n = 4
	c := sampling("ddim")
	c.Guidance = 2
	g := compiled(t, conditional(), c, 3)
	inTurn := draw(t, g, n, nil)
	g.Class = func(image int) int { return image % 3 }
	if !slices.Equal(draw(t, g, n, nil), inTurn) {
		t.Error("without a word about classes, image i is not of class i mod 3")
	}
	image := func(images []float32, i int) []float32 { return images[i*size.Values() : (i+1)*size.Values()] }
	for class := range 3 {
		g.Class = func(int) int { return class }
		one := draw(t, g, n, nil)
		for i := range n {
			if same := slices.Equal(image(one, i), image(inTurn, i)); same != (i%3 == class) {
				t.Errorf("image %d of class %d is that of class %d: %t", i, class, i%3, same)
			}
		}
	}
	g.Class = func(int) int { return 3 }
	if err := g.Draw(context.Background(), 1, nil, nil); err == nil || !strings.Contains(err.Error(), "image 0 is of class 3: want 0 to 2") {
		t.Errorf("class 3 of 3: got %v, want an error", err)
	}
	// Without a class, guidance leads nowhere.
	g.Class = func(int) int { return -1 }
	without := draw(t, g, n, nil)
	c.Guidance = 1
	g = compiled(t, conditional(), c, 3)
	g.Class = func(int) int { return -1 }
	for k, v := range draw(t, g, n, nil) {
		if d := math.Abs(float64(v - without[k])); !(d < 1e-5) {
			t.Fatalf("value %d of no class: %v with guidance, %v without", k, without[k], v)
		}
	}
}

func TestGraphRefuses(t *testing.T) {
	c := sampling("ddpm")
	c.Variance = "learned"
	if _, err := Graph(c, config, size, 1); err == nil || !strings.Contains(err.Error(), `sample.variance "learned": the model predicts no variance (model.learn_sigma)`) {
		t.Errorf("a variance that the model did not learn: got %v, want an error", err)
	}
	c.Sampler = "ddim" // which does not use it
	if _, err := Graph(c, config, size, 1); err != nil {
		t.Error(err)
	}
	c.Guidance = 3 // to no class
	g, err := Graph(c, config, size, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range g.Inputs {
		if in.Name == "guidance" {
			t.Error("a model without classes has guidance")
		}
	}
	c.Sampler = "auto"
	if _, err := Graph(c, config, size, 1); err == nil {
		t.Error("a sampler that is not chosen: want an error")
	}
	if got := Resolve(c, sched.Config{}, config); !slices.Contains(sched.SamplerNames(), got.Sampler) {
		t.Errorf("auto is resolved to %q", got.Sampler)
	}
	if got := Resolve(c, sched.Config{Consistency: true}, config); got.Sampler != "consistency" {
		t.Errorf("a consistency model: %+v", got)
	}
}
