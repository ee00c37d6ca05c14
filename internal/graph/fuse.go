package graph

import "slices"

// Fusions are operations wrapped around others, so that a backend may do in one
// pass over memory what would take several. No network is written with them:
// Compile puts them where the backend has a kernel for the whole, after the
// gradient was taken. Each is defined by the operations it stands for.

// Joined is Of on the concatenation of the first two operands, on channels, in
// place of its first.
type Joined struct{ Of Op }

// Doubled is Of on the up-sampled first operand.
type Doubled struct{ Of Op }

// PlusPerSample adds the last operand, [N,C], to every pixel of what Of computes
// from the others.
type PlusPerSample struct{ Of Op }

// Plus adds the last operand to what Of computes from the others, and may write
// over it.
type Plus struct{ Of Op }

// Fusing is a Backend that has kernels for fusions.
type Fusing interface {
	// Fuses says whether a fusion can run on operands of these shapes.
	Fuses(op Op, in []Shape) bool
}

func (o Joined) Infer(in []Shape) (Shape, error)   { return inferBefore(Concat{}, 2, o.Of, in) }
func (o Joined) Eval(out Operand, in []Operand)    { evalBefore(Concat{}, 2, o.Of, out, in) }
func (o Joined) Flops(out Shape, in []Shape) int64 { return flops(o.Of, out, headed(Concat{}, 2, in)) }
func (o Doubled) Infer(in []Shape) (Shape, error)  { return inferBefore(Upsample{}, 1, o.Of, in) }
func (o Doubled) Eval(out Operand, in []Operand)   { evalBefore(Upsample{}, 1, o.Of, out, in) }
func (o Doubled) Flops(out Shape, in []Shape) int64 {
	return flops(o.Of, out, headed(Upsample{}, 1, in))
}
func (o PlusPerSample) Infer(in []Shape) (Shape, error) { return inferAfter(o.Of, AddPerSample{}, in) }
func (o PlusPerSample) Eval(out Operand, in []Operand)  { evalAfter(o.Of, AddPerSample{}, out, in) }
func (o PlusPerSample) Flops(out Shape, in []Shape) int64 {
	return flops(o.Of, out, in[:len(in)-1])
}
func (o Plus) Infer(in []Shape) (Shape, error)   { return inferAfter(o.Of, Add{}, in) }
func (o Plus) Eval(out Operand, in []Operand)    { evalAfter(o.Of, Add{}, out, in) }
func (o Plus) Flops(out Shape, in []Shape) int64 { return flops(o.Of, out, in[:len(in)-1]) }

func flops(op Op, out Shape, in []Shape) int64 {
	if c, ok := op.(Costed); ok {
		return c.Flops(out, in)
	}
	return 0
}

// headed are the shapes that op sees behind first, which takes n operands.
func headed(first Op, n int, in []Shape) []Shape {
	x, _ := first.Infer(in[:n])
	return slices.Concat([]Shape{x}, in[n:])
}

func inferBefore(first Op, n int, op Op, in []Shape) (Shape, error) {
	if _, err := first.Infer(in[:n]); err != nil {
		return nil, err
	}
	return op.Infer(headed(first, n, in))
}

func evalBefore(first Op, n int, op Op, out Operand, in []Operand) {
	shapes := make([]Shape, n)
	for i := range shapes {
		shapes[i] = in[i].Shape
	}
	shape, _ := first.Infer(shapes)
	x := Operand{Shape: shape, Data: make([]float64, elements(shape))}
	first.Eval(x, in[:n])
	op.Eval(out, slices.Concat([]Operand{x}, in[n:]))
}

func inferAfter(op, then Op, in []Shape) (Shape, error) {
	rest := len(in) - 1
	y, err := op.Infer(in[:rest])
	if err != nil {
		return nil, err
	}
	return then.Infer([]Shape{y, in[rest]})
}

func evalAfter(op, then Op, out Operand, in []Operand) {
	rest := len(in) - 1
	y := Operand{Shape: out.Shape, Data: make([]float64, len(out.Data))}
	op.Eval(y, in[:rest])
	then.Eval(out, []Operand{y, in[rest]})
}

// Unfuse takes a fusion apart: the operation at its heart and what was wrapped
// around it.
func Unfuse(op Op) (heart Op, f Fusion) {
	heart = op
	for {
		switch o := heart.(type) {
		case Joined:
			f.Joined, heart = true, o.Of
		case Doubled:
			f.Doubled, heart = true, o.Of
		case PlusPerSample:
			f.PerSample, heart = true, o.Of
		case Plus:
			f.Residual, heart = true, o.Of
		default:
			f.Disordered = f.around(heart) != op
			return heart, f
		}
	}
}

// around wraps an operation in the order in which the operands of a Fusion lie.
func (f Fusion) around(op Op) Op {
	if f.Joined {
		op = Joined{op}
	}
	if f.Doubled {
		op = Doubled{op}
	}
	if f.PerSample {
		op = PlusPerSample{op}
	}
	if f.Residual {
		op = Plus{op}
	}
	return op
}

// Fusion is what Compile wraps around an operation. The operands are those of
// the operation, the first doubled in number if Joined, then [N,C] if
// PerSample, then the shape of the result if Residual.
type Fusion struct {
	Joined, Doubled, PerSample, Residual bool
	// Disordered says that the operands lie otherwise: something is wrapped twice,
	// or a residual is added before the value per sample.
	Disordered bool
}

// WeightsAt is the index of the weights among the operands of op, which may be a
// fusion; ok is false if there are none.
func WeightsAt(op Op) (at int, ok bool) {
	heart, f := Unfuse(op)
	w, ok := heart.(Weighted)
	if !ok {
		return 0, false
	}
	if at = w.WeightsAt(); f.Joined {
		at++
	}
	return at, true
}

// step is an operation that the plan will run; fusing merges steps.
type step struct {
	op   Op
	node *Node // whose value it computes
	in   []*Node
}

// fuser merges the steps of a plan.
type fuser struct {
	backend Fusing
	steps   map[*Node]*step
	users   map[*Node][]*step // steps that read a node, one entry each time
	ends    map[*Node]bool    // nodes whose values are wanted
}

// fuse merges steps where the backend can run the whole, and returns those left.
func fuse(steps []*step, ends []*Node, b Fusing) []*step {
	f := fuser{b, map[*Node]*step{}, map[*Node][]*step{}, map[*Node]bool{}}
	for _, n := range ends {
		f.ends[n] = true
	}
	for _, s := range steps {
		f.steps[s.node] = s
		for _, n := range s.in {
			f.users[n] = append(f.users[n], s)
		}
	}
	for _, s := range steps {
		switch s.op.(type) {
		case Concat:
			f.readBy(s, func(op Op) Op { return Joined{op} })
		case Upsample:
			f.readBy(s, func(op Op) Op { return Doubled{op} })
		}
	}
	for _, s := range steps {
		switch s.op.(type) {
		case AddPerSample:
			f.add(s, 0, func(op Op) Op { return PlusPerSample{op} })
		case Add:
			_ = f.add(s, 0, func(op Op) Op { return Plus{op} }) || f.add(s, 1, func(op Op) Op { return Plus{op} })
		}
	}
	return slices.DeleteFunc(steps, func(s *step) bool { return f.steps[s.node] == nil })
}

// readBy drops a step that only arranges values in memory if all that read its
// result can read its operands instead.
func (f *fuser) readBy(s *step, wrap func(Op) Op) {
	users := f.users[s.node]
	if f.ends[s.node] || len(users) == 0 {
		return
	}
	for _, user := range users {
		in := slices.Concat(s.in, user.in[1:])
		if user.in[0] != s.node || slices.Contains(user.in[1:], s.node) || !f.fuses(wrap(user.op), in) {
			return
		}
	}
	for _, user := range users {
		user.op, user.in = wrap(user.op), slices.Concat(s.in, user.in[1:])
		for _, n := range s.in {
			f.users[n] = append(f.users[n], user)
		}
	}
	f.drop(s)
}

// add merges an addition with the step that computes its operand at, if nothing
// else reads that.
func (f *fuser) add(s *step, at int, wrap func(Op) Op) bool {
	operand, other := s.in[at], s.in[1-at]
	inner := f.steps[operand]
	if inner == nil || inner.op == nil || f.ends[operand] || len(f.users[operand]) != 1 {
		return false
	}
	in := append(slices.Clip(inner.in), other)
	if !f.fuses(wrap(inner.op), in) {
		return false
	}
	s.op, s.in = wrap(inner.op), in
	for _, n := range inner.in {
		f.users[n] = append(f.users[n], s)
	}
	f.drop(inner)
	return true
}

func (f *fuser) fuses(op Op, in []*Node) bool {
	return f.backend.Fuses(op, shapesOf(in))
}

// drop removes a step and its reads.
func (f *fuser) drop(s *step) {
	delete(f.steps, s.node)
	for _, n := range s.in {
		users := f.users[n]
		i := slices.Index(users, s)
		f.users[n] = slices.Delete(users, i, i+1)
	}
}
