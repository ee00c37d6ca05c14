package graph

import (
	"reflect"
	"slices"
)

// Leaving is a Backend some of whose kernels do, while their result is at hand, a part
// of an operation that will read it: sums over pixels, for group normalisation and
// biases. That saves a pass over memory.
type Leaving interface {
	// Leaves is the memory, in elements of float32, of what the kernel of op leaves for
	// reader, which reads its result; 0 if it leaves nothing.
	Leaves(op Op, out Shape, in []Shape, reader Op, readerIn []Shape) int
}

// Aside is a part of an operation that the kernel of another instruction computes.
type Aside struct {
	Op Op // the operation, which a later instruction applies
	// In are its operands, one of them the result of this instruction; or that
	// alone if nothing else matters.
	In  []Ref
	Out Ref // for the later instruction to find, of float32
}

// aside is an Aside while a plan is made.
type aside struct {
	op     Op
	in     []*Node
	size   int
	alone  bool    // others may find it too
	buffer *buffer // once the step that leaves it was emitted
}

// partial are the operands of op that its sums are over, whose producers may compute
// a part of them; alone says that the sums depend on nothing else.
func partial(op Op) (at []int, alone bool) {
	heart, f := Unfuse(op)
	parts := []int{0}
	if f.Joined {
		parts = []int{0, 1}
	}
	switch heart.(type) {
	case GroupNormStats:
		return parts, true
	case SumPixels, SumRows:
		return []int{0}, true
	case GroupNormGradSums:
		return []int{len(parts) + 3}, false
	}
	return nil, false
}

// kind is the operation that stands for all whose part is the same: the sum of all rows
// begins with those of each image.
func kind(op Op) Op {
	heart, _ := Unfuse(op)
	if _, ok := heart.(SumRows); ok {
		return SumPixels{}
	}
	return heart
}

// leave finds the steps that leave something, and by reader what it finds, in the
// order of its partial operands.
func leave(steps []*step, b Leaving) (left map[*step]*aside, found map[*step][]*aside) {
	l := leaver{b, map[*Node]int{}, map[*step]*aside{}}
	found = map[*step][]*aside{}
	for i, s := range steps {
		l.position[s.node] = i
	}
	for _, reader := range steps {
		at, alone := partial(reader.op)
		var all []*aside
		var by []*step
		for _, i := range at {
			producer := steps[l.position[reader.in[i]]]
			a := l.asideOf(producer, reader, i, alone)
			if a == nil || slices.Contains(by, producer) {
				break
			}
			all, by = append(all, a), append(by, producer)
		}
		if len(at) == 0 || len(all) < len(at) {
			continue
		}
		found[reader] = all
		for i, producer := range by {
			l.left[producer] = all[i]
		}
	}
	return l.left, found
}

// leaver carries the state of leave.
type leaver struct {
	backend  Leaving
	position map[*Node]int // of the step that computes it
	left     map[*step]*aside
}

// asideOf is what a step can leave for a reader of its result, nil for nothing. One
// that depends on the result alone serves several readers.
func (l *leaver) asideOf(by, reader *step, at int, alone bool) *aside {
	if _, isView := by.op.(View); isView || by.node != reader.in[at] || by.op == nil {
		return nil
	}
	for _, n := range reader.in {
		if !alone && l.position[n] > l.position[by.node] {
			return nil // an operand that is not there yet
		}
	}
	size := l.backend.Leaves(by.op, by.node.Shape(), shapesOf(by.in), reader.op, shapesOf(reader.in))
	if size == 0 {
		return nil
	}
	before := l.left[by]
	switch {
	case before == nil && alone:
		return &aside{op: kind(reader.op), in: []*Node{by.node}, size: size, alone: true}
	case before == nil:
		return &aside{op: reader.op, in: reader.in, size: size}
	case before.alone && alone && before.size == size && reflect.TypeOf(before.op) == reflect.TypeOf(kind(reader.op)):
		return before
	}
	return nil
}

func shapesOf(nodes []*Node) []Shape {
	shapes := make([]Shape, len(nodes))
	for i, n := range nodes {
		shapes[i] = n.Shape()
	}
	return shapes
}
