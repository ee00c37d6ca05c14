package graph_test

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"ddpm/internal/graph"
	"ddpm/internal/graph/reference"
	"ddpm/internal/rng"
)

// A plan is checked by running it on symbols: each element of a value is a
// number that stands for the operation and for all that went into it, so that
// one overwritten element changes everything computed from it. The expression
// graph, evaluated without sharing memory, says what the symbols must be.

type symbols []uint64

// symbol is the symbol of a description.
func symbol(parts ...any) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, parts...)
	return h.Sum64()
}

// spread gives each of n elements a symbol of its own.
func spread(of uint64, n int) symbols {
	s := make(symbols, n)
	for i := range s {
		s[i] = mix(of + uint64(i))
	}
	return s
}

// mix is the finaliser of SplitMix64 (Steele et al., 2014).
func mix(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// applied is the result of an operation. A copy is the value itself.
func applied(op graph.Op, n int, in []symbols) symbols {
	if _, isCopy := op.(graph.Copy); isCopy {
		return slices.Clone(in[0])
	}
	of := symbol(fmt.Sprintf("%T%+v", op, op))
	for _, v := range in {
		of = mix(of)
		for _, element := range v {
			of = mix(of ^ element)
		}
	}
	return spread(of, n)
}

func inputSymbols(g *graph.Graph, i int) symbols {
	return spread(symbol("input ", i), g.Inputs[i].Shape.TotalSize())
}

func paramSymbols(p graph.ParamSpec) symbols { return spread(symbol("parameter ", p.Name), p.Len) }

// evaluator is the expression graph on symbols.
type evaluator struct {
	t      *testing.T
	graph  *graph.Graph
	values map[*graph.Node]symbols
}

func newEvaluator(t *testing.T, g *graph.Graph) *evaluator {
	e := &evaluator{t, g, map[*graph.Node]symbols{}}
	for i, in := range g.Inputs {
		e.values[in.Node()] = inputSymbols(g, i)
	}
	for i, p := range g.Layout.Params {
		e.values[g.ParamNodes()[i]] = paramSymbols(p)
	}
	return e
}

func (e *evaluator) value(n *graph.Node) symbols {
	if v, ok := e.values[n]; ok {
		return v
	}
	op, err := graph.OpOf(n)
	if err != nil {
		e.t.Fatal(err)
	}
	var v symbols
	switch op := op.(type) {
	case nil:
		v = symbols{symbol("constant ", n.Value())}
	case graph.View:
		size := n.Shape().TotalSize()
		v = e.value(graph.Children(e.graph.Expr(), n)[0])[op.Index*size:][:size]
	default:
		var in []symbols
		for _, child := range graph.Children(e.graph.Expr(), n) {
			in = append(in, e.value(child))
		}
		v = applied(op, n.Shape().TotalSize(), in)
	}
	e.values[n] = v
	return v
}

// machine is a plan on symbols, in memory that starts as garbage.
type machine struct {
	t         *testing.T
	plan      *graph.Plan
	arena     symbols
	gradients symbols
	garbage   uint64
}

func newMachine(t *testing.T, p *graph.Plan) *machine {
	m := &machine{t: t, plan: p, arena: make(symbols, p.Arena), gradients: make(symbols, p.Graph.Layout.Size)}
	m.spoil(m.arena)
	return m
}

func (m *machine) spoil(s symbols) {
	for i := range s {
		m.garbage++
		s[i] = mix(mix(m.garbage))
	}
}

func (m *machine) at(r graph.Ref) symbols {
	switch r.Space {
	case graph.Activations:
		return m.arena[r.Offset : r.Offset+r.Len()]
	case graph.Gradients:
		return m.gradients[r.Offset : r.Offset+r.Len()]
	case graph.Fed:
		return inputSymbols(m.plan.Graph, r.Offset)
	case graph.Constant:
		return symbols{symbol("constant ", r.Value)}
	}
	// A view may begin inside a parameter.
	for _, p := range m.plan.Graph.Layout.Params {
		if p.Offset <= r.Offset && r.Offset+r.Len() <= p.Offset+p.Len {
			return paramSymbols(p)[r.Offset-p.Offset:][:r.Len()]
		}
	}
	m.t.Fatalf("%+v lies in no parameter", r)
	return nil
}

func (m *machine) run() {
	for i, in := range m.plan.Instructions {
		m.checkOverlap(i, in)
		scratch := m.arena[in.Scratch.Offset : in.Scratch.Offset+scratchLen(in)]
		m.spoil(scratch)
		var operands []symbols
		for _, r := range in.In {
			operands = append(operands, slices.Clone(m.at(r)))
		}
		m.checkFound(i, in, operands)
		copy(m.at(in.Out), applied(in.Op, in.Out.Len(), operands))
		if a := in.Aside; a != nil {
			copy(m.at(a.Out), m.leftBy(a))
		}
		m.spoil(scratch)
	}
}

// leftBy is what an instruction computes aside.
func (m *machine) leftBy(a *graph.Aside) symbols {
	var operands []symbols
	for _, r := range a.In {
		operands = append(operands, m.at(r))
	}
	return applied(graph.Kind(a.Op), a.Out.Len(), operands)
}

// checkFound compares what an instruction finds with what was to be left for it. It
// runs by its own operands all the same.
func (m *machine) checkFound(i int, in graph.Instruction, operands []symbols) {
	for _, r := range in.Found {
		want := applied(graph.Kind(in.Op), r.Len(), operands)
		if !slices.Equal(m.at(r), want) {
			m.t.Errorf("instruction %d, %T: what was left for it was overwritten, or computed of other operands", i, in.Op)
		}
	}
}

// scratchLen is 0 for the copies at the end of a plan, whose Ref is empty.
func scratchLen(in graph.Instruction) int {
	if in.Scratch.Shape == nil {
		return 0
	}
	return in.Scratch.Len()
}

// checkOverlap allows an instruction to write over an operand only in place.
func (m *machine) checkOverlap(i int, in graph.Instruction) {
	overlap := func(a, b graph.Ref) bool {
		return a.Space == b.Space && a.Offset < b.Offset+b.Len() && b.Offset < a.Offset+a.Len()
	}
	if scratchLen(in) > 0 && overlap(in.Scratch, in.Out) {
		m.t.Errorf("instruction %d: scratch memory %+v overlaps the output %+v", i, in.Scratch, in.Out)
	}
	_, inPlace := in.Op.(graph.InPlace)
	for j, r := range in.In {
		if r.Space != graph.Activations && r.Space != graph.Gradients || !overlap(r, in.Out) {
			continue
		}
		if !inPlace || j != 0 || r.Offset != in.Out.Offset || r.Len() != in.Out.Len() {
			m.t.Errorf("instruction %d, %T: output %+v overlaps operand %d, %+v", i, in.Op, in.Out, j, r)
		}
	}
}

// checkPlan runs a plan twice and compares outputs and gradients, and looks for
// memory that is out of place.
func checkPlan(t *testing.T, g *graph.Graph, p *graph.Plan) {
	t.Helper()
	want := newEvaluator(t, g)
	m := newMachine(t, p)
	for range 2 {
		m.run()
		for _, o := range g.Outputs {
			if !slices.Equal(m.at(p.Outputs[o.Name]), want.value(o.Node())) {
				t.Errorf("output %q was overwritten, or computed from a value that was", o.Name)
			}
		}
		end := 0
		for i, n := range g.GradNodes() {
			spec := g.Layout.Params[i]
			if !slices.Equal(m.gradients[spec.Offset:spec.Offset+spec.Len], want.value(n)) {
				t.Errorf("gradient of %s was overwritten, or computed from a value that was", spec.Name)
			}
			if slices.ContainsFunc(m.gradients[end:spec.Offset], func(s uint64) bool { return s != 0 }) {
				t.Errorf("something was written before the gradient of %s", spec.Name)
			}
			end = spec.Offset + spec.Len
		}
	}
	for i, in := range p.Instructions {
		if in.Out.Offset%16 != 0 || in.Scratch.Offset%16 != 0 {
			t.Errorf("instruction %d: output at %d, scratch memory at %d: not on a cache line", i, in.Out.Offset, in.Scratch.Offset)
		}
	}
	scratch := 0
	for _, in := range p.Instructions {
		scratch += (scratchLen(in) + 15) / 16 * 16
	}
	if p.Arena > p.Separate+scratch {
		t.Errorf("the arena, %d, is larger than all values, %d, and scratch memory, %d, apart", p.Arena, p.Separate, scratch)
	}
}

// scratchy is a device whose kernels need scratch memory of all sizes.
type scratchy struct{ reference.Backend }

func (scratchy) Workspace(op graph.Op, out graph.Shape, _ []graph.Shape, keep bool) (scratch, kept int) {
	n := int(symbol(fmt.Sprintf("%T", op), out) % 70)
	if keep {
		return n, n + 1
	}
	return n, 0
}

// leaving is a device whose kernels leave something of some size wherever they may.
type leaving struct{ scratchy }

func (leaving) Leaves(op graph.Op, out graph.Shape, _ []graph.Shape, _ graph.Op, _ []graph.Shape) int {
	return int(symbol(fmt.Sprintf("%T", op), out) % 40)
}

func TestPlansOfNetworks(t *testing.T) {
	for name, g := range map[string]*graph.Graph{
		"small":  smallGraph(t, graph.Float32),
		"resnet": networkGraph(t, graph.Float32, "resnet"),
		"simple": networkGraph(t, graph.Float32, "simple"),
	} {
		t.Run(name, func(t *testing.T) {
			checkPlan(t, g, compile(t, g, reference.Backend{}))
			checkPlan(t, g, compile(t, g, scratchy{}))
			checkPlan(t, g, compile(t, g, leaving{}))
		})
	}
}

// opaque is an operation without meaning, for graphs made up at random. Its
// shape is a string to keep it comparable.
type opaque struct {
	ID, Operands int
	Shape        string
}

func applyOpaque(b *graph.Builder, id int, shape graph.Shape, in ...*graph.Node) *graph.Node {
	return b.Apply(opaque{id, len(in), shapeText(shape)}, in...)
}

// opaqueInPlace may overwrite the first of its two operands.
type opaqueInPlace struct{ ID int }

func shapeOf(s string) graph.Shape {
	var shape graph.Shape
	for f := range strings.FieldsSeq(s) {
		var n int
		fmt.Sscan(f, &n)
		shape = append(shape, n)
	}
	return shape
}

func shapeText(s graph.Shape) string { return strings.Trim(fmt.Sprint([]int(s)), "[]") }

func (o opaque) Infer([]graph.Shape) (graph.Shape, error) { return shapeOf(o.Shape), nil }
func (opaque) Eval(graph.Operand, []graph.Operand)        {}
func (o opaque) Wrt() []bool                              { return slices.Repeat([]bool{true}, o.Operands) }

// Grad passes the gradient on where the shapes allow, as Add does, or takes it
// out of a packed value, as Attention does, or computes it.
func (o opaque) Grad(b *graph.Builder, in []*graph.Node, _, dout *graph.Node) []*graph.Node {
	var grads []*graph.Node
	for i, n := range in {
		shape := n.Shape()
		switch {
		case o.ID%3 == 0 && shape.Eq(dout.Shape()):
			grads = append(grads, dout)
		case o.ID%3 == 1 && len(shape) > 0:
			grads = append(grads, b.View(applyOpaque(b, 1000+o.ID, append(graph.Shape{2}, shape...), n, dout), i%2))
		default:
			grads = append(grads, applyOpaque(b, 2000+1000*i+o.ID, shape, n, dout))
		}
	}
	return grads
}

func (opaqueInPlace) Infer(in []graph.Shape) (graph.Shape, error) { return in[0].Clone(), nil }
func (opaqueInPlace) Eval(graph.Operand, []graph.Operand)         {}
func (opaqueInPlace) InPlace()                                    {}
func (opaqueInPlace) Wrt() []bool                                 { return []bool{true, true} }

func (o opaqueInPlace) Grad(b *graph.Builder, in []*graph.Node, out, dout *graph.Node) []*graph.Node {
	return opaque{ID: 3 * o.ID}.Grad(b, in, out, dout)
}

// randomGraph is a graph of some twenty operations, with a loss on odd seeds.
func randomGraph(t *testing.T, seed uint64) *graph.Graph {
	draws := uint32(0)
	draw := func(n int) int {
		draws++
		return rng.Key{Seed: seed, Stream: rng.Shuffle, Step: draws}.IntN(n)
	}
	b := graph.NewBuilder(graph.Float32)
	shapes := []graph.Shape{{1}, {5}, {16}, {33}, {2, 5}, {3, 16}, {2, 3, 16}}
	values := []*graph.Node{b.Input("x", graph.Float32, 5), b.Input("y", graph.Float32, 33)}
	for i := range 3 {
		values = append(values, b.Param(fmt.Sprint("p", i), graph.Vector, graph.Init{}, shapes[draw(len(shapes))]...))
	}
	used := map[*graph.Node]bool{}
	pick := func() *graph.Node {
		n := values[draw(len(values))]
		used[n] = true
		return n
	}
	trains := seed%2 == 1
	for id := range 10 + draw(20) {
		var n *graph.Node
		switch kind := draw(6); {
		case kind < 2:
			n = b.Apply(opaqueInPlace{id}, pick(), pick())
		case kind == 2 && !trains: // a view is not differentiable
			of := pick()
			if len(of.Shape()) < 2 {
				continue
			}
			if of.Op() == nil {
				of = b.Apply(graph.Copy{}, of)
			}
			n = b.View(of, draw(of.Shape()[0]))
		case kind == 3:
			like := pick()
			n = b.Add(like, applyOpaque(b, id, like.Shape(), pick()))
		default:
			n = applyOpaque(b, id, shapes[draw(len(shapes))], pick(), pick())
		}
		values = append(values, n)
	}
	outputs := map[string]*graph.Node{}
	for i := range 3 {
		if n := values[5+draw(len(values)-5)]; n.Op() != nil {
			outputs[fmt.Sprint("out", i)] = n
		}
	}
	if !trains {
		return finish(t, b, nil, outputs)
	}
	// The loss takes in whatever is left over.
	loss := applyOpaque(b, 500, graph.Shape{1}, values[0])
	for i, n := range values {
		if !used[n] {
			loss = applyOpaque(b, 501+i, graph.Shape{1}, loss, n)
		}
	}
	return finish(t, b, b.Mean(loss), outputs)
}

func TestPlansOfRandomGraphs(t *testing.T) {
	inPlace, copies, aliased := 0, 0, 0
	for seed := range uint64(200) {
		g := randomGraph(t, seed)
		for _, b := range []graph.Backend{reference.Backend{}, scratchy{}} {
			p := compile(t, g, b)
			checkPlan(t, g, p)
			for _, in := range p.Instructions {
				if len(in.In) > 0 && in.In[0].Space == graph.Activations && in.In[0].Offset == in.Out.Offset && in.Out.Space == graph.Activations {
					inPlace++
				}
				if in.Op == (graph.Copy{}) && in.Out.Space == graph.Gradients {
					copies++
				}
				for _, r := range in.In {
					if r.Space == graph.Activations && r.Offset%16 != 0 {
						aliased++
					}
				}
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if inPlace == 0 || copies == 0 || aliased == 0 {
		t.Errorf("%d instructions in place, %d copies of gradients, %d views inside values: want some of each", inPlace, copies, aliased)
	}
}

// picky is a device that runs the fusions of some operations.
type picky struct {
	scratchy
	hearts []string
}

func (b picky) Fuses(op graph.Op, in []graph.Shape) bool {
	heart, _ := graph.Unfuse(op)
	_, err := op.Infer(in)
	return err == nil && slices.Contains(b.hearts, fmt.Sprintf("%T", heart))
}

func TestFusions(t *testing.T) {
	x, y, v, w := []int{2, 4, 4, 3}, []int{2, 4, 4, 5}, []int{2, 5}, []int{1, 1, 3, 5}
	conv := graph.Conv2D{Stride: 1}
	for _, c := range []struct {
		what   string
		hearts []string
		build  func(b *graph.Builder, in func(shape ...int) *graph.Node) map[string]*graph.Node
		want   string
	}{
		{"everything around a convolution", []string{"graph.Conv2D"}, func(b *graph.Builder, in func(shape ...int) *graph.Node) map[string]*graph.Node {
			h := b.Conv(conv, b.Concat(in(2, 4, 4, 1), in(2, 4, 4, 2)), in(w...), in(5))
			return map[string]*graph.Node{"out": b.Add(b.AddPerSample(h, in(v...)), in(y...))}
		}, "Plus{PlusPerSample{Joined{Conv2D}}}"},
		{"a backend without kernels", nil, func(b *graph.Builder, in func(shape ...int) *graph.Node) map[string]*graph.Node {
			h := b.Conv(conv, b.Upsample(in(2, 2, 2, 3)), in(w...), in(5))
			return map[string]*graph.Node{"out": b.Add(h, in(y...))}
		}, "Upsample Conv2D Add"},
		{"the second operand of a sum", []string{"graph.Conv2D"}, func(b *graph.Builder, in func(shape ...int) *graph.Node) map[string]*graph.Node {
			return map[string]*graph.Node{"out": b.Add(in(y...), b.Conv(conv, in(x...), in(w...), in(5)))}
		}, "Plus{Conv2D}"},
		{"a result that is wanted itself", []string{"graph.Conv2D"}, func(b *graph.Builder, in func(shape ...int) *graph.Node) map[string]*graph.Node {
			h := b.Conv(conv, in(x...), in(w...), in(5))
			return map[string]*graph.Node{"out": b.Add(h, in(y...)), "also": h}
		}, "Conv2D Add"},
		{"a result that is read twice", []string{"graph.Conv2D"}, func(b *graph.Builder, in func(shape ...int) *graph.Node) map[string]*graph.Node {
			h := b.Conv(conv, in(x...), in(w...), in(5))
			return map[string]*graph.Node{"out": b.Add(h, b.SiLU(h))}
		}, "Conv2D SiLU Add"},
		{"one that adds itself", []string{"graph.Conv2D"}, func(b *graph.Builder, in func(shape ...int) *graph.Node) map[string]*graph.Node {
			h := b.Conv(conv, in(x...), in(w...), in(5))
			return map[string]*graph.Node{"out": b.Add(h, h)}
		}, "Conv2D Add"},
		{"an image that others read whole", []string{"graph.Conv2D"}, func(b *graph.Builder, in func(shape ...int) *graph.Node) map[string]*graph.Node {
			h := b.Concat(in(2, 4, 4, 1), in(2, 4, 4, 2))
			return map[string]*graph.Node{"out": b.Conv(conv, h, in(w...), in(5)), "also": b.SiLU(h)}
		}, "Concat Conv2D SiLU"},
		{"an image that is wanted itself", []string{"graph.Conv2D"}, func(b *graph.Builder, in func(shape ...int) *graph.Node) map[string]*graph.Node {
			h := b.Concat(in(2, 4, 4, 1), in(2, 4, 4, 2))
			return map[string]*graph.Node{"out": b.Conv(conv, h, in(w...), in(5)), "also": h}
		}, "Concat Conv2D"},
		{"an image that all can read in parts", []string{"graph.Conv2D", "graph.SiLU"}, func(b *graph.Builder, in func(shape ...int) *graph.Node) map[string]*graph.Node {
			h := b.Concat(in(2, 4, 4, 1), in(2, 4, 4, 2))
			return map[string]*graph.Node{"out": b.Conv(conv, h, in(w...), in(5)), "also": b.SiLU(h)}
		}, "Joined{Conv2D} Joined{SiLU}"},
	} {
		b := graph.NewBuilder(graph.Float32)
		inputs := 0
		in := func(shape ...int) *graph.Node {
			inputs++
			return b.Input(fmt.Sprint("in", inputs), graph.Float32, shape...)
		}
		g := finish(t, b, nil, c.build(b, in))
		p := compile(t, g, picky{hearts: c.hearts})
		var names []string
		for _, in := range p.Instructions {
			names = append(names, fusionName(in.Op))
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func fusionName(op graph.Op) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", op), "graph.")
	switch op := op.(type) {
	case graph.Joined:
		return name + "{" + fusionName(op.Of) + "}"
	case graph.Doubled:
		return name + "{" + fusionName(op.Of) + "}"
	case graph.PlusPerSample:
		return name + "{" + fusionName(op.Of) + "}"
	case graph.Plus:
		return name + "{" + fusionName(op.Of) + "}"
	}
	return name
}

func TestSumMayOverwriteItsLastOperand(t *testing.T) {
	for _, kept := range []bool{false, true} {
		b := graph.NewBuilder(graph.Float32)
		x := b.Input("x", graph.Float32, 2, 4, 4, 3)
		residual := b.SiLU(x)
		h := b.Conv(graph.Conv2D{Stride: 1}, x, b.Input("w", graph.Float32, 1, 1, 3, 3), b.Input("bias", graph.Float32, 3))
		outputs := map[string]*graph.Node{"out": b.Add(h, residual)}
		if kept {
			outputs["residual"] = residual
		}
		p := compile(t, finish(t, b, nil, outputs), picky{hearts: []string{"graph.Conv2D"}})
		sum := p.Instructions[len(p.Instructions)-1]
		if over := sum.Out.Offset == sum.In[3].Offset; fusionName(sum.Op) != "Plus{Conv2D}" || over == kept {
			t.Errorf("%s of a residual that is kept (%v) overwrites it: %v", fusionName(sum.Op), kept, over)
		}
	}
}

func TestWeightsAreKeptOnlyIfTheyAreParameters(t *testing.T) {
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, 3, 4)
	w, bias := b.Param("w", graph.LinearWeight, graph.Init{}, 4, 4), b.Param("bias", graph.Vector, graph.Init{}, 4)
	computed := b.Apply(graph.Copy{}, b.Input("computed", graph.Float32, 4, 4))
	g := finish(t, b, nil, map[string]*graph.Node{"out": b.Linear(b.Linear(x, w, bias), computed, bias)})
	if !g.KeepWeights {
		t.Error("a graph without a loss does not keep weights")
	}
	kept := 0
	p := compile(t, g, scratchy{})
	for _, in := range p.Instructions {
		if n := in.Kept.Len(); n > 0 {
			kept += (n + 15) / 16 * 16
			if in.In[1].Space != graph.Weights {
				t.Error("the transform of a computed value is kept")
			}
		}
	}
	if kept == 0 || kept != p.Kept {
		t.Errorf("%d elements are kept, the plan says %d: want the same and some", kept, p.Kept)
	}
	g.KeepWeights = false
	if p := compile(t, g, scratchy{}); p.Kept != 0 {
		t.Errorf("%d elements are kept by a graph that keeps no weights", p.Kept)
	}
}

func TestRecomputing(t *testing.T) {
	for _, kind := range []string{"resnet", "simple"} {
		for _, b := range []graph.Backend{reference.Backend{}, picky{hearts: []string{"graph.GroupNorm", "graph.Conv2D", "graph.Conv2DGradWeight"}}} {
			g := networkGraph(t, graph.Float64, kind)
			run := func(again bool) ([]float64, *graph.Plan) {
				g.Recompute = again
				p := compile(t, g, b)
				d := definePlan(t, p, feedsFor(g))
				d.run()
				return d.arena(graph.Grads), p
			}
			want, keeping := run(false)
			got, p := run(true)
			if !slices.Equal(got, want) {
				t.Errorf("%s: recomputing changes the gradients", kind)
			}
			most := keeping.Arena
			if kind == "resnet" { // the other reads normalisations through a sum, which is kept
				most = most * 9 / 10
			}
			if p.Arena > most || len(p.Instructions) <= len(keeping.Instructions) {
				t.Errorf("%s: %d instructions over %d elements, %d over %d without recomputing: want more, over less memory",
					kind, len(p.Instructions), p.Arena, len(keeping.Instructions), keeping.Arena)
			}
		}
	}
}

func TestPlanReusesMemory(t *testing.T) {
	g := networkGraph(t, graph.Float32, "resnet")
	p := compile(t, g, scratchy{})
	if p.Arena > p.Separate/2 {
		t.Errorf("a training step takes %d elements, and %d without sharing: want at most half", p.Arena, p.Separate)
	}
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, 64)
	for range 10 {
		x = b.Apply(graph.Copy{}, x)
	}
	chain := compile(t, finish(t, b, nil, map[string]*graph.Node{"out": x}), reference.Backend{})
	if chain.Arena != 2*64 || chain.Separate != 10*64 {
		t.Errorf("a chain takes %d elements, %d without sharing, want 128 and 640", chain.Arena, chain.Separate)
	}
}

func TestPlanIsTheSameEachTime(t *testing.T) {
	text := func() string {
		p := compile(t, networkGraph(t, graph.Float32, "resnet"), scratchy{})
		return fmt.Sprintf("%+v\n%+v\n%d", p.Instructions, p.Outputs, p.Arena)
	}
	first := text()
	var ballast [][]byte
	for i := range 20 {
		ballast = append(ballast, make([]byte, 100+977*i)) // move the heap
		if text() != first {
			t.Fatalf("build %d, with %d blocks on the heap, gives another plan", i, len(ballast))
		}
	}
}

// kinds are the operations of a plan, in order, by name.
func kinds(p *graph.Plan) []string {
	var names []string
	for _, in := range p.Instructions {
		names = append(names, strings.TrimPrefix(fmt.Sprintf("%T", in.Op), "graph."))
	}
	return names
}

func TestPlanDropsWhatNobodyNeeds(t *testing.T) {
	build := func(withLoss bool, names ...string) []string {
		b := graph.NewBuilder(graph.Float32)
		x := b.Input("x", graph.Float32, 2, 3)
		w := b.Param("w", graph.LinearWeight, graph.Init{}, 3, 3)
		y := b.Linear(x, w, b.Param("bias", graph.Vector, graph.Init{}, 3))
		errs := b.SquaredError(y, b.Input("target", graph.Float32, 2, 3))
		all := map[string]*graph.Node{"y": y, "unused": b.SiLU(y), "errors": errs, "loss": b.Mean(errs)}
		outputs := map[string]*graph.Node{}
		for _, name := range names {
			outputs[name] = all[name]
		}
		var loss *graph.Node
		if withLoss {
			loss = all["loss"]
		}
		return kinds(compile(t, finish(t, b, loss, outputs), reference.Backend{}))
	}
	for _, c := range []struct {
		got, want []string
	}{
		{build(false, "y"), []string{"Linear"}},
		{build(false, "errors"), []string{"Linear", "SquaredError"}},
		{build(false), nil},
		// The loss itself is no output, and its gradient does not need it.
		{build(true), []string{"Linear", "MeanGrad", "SquaredErrorGrad", "LinearGradWeight", "SumRows"}},
		{build(true, "loss"), []string{"Linear", "SquaredError", "Mean", "MeanGrad", "SquaredErrorGrad", "LinearGradWeight", "SumRows"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("instructions %v, want %v", c.got, c.want)
		}
	}
}

func TestViewsShareMemory(t *testing.T) {
	b := graph.NewBuilder(graph.Float32)
	packed := b.Apply(graph.Copy{}, b.Input("x", graph.Float32, 3, 5))
	first, second := b.View(packed, 0), b.View(packed, 2)
	g := finish(t, b, nil, map[string]*graph.Node{"packed": packed, "first": first, "second": second})
	p := compile(t, g, reference.Backend{})
	if want := []string{"Copy"}; !slices.Equal(kinds(p), want) {
		t.Errorf("instructions %v, want %v", kinds(p), want)
	}
	base := p.Outputs["packed"].Offset
	if a, b := p.Outputs["first"].Offset, p.Outputs["second"].Offset; a != base || b != base+10 {
		t.Errorf("views at %d and %d of a value at %d, want %d and %d", a, b, base, base, base+10)
	}
}

func TestViewOfAnInputIsAnError(t *testing.T) {
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, 3, 5)
	_, err := graph.Compile(finish(t, b, nil, map[string]*graph.Node{"out": b.View(x, 1)}), reference.Backend{})
	if err == nil || !strings.Contains(err.Error(), "view of an input") {
		t.Errorf("have %v", err)
	}
}

func TestForeignOperationIsAnError(t *testing.T) {
	b := graph.NewBuilder(graph.Float32)
	foreign := gorgonia.Must(gorgonia.Neg(b.Input("x", graph.Float32, 3)))
	_, err := graph.Compile(finish(t, b, nil, map[string]*graph.Node{"out": foreign}), reference.Backend{})
	if err == nil || !strings.Contains(err.Error(), "no kernel for Gorgonia's") {
		t.Errorf("have %v", err)
	}
}

func TestInPlaceWhereNothingReadsTheOperandLater(t *testing.T) {
	for _, c := range []struct {
		what  string
		build func(b *graph.Builder, x *graph.Node) (out, also *graph.Node)
		want  bool
	}{
		{"the only use", func(b *graph.Builder, x *graph.Node) (_, _ *graph.Node) { return b.SiLU(x), nil }, true},
		{"a later use", func(b *graph.Builder, x *graph.Node) (_, _ *graph.Node) { return b.SiLU(x), b.Upsample(x) }, false},
		{"an output", func(b *graph.Builder, x *graph.Node) (_, _ *graph.Node) { return b.SiLU(x), x }, false},
		{"a view of an output", func(b *graph.Builder, x *graph.Node) (_, _ *graph.Node) { return b.SiLU(b.View(x, 0)), x }, false},
		{"both operands", func(b *graph.Builder, x *graph.Node) (_, _ *graph.Node) { return b.Add(x, x), nil }, false},
		{"not elementwise", func(b *graph.Builder, x *graph.Node) (_, _ *graph.Node) { return b.Apply(graph.Copy{}, x), nil }, false},
	} {
		b := graph.NewBuilder(graph.Float32)
		x := b.Apply(graph.Copy{}, b.Input("x", graph.Float32, 1, 2, 2, 3))
		out, also := c.build(b, x)
		outputs := map[string]*graph.Node{"out": out}
		if also != nil {
			outputs["also"] = also
		}
		g := finish(t, b, nil, outputs)
		p := compile(t, g, reference.Backend{})
		checkPlan(t, g, p)
		at := slices.IndexFunc(p.Instructions, func(in graph.Instruction) bool { return in.In[0].Space == graph.Activations })
		in := p.Instructions[at]
		if got := in.In[0].Offset == in.Out.Offset; got != c.want {
			t.Errorf("%s: in place is %v, want %v", c.what, got, c.want)
		}
	}
}

func TestGradientsLandInTheirArena(t *testing.T) {
	g := networkGraph(t, graph.Float32, "resnet")
	p := compile(t, g, reference.Backend{})
	writers := map[int][]string{}
	names := kinds(p)
	for i, in := range p.Instructions {
		if in.Out.Space == graph.Gradients {
			writers[in.Out.Offset] = append(writers[in.Out.Offset], names[i])
		}
	}
	for i, spec := range g.Layout.Params {
		by := writers[spec.Offset]
		if len(by) != 1 {
			t.Errorf("the gradient of %s is written by %v, want one instruction", spec.Name, by)
			continue
		}
		// Only what lies in another value, or is the gradient of an earlier
		// parameter too, needs a copy.
		op, _ := graph.OpOf(g.GradNodes()[i])
		_, isView := op.(graph.View)
		shared := slices.Index(g.GradNodes(), g.GradNodes()[i]) < i
		if copied := by[0] == "Copy"; copied != (isView || shared) {
			t.Errorf("the gradient of %s, a %T, is written by %s", spec.Name, op, by[0])
		}
	}
}

func TestOneGradientOfTwoParametersIsCopied(t *testing.T) {
	b := graph.NewBuilder(graph.Float64)
	p, q := b.Param("p", graph.Vector, graph.Init{}, 3), b.Param("q", graph.Vector, graph.Init{}, 3)
	loss := b.Mean(b.SquaredError(b.Add(p, q), b.Input("target", graph.Float64, 3)))
	g := finish(t, b, loss, nil)
	plan := compile(t, g, reference.Backend{})
	if last := plan.Instructions[len(plan.Instructions)-1]; last.Op != (graph.Copy{}) || last.In[0].Space != graph.Gradients {
		t.Errorf("the last instruction is %+v, want a copy of a gradient", last)
	}
	checkPlan(t, g, plan)
	d := define(t, g, feedsFor(g))
	d.run()
	grads := d.arena(graph.Grads)
	of := func(i int) []float64 { return grads[g.Layout.Params[i].Offset:][:3] }
	if !slices.Equal(of(0), of(1)) || of(0)[0] == 0 {
		t.Errorf("gradients %v and %v, want equal ones", of(0), of(1))
	}
}

// TestParameterUsedTwice compares the gradient of shared weights with the sum of
// those of two parameters of equal value.
func TestParameterUsedTwice(t *testing.T) {
	gradients := func(shared bool) ([]float64, *graph.Layout) {
		b := graph.NewBuilder(graph.Float64)
		w := b.Param("w", graph.LinearWeight, graph.Init{}, 4, 4)
		other := w
		if !shared {
			other = b.Param("other", graph.LinearWeight, graph.Init{}, 4, 4)
		}
		bias := b.Input("bias", graph.Float64, 4)
		h := b.Linear(b.SiLU(b.Linear(b.Input("x", graph.Float64, 3, 4), w, bias)), other, bias)
		loss := b.Mean(b.SquaredError(h, b.Input("target", graph.Float64, 3, 4)))
		g := finish(t, b, loss, nil)
		d := define(t, g, feedsFor(g))
		for _, p := range g.Layout.Params {
			copy(d.arena(graph.Params)[p.Offset:], normals(p.Len, 77))
		}
		d.run()
		return d.arena(graph.Grads), g.Layout
	}
	got, _ := gradients(true)
	apart, l := gradients(false)
	for i := range 16 {
		want := apart[l.Params[0].Offset+i] + apart[l.Params[1].Offset+i]
		if got[i] != want {
			t.Errorf("gradient %d of shared weights is %v, the sum %v", i, got[i], want)
		}
	}
}

func TestFlops(t *testing.T) {
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, 2, 4, 4, 3)
	op := graph.Conv2D{Stride: 2, Bottom: 1, Right: 1}
	h := b.Conv(op, x, b.Param("conv", graph.ConvWeight, graph.Init{}, 3, 3, 3, 6), b.Param("bias", graph.Vector, graph.Init{}, 6))
	q := b.Linear(h, b.Param("linear", graph.LinearWeight, graph.Init{}, 6, 8), b.Param("shift", graph.Vector, graph.Init{}, 8))
	a := b.Attention(q, q, q, 2)
	loss := b.Mean(b.SquaredError(b.SiLU(a), b.Input("target", graph.Float32, 2, 2, 2, 8)))
	const (
		pixels = 2 * 2 * 2
		conv   = 2 * pixels * 6 * 27
		linear = 2 * pixels * 8 * 6
		attend = 2 * 2 * pixels * 4 * 8 // q kᵀ and p v, four keys for each query
	)
	forward := compile(t, finish(t, b, nil, map[string]*graph.Node{"a": a}), reference.Backend{})
	if got := forward.Flops(); got != conv+linear+attend {
		t.Errorf("%d operations forward, want %d", got, conv+linear+attend)
	}
	// Backward each product has two, but for that of the input's gradient.
	training := compile(t, finish(t, b, loss, nil), reference.Backend{})
	if got, want := training.Flops(), int64(2*conv+3*linear+3*attend); got != want {
		t.Errorf("%d operations a training step, want %d", got, want)
	}
}
