package graphtest

import "ddpm/internal/graph"

// fusions are fused operations. They are built from the operations they stand
// for; a backend that has kernels for them runs those.
func fusions() []opCase {
	var cases []opCase
	add := func(op graph.Op, in ...operand) { cases = append(cases, opCase{op: op, in: in}) }
	for _, c := range convolutions() {
		g, err := c.op.Geometry(c.x[:], c.w[:])
		if err != nil {
			panic(err) // of this table alone
		}
		x, w, bias, y := normal(c.x[:]...), normal(c.w[:]...), normal(g.K), normal(g.N, g.OH, g.OW, g.K)
		v := normal(g.N, g.K)
		gradData := graph.Conv2DGradData{Conv2D: c.op, Height: g.H, Width: g.W}
		gradWeight := graph.Conv2DGradWeight{Conv2D: c.op, R: g.R, S: g.S}

		add(graph.Plus{Of: c.op}, x, w, bias, y)
		add(graph.Plus{Of: gradData}, w, y, x)
		add(graph.PlusPerSample{Of: c.op}, x, w, bias, v)
		add(graph.Plus{Of: graph.PlusPerSample{Of: c.op}}, x, w, bias, v, y)
		if g.C > 1 {
			half := g.C/3 + 1
			a, b := normal(g.N, g.H, g.W, half), normal(g.N, g.H, g.W, g.C-half)
			add(graph.Joined{Of: c.op}, a, b, w, bias)
			add(graph.Joined{Of: gradWeight}, a, b, y)
			add(graph.Plus{Of: graph.PlusPerSample{Of: graph.Joined{Of: c.op}}}, a, b, w, bias, v, y)
		}
		if g.H%2 == 0 && g.W%2 == 0 {
			small := normal(g.N, g.H/2, g.W/2, g.C)
			add(graph.Doubled{Of: c.op}, small, w, bias)
			add(graph.Doubled{Of: gradWeight}, small, y)
			add(graph.Plus{Of: graph.Doubled{Of: c.op}}, small, w, bias, y)
		}
	}
	// What may be added in one order only.
	cases = append(cases, opCase{op: graph.PlusPerSample{Of: graph.Plus{Of: graph.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}}},
		in: []operand{normal(2, 5, 4, 3), normal(3, 3, 3, 7), normal(7), normal(2, 5, 4, 7), normal(2, 7)}})
	for _, s := range [][3]int{{1, 1, 1}, {3, 5, 7}, {17, 48, 3}, {33, 24, 65}} {
		x, w, bias, y := normal(s[0], s[1]), normal(s[1], s[2]), normal(s[2]), normal(s[0], s[2])
		add(graph.Plus{Of: graph.Linear{}}, x, w, bias, y)
		add(graph.Plus{Of: graph.LinearGradData{}}, w, y, x)
		if s[1] > 1 {
			a, b := normal(s[0], 1), normal(s[0], s[1]-1)
			add(graph.Joined{Of: graph.Linear{}}, a, b, w, bias)
			add(graph.Joined{Of: graph.LinearGradWeight{}}, a, b, y)
		}
	}
	return cases
}

// unfused applies the operations that op stands for.
func unfused(b *graph.Builder, op graph.Op, in []*graph.Node) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	rest := in[:len(in)-1]
	switch op := op.(type) {
	case graph.Joined:
		return unfused(b, op.Of, append([]*graph.Node{b.Concat(in[0], in[1])}, in[2:]...))
	case graph.Doubled:
		return unfused(b, op.Of, append([]*graph.Node{b.Upsample(in[0])}, in[1:]...))
	case graph.PlusPerSample:
		return b.AddPerSample(unfused(b, op.Of, rest), in[len(in)-1])
	case graph.Plus:
		return b.Add(unfused(b, op.Of, rest), in[len(in)-1])
	}
	return b.Apply(op, in...)
}
