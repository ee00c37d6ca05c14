package graphtest

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/reference"
)

func TestReferenceAgainstItself(t *testing.T) { RunAll(t, reference.Backend{}) }

// fusing is the reference running every fusion there can be, by definition.
type fusing struct{ reference.Backend }

func (fusing) Fuses(op graph.Op, in []graph.Shape) bool {
	_, err := op.Infer(in)
	return err == nil
}

func TestFusedReferenceAgainstItself(t *testing.T) {
	for _, c := range suite() {
		if c.name == "programs/do_not_allocate" {
			continue // the reference does
		}
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(fusing{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEveryOperationHasACase(t *testing.T) {
	types, err := TypesWith("..", "Eval")
	if err != nil {
		t.Fatal(err)
	}
	if len(types) < 20 {
		t.Fatalf("only %d operations found in the source: %v", len(types), types)
	}
	covered := map[string]bool{}
	for _, c := range opTable() {
		covered[opName(c.op)] = true
	}
	for _, name := range types {
		if !covered[name] {
			t.Errorf("operation %s is not in opTable", name)
		}
	}
}

func TestCasesHaveDifferentNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range suite() {
		if seen[c.name] {
			t.Errorf("two cases named %s", c.name)
		}
		seen[c.name] = true
	}
}

// saboteur is the reference with parts replaced by wrong ones.
type saboteur struct {
	reference.Backend
	fuses   bool
	op      func(graph.Op) graph.Op
	state   func(*reference.State) graph.State
	weights func(graph.Arena) graph.Arena
	load    func(s *reference.State) *reference.State
	program func(graph.Program) graph.Program
}

// wrapped is a state that a saboteur may have replaced.
type wrapped struct {
	graph.State
	inner *reference.State
}

func (b saboteur) Fuses(op graph.Op, in []graph.Shape) bool { return b.fuses && fusing{}.Fuses(op, in) }

func (b saboteur) NewState(l *graph.Layout, training bool) (graph.State, error) {
	s, err := b.Backend.NewState(l, training)
	if err != nil {
		return nil, err
	}
	inner := s.(*reference.State)
	if b.state != nil {
		s = b.state(inner)
	}
	return wrapped{s, inner}, nil
}

func (b saboteur) Load(p *graph.Plan, s graph.State, weights graph.Arena) (graph.Program, error) {
	state := s.(wrapped).inner
	plan := *p
	if b.op != nil {
		plan.Instructions = slices.Clone(p.Instructions)
		for i := range plan.Instructions {
			plan.Instructions[i].Op = b.op(plan.Instructions[i].Op)
		}
	}
	if b.weights != nil {
		weights = b.weights(weights)
	}
	if b.load != nil {
		state = b.load(state)
	}
	program, err := b.Backend.Load(&plan, state, weights)
	if err == nil && b.program != nil {
		program = b.program(program)
	}
	return program, err
}

// inaccurate is an operation whose last element, or every element, is off by a
// thousandth of the largest.
type inaccurate struct {
	graph.Op
	everywhere bool
}

func (o inaccurate) Eval(out graph.Operand, in []graph.Operand) {
	o.Op.Eval(out, in)
	var most float64
	for _, v := range out.Data {
		most = max(most, math.Abs(v))
	}
	from := len(out.Data) - 1
	if o.everywhere {
		from = 0
	}
	for i := range out.Data[from:] {
		out.Data[from+i] += 1e-3 * max(most, 1e-3)
	}
}

func TestEveryOperationCaseCanFail(t *testing.T) {
	for _, c := range opTable() {
		target := opName(c.op)
		_, isView := c.op.(graph.View)
		if isView { // runs no instruction of its own
			target = "Copy"
		}
		_, fusion := graph.Unfuse(c.op)
		b := saboteur{fuses: fusion != graph.Fusion{}, op: func(op graph.Op) graph.Op {
			if opName(op) == target {
				return inaccurate{op, isView}
			}
			return op
		}}
		err := c.run(b)
		if err == nil {
			t.Errorf("%s does not see an error of 0.1 %% in one element", c.name())
		} else if !strings.Contains(err.Error(), "worst at") {
			t.Errorf("%s fails for another reason: %v", c.name(), err)
		}
	}
}

// greedy works in place whether or not the plan allows it.
type greedy struct{ graph.Op }

func (o greedy) Eval(out graph.Operand, in []graph.Operand) {
	o.Op.Eval(out, in)
	copy(in[0].Data, out.Data)
}

// Wrong states. Each embeds the right one and overrides a method.
type (
	keepsSum     struct{ *reference.State }
	addsAlways   struct{ *reference.State }
	unscaled     struct{ *reference.State }
	takesAnyGrad struct{ *reference.State }
	adjusted     struct {
		*reference.State
		adjust func(*graph.Update)
	}
	wrongNorm   struct{ *reference.State }
	writesGaps  struct{ *reference.State }
	forgetful   struct{ *reference.State }
	trainsAlone struct{ *reference.State }
)

func (s keepsSum) Update(u graph.Update) (float64, error) {
	norm, err := s.State.Update(u)
	s.State.Accumulate(false, 0) // adds nothing, but Update will use the sum again
	return norm, err
}

func (s addsAlways) Accumulate(_ bool, scale float64) error { return s.State.Accumulate(false, scale) }

func (s unscaled) Accumulate(first bool, _ float64) error { return s.State.Accumulate(first, 1) }

func (s takesAnyGrad) Update(u graph.Update) (float64, error) {
	norm, err := s.State.Update(u)
	if math.IsNaN(norm) {
		s.Arenas[graph.AdamV][0] = norm
	}
	return norm, err
}

func (s adjusted) Update(u graph.Update) (float64, error) {
	s.adjust(&u)
	return s.State.Update(u)
}

func (s wrongNorm) Update(u graph.Update) (float64, error) {
	norm, err := s.State.Update(u)
	return norm * 1.001, err
}

func (s writesGaps) Update(u graph.Update) (float64, error) {
	norm, err := s.State.Update(u)
	s.Arenas[graph.EMA][1] = 1 // the first parameter has one element
	return norm, err
}

func (s forgetful) Write(a graph.Arena, src []float32) error {
	if a == graph.AdamM {
		return nil
	}
	return s.State.Write(a, src)
}

func (s trainsAlone) Accumulate(bool, float64) error { return nil }

// Wrong programs.
type (
	unstoppable   struct{ graph.Program }
	swallows      struct{ graph.Program }
	makesUpOutput struct{ graph.Program }
	counts        struct {
		graph.Program
		runs *int
	}
)

func (p unstoppable) Run(_ context.Context, feeds graph.Feeds) error {
	return p.Program.Run(context.Background(), feeds)
}

func (p swallows) Run(ctx context.Context, feeds graph.Feeds) error {
	err := p.Program.Run(ctx, feeds)
	if err != nil && strings.Contains(err.Error(), "input") {
		return nil
	}
	return err
}

func (p makesUpOutput) Output(name string, dst []float32) error {
	p.Program.Output(name, dst)
	return nil
}

func (p counts) Run(ctx context.Context, feeds graph.Feeds) error {
	*p.runs++
	return p.Program.Run(ctx, feeds)
}

// Output rounds otherwise from run to run, as a sum of changing order would.
func (p counts) Output(name string, dst []float32) error {
	err := p.Program.Output(name, dst)
	if *p.runs > 2 {
		dst[0] = math.Nextafter32(dst[0], 9)
	}
	return err
}

// frozen is a copy of a state: a program on it misses later changes.
func frozen(s *reference.State) *reference.State {
	c := *s
	for i := range c.Arenas {
		c.Arenas[i] = slices.Clone(s.Arenas[i])
	}
	return &c
}

func TestSuiteFindsWrongBackends(t *testing.T) {
	state := func(wrap func(*reference.State) graph.State) saboteur { return saboteur{state: wrap} }
	update := func(adjust func(*graph.Update)) saboteur {
		return state(func(s *reference.State) graph.State { return adjusted{s, adjust} })
	}
	replace := func(old, new graph.Op) saboteur {
		return saboteur{op: func(op graph.Op) graph.Op {
			if op == old {
				return new
			}
			return op
		}}
	}
	for _, c := range []struct {
		wrong   string
		backend graph.Backend
		finds   string // a case that must fail
	}{
		{"works in place always", saboteur{op: func(op graph.Op) graph.Op { return greedy{op} }}, "ops/SiLU/3x5x7x3"},
		{"no SiLU in the norm", replace(graph.GroupNorm{Groups: 4, SiLU: true}, graph.GroupNorm{Groups: 4}), "networks/resnet/sampling_1"},
		{"other heads", replace(graph.AttentionGrad{Heads: 2}, graph.AttentionGrad{Heads: 1}), "networks/simple/training_3"},
		{"the sum is used twice", state(func(s *reference.State) graph.State { return keepsSum{s} }), "states/accumulate"},
		{"the sum never restarts", state(func(s *reference.State) graph.State { return addsAlways{s} }), "states/accumulate"},
		{"the sum is not scaled", state(func(s *reference.State) graph.State { return unscaled{s} }), "states/accumulate"},
		{"nothing is summed", state(func(s *reference.State) graph.State { return trainsAlone{s} }), "programs/accumulate_halves_of_a_batch"},
		{"NaN reaches a moment", state(func(s *reference.State) graph.State { return takesAnyGrad{s} }), "states/ignore_a_gradient_that_is_not_finite"},
		{"no clip", update(func(u *graph.Update) { u.Clip = 0 }), "states/ten_updates_clipped_to_1"},
		{"a clip of 0 clips", update(func(u *graph.Update) { u.Clip = max(u.Clip, 1) }), "states/ten_updates_clipped_to_0"},
		{"no bias correction", update(func(u *graph.Update) { u.Step = 100000 }), "states/ten_updates_clipped_to_0"},
		{"betas swapped", update(func(u *graph.Update) { u.Beta1, u.Beta2 = u.Beta2, u.Beta1 }), "states/ten_updates_clipped_to_0"},
		{"another learning rate", update(func(u *graph.Update) { u.LR *= 1.001 }), "states/ten_updates_clipped_to_0"},
		{"another Eps", update(func(u *graph.Update) { u.Eps = 1e-6 }), "states/ten_updates_clipped_to_0"},
		{"no average", update(func(u *graph.Update) { u.EMADecay = 0 }), "states/ten_updates_clipped_to_0"},
		{"another norm", state(func(s *reference.State) graph.State { return wrongNorm{s} }), "states/ten_updates_clipped_to_0"},
		{"writes between parameters", state(func(s *reference.State) graph.State { return writesGaps{s} }), "states/ten_updates_clipped_to_0"},
		{"loses a write", state(func(s *reference.State) graph.State { return forgetful{s} }), "states/read_what_was_written"},
		{"averaged weights ignored", saboteur{weights: func(graph.Arena) graph.Arena { return graph.Params }}, "programs/run_on_averaged_weights"},
		{"weights packed once", saboteur{load: frozen}, "programs/see_weights_change"},
		{"gradients of its own", saboteur{load: frozen}, "programs/share_a_state"},
		{"deaf to cancelling", saboteur{program: func(p graph.Program) graph.Program { return unstoppable{p} }}, "programs/stop_when_cancelled"},
		{"silent about feeds", saboteur{program: func(p graph.Program) graph.Program { return swallows{p} }}, "programs/refuse_wrong_feeds"},
		{"silent about outputs", saboteur{program: func(p graph.Program) graph.Program { return makesUpOutput{p} }}, "programs/refuse_a_wrong_output"},
		{"changing sums", saboteur{program: func(p graph.Program) graph.Program { return counts{p, new(int)} }}, "programs/repeat_bit_for_bit"},
		{"allocates", saboteur{}, "programs/do_not_allocate"},
	} {
		t.Run(c.wrong, func(t *testing.T) {
			i := slices.IndexFunc(suite(), func(s testCase) bool { return s.name == c.finds })
			if i < 0 {
				t.Fatalf("no case named %s", c.finds)
			}
			if err := suite()[i].run(c.backend); err == nil {
				t.Errorf("%s passes", c.finds)
			}
		})
	}
}

func TestCompareCountsNaNAsWrong(t *testing.T) {
	nan := float32(math.NaN())
	shape := graph.Shape{2, 3}
	err := compare("y", shape, []float32{1, 2, 3, 4, nan, 6}, []float32{1, 2, 3, 4, 5, 6}, 1, 0)
	if err == nil || !strings.Contains(err.Error(), "worst at [1 1]: have NaN, want 5") {
		t.Errorf("have %v", err)
	}
	if err := compare("y", shape, []float32{0, 0, 0, 0, 0, 0}, []float32{0, 0, 0, 0, 0, 0}, 0, 0); err != nil {
		t.Errorf("equal zeros: %v", err)
	}
}

// BenchmarkReference shows what the definitions cost. Choose: they are slow.
func BenchmarkReference(b *testing.B) { BenchAll(b, reference.Backend{}) }
