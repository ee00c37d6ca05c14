package graph_test

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/graphtest"
	"ddpm/internal/model"
	"ddpm/internal/rng"
)

// gradientCase is an operation on parameters of the given shapes.
type gradientCase struct {
	op     graph.Op
	shapes [][]int
	build  func(b *graph.Builder, in []*graph.Node) *graph.Node // nil applies op
	feeds  graph.Feeds                                          // of inputs that normal numbers do not fit
	what   string
}

func gradientCases() []gradientCase {
	same := graph.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}
	x := []int{2, 3, 2, 6}
	cases := []gradientCase{
		{op: graph.SiLU{}, shapes: [][]int{x}},
		{op: graph.Add{}, shapes: [][]int{x, x}},
		{op: graph.AddPerSample{}, shapes: [][]int{x, {2, 6}}},
		{op: graph.Upsample{}, shapes: [][]int{x}},
		{op: graph.Concat{}, shapes: [][]int{x, {2, 3, 2, 3}}},
		{op: graph.Linear{}, shapes: [][]int{x, {6, 3}, {3}}},
		{op: graph.Linear{}, shapes: [][]int{{3, 4}, {4, 5}, {5}}},
		{op: same, shapes: [][]int{x, {3, 3, 6, 3}, {3}}},
		{op: graph.Conv2D{Stride: 1}, shapes: [][]int{x, {1, 1, 6, 4}, {4}}},
		{op: graph.Conv2D{Stride: 2, Bottom: 1, Right: 1}, shapes: [][]int{{1, 4, 5, 2}, {3, 3, 2, 3}, {3}}},
		{op: graph.Conv2D{Stride: 2, Top: 1, Bottom: 1, Left: 1, Right: 1}, shapes: [][]int{{2, 5, 4, 2}, {3, 3, 2, 3}, {3}}},
		{op: graph.Attention{Heads: 1}, shapes: [][]int{x, x, x}},
		{op: graph.Attention{Heads: 3}, shapes: [][]int{x, x, x}},
		{op: graph.Mean{}, shapes: [][]int{{5}}, build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
			return b.Mean(b.SiLU(in[0])) // a loss as it is
		}},
		{op: graph.SquaredError{}, shapes: [][]int{x}, build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
			return b.SiLU(b.SquaredError(in[0], b.Input("against", graph.Float64, x...)))
		}},
		{op: graph.Dropout{P: 0.4, Stream: rng.Dropout}, shapes: [][]int{x}, build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
			return b.Dropout(in[0], b.Input("keys", graph.Uint32, 2, 4), 0.4, rng.Dropout)
		}},
	}
	against := func(b *graph.Builder) *graph.Node { return b.Input("against", graph.Float64, x...) }
	wide := []int{2, 3, 2, 12}
	cases = append(cases, []gradientCase{
		{op: graph.SquaredError{}, shapes: [][]int{wide}, what: "wide", build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
			return b.SiLU(b.SquaredError(in[0], against(b)))
		}},
		{op: graph.Weigh{}, shapes: [][]int{{4}}, build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
			return b.Weigh(in[0], b.Input("weights", graph.Float64, 4))
		}},
		{op: graph.PseudoHuber{C: 0.2}, shapes: [][]int{x}, build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
			return b.PseudoHuber(b.SquaredError(in[0], against(b)), 0.2)
		}},
		{op: graph.Embedding{}, shapes: [][]int{{4, 3}}, feeds: graph.Feeds{"index": []uint32{2, 0, 2, 3, 2}},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
				return b.Embedding(in[0], b.Input("index", graph.Uint32, 5))
			}},
	}...)
	for _, out := range [][]int{x, wide} {
		for decoder := range 2 {
			cases = append(cases, gradientCase{
				op: graph.VLB{}, shapes: [][]int{out}, what: fmt.Sprintf("%d_channels_decoder_%d", out[3], decoder), feeds: vlbFeeds(x, float64(decoder)),
				build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return vlbOf(b, graph.VLB{}, in[0], x) },
			})
		}
	}
	for _, groups := range []int{1, 2, 6} {
		for _, silu := range []bool{false, true} {
			cases = append(cases, gradientCase{
				op: graph.GroupNorm{Groups: groups, SiLU: silu}, shapes: [][]int{x, {6}, {6}},
				build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
					return b.GroupNorm(in[0], in[1], in[2], groups, 1e-5, silu)
				},
			})
		}
	}
	return cases
}

// vlbOf adds the terms of the bound of a network's output for images.
func vlbOf(b *graph.Builder, op graph.VLB, out *graph.Node, images []int) *graph.Node {
	return b.VLB(op, out, b.Input("xt", graph.Float64, images...), b.Input("vlb target", graph.Float64, images...),
		b.Input("coefs", graph.Float64, images[0], graph.VLBCoefs))
}

// vlbFeeds are inputs of vlbOf whose x_0 is -1, 0.2, 0 and 1 in turn; the mean is off by
// about a standard deviation.
func vlbFeeds(images []int, decoder float64) graph.Feeds {
	size := graph.Shape(images).TotalSize()
	target := normals(size, 50)
	xt := make([]float64, size)
	for i, v := range target {
		xt[i] = ([]float64{-1, 0.2, 0, 1}[i%4] + 0.8*v) / 1.25
	}
	var coefs []float64
	for n := range images[0] {
		row := [graph.VLBCoefs]float64{
			graph.VLBX0OnXt: 1.25, graph.VLBX0OnOut: -0.8, graph.VLBMeanOnX0: 0.3 + 0.1*float64(n),
			graph.VLBLogVarTrue: -2.5, graph.VLBLogVarMin: -2.7, graph.VLBLogVarMax: -1.9, graph.VLBDecoder: decoder,
		}
		coefs = append(coefs, row[:]...)
	}
	return graph.Feeds{"xt": xt, "vlb target": target, "coefs": coefs}
}

// With StopMean the variances have the gradient they have without, and the mean none.
func TestVLBStopsTheMean(t *testing.T) {
	images, wide := []int{2, 3, 2, 6}, []int{2, 3, 2, 12}
	grads := map[bool][]float64{}
	for _, stop := range []bool{false, true} {
		b := graph.NewBuilder(graph.Float64)
		loss := b.Mean(vlbOf(b, graph.VLB{StopMean: stop}, b.Param("out", graph.Vector, graph.Init{}, wide...), images))
		d := define(t, finish(t, b, loss, map[string]*graph.Node{"loss": loss}), vlbFeeds(images, 0))
		d.run()
		grads[stop] = d.arena(graph.Grads)
	}
	for i, g := range grads[false] {
		if i >= 144 {
			break
		}
		if g == 0 {
			t.Errorf("element %d has no gradient at all", i)
		}
		if i%12 < 6 {
			g = 0
		}
		if grads[true][i] != g {
			t.Errorf("element %d has gradient %v, want %v", i, grads[true][i], g)
		}
	}
}

// The mass of an 8-bit step is that of the normal distribution, by sums of its density;
// steps at the ends have all of a tail, and none has less than 1e-12.
func TestDecoderTerm(t *testing.T) {
	mass := func(from, to, std float64) (sum float64) {
		const n = 4000
		for i := range n {
			z := (from + (float64(i)+0.5)*(to-from)/n) / std
			sum += math.Exp(-z*z/2) / math.Sqrt(2*math.Pi) / std * (to - from) / n
		}
		return sum
	}
	for _, std := range []float64{0.003, 0.02, 0.3} {
		for _, d := range []float64{-0.02, 0, 0.005} {
			for _, x0 := range []float64{-1, 0.2, 1} {
				lower, upper := -1.0/255-d, 1.0/255-d
				switch x0 {
				case -1:
					lower = -12 * std
				case 1:
					upper = 12 * std
				}
				want := -math.Log(max(mass(lower, upper, std), 1e-12))
				if got, _, _ := graph.DecoderTerm(x0, d, 2*math.Log(std)); math.Abs(got-want) > 1e-4*max(want, 1) {
					t.Errorf("x_0 %g, mean off by %g, deviation %g: %v, want %v", x0, d, std, got, want)
				}
			}
		}
	}
	if term, dD, dL := graph.DecoderTerm(0, 0.5, -8); term != -math.Log(1e-12) || dD != 0 || dL != 0 {
		t.Errorf("a vanishing mass gives %v, %v, %v", term, dD, dL)
	}
}

// graph is the mean squared distance of the operation's result to a target.
func (c gradientCase) graph(t *testing.T) *graph.Graph {
	b := graph.NewBuilder(graph.Float64)
	var in []*graph.Node
	for i, s := range c.shapes {
		in = append(in, b.Param(fmt.Sprintf("operand%d", i), graph.Vector, graph.Init{}, s...))
	}
	var out *graph.Node
	if c.build != nil {
		out = c.build(b, in)
	} else {
		out = b.Apply(c.op, in...)
	}
	if b.Err() != nil {
		t.Fatal(b.Err())
	}
	loss := out
	if len(out.Shape()) > 0 {
		loss = b.Mean(b.SquaredError(out, b.Input("target", graph.Float64, out.Shape()...)))
	}
	return finish(t, b, loss, map[string]*graph.Node{"loss": loss})
}

// feedsFor are normal numbers for every input; keys use all bits.
func feedsFor(g *graph.Graph) graph.Feeds {
	feeds := graph.Feeds{}
	for i, in := range g.Inputs {
		n := in.Shape.TotalSize()
		if in.DType == graph.Uint32 {
			words := make([]uint32, n)
			for j := range words {
				words[j] = rng.Key{Seed: 5, Sample: uint32(j)}.Block(0)[0]
			}
			feeds[in.Name] = words
			continue
		}
		feeds[in.Name] = normals(n, uint32(i))
	}
	return feeds
}

// TestGradients holds every gradient against central differences. With steps of
// h = 1e-5 on values around one these are wrong by about h² and by 1e-16/h.
func TestGradients(t *testing.T) {
	const h, tolerance = 1e-5, 1e-8
	for _, c := range gradientCases() {
		t.Run(fmt.Sprintf("%T%+v%s", c.op, c.op, c.what), func(t *testing.T) {
			g := c.graph(t)
			feeds := feedsFor(g)
			maps.Copy(feeds, c.feeds)
			d := define(t, g, feeds)
			d.run()
			grads := append([]float64{}, d.arena(graph.Grads)...)
			weights := d.arena(graph.Params)
			for _, p := range g.Layout.Params {
				want := make([]float64, p.Len)
				for i := range want {
					w := &weights[p.Offset+i]
					old := *w
					*w = old + h
					above := d.loss()
					*w = old - h
					want[i] = (above - d.loss()) / (2 * h)
					*w = old
				}
				got := grads[p.Offset : p.Offset+p.Len]
				if off, at := furthest(got, want); !(off <= tolerance) {
					t.Errorf("%s[%d] of %v: gradient %v, central difference %v", p.Name, at, p.Shape, got[at], want[at])
				}
			}
		})
	}
}

func TestEveryGradientIsChecked(t *testing.T) {
	types, err := graphtest.TypesWith(".", "Grad")
	if err != nil {
		t.Fatal(err)
	}
	if len(types) < 10 {
		t.Fatalf("only %d differentiable operations found in the source: %v", len(types), types)
	}
	checked := map[string]bool{}
	for _, c := range gradientCases() {
		checked[reflect.TypeOf(c.op).Name()] = true
	}
	for _, name := range types {
		if !checked[name] {
			t.Errorf("the gradient of %s is not in gradientCases", name)
		}
	}
}

// TestNetworkGradients checks whole U-Nets along random directions u:
// (loss(w+hu) - loss(w-hu)) / 2h = grad . u.
func TestNetworkGradients(t *testing.T) {
	const h, tolerance = 1e-5, 1e-7
	for _, block := range []string{"resnet", "simple"} {
		t.Run(block, func(t *testing.T) {
			g := networkGraph(t, graph.Float64, block)
			d := define(t, g, feedsFor(g))
			weights := d.arena(graph.Params)
			for i, w := range g.Layout.InitialWeights(3) {
				weights[i] = 0.2*weights[i] + float64(w)
			}
			d.run()
			grads := append([]float64{}, d.arena(graph.Grads)...)
			centre := append([]float64{}, weights...)
			for k := range 3 {
				u := normals(len(weights), uint32(1000+k))
				var along float64
				at := func(step float64) float64 {
					for i := range weights {
						weights[i] = centre[i] + step*u[i]
					}
					return d.loss()
				}
				for i := range u {
					along += grads[i] * u[i]
				}
				difference := (at(h) - at(-h)) / (2 * h)
				if !(math.Abs(along-difference) <= tolerance*math.Abs(difference)) {
					t.Errorf("direction %d: gradient %v, central difference %v", k, along, difference)
				}
			}
		})
	}
}

// networkGraph is a small U-Net with attention, several heads and dropout, and
// its loss.
func networkGraph(t *testing.T, dt graph.DType, block string) *graph.Graph {
	config := model.Config{
		Block: block, Channels: 4, Mult: []float64{1, 2}, Blocks: 1, Attention: []int{4}, MidAttention: true, HeadDim: 4,
		Groups: 2, NormEps: 1e-5, Init: "pytorch", Dropout: 0.2, FreqShift: 1,
	}
	b := graph.NewBuilder(dt)
	x := b.Input("x", dt, 2, 4, 4, 3)
	target := b.Input("target", dt, 2, 4, 4, 3)
	out := model.UNet(b, config, model.Inputs{X: x, T: b.Input("t", dt, 2), Keys: b.Input("keys", graph.Uint32, 2, 4)})
	loss := b.Mean(b.SquaredError(out, target))
	return finish(t, b, loss, map[string]*graph.Node{"loss": loss, "out": out})
}
