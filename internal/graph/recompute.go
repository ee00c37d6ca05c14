package graph

// Recomputable is an Op that costs so little, and whose operands a training step
// keeps anyway, that the backward pass may compute it again instead of having
// its result kept: normalisations and dropout. Their results are about half of
// what a step keeps. This is gradient checkpointing (Chen et al., "Training Deep
// Nets with Sublinear Memory Cost", 2016) with nothing but cheap operations
// between the checkpoints.
type Recomputable interface{ Recomputable() }

// recompute gives the backward pass its own copies of recomputable results, each
// computed just before it is first read there.
func recompute(steps []*step, loss *Node) []*step {
	r := recomputer{forward: map[*Node]*step{}, copies: map[*Node]*Node{}}
	backward := false
	for _, s := range steps {
		if backward {
			for i, n := range s.in {
				s.in[i] = r.copyOf(n)
			}
		} else {
			r.forward[s.node] = s
		}
		r.steps = append(r.steps, s)
		backward = backward || s.node == loss
	}
	return r.steps
}

type recomputer struct {
	steps   []*step
	forward map[*Node]*step
	copies  map[*Node]*Node
}

// copyOf is what a backward step reads in place of n: n itself, or a copy that
// is computed by now.
func (r *recomputer) copyOf(n *Node) *Node {
	if c, ok := r.copies[n]; ok {
		return c
	}
	s := r.forward[n]
	if s == nil {
		return n
	}
	if _, ok := s.op.(Recomputable); !ok {
		return n
	}
	again := &step{op: s.op, node: n.Clone().(*Node), in: make([]*Node, len(s.in))}
	for i, operand := range s.in {
		again.in[i] = r.copyOf(operand)
	}
	r.steps = append(r.steps, again)
	r.copies[n] = again.node
	return again.node
}
