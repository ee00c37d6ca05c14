package graph

import "gorgonia.org/gorgonia"

// Access for tests to the expression graph.

func (g *Graph) Expr() *gorgonia.ExprGraph { return g.expr }
func (g *Graph) ParamNodes() []*Node       { return g.params }
func (g *Graph) GradNodes() []*Node        { return g.grads }
func (i Input) Node() *Node                { return i.node }
func (o Output) Node() *Node               { return o.node }

var (
	Children = children
	Kind     = kind
	OpOf     = opOf
)
