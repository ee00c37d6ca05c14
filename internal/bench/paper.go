package bench

import (
	"errors"

	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/train"
)

// Work is the operations of one of Modes, from the plan alone: none has a time.
func Work(mode string, s train.Setup) ([]Op, error) {
	if mode == "train" {
		plan, err := train.CompileStep(s)
		if err != nil {
			return nil, err
		}
		return workOf(plan, s.Backend, s.Train.Accumulate).rows, nil
	}
	plan, err := samplingPlan(s)
	if err != nil {
		return nil, err
	}
	return workOf(plan, s.Backend, 1).rows, nil
}

// samplingPlan is that of a step of the reverse process.
func samplingPlan(s train.Setup) (*graph.Plan, error) {
	g, err := generate.Graph(generate.Resolve(s.Sample, s.Diffusion, s.Model), s.Model, s.Size, s.Batch)
	if err != nil {
		return nil, err
	}
	return graph.Compile(g, s.Backend)
}

// Paper is a device to make plans for that there need not be: it fuses whatever is
// around products and group normalisation, and in bf16 keeps activations in it, as
// the GPU's backend does. Its kernels need no memory of their own, and nothing runs.
func Paper(p graph.Precision) graph.Backend { return paper{p} }

type paper struct{ precision graph.Precision }

var errPaper = errors.New("a device on paper runs nothing")

func (p paper) Name() string               { return "paper: " + string(p.precision) }
func (p paper) Precision() graph.Precision { return p.precision }
func (p paper) Close() error               { return nil }

func (p paper) NewState(*graph.Layout, bool) (graph.State, error) { return nil, errPaper }

func (p paper) Load(*graph.Plan, graph.State, graph.Arena) (graph.Program, error) {
	return nil, errPaper
}

func (p paper) Workspace(graph.Op, graph.Shape, []graph.Shape, bool) (scratch, kept int) {
	return 0, 0
}

// Fuses implements graph.Fusing.
func (p paper) Fuses(op graph.Op, _ []graph.Shape) bool {
	heart, f := graph.Unfuse(op)
	switch heart.(type) {
	case graph.Conv2D, graph.Conv2DGradData, graph.Conv2DGradWeight,
		graph.Linear, graph.LinearGradData, graph.LinearGradWeight,
		graph.GroupNormStats, graph.GroupNorm, graph.GroupNormGradSums, graph.GroupNormGradData:
		return !f.Disordered
	}
	return false
}

// Stored implements graph.Storing: images and their gradients, but not those of
// weights.
func (p paper) Stored(op graph.Op, out graph.Shape) graph.DType {
	heart, _ := graph.Unfuse(op)
	switch heart.(type) {
	case graph.Conv2DGradWeight, graph.LinearGradWeight:
		return graph.Float32
	}
	const vector = 8
	if p.precision == graph.BF16 && len(out) >= 4 && out[len(out)-1]%vector == 0 {
		return graph.BFloat16
	}
	return graph.Float32
}
