package graphtest

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"ddpm/internal/graph"
	"ddpm/internal/rng"
)

// Tolerances, relative to the largest value of the output, for float32 kernels
// that may sum in any order.
const (
	// exact is for operations that move values, or round once: the definition's
	// float64 result, rounded to float32, is what float32 arithmetic gives.
	exact = 0
	// rounding is a few roundings of 6e-8 on each element.
	rounding = 3e-7
	// smooth is for one exponential or logarithm within a few units in the last
	// place, and the arithmetic around it.
	smooth = 1e-6
	// drawn is for Box-Muller, whose radius loses digits where its logarithm is
	// near zero.
	drawn = 4e-6
	// summed is for sums of up to some thousand terms.
	summed = 4e-6
	// product is for convolutions and matrix products: Winograd's F(4x4,3x3)
	// loses up to 6e-6.
	product = 1e-5
	// phase is for the embedding of t: the argument of the sine reaches 999,
	// where float32 values are 6e-5 apart.
	phase = 1e-4
	// offset is for statistics of values whose mean is 100 times their standard
	// deviation: 100 times rounding, far below what E[x²]-E[x]² would lose.
	offset = 5e-5
	// peaked is for softmax of scores of about 30: their rounding, 30 times
	// 6e-8, becomes a relative error of each probability.
	peaked = 3e-5
)

// roundedTo is the tolerance of one operation on operands that bfloat16 holds
// exactly: what is multiplied or stored in between loses half a unit in the last
// of 11 or 8 places, a few times.
func roundedTo(fp32 float64) tolerance {
	return tolerance{fp32, max(fp32, 1.0/512), max(fp32, 1.0/128)}
}

// roundFeeds rounds floats to bfloat16, so that a backend which stores them so
// starts from the same values as the reference.
func roundFeeds(feeds graph.Feeds) {
	for _, feed := range feeds {
		if v, ok := feed.([]float32); ok {
			for i, x := range v {
				bits := math.Float32bits(x)
				bits += 0x7fff + bits>>16&1
				v[i] = math.Float32frombits(bits &^ 0xffff)
			}
		}
	}
}

// opCase is an operation on given operands.
type opCase struct {
	op        graph.Op
	in        []operand
	tolerance float64
	// what says what is special about the operands.
	what string
	// build applies op to in where that is more than one Apply.
	build func(b *graph.Builder, in []*graph.Node) *graph.Node
}

func (c opCase) name() string {
	shapes := make([]string, len(c.in))
	for i, o := range c.in {
		shapes[i] = strings.ReplaceAll(strings.Trim(fmt.Sprint(o.shape), "[]"), " ", "x")
	}
	name := fmt.Sprintf("ops/%s/%s", opName(c.op), strings.Join(shapes, "_"))
	if attributes := fmt.Sprintf("%+v", c.op); attributes != "{}" {
		name += "_" + strings.NewReplacer(" ", "_", "{", "", "}", "").Replace(attributes)
	}
	if c.what != "" {
		name += "_" + c.what
	}
	return name
}

// opName is the operation's type, as it is called in package graph.
func opName(op graph.Op) string { return strings.TrimPrefix(fmt.Sprintf("%T", op), "graph.") }

func opCases() []testCase {
	var cases []testCase
	for _, c := range opTable() {
		cases = append(cases, testCase{c.name(), c.run})
	}
	return cases
}

func (c opCase) run(b graph.Backend) error {
	g, feeds, err := c.graph()
	if err != nil {
		return err
	}
	if b.Precision() != graph.FP32 {
		roundFeeds(feeds)
	}
	return withPair(b, g, nil, func(p *pair) error { return p.compareRun(feeds, roundedTo(c.tolerance)) })
}

// graph applies the operation to its operands as they are fed, to operands that
// were computed for it alone, which it may overwrite where it can work in
// place, and, where it can, to operands that it must not overwrite, because
// they are outputs too.
func (c opCase) graph() (*graph.Graph, graph.Feeds, error) {
	b := graph.NewBuilder(graph.Float32)
	feeds := graph.Feeds{}
	_, inPlace := c.op.(graph.InPlace)
	if _, ok := c.op.(graph.Plus); ok {
		inPlace = true
	}
	outputs := map[string]*graph.Node{}
	var fed, kept, spent []*graph.Node
	for i, o := range c.in {
		name := fmt.Sprintf("in%d", i)
		x := b.Input(name, o.dtype, o.shape...)
		feeds[name] = o.feed(i)
		fed = append(fed, x)
		first, second := x, x
		if o.dtype == graph.Float32 {
			first = b.Apply(graph.Copy{}, x)
			second = b.Apply(graph.Copy{}, first)
			if inPlace {
				outputs[name+" after use"] = first
			}
		}
		kept, spent = append(kept, first), append(spent, second)
	}
	outputs["of fed operands"] = c.apply(b, fed)
	outputs["of computed operands"] = c.apply(b, spent)
	if inPlace {
		outputs["of kept operands"] = c.apply(b, kept)
	}
	g, err := b.Finish(nil, outputs)
	return g, feeds, err
}

func (c opCase) apply(b *graph.Builder, in []*graph.Node) *graph.Node {
	if c.build != nil {
		return c.build(b, in)
	}
	return b.Apply(c.op, in...)
}

// opTable has every operation; a test fails when one is missing.
func opTable() []opCase {
	var table []opCase
	add := func(tolerance float64, op graph.Op, in ...operand) {
		table = append(table, opCase{op: op, in: in, tolerance: tolerance})
	}
	special := func(c opCase) { table = append(table, c) }

	for _, s := range [][]int{{1}, {3}, {2, 17}, {1, 1, 1, 1}, {3, 5, 7, 3}, {2, 8, 8, 48}, {1, 37, 37, 24}} {
		add(smooth, graph.SiLU{}, normal(s...))
		add(smooth, graph.SiLUGrad{}, normal(s...), normal(s...))
		add(exact, graph.Add{}, normal(s...), normal(s...))
		add(exact, graph.Copy{}, normal(s...))
	}
	for _, c := range []struct {
		what string
		x    operand
	}{
		{"negative", values(-1e30, -1e6, -700, -200, -104, -103, -89, -88, -87, -20, -5, -2, -1, -1e-3, -1e-30, 0)},
		{"small", values(-1e-3, -1e-7, -1e-30, -1e-44, 0, 1e-44, 1e-30, 1e-7, 1e-3)},
		{"positive", values(0, 1, 2, 20, 87, 88, 89, 103, 104, 200)},
		{"huge", values(-1e30, 700, 1e6, 1e30)},
	} {
		special(opCase{op: graph.SiLU{}, in: []operand{c.x}, tolerance: smooth, what: c.what})
		special(opCase{op: graph.SiLUGrad{}, in: []operand{c.x, normal(c.x.shape...)}, tolerance: smooth, what: c.what})
	}
	special(opCase{op: graph.Add{}, in: []operand{normal(3, 19)}, tolerance: exact, what: "twice",
		build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.Add(in[0], in[0]) }})
	special(opCase{op: graph.Add{}, in: []operand{normal(2, 5, 5, 3), normal(2, 5, 5, 3)}, tolerance: rounding, what: "chain",
		build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
			sum := b.Add(in[0], in[1])
			return b.Add(b.Add(in[1], sum), b.Add(sum, in[0]))
		}})
	for index := range 3 {
		special(opCase{op: graph.View{Index: index}, in: []operand{normal(3, 5)}, tolerance: exact, build: viewOfCopy(index)})
	}
	special(opCase{op: graph.View{Index: 1}, in: []operand{normal(2, 2, 3, 3, 5)}, tolerance: exact, build: viewOfCopy(1)})
	special(opCase{op: graph.View{Index: 1}, in: []operand{normal(2, 9)}, tolerance: smooth, what: "neighbours",
		build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
			packed := b.Apply(graph.Copy{}, in[0])
			first, second := b.View(packed, 0), b.View(packed, 1)
			return b.Concat(b.SiLU(first), b.Add(second, first))
		}})

	for _, s := range [][4]int{{1, 1, 1, 1}, {2, 3, 5, 24}, {3, 4, 4, 5}, {1, 16, 16, 24}, {2, 8, 8, 48}} {
		n, h, w, c := s[0], s[1], s[2], s[3]
		add(exact, graph.AddPerSample{}, normal(n, h, w, c), normal(n, c))
		add(summed, graph.SumPixels{}, normal(n, h, w, c))
		add(exact, graph.Upsample{}, normal(n, h, w, c))
		add(rounding, graph.UpsampleGrad{}, normal(n, 2*h, 2*w, c))
	}
	for _, s := range [][5]int{{1, 1, 1, 1, 1}, {2, 3, 5, 3, 8}, {2, 3, 5, 8, 3}, {3, 4, 4, 10, 29}, {2, 4, 4, 24, 48}, {2, 4, 4, 48, 24}} {
		n, h, w := s[0], s[1], s[2]
		add(exact, graph.Concat{}, normal(n, h, w, s[3]), normal(n, h, w, s[4]))
	}
	add(exact, graph.Concat{}, normal(3, 5), normal(3, 7))
	add(exact, graph.SliceChannels{From: 0, Width: 1}, normal(1, 1, 1, 1))
	add(exact, graph.SliceChannels{From: 0, Width: 5}, normal(3, 2, 1, 5))
	for _, o := range []graph.SliceChannels{{From: 0, Width: 3}, {From: 3, Width: 5}, {From: 2, Width: 1}} {
		add(exact, o, normal(2, 3, 5, 8))
		add(exact, o, normal(3, 8))
	}
	for _, o := range []graph.SliceChannels{{From: 0, Width: 24}, {From: 24, Width: 48}, {From: 7, Width: 29}} {
		add(exact, o, normal(2, 4, 4, 72))
	}

	for _, s := range [][]int{{1, 1, 1}, {2, 24, 96}, {3, 5, 7}, {1, 33, 65}, {17, 48, 3}, {1, 3, 5, 24, 24}, {2, 4, 4, 48, 48}, {3, 8, 8, 24, 48}} {
		rows, in, out := s[:len(s)-2], s[len(s)-2], s[len(s)-1]
		x, dy := normal(with(rows, in)...), normal(with(rows, out)...)
		add(product, graph.Linear{}, x, normal(in, out), normal(out))
		add(product, graph.LinearGradData{}, normal(in, out), dy)
		add(product, graph.LinearGradWeight{}, x, dy)
		add(summed, graph.SumRows{}, dy)
	}
	for _, c := range convolutions() {
		g, err := c.op.Geometry(c.x[:], c.w[:])
		if err != nil {
			panic(err) // of this table alone
		}
		dy := normal(g.N, g.OH, g.OW, g.K)
		add(product, c.op, normal(c.x[:]...), normal(c.w[:]...), normal(g.K))
		add(product, graph.Conv2DGradData{Conv2D: c.op, Height: g.H, Width: g.W}, normal(c.w[:]...), dy)
		add(product, graph.Conv2DGradWeight{Conv2D: c.op, R: g.R, S: g.S}, normal(c.x[:]...), dy)
	}
	for _, op := range fusions() {
		special(opCase{op: op.op, in: op.in, tolerance: product, build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
			return unfused(b, op.op, in)
		}})
	}

	for _, s := range [][5]int{
		{1, 1, 2, 2, 1}, {2, 5, 7, 24, 4}, {3, 4, 4, 48, 8}, {1, 8, 8, 5, 1}, {2, 3, 3, 5, 5}, {1, 16, 16, 24, 4}, {3, 16, 16, 24, 3},
	} {
		x := normal(s[:4]...)
		table = append(table, groupNorms(x, s[4], 1e-6, product)...)
	}
	table = append(table, groupNorms(spread(-0.5, 3, 2, 6, 5, 12), 4, 1e-5, product)...)
	// Groups that end where the images meet, that hold channels of both, one
	// group, and more channels than are worked on at a time.
	for _, s := range [][6]int{{1, 1, 2, 1, 1, 1}, {2, 3, 5, 24, 24, 8}, {3, 4, 4, 5, 7, 4}, {2, 7, 3, 48, 24, 1}, {1, 3, 3, 130, 190, 10}, {17, 2, 2, 3, 17, 2}} {
		table = append(table, concatNorms(normal(s[:4]...), s[4], s[5], 1e-6, product)...)
	}
	add(summed, graph.GroupNormGradAffine{}, normal(1, 2, 1))
	add(summed, graph.GroupNormGradAffine{}, normal(3, 2, 5))
	add(summed, graph.GroupNormGradAffine{}, normal(16, 2, 72))
	special(opCase{op: graph.GroupNormStats{Groups: 2, Eps: 1e-6}, in: []operand{spread(100, 1, 2, 8, 8, 6)}, tolerance: offset, what: "offset"})
	for i, c := range groupNorms(spread(100, 1, 2, 8, 8, 6), 2, 1e-6, offset) {
		if i > 0 {
			c.what = "offset"
			special(c)
		}
	}

	for _, s := range [][5]int{
		{1, 1, 1, 4, 1}, {2, 1, 1, 6, 3}, {3, 3, 5, 3, 1}, {2, 4, 4, 48, 2}, {1, 8, 8, 24, 1}, {2, 9, 8, 16, 4}, {1, 13, 10, 5, 5},
	} {
		x := normal(s[:4]...)
		add(product, graph.Attention{Heads: s[4]}, x, x, x)
		add(product, graph.AttentionGrad{Heads: s[4]}, x, x, x, x)
	}
	sharp, x := spread(0, 5, 2, 5, 5, 16), normal(2, 5, 5, 16)
	special(opCase{op: graph.Attention{Heads: 1}, in: []operand{sharp, sharp, x}, tolerance: peaked, what: "peaked"})
	special(opCase{op: graph.AttentionGrad{Heads: 1}, in: []operand{sharp, sharp, x, x}, tolerance: peaked, what: "peaked"})

	for _, o := range []graph.TimestepEmbedding{
		{Dim: 2}, {Dim: 24, FreqShift: 1}, {Dim: 24, CosFirst: true}, {Dim: 128, FreqShift: 1}, {Dim: 6, CosFirst: true, FreqShift: 1},
	} {
		add(phase, o, timesteps(1))
		add(phase, o, timesteps(3))
		add(phase, o, timesteps(16))
	}

	for _, s := range [][]int{{1, 1, 1, 1}, {3, 5, 7, 3}, {2, 16, 16, 3}, {3, 4, 6, 4}, {2, 3}, {1, 5}} {
		n := s[0]
		add(summed, graph.SquaredError{}, normal(s...), normal(s...))
		add(rounding, graph.SquaredErrorGrad{}, normal(s...), normal(s...), normal(n))
		for _, stream := range []rng.Stream{rng.Noise, rng.Prior} {
			if len(s) == 4 {
				add(drawn, graph.QSample{Stream: stream}, bytes(s...), flips(n), keys(n), normal(n), normal(n), normal(n), normal(n))
			}
			for _, clip := range []bool{false, true} {
				add(drawn, graph.PSample{Stream: stream, Clip: clip}, normal(s...), normal(s...), keys(n), normal(graph.PSampleCoefs))
			}
		}
		for i, p := range []float64{0, 0.1, 0.5} {
			add(rounding, graph.Dropout{P: p, Stream: rng.Dropout + rng.Stream(i)}, normal(s...), keys(n))
		}
	}
	add(rounding, graph.Dropout{P: 0.3, Stream: rng.Dropout}, normal(1, 33, 33, 24), keys(1))
	table = append(table, samplerSteps()...)
	table = append(table, wideLosses()...)
	table = append(table, guidance()...)
	for _, s := range [][3]int{{1, 1, 1}, {5, 1, 3}, {6, 3, 4}, {17, 4, 30}, {3, 11, 96}} {
		n, rows, d := s[0], s[1], s[2]
		add(exact, graph.Embedding{}, normal(rows, d), indices(n, rows))
		add(summed, graph.EmbeddingGrad{Rows: rows}, indices(n, rows), normal(n, d))
	}
	for _, n := range []int{1, 3, 16} {
		add(rounding, graph.Mean{}, spread(1, 0.5, n))
		op := graph.MeanGrad{N: n}
		special(opCase{op: op, in: []operand{spread(1, 0.5, n)}, tolerance: rounding,
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.Apply(op, b.Mean(in[0])) }})
		add(exact, graph.Weigh{}, normal(n), normal(n))
		for _, c := range []float64{0.03, 1} {
			add(rounding, graph.PseudoHuber{C: c}, squares(1, n))
			add(rounding, graph.PseudoHuberGrad{C: c}, squares(1, n), normal(n))
		}
		// The difference of two roots that are almost the same.
		special(opCase{op: graph.PseudoHuber{C: 0.03}, in: []operand{squares(1e-3, n)}, tolerance: rounding, what: "small"})
	}
	return table
}

// samplerSteps is PSample with what it does beyond the plain step, and X0Limit. The
// largest images are the work of several tasks, which do not begin at channel 0.
func samplerSteps() []opCase {
	var cases []opCase
	step := func(op graph.PSample, wide bool, s ...int) {
		op.Stream = rng.Ancestral
		c := opCase{op: op, in: []operand{normal(s...), output(wide, s), keys(s[0]), normal(op.Coefs())}, tolerance: drawn}
		if op.Limited {
			c.in = append(c.in, limits(s[0]))
		}
		for range op.Kept {
			c.in = append(c.in, normal(s...))
		}
		cases = append(cases, c)
	}
	for _, s := range [][]int{{2, 3}, {3, 5, 7, 2}, {2, 20, 20, 3}} {
		for kept := range 4 {
			step(graph.PSample{Kept: kept, Clip: kept == 2}, kept == 0, s...)
		}
		step(graph.PSample{Learned: true}, true, s...)
		step(graph.PSample{Learned: true, Clip: true}, true, s...)
		step(graph.PSample{Limited: true}, false, s...)
		step(graph.PSample{Limited: true, Kept: 1}, true, s...)
		step(graph.PSample{Limited: true, Clip: true, Learned: true, Kept: 3}, true, s...)
	}
	for _, s := range [][]int{{1, 1}, {3, 5, 7, 3}, {4, 20, 20, 3}} {
		for _, wide := range []bool{false, true} {
			// Of x_0 of standard deviation 1 the median is below 1, the others above.
			for _, quantile := range []float64{0.5, 0.995, 1} {
				coefs := make([]float32, graph.PSampleCoefs)
				coefs[graph.X0OnXt], coefs[graph.X0OnOut] = 0.75, -0.625
				c := opCase{op: graph.X0Limit{Quantile: quantile}, tolerance: rounding}
				c.in = []operand{normal(s...), output(wide, s), valuesOf(coefs, len(coefs))}
				cases = append(cases, c)
				if quantile == 0.5 {
					c.what = "large"
					c.in = slices.Clone(c.in)
					c.in[0] = spread(3, 4, s...)
					cases = append(cases, c)
				}
			}
		}
	}
	return cases
}

// output is a network's output for images of a shape, with variances or without.
func output(wide bool, s []int) operand {
	if wide {
		return normal(widened(s)...)
	}
	return normal(s...)
}

// widened is a shape with twice the channels.
func widened(s []int) []int { return with(s[:len(s)-1], 2*s[len(s)-1]) }

// wideLosses is SquaredError of outputs with variances, and VLB.
func wideLosses() []opCase {
	var cases []opCase
	add := func(what string, tolerance float64, op graph.Op, in ...operand) {
		cases = append(cases, opCase{op: op, in: in, tolerance: tolerance, what: what})
	}
	for _, s := range [][]int{{2, 3}, {3, 5, 7, 3}, {2, 56, 56, 3}} {
		out := normal(widened(s)...)
		add("", summed, graph.SquaredError{}, out, normal(s...))
		add("", rounding, graph.SquaredErrorGrad{}, out, normal(s...), normal(s[0]))
	}
	for _, wide := range []bool{false, true} {
		for _, stop := range []bool{false, true} {
			for _, s := range [][]int{{1, 1}, {4, 5, 7, 3}, {2, 32, 33, 3}} {
				add("", summed, graph.VLB{StopMean: stop}, vlbOperands(wide, false, s...)...)
				add("", summed, graph.VLBGrad{StopMean: stop}, append(vlbOperands(wide, false, s...), normal(s[0]))...)
			}
		}
		s := []int{2, 5, 7, 3}
		add("floored", summed, graph.VLB{}, vlbOperands(wide, true, s...)...)
		add("floored", summed, graph.VLBGrad{}, append(vlbOperands(wide, true, s...), normal(s[0]))...)
	}
	return cases
}

// vlbOperands are a network's output, x_t, the target and the coefficients of terms
// whose x_0 is -1, 0, 1 and in between, in turn. The mean is off by about a standard
// deviation; if far by so many that the mass of most steps vanishes. Every second image is at
// t = 0, the second first.
func vlbOperands(wide, far bool, s ...int) []operand {
	n, size := s[0], 1
	for _, d := range s[1:] {
		size *= d
	}
	target := normal(s...).feed(0).([]float32)
	xt := make([]float32, n*size)
	coefs := make([]float32, 0, n*graph.VLBCoefs)
	for i := range n {
		onXt, onOut := 1+0.5*float32(i/2%2), -0.5-0.25*float32(i%2)
		for j := range size {
			at := i*size + j
			xt[at] = ([]float32{-1, 0.3, 0, 1}[j%4] - onOut*target[at]) / onXt
		}
		row := [graph.VLBCoefs]float32{
			graph.VLBX0OnXt: onXt, graph.VLBX0OnOut: onOut, graph.VLBMeanOnX0: 0.125,
			graph.VLBLogVarTrue: -4.5, graph.VLBLogVarMin: -4.75, graph.VLBLogVarMax: -3.5 - float32(i%3)/4,
			graph.VLBDecoder: float32(i % 2),
		}
		if far {
			row[graph.VLBMeanOnX0] = 2
		}
		coefs = append(coefs, row[:]...)
	}
	return []operand{output(wide, s), valuesOf(xt, s...), valuesOf(target, s...), valuesOf(coefs, n, graph.VLBCoefs)}
}

// guidance is Twice and Guidance, of all channels or of the first half.
func guidance() []opCase {
	var cases []opCase
	add := func(what string, tolerance float64, op graph.Op, in ...operand) {
		cases = append(cases, opCase{op: op, in: in, tolerance: tolerance, what: what})
	}
	for _, s := range [][]int{{1, 1}, {3, 5}, {3, 5, 7, 3}, {2, 20, 20, 3}} {
		add("", exact, graph.Twice{}, normal(s...))
		if len(s) == 2 {
			continue
		}
		both := with(nil, 2*s[0])
		both = append(both, s[1:]...)
		for _, channels := range []int{3, 1} {
			for _, rescale := range []float64{0, 0.7} {
				op, tolerance := graph.Guidance{Channels: channels, Rescale: rescale}, float64(rounding)
				if rescale > 0 {
					tolerance = summed
				}
				for _, w := range []float32{1, 3} {
					add(fmt.Sprint("weight_", w), tolerance, op, normal(both...), values(w))
				}
			}
		}
		op := graph.Guidance{Channels: 3, Rescale: 0.7}
		add("offset", summed, op, spread(2, 0.5, widened(both)...), values(3))
	}
	// Of opposite outputs nothing is left, in the first of two images.
	opposite := normal(4, 3, 3, 2).feed(0).([]float32)
	for i, v := range opposite[:18] {
		opposite[36+i] = -v
	}
	add("nothing", summed, graph.Guidance{Channels: 2, Rescale: 0.7}, valuesOf(opposite, 4, 3, 3, 2), values(0.5))
	return cases
}

// with appends to a copy.
func with(s []int, n int) []int { return append(s[:len(s):len(s)], n) }

// viewOfCopy views a computed value.
func viewOfCopy(index int) func(b *graph.Builder, in []*graph.Node) *graph.Node {
	return func(b *graph.Builder, in []*graph.Node) *graph.Node {
		return b.View(b.Apply(graph.Copy{}, in[0]), index)
	}
}

type convolution struct {
	x, w [4]int
	op   graph.Conv2D
}

func convolutions() []convolution {
	point := graph.Conv2D{Stride: 1}
	same := graph.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}
	halveAsymmetric := graph.Conv2D{Stride: 2, Bottom: 1, Right: 1}
	halve := graph.Conv2D{Stride: 2, Top: 1, Bottom: 1, Left: 1, Right: 1}
	return []convolution{
		{[4]int{1, 1, 1, 1}, [4]int{1, 1, 1, 1}, point},
		{[4]int{2, 5, 7, 3}, [4]int{1, 1, 3, 5}, point},
		{[4]int{3, 8, 8, 24}, [4]int{1, 1, 24, 48}, point},
		{[4]int{1, 4, 4, 33}, [4]int{1, 1, 33, 65}, point},

		{[4]int{1, 1, 1, 1}, [4]int{3, 3, 1, 1}, same},
		{[4]int{1, 2, 3, 5}, [4]int{3, 3, 5, 3}, same},
		{[4]int{2, 5, 7, 3}, [4]int{3, 3, 3, 5}, same},
		{[4]int{3, 8, 8, 1}, [4]int{3, 3, 1, 24}, same},
		{[4]int{1, 16, 16, 24}, [4]int{3, 3, 24, 24}, same},
		{[4]int{2, 8, 8, 48}, [4]int{3, 3, 48, 24}, same},
		{[4]int{1, 4, 4, 48}, [4]int{3, 3, 48, 48}, same},
		{[4]int{2, 9, 6, 24}, [4]int{3, 3, 24, 3}, same},
		{[4]int{1, 4, 4, 33}, [4]int{3, 3, 33, 65}, same},

		{[4]int{1, 2, 2, 1}, [4]int{3, 3, 1, 1}, halveAsymmetric},
		{[4]int{2, 8, 8, 24}, [4]int{3, 3, 24, 24}, halveAsymmetric},
		{[4]int{3, 7, 5, 3}, [4]int{3, 3, 3, 5}, halveAsymmetric},
		{[4]int{1, 1, 1, 3}, [4]int{3, 3, 3, 1}, halve},
		{[4]int{2, 8, 8, 5}, [4]int{3, 3, 5, 24}, halve},
		{[4]int{1, 7, 9, 24}, [4]int{3, 3, 24, 5}, halve},

		{[4]int{2, 5, 5, 3}, [4]int{3, 3, 3, 2}, point},
		{[4]int{1, 6, 5, 2}, [4]int{5, 3, 2, 3}, graph.Conv2D{Stride: 1, Top: 2, Bottom: 1, Right: 1}},
	}
}

// groupNorms is every operation of group normalisation on x. The statistics and
// sums are computed: kernels may rely on their being those of the operands.
func groupNorms(x operand, groups int, eps, tolerance float64) []opCase {
	return groupNormsOf([]operand{x}, x.shape, groups, eps, tolerance)
}

// concatNorms is every operation on two images side by side, x the first; the
// second has more channels.
func concatNorms(x operand, channels, groups int, eps, tolerance float64) []opCase {
	whole := append(x.shape[:3:3], x.shape[3]+channels)
	return groupNormsOf([]operand{x, normal(append(x.shape[:3:3], channels)...)}, whole, groups, eps, tolerance)
}

// groupNormsOf is every operation on parts, which make up an image of a shape.
func groupNormsOf(parts []operand, shape []int, groups int, eps, tolerance float64) []opCase {
	c, joined := shape[3], len(parts) > 1
	statistics := graph.GroupNormStats{Groups: groups, Eps: eps}
	var cases []opCase
	// The operands are x, gamma, beta and perhaps dy.
	add := func(op graph.Op, tolerance float64, sums graph.GroupNormGradSums, rest ...operand) {
		c := opCase{op: op, in: slices.Concat(parts, rest), tolerance: tolerance}
		if joined {
			c.op, c.what = graph.Joined{Of: op}, opName(op)
		}
		c.build = func(b *graph.Builder, in []*graph.Node) *graph.Node {
			x, rest := in[0], in[len(parts):]
			if joined {
				x = b.Concat(in[0], in[1])
			}
			if op == (graph.Op)(statistics) {
				return b.Apply(op, x)
			}
			operands := slices.Concat([]*graph.Node{x, b.Apply(statistics, x)}, rest)
			if _, ok := op.(graph.GroupNormGradData); ok {
				operands = append(operands, b.Apply(sums, operands...))
			}
			return b.Apply(op, operands...)
		}
		cases = append(cases, c)
	}
	add(statistics, summed, graph.GroupNormGradSums{})
	for _, silu := range []bool{false, true} {
		gamma, beta, dy := spread(1, 0.3, c), normal(c), normal(shape...)
		sums := graph.GroupNormGradSums{Groups: groups, SiLU: silu}
		add(graph.GroupNorm{Groups: groups, SiLU: silu}, tolerance, sums, gamma, beta)
		add(sums, tolerance, sums, gamma, beta, dy)
		add(graph.GroupNormGradData{Groups: groups, SiLU: silu}, tolerance, sums, gamma, beta, dy)
	}
	return cases
}
