package bench

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"ddpm/internal/graph"
)

// Op is the operations of one kind on operands of the same shapes, in one step.
type Op struct {
	Group string // convolution forward 32x32
	Kind  string // Conv2D
	Class string // 3x3 32x32 128->128; "" for what is not an operation of the graph
	Calls int    // a step
	Time  time.Duration
	Share float64 // of the step
	Flops int64   // two for each multiply-add; 0 if memory is what it waits for
	Bytes int64   // of operands and results, each once
}

// Groups that are not of a graph's operations.
const (
	optimiserGroup = "optimiser"
	restGroup      = "the rest"
)

// work is the operations of a step, without their times.
type work struct {
	rows        []Op
	rowOf       []int // by instruction
	update, sum int   // rows of the optimiser and of adding up gradients, or -1
}

// workOf is the work of a step that runs a plan, made for b, a number of times.
func workOf(plan *graph.Plan, b graph.Backend, runs int) *work {
	w := &work{rowOf: make([]int, len(plan.Instructions)), update: -1, sum: -1}
	rows := map[[2]string]int{}
	for i, in := range plan.Instructions {
		op := describe(in)
		key := [2]string{op.Kind, op.Class}
		row, ok := rows[key]
		if !ok {
			row = w.add(op)
			rows[key] = row
		}
		w.rowOf[i] = row
		total := &w.rows[row]
		total.Calls += runs
		total.Bytes += int64(runs) * bytesOf(in)
		if costed, ok := in.Op.(graph.Costed); ok {
			total.Flops += int64(runs) * costed.Flops(in.Out.Shape, shapes(in.In))
		}
	}
	if plan.Graph.Trains() {
		size := int64(plan.Graph.Layout.Size)
		w.update = w.add(Op{Group: optimiserGroup, Kind: "Update", Class: "clip, Adam, average", Calls: 1, Bytes: size * updateBytes(b)})
		if runs > 1 {
			w.sum = w.add(Op{Group: optimiserGroup, Kind: "Accumulate", Calls: runs, Bytes: int64(runs) * 3 * 4 * size})
		}
	}
	return w
}

func (w *work) add(op Op) (row int) {
	w.rows = append(w.rows, op)
	return len(w.rows) - 1
}

// updateBytes is what an update reads and writes of each parameter: the gradient
// twice, for its norm and for the step; weights, both moments and the average in and
// out; and what products read of the weights if that is a copy of them.
func updateBytes(b graph.Backend) int64 {
	const gradient, arenas, rounded = 2 * 4, 4 * 2 * 4, 2
	if keepsRounded(b) {
		return gradient + arenas + rounded
	}
	return gradient + arenas
}

// keepsRounded says whether states have a copy in bfloat16 of weights and average.
func keepsRounded(b graph.Backend) bool {
	_, isHost := b.(graph.Processor)
	return !isHost && b.Precision() == graph.BF16
}

// describe names the kind of an instruction, the shapes that say how much work it
// is, and what it belongs to.
func describe(in graph.Instruction) Op {
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
	return Op{Group: group(op, operands), Kind: name, Class: class(op, in.Out.Shape, operands)}
}

// group is the part of the network's work that an operation belongs to. Those of
// convolutions are by the extent of the image, of a smaller and a larger one the
// larger.
func group(op graph.Op, in []graph.Shape) string {
	size := func(g graph.ConvGeometry, _ error) string { return fmt.Sprintf(" %dx%d", g.H, g.W) }
	switch o := op.(type) {
	case graph.Conv2D:
		return "convolution forward" + size(o.Geometry(in[0], in[1]))
	case graph.Conv2DGradData:
		return "convolution data gradient" + size(o.GeometryOf(in[0], in[1]))
	case graph.Conv2DGradWeight:
		return "convolution weight gradient" + size(o.GeometryOf(in[0], in[1]))
	case graph.Linear:
		return "linear forward"
	case graph.LinearGradData:
		return "linear data gradient"
	case graph.LinearGradWeight:
		return "linear weight gradient"
	case graph.Attention:
		return "attention forward"
	case graph.AttentionGrad:
		return "attention gradient"
	case graph.GroupNormStats, graph.GroupNorm:
		return "group normalisation forward"
	case graph.GroupNormGradSums, graph.GroupNormGradData, graph.GroupNormGradAffine:
		return "group normalisation gradient"
	case graph.SumPixels, graph.SumRows:
		return "sums for biases"
	case graph.QSample, graph.PSample, graph.X0Limit, graph.Guidance, graph.SquaredError, graph.SquaredErrorGrad,
		graph.VLB, graph.VLBGrad, graph.Weigh, graph.PseudoHuber, graph.PseudoHuberGrad, graph.Mean, graph.MeanGrad:
		return "noise, loss, sampler"
	}
	return "elementwise and copies"
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
	case graph.Embedding:
		return table(in[0])
	case graph.EmbeddingGrad:
		return table(out)
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

// table names a table [K,D].
func table(s graph.Shape) string { return fmt.Sprintf("%d rows of %d", s[0], s[1]) }

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

// bytesOf is the memory an instruction reads and writes: each value once, also one
// that is several operands. Where others computed a part of it aside, it reads that
// in place of its operands; what it leaves aside itself it computes from the result,
// which is at hand, and from other values.
func bytesOf(in graph.Instruction) int64 {
	var total int64
	size := func(r graph.Ref) int64 { return int64(r.Len()) * int64(r.DType.Size()) }
	type place struct {
		space          graph.Space
		offset, length int
	}
	seen := map[place]bool{}
	once := func(r graph.Ref) {
		at := place{r.Space, r.Offset, r.Len()}
		if r.Space != graph.Constant && !seen[at] {
			total += size(r)
		}
		seen[at] = true
	}
	read := in.In
	if len(in.Found) > 0 {
		read = in.Found
	}
	for _, r := range read {
		once(r)
	}
	if in.Aside != nil {
		seen[place{in.Out.Space, in.Out.Offset, in.Out.Len()}] = true
		for _, r := range in.Aside.In {
			once(r)
		}
		total += size(in.Aside.Out)
	}
	return total + size(in.Out)
}
