package bench

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"ddpm/internal/graph"
)

// Op is the operations of one kind on operands of the same shapes, in one step.
type Op struct {
	Kind  string // Conv2D
	Class string // 3x3 32x32 128->128; "" for what is not an operation of the graph
	Calls int    // a step
	Time  time.Duration
	Share float64 // of the step
	Flops int64   // two for each multiply-add; 0 if memory is what it waits for
	Bytes int64   // of operands and results
}

// profile adds up the time of operations, each the least it took in any step, for
// whatever else the machine did meanwhile is not theirs.
type profile struct {
	rows  []Op
	rowOf []int           // by instruction
	spent []time.Duration // by instruction, in one run of the program
	step  []time.Duration // by row, in the step so far
	rest  time.Duration   // what is left of a step

	update, sum int // rows of the optimiser and of adding up gradients
}

// newProfile prepares the profile of steps that run a plan a number of times.
func newProfile(plan *graph.Plan, runs int) (*profile, error) {
	p := &profile{
		rowOf: make([]int, len(plan.Instructions)),
		spent: make([]time.Duration, len(plan.Instructions)),
		rest:  math.MaxInt64, update: -1, sum: -1,
	}
	rows := map[[2]string]int{}
	for i, in := range plan.Instructions {
		key := describe(in)
		row, ok := rows[key]
		if !ok {
			row = p.add(Op{Kind: key[0], Class: key[1]})
			rows[key] = row
		}
		p.rowOf[i] = row
		op := &p.rows[row]
		op.Calls += runs
		op.Bytes += int64(runs) * bytesOf(in)
		if costed, ok := in.Op.(graph.Costed); ok {
			op.Flops += int64(runs) * costed.Flops(in.Out.Shape, shapes(in.In))
		}
	}
	if plan.Graph.Trains() {
		arena := 4 * int64(plan.Graph.Layout.Size)
		// The gradient is read twice, for its norm and for the step; weights, both
		// moments and the average are read and written.
		p.update = p.add(Op{Kind: "Update", Class: "clip, Adam, average", Calls: 1, Bytes: 10 * arena})
		if runs > 1 {
			p.sum = p.add(Op{Kind: "Accumulate", Calls: runs, Bytes: int64(runs) * 3 * arena})
		}
	}
	p.step = make([]time.Duration, len(p.rows))
	return p, nil
}

func (p *profile) add(op Op) (row int) {
	op.Time = math.MaxInt64
	p.rows = append(p.rows, op)
	return len(p.rows) - 1
}

// lap ends a step that took so long in all.
func (p *profile) lap(wall time.Duration) {
	if p == nil {
		return
	}
	for i := range p.rows {
		p.rows[i].Time = min(p.rows[i].Time, p.step[i])
		wall -= p.step[i]
	}
	p.rest = min(p.rest, max(wall, 0))
	p.forget()
}

// forget drops the step so far.
func (p *profile) forget() {
	if p != nil {
		clear(p.step)
	}
}

// ops are the rows, the longest first.
func (p *profile) ops() []Op {
	if p == nil {
		return nil
	}
	rows := append(slices.Clone(p.rows), Op{Kind: "the rest", Time: p.rest})
	var total time.Duration
	for _, op := range rows {
		total += op.Time
	}
	for i := range rows {
		rows[i].Share = rows[i].Time.Seconds() / total.Seconds()
	}
	slices.SortStableFunc(rows, func(a, b Op) int { return cmp.Compare(b.Time, a.Time) })
	return rows
}

// Kind is the operations of one kind, added up, and what they are made of.
type Kind struct {
	Op
	Members []Op
}

// ByKind gathers operations by kind, the kind and the member that takes longest
// first.
func ByKind(ops []Op) []Kind {
	var kinds []Kind
	for _, op := range ops {
		i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Kind == op.Kind })
		if i < 0 {
			i = len(kinds)
			kinds = append(kinds, Kind{Op: Op{Kind: op.Kind}})
		}
		k := &kinds[i]
		k.Calls += op.Calls
		k.Time += op.Time
		k.Share += op.Share
		k.Flops += op.Flops
		k.Bytes += op.Bytes
		k.Members = append(k.Members, op)
	}
	slices.SortStableFunc(kinds, func(a, b Kind) int { return cmp.Compare(b.Time, a.Time) })
	return kinds
}

// watchBackend is a backend whose programs report the time of their
// instructions. It is for loading alone: a plan is compiled for b itself.
func (p *profile) watchBackend(b graph.Backend) graph.Backend { return watchedBackend{b, p} }

// watchState is a state that reports the time of its own work.
func (p *profile) watchState(s graph.State) graph.State { return watchedState{s, p} }

type watchedBackend struct {
	graph.Backend
	profile *profile
}

func (b watchedBackend) Load(plan *graph.Plan, s graph.State, weights graph.Arena) (graph.Program, error) {
	if watched, ok := s.(watchedState); ok {
		s = watched.State
	}
	program, err := b.Backend.Load(plan, s, weights)
	if err != nil {
		return nil, err
	}
	timed, ok := program.(graph.Timed)
	if !ok {
		return nil, fmt.Errorf("%s does not time single operations", b.Name())
	}
	return watchedProgram{program, timed, b.profile}, nil
}

type watchedProgram struct {
	graph.Program
	timed   graph.Timed
	profile *profile
}

func (w watchedProgram) Run(ctx context.Context, feeds graph.Feeds) error {
	p := w.profile
	if err := w.timed.RunTimed(ctx, feeds, p.spent); err != nil {
		return err
	}
	for i, spent := range p.spent {
		p.step[p.rowOf[i]] += spent
	}
	return nil
}

type watchedState struct {
	graph.State
	profile *profile
}

func (s watchedState) Update(u graph.Update) (float64, error) {
	start := time.Now()
	norm, err := s.State.Update(u)
	s.profile.step[s.profile.update] += time.Since(start)
	return norm, err
}

func (s watchedState) Accumulate(first bool, scale float64) error {
	start := time.Now()
	err := s.State.Accumulate(first, scale)
	s.profile.step[s.profile.sum] += time.Since(start)
	return err
}

// describe names the kind of an instruction, and the shapes that say how much
// work it is.
func describe(in graph.Instruction) (key [2]string) {
	op, f := graph.Unfuse(in.Op)
	operands := shapes(in.In)
	name := reflect.TypeOf(op).Name()
	x := slices.Clone(operands[0])
	switch {
	case f.Joined:
		x[len(x)-1] += operands[1][len(x)-1]
		operands, name = slices.Concat([]graph.Shape{x}, operands[2:]), "Concat+"+name
	case f.Doubled:
		x[1], x[2] = 2*x[1], 2*x[2]
		operands, name = slices.Concat([]graph.Shape{x}, operands[1:]), "Upsample+"+name
	}
	if f.PerSample {
		name += "+AddPerSample"
	}
	if f.Residual {
		name += "+Add"
	}
	return [2]string{name, class(op, in.Out.Shape, operands)}
}

// class is the work of an operation in a few words: its extents without the
// number of images.
func class(op graph.Op, out graph.Shape, in []graph.Shape) string {
	switch o := op.(type) {
	case graph.Conv2D:
		g, _ := o.Geometry(in[0], in[1])
		return convolution(g)
	case graph.Conv2DGradData:
		g, _ := o.GeometryOf(in[0], in[1])
		return convolution(g)
	case graph.Conv2DGradWeight:
		g, _ := o.GeometryOf(in[0], in[1])
		return convolution(g)
	case graph.Linear:
		return linear(in[0], in[1][0], in[1][1])
	case graph.LinearGradData:
		return linear(in[1], in[0][0], in[0][1])
	case graph.LinearGradWeight:
		return linear(in[0], out[0], out[1])
	case graph.AttentionGrad:
		return image(in[0])
	}
	if len(in) > 0 && in[0].TotalSize() > out.TotalSize() {
		return image(in[0])
	}
	return image(out)
}

func convolution(g graph.ConvGeometry) string {
	text := fmt.Sprintf("%dx%d %dx%d %d->%d", g.R, g.S, g.H, g.W, g.C, g.K)
	if g.Stride > 1 {
		text += fmt.Sprint(" stride ", g.Stride)
	}
	return text
}

// linear names a layer from k to n features, of which x, or what has as many
// rows, is one side.
func linear(x graph.Shape, k, n int) string {
	return fmt.Sprintf("%d rows %d->%d", x.TotalSize()/x[len(x)-1], k, n)
}

// image writes the extents of [N,...] without N.
func image(s graph.Shape) string {
	if len(s) > 1 {
		s = s[1:]
	}
	words := make([]string, len(s))
	for i, n := range s {
		words[i] = fmt.Sprint(n)
	}
	return strings.Join(words, "x")
}

func shapes(refs []graph.Ref) []graph.Shape {
	all := make([]graph.Shape, len(refs))
	for i, r := range refs {
		all[i] = r.Shape
	}
	return all
}

// bytesOf is the memory an instruction reads and writes, each value once.
func bytesOf(in graph.Instruction) int64 {
	var total int64
	for _, r := range append([]graph.Ref{in.Out}, in.In...) {
		if r.Space != graph.Constant {
			total += int64(r.Len()) * int64(r.DType.Size())
		}
	}
	return total
}
