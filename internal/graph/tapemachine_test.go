package graph_test

import (
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"ddpm/internal/graph"
)

// smallGraph has the shapes of graphs that matter: a value used three times, so
// that Gorgonia sums gradients, gradients that are views, a skip connection, a
// parameter used twice, a table, and the losses of a network with variances.
func smallGraph(t *testing.T, dt graph.DType) *graph.Graph {
	b := graph.NewBuilder(dt)
	x := b.Input("x", dt, 2, 4, 4, 3)
	kernel := b.Param("conv.weight", graph.ConvWeight, graph.Init{}, 3, 3, 3, 4)
	stem := b.Conv(graph.Conv2D{Stride: 2, Bottom: 1, Right: 1}, x, kernel, b.Param("conv.bias", graph.Vector, graph.Init{}, 4))
	h := b.GroupNorm(stem, b.Param("norm.weight", graph.Vector, graph.Init{}, 4), b.Param("norm.bias", graph.Vector, graph.Init{}, 4), 2, 1e-5, true)
	h = b.SiLU(h)
	weight, bias := b.Param("linear.weight", graph.LinearWeight, graph.Init{}, 4, 4), b.Param("linear.bias", graph.Vector, graph.Init{}, 4)
	q := b.Linear(h, weight, bias)
	h = b.Add(b.Attention(q, h, b.Linear(q, weight, bias), 2), h)
	h = b.AddPerSample(h, b.Param("shift", graph.Vector, graph.Init{}, 2, 4))
	h = b.AddPerSample(h, b.Embedding(b.Param("class.weight", graph.Table, graph.Init{}, 3, 4), b.Input("class", graph.Uint32, 2)))
	h = b.Upsample(b.Concat(b.Add(h, stem), stem))
	target := b.Input("target", dt, 2, 4, 4, 4) // h has variances
	terms := b.VLB(graph.VLB{StopMean: true}, h, b.Input("xt", dt, 2, 4, 4, 4), target, b.Input("coefs", dt, 2, graph.VLBCoefs))
	losses := b.Weigh(b.Add(b.SquaredError(h, target), terms), b.Input("weights", dt, 2))
	loss := b.Mean(b.PseudoHuber(losses, 0.3))
	return finish(t, b, loss, map[string]*graph.Node{"h": h, "losses": losses, "loss": loss})
}

// TestTapeMachineAgrees runs the graph on Gorgonia's own machine, node by node
// and each value in memory of its own, against the compiled plan.
func TestTapeMachineAgrees(t *testing.T) {
	for _, c := range []struct {
		dtype     graph.DType
		tolerance float64
	}{
		{graph.Float64, 0},    // the same definitions in the same order
		{graph.Float32, 2e-5}, // the machine rounds every value to float32
	} {
		t.Run(c.dtype.String(), func(t *testing.T) {
			g := smallGraph(t, c.dtype)
			feeds := feedsFor(g)
			feeds["class"], feeds["weights"] = []uint32{2, 2}, []float64{0.5, 2}
			coefs := vlbFeeds([]int{2, 4, 4, 4}, 0)["coefs"].([]float64)
			coefs[graph.VLBDecoder] = 1
			feeds["coefs"] = coefs
			if c.dtype == graph.Float32 {
				for name, v := range feeds {
					if wide, ok := v.([]float64); ok {
						feeds[name] = narrow(wide)
					}
				}
			}
			if !sumsGradients(g) {
				t.Error("Gorgonia added no sum of gradients: the graph does not test what it should")
			}
			d := define(t, g, feeds)
			d.run()

			wanted := map[string]*graph.Node{}
			results := map[string][]float64{}
			for _, o := range g.Outputs {
				wanted[o.Name], results[o.Name] = o.Node(), d.output(o.Name)
			}
			for i, n := range g.GradNodes() {
				p := g.Layout.Params[i]
				name := "gradient of " + p.Name
				wanted[name], results[name] = n, d.arena(graph.Grads)[p.Offset:p.Offset+p.Len]
				value := d.arena(graph.Params)[p.Offset : p.Offset+p.Len]
				let(t, g.ParamNodes()[i], value)
			}
			for _, in := range g.Inputs {
				let(t, in.Node(), feeds[in.Name])
			}
			for name, want := range tape(t, g, wanted) {
				if off, at := furthest(results[name], want); !(off <= c.tolerance) {
					t.Errorf("%s[%d] is %v, TapeMachine has %v", name, at, results[name][at], want[at])
				}
			}
		})
	}
}

// sumsGradients reports whether the graph has an addition of Gorgonia's own.
func sumsGradients(g *graph.Graph) bool {
	for _, n := range g.Expr().AllNodes() {
		if n.Op() != nil && strings.HasPrefix(n.Op().String(), "+") {
			return true
		}
	}
	return false
}

func narrow(wide []float64) []float32 {
	v := make([]float32, len(wide))
	for i, x := range wide {
		v[i] = float32(x)
	}
	return v
}

// let binds a copy of a value to a leaf of the expression graph.
func let(t *testing.T, n *graph.Node, value any) {
	t.Helper()
	if wide, ok := value.([]float64); ok {
		if n.Dtype() == graph.Float32 {
			value = narrow(wide)
		} else {
			value = append([]float64{}, wide...)
		}
	}
	dense := tensor.New(tensor.WithShape(n.Shape()...), tensor.WithBacking(value))
	if err := gorgonia.Let(n, dense); err != nil {
		t.Fatal(err)
	}
}

// tape runs a graph whose leaves are bound, and returns the values of nodes.
func tape(t *testing.T, g *graph.Graph, nodes map[string]*graph.Node) map[string][]float64 {
	t.Helper()
	read := map[string]*gorgonia.Value{}
	for name, n := range nodes {
		read[name] = new(gorgonia.Value)
		gorgonia.Read(n, read[name])
	}
	m := gorgonia.NewTapeMachine(g.Expr())
	defer m.Close()
	if err := m.RunAll(); err != nil {
		t.Fatal(err)
	}
	values := map[string][]float64{}
	for name, v := range read {
		switch data := (*v).Data().(type) {
		case []float64:
			values[name] = data
		case []float32:
			values[name] = widen(data)
		case float64:
			values[name] = []float64{data}
		case float32:
			values[name] = []float64{float64(data)}
		default:
			t.Fatalf("%s is %T", name, data)
		}
	}
	return values
}

func widen(v []float32) []float64 {
	wide := make([]float64, len(v))
	for i, x := range v {
		wide[i] = float64(x)
	}
	return wide
}
