// Package distill trains a student to draw in one to four calls of the network what its
// teacher, a trained diffusion model, draws in many. The student has the teacher's
// architecture and starts from its weights. Both methods are a regression,
//
//	loss = mean over images of d(weight MSE(UNet(x_t, t), target))
//
// in which teacher and student themselves say what the target is: see consistency.go and
// progressive.go.
package distill

import (
	"errors"
	"fmt"
	"io"

	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/train"
)

// Objective is that of a student. It is a train.Objective.
type Objective struct {
	Config Config
	// Teacher are the teacher's weights, an arena. A run that is resumed has them in its
	// checkpoint; nil then.
	Teacher []float32
}

// Graph has inputs x and target [n,H,W,C], t and weight [n], class [n] of a network with
// classes, and keys [n,4] of one with dropout.
func (o Objective) Graph(s train.Setup, n int) (*graph.Graph, error) {
	b := graph.NewBuilder(graph.Float32)
	images := func(name string) *graph.Node {
		return b.Input(name, graph.Float32, n, s.Size.Height, s.Size.Width, s.Size.Channels)
	}
	in := model.Inputs{X: images("x"), T: b.Input("t", graph.Float32, n)}
	if s.Model.Classes > 0 {
		in.Class = b.Input("class", graph.Uint32, n)
	}
	if s.Model.Dropout > 0 {
		in.Keys = b.Input("keys", graph.Uint32, n, 4)
	}
	each := b.SquaredError(model.UNet(b, s.Model, in), images("target"))
	each = b.Weigh(each, b.Input("weight", graph.Float32, n))
	if o.Config.Loss == huber {
		each = b.PseudoHuber(each, o.Config.HuberC)
	}
	loss := b.Mean(each)
	return b.Finish(loss, map[string]*graph.Node{"loss": loss})
}

// plans are the networks that make targets: the teacher on a part of a batch, with and without
// class if it is guided, and for consistency the student.
func (o Objective) plans(s train.Setup) (teacher, target *graph.Plan, err error) {
	compile := func(n int, keep bool) (*graph.Plan, error) {
		g, err := model.Inference(s.Model, s.Size, n)
		if err != nil {
			return nil, err
		}
		g.KeepWeights = keep
		return graph.Compile(g, s.Backend)
	}
	part := s.Train.Batch / s.Train.Accumulate
	n := part
	if o.guided(s) {
		n *= 2
	}
	if teacher, err = compile(n, true); err != nil || o.Config.Method != Consistency {
		return teacher, nil, err
	}
	// The student's weights are others at each step.
	target, err = compile(part, s.Train.Accumulate > 1)
	return teacher, target, err
}

// guided reports whether the teacher's predictions are guided.
func (o Objective) guided(s train.Setup) bool { return s.Model.Classes > 0 && o.Config.Guidance != 1 }

// Memory is that of the teacher and of what makes targets.
func (o Objective) Memory(s train.Setup) ([]train.Memory, error) {
	teacher, target, err := o.plans(s)
	if err != nil {
		return nil, err
	}
	plans := []*graph.Plan{teacher}
	if target != nil {
		plans = append(plans, target)
	}
	var scratch int64
	for _, p := range plans {
		scratch += 4 * int64(p.Arena+p.Kept)
		for _, in := range p.Graph.Inputs {
			scratch += int64(in.DType.Size()) * int64(in.Shape.TotalSize())
		}
	}
	// A state has averaged weights too.
	return []train.Memory{
		{Kind: "the teacher's weights", Bytes: 2 * 4 * int64(teacher.Graph.Layout.Size)},
		{Kind: "targets in the making", Bytes: scratch},
	}, nil
}

// Initial are the weights that the student starts from.
func (o Objective) Initial(l *graph.Layout) ([]float32, error) {
	if len(o.Teacher) != l.Size {
		return nil, fmt.Errorf("distill: the teacher has %d weights, the student %d", len(o.Teacher), l.Size)
	}
	return o.Teacher, nil
}

// Forwards is the number of forward passes that an image's target takes.
func (o Objective) Forwards(s train.Setup) int {
	c, target := o.Config, 0
	passes := 2
	if c.Method == Consistency {
		passes, target = c.SolverSteps, 1
		if c.Solver == heun {
			passes *= 2
		}
	}
	if o.guided(s) {
		passes *= 2
	}
	return passes + target
}

// Remembers is the number of the teacher's weights, which each checkpoint holds.
func (o Objective) Remembers(l *graph.Layout) int { return l.Size }

// StageSteps is the length of a stage of progressive distillation, for each of which Adam starts anew; 0 is
// that of the run.
func (o Objective) StageSteps() int {
	if o.Config.Method == Progressive {
		return o.Config.StageSteps
	}
	return 0
}

// Open gets ready to feed a student, which is trained on a state.
func (o Objective) Open(s train.Setup, student graph.State) (f train.Feeder, err error) {
	plan, targetPlan, err := o.plans(s)
	if err != nil {
		return nil, err
	}
	var opened []io.Closer
	defer func() {
		if err != nil {
			for _, c := range opened {
				err = errors.Join(err, c.Close())
			}
		}
	}()
	state, err := s.Backend.NewState(student.Layout(), false)
	if err != nil {
		return nil, err
	}
	opened = append(opened, state)
	teacher, err := generate.Load(s.Backend, plan, state, graph.Params, s.Model)
	if err != nil {
		return nil, err
	}
	opened = append(opened, teacher)
	part := s.Train.Batch / s.Train.Accumulate
	t, err := newTeaching(o.Config, s, part, teacher, o.guided(s))
	if err != nil {
		return nil, err
	}
	t.student, t.state, t.weights = student, state, make([]float32, student.Layout().Size)
	copy(t.weights, o.Teacher)
	if o.Config.Method == Progressive {
		return newProgressive(t), nil
	}
	arena := graph.EMA
	if o.Config.Target == current {
		arena = graph.Params
	}
	target, err := generate.Load(s.Backend, targetPlan, student, arena, s.Model)
	if err != nil {
		return nil, err
	}
	opened = append(opened, target)
	return newConsistency(t, target)
}
