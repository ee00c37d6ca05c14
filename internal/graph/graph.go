// Package graph builds the network as a Gorgonia expression graph of the
// project's own operations, differentiates it symbolically with gorgonia.Grad,
// and compiles it to a Plan: a flat list of instructions over memory whose
// every byte is assigned before the first step. A Backend turns a plan into a
// Program for its device.
//
//	Builder --Finish--> Graph --Compile--> Plan --Backend.Load--> Program
//
// Each operation lives in one file: its shape rule, its gradient, and Eval, its
// definition in float64. The definitions are the oracle of every backend; they
// also make the operations run under Gorgonia's own TapeMachine.
//
// Activations are [N,H,W,C], convolution weights [KH,KW,Cin,Cout], linear
// weights [in,out]. Checkpoints use PyTorch's order; see ParamSpec.ToTorch.
package graph

import (
	"reflect"

	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

type (
	// Node is a value in the expression graph.
	Node = gorgonia.Node
	// Shape is the extent of each dimension; a scalar has none.
	Shape = tensor.Shape
	// DType is the element type of a value.
	DType = tensor.Dtype
)

// Element types of graph values. Activations and parameters are Float32;
// Float64 builds the same graph for gradient checks. BFloat16, the upper half of
// a Float32, is how a backend may store activations, see Storing; no graph is
// built with it.
var (
	Float32  = tensor.Float32
	Float64  = tensor.Float64
	Uint8    = tensor.Uint8
	Uint32   = tensor.Uint32
	BFloat16 = tensor.Dtype{Type: reflect.TypeFor[bfloat16]()}
)

type bfloat16 uint16

// Graph is a finished expression graph with its named ends.
type Graph struct {
	DType   DType
	Inputs  []Input
	Outputs []Output
	Layout  *Layout
	// KeepWeights says that the program will run more than once between two
	// changes of the weights, so that what kernels make of them is worth keeping.
	// Finish sets it for a graph without a loss.
	KeepWeights bool
	// Recompute says that the backward pass computes cheap results again instead
	// of having the forward pass keep them: see Recomputable.
	Recompute bool

	expr   *gorgonia.ExprGraph
	params []*Node // by position in Layout.Params
	grads  []*Node // likewise; nil for a graph without a loss
	loss   *Node
}

// Input is a value fed before every run.
type Input struct {
	Name  string
	Shape Shape
	DType DType
	node  *Node
}

// Output is a value kept readable after a run.
type Output struct {
	Name  string
	Shape Shape
	node  *Node
}

// Trains reports whether running the graph computes gradients.
func (g *Graph) Trains() bool { return g.grads != nil }

// children returns the operands of n in order, duplicates kept.
func children(g *gorgonia.ExprGraph, n *Node) []*Node {
	it := g.From(n.ID())
	nodes := make([]*Node, 0, it.Len())
	for it.Next() {
		nodes = append(nodes, it.Node().(*Node))
	}
	return nodes
}

// elements is the number of elements of a shape; a scalar has one.
func elements(s Shape) int {
	n := 1
	for _, d := range s {
		n *= d
	}
	return n
}

func sameShape(what string, in []Shape) (Shape, error) {
	for _, s := range in[1:] {
		if !s.Eq(in[0]) {
			return nil, fmt.Errorf("%s: shapes %v and %v differ", what, in[0], s)
		}
	}
	return in[0].Clone(), nil
}
