package distill

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"ddpm/internal/graph"
	"ddpm/internal/rng"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// network is a generate.Network.
type network interface {
	Predict(ctx context.Context, x []float32, t []float64, class []int, out []float32) error
	OutValues() int
	Close() error
}

// teaching is what the Feeders of both methods share: the images, noised on the host, and what the
// teacher predicts of them.
type teaching struct {
	Config
	setup    train.Setup
	schedule *sched.Schedule
	// of is how the student's x_0 follows from its output, ofTeacher how the teacher's does.
	of, ofTeacher sched.Parametrization

	student graph.State
	teacher network
	guided  bool
	state   graph.State // of the teacher
	weights []float32   // the teacher's, for state and for checkpoints
	loaded  bool        // state has them

	feeds     graph.Feeds
	xt, goal  []float32 // x and target, [N,H,W,C]
	t, weight []float32
	class     []uint32 // nil without classes
	keys      []uint32 // nil without dropout

	start     []sched.Node // where each image is
	from, to  []sched.Node // of a step of the teacher
	labels    []int        // nil without classes
	moved, x0 []float32    // images

	// What a network reads and says: of a guided teacher for all images with their class, then without.
	both, out []float32
	times     []float64
	classes   []int
}

// tensor is what the teacher's weights are called in a checkpoint.
const tensor = "teacher"

// newTeaching makes room for parts of n images.
func newTeaching(c Config, s train.Setup, n int, teacher network, guided bool) (*teaching, error) {
	t := &teaching{Config: c, setup: s, teacher: teacher, guided: guided}
	var err error
	if t.schedule, err = sched.New(s.Diffusion); err != nil {
		return nil, err
	}
	if t.of, err = s.Diffusion.Parametrization(); err != nil {
		return nil, err
	}
	t.ofTeacher = sched.Parametrization{Prediction: t.of.Prediction}

	values, calls := n*s.Size.Values(), n
	t.xt, t.goal = make([]float32, values), make([]float32, values)
	t.t, t.weight = make([]float32, n), make([]float32, n)
	t.feeds = graph.Feeds{"x": t.xt, "target": t.goal, "t": t.t, "weight": t.weight}
	t.start, t.from, t.to = make([]sched.Node, n), make([]sched.Node, n), make([]sched.Node, n)
	t.moved, t.x0 = make([]float32, values), make([]float32, values)
	if guided {
		calls = 2 * n
		t.both = make([]float32, 2*values)
	}
	t.out = make([]float32, calls*teacher.OutValues())
	t.times = make([]float64, calls)
	if s.Model.Classes > 0 {
		t.class, t.labels, t.classes = make([]uint32, n), make([]int, n), make([]int, calls)
		t.feeds["class"] = t.class
	}
	if s.Model.Dropout > 0 {
		t.keys = make([]uint32, 4*n)
		t.feeds["keys"] = t.keys
	}
	return t, nil
}

// Ahead is false: targets depend on the weights, or a stage on those of the one before.
func (*teaching) Ahead() bool            { return false }
func (*teaching) Observe(int, []float32) {}

// Tensors are the teacher's weights, so that a run goes on without the teacher's checkpoint.
func (t *teaching) Tensors() map[string][]float32 { return map[string][]float32{tensor: t.weights} }

func (t *teaching) Close() error { return errors.Join(t.teacher.Close(), t.state.Close()) }

// load hands the teacher its weights, before step k.
func (t *teaching) load(k int) error {
	if t.loaded {
		return nil
	}
	// A run that is measured has no teacher, and makes the first step only.
	if k > 0 && !slices.ContainsFunc(t.weights, func(w float32) bool { return w != 0 }) {
		return fmt.Errorf("distill: the checkpoint does not hold the teacher's weights: distil again from %s", t.Teacher)
	}
	t.loaded = true
	return t.state.Write(graph.Params, t.weights)
}

func (t *teaching) key(k, image int, stream rng.Stream) rng.Key {
	return rng.Key{Seed: t.setup.Seed, Stream: stream, Step: uint32(k), Sample: uint32(image)}
}

// draw is a number in [0, n) of an image of step k.
func (t *teaching) draw(k, image, n int) int { return t.key(k, image, rng.Distillation).IntN(n) }

// noise fills what the student reads: images first, first+1, ... of step k, mirrored or not, noised to
// their nodes, and their classes.
func (t *teaching) noise(k, first int, images []byte, labels []int32) {
	size := t.setup.Size
	values := size.Values()
	for i, n := range t.start {
		image := first + i
		x := t.xt[i*values : (i+1)*values]
		t.key(k, image, rng.Distillation).NormalsAt(x, 4) // the first block says which node
		flip := t.setup.Data.Flip && t.key(k, image, rng.Flip).IntN(2) == 1
		for p, eps := range x {
			from := p
			if flip {
				column := p / size.Channels % size.Width
				from += (size.Width - 1 - 2*column) * size.Channels
			}
			x0 := float64(images[i*values+from])/127.5 - 1
			x[p] = float32(n.Signal*x0 + n.Noise*float64(eps))
		}
		t.t[i] = float32(n.T)
		if t.class != nil {
			t.labels[i] = int(labels[i])
			if labels[i] < 0 {
				t.labels[i] = t.setup.Model.NoClass()
			}
			t.class[i] = uint32(t.labels[i])
		}
		if t.keys != nil {
			copy(t.keys[4*i:], []uint32{uint32(t.setup.Seed), uint32(t.setup.Seed >> 32), uint32(k), uint32(image)})
		}
	}
}

// teach fills x0 with the teacher's prediction for x at nodes. If guided it is
//
//	out = without + Guidance (with - without)
//
// of its outputs with and without the class, both from one call, times
//
//	GuidanceRescale std(with) / std(out) + 1 - GuidanceRescale
//
// where GuidanceFrom <= t/(T-1) <= GuidanceTo, and with alone elsewhere: as in sampling, see graph.Guidance.
func (t *teaching) teach(ctx context.Context, x []float32, at []sched.Node, x0 []float32) error {
	n := len(at)
	for i := range t.times {
		t.times[i] = at[i%n].T
		if t.classes != nil {
			t.classes[i] = t.labels[i%n]
			if i >= n {
				t.classes[i] = t.setup.Model.NoClass()
			}
		}
	}
	read := x
	if t.guided {
		read = t.both
		copy(read[copy(read, x):], x)
	}
	if err := t.teacher.Predict(ctx, read, t.times, t.classes, t.out); err != nil {
		return err
	}
	if t.guided {
		values := t.teacher.OutValues()
		for i, node := range at {
			if t.schedule.Within(node, t.GuidanceFrom, t.GuidanceTo) {
				t.guide(t.out[i*values:(i+1)*values], t.out[(n+i)*values:(n+i+1)*values])
			}
		}
	}
	t.predict(t.ofTeacher, x, at, x0)
	return nil
}

// guide turns the teacher's output for an image with its class into the guided one.
func (t *teaching) guide(with, without []float32) {
	size := t.setup.Size
	c, wide := size.Channels, len(with)/(size.Height*size.Width)
	var before, after moments
	for p, w := range without {
		if p%wide < c {
			before.add(with[p])
			with[p] = w + float32(t.Guidance)*(with[p]-w)
			after.add(with[p])
		}
	}
	if t.GuidanceRescale == 0 || after.deviation() == 0 {
		return
	}
	scale := float32(t.GuidanceRescale*before.deviation()/after.deviation() + 1 - t.GuidanceRescale)
	for p := range with {
		if p%wide < c {
			with[p] *= scale
		}
	}
}

// moments sum up values.
type moments struct{ n, sum, squares float64 }

func (m *moments) add(v float32) {
	m.n++
	m.sum += float64(v)
	m.squares += float64(v) * float64(v)
}

// deviation is the standard deviation.
func (m *moments) deviation() float64 {
	mean := m.sum / m.n
	return math.Sqrt(max(0, m.squares/m.n-mean*mean))
}

// predict fills x0 from x at nodes and a network's output for it.
func (t *teaching) predict(p sched.Parametrization, x []float32, at []sched.Node, x0 []float32) {
	size := t.setup.Size
	c, wide := size.Channels, t.teacher.OutValues()/(size.Height*size.Width) // LearnSigma doubles them
	for i, n := range at {
		onXt, onOut := p.XStartCoefs(n)
		for j := i * size.Values(); j < (i+1)*size.Values(); j++ {
			x0[j] = float32(onXt*float64(x[j]) + onOut*float64(t.out[j/c*wide+j%c]))
		}
	}
}

// step is the DDIM step from a node to another, written with x_0 alone (see ddim in package sched):
// x_to = onX x_from + onX0 x_0.
func step(from, to sched.Node) (onX, onX0 float64) {
	ratio := to.Noise / from.Noise
	return ratio, to.Signal - from.Signal*ratio
}

// move fills moved with the DDIM step of x. moved may be x.
func (t *teaching) move(moved, x, x0 []float32, from, to []sched.Node) {
	values := t.setup.Size.Values()
	for i := range from {
		onX, onX0 := step(from[i], to[i])
		for j := i * values; j < (i+1)*values; j++ {
			moved[j] = float32(onX*float64(x[j]) + onX0*float64(x0[j]))
		}
	}
}

// regress turns the student's x_0 of image i as it should be, wanted, into its network's
// target, and returns the weight of that: as x_0 = onXt x_t + onOut out,
//
//	(x_0 - wanted)^2 = onOut^2 (out - target)^2,   target = (wanted - onXt x_t) / onOut
func (t *teaching) regress(i int, wanted []float32) (weight float64) {
	values := t.setup.Size.Values()
	onXt, onOut := t.of.XStartCoefs(t.start[i])
	for j := i * values; j < (i+1)*values; j++ {
		t.goal[j] = float32((float64(wanted[j]) - onXt*float64(t.xt[j])) / onOut)
	}
	return onOut * onOut
}
