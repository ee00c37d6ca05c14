package generate

import (
	"context"
	"errors"
	"fmt"
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// Generator draws images from a network.
type Generator struct {
	Reverse         *Reverse
	Schedule        *sched.Schedule
	Parametrization sched.Parametrization
	Config          sched.SamplerConfig // its Sampler is one by name, not auto
	Seed            uint64

	// Plain makes the steps outside the interval of guidance, if Reverse is guided; if
	// nil, Reverse makes them too, with weight 1.
	Plain *Reverse
	// Class is the class of an image, negative for none. If nil, and the model knows K
	// classes, image i is of class i mod K.
	Class func(image int) int

	// Init, if not nil, are images [n,H,W,C] that image i, from image i mod n, starts
	// from, and Strength is the share of the nodes, above 0 to 1, that it then visits:
	// the last ones, one at least. At the first of them it is Signal x_0 + Noise z (Meng et al.,
	// "SDEdit", 2022), z being the noise it would start from otherwise.
	Init     []float32
	Strength float64
	// Known, if not nil, is the part of the images that is given.
	Known *Known

	// OnMoment, if not nil, is told of every step of every batch. Its error ends
	// the drawing.
	OnMoment func(Moment) error
}

// Compile makes ready what g needs to draw from a network with the weights, graph.Params
// or graph.EMA, of a state: Reverse, for batches of up to batch images, and Plain where
// there is guidance in a part of the steps only. Close frees both.
func (g *Generator) Compile(b graph.Backend, state graph.State, weights graph.Arena, m model.Config, size model.Size, batch int) error {
	_, steps, err := g.way()
	if err != nil {
		return err
	}
	guided := 0 // steps
	for _, s := range steps {
		if g.guides(s.Node) {
			guided++
		}
	}
	plain := g.Config
	plain.Guidance = 1
	switch {
	case !Guided(g.Config, m) || guided == len(steps):
		g.Reverse, err = NewReverse(b, state, weights, g.Config, m, size, batch)
		return err
	case guided == 0:
		g.Reverse, err = NewReverse(b, state, weights, plain, m, size, batch)
		return err
	}
	if g.Reverse, err = NewReverse(b, state, weights, g.Config, m, size, batch); err != nil {
		return err
	}
	if g.Plain, err = NewReverse(b, state, weights, plain, m, size, batch); err != nil {
		return errors.Join(err, g.Close())
	}
	return nil
}

// Close frees what Compile made.
func (g *Generator) Close() error {
	err := g.Reverse.Close()
	if g.Plain != nil {
		err = errors.Join(err, g.Plain.Close())
	}
	return err
}

// Moment is a batch of images in the making.
type Moment struct {
	First, Count int // of its images
	Step, Steps  int // steps made, of how many
	T            int // the timestep the last of them was at

	reverse *Reverse
}

// X0 is the prediction of x_0 there, [Count,H,W,C]. It is fetched from the device,
// valid until OnMoment returns, and must not be changed.
func (m Moment) X0() ([]float32, error) { return m.reverse.output("x0", m.Count) }

// Prior fills x with the noise that images first, first+1, ... start from.
func (g *Generator) Prior(x []float32, first int) {
	values := g.Reverse.size.Values()
	for i := range len(x) / values {
		rng.Key{Seed: g.Seed, Stream: rng.Prior, Sample: uint32(first + i)}.Normals(x[i*values : (i+1)*values])
	}
}

// Draw draws images 0 to n-1, in batches of the network's size. They start from
// noise, [n,H,W,C], or if that is nil from Prior. Each batch is handed to take,
// which may keep nothing of it.
func (g *Generator) Draw(ctx context.Context, n int, noise []float32, take func(first int, images []float32) error) error {
	values := g.Reverse.size.Values()
	batch := make([]float32, min(n, g.Reverse.batch)*values)
	for first := 0; first < n; first += g.Reverse.batch {
		x := batch[:min(g.Reverse.batch, n-first)*values]
		if noise == nil {
			g.Prior(x, first)
		} else {
			copy(x, noise[first*values:])
		}
		if err := g.Sample(ctx, x, first); err != nil {
			return err
		}
		if err := take(first, x); err != nil {
			return err
		}
	}
	return nil
}

// Sample turns x, the noise that images first, first+1, ... start from, into
// images, in place. Image i depends on the seed and its number, not on the
// batch it is in. After an error x is undefined.
func (g *Generator) Sample(ctx context.Context, x []float32, first int) error {
	nodes, steps, err := g.way()
	if err != nil {
		return err
	}
	w := &walk{Generator: g, x: x, first: first, count: len(x) / g.Reverse.size.Values(), steps: len(steps)}
	if g.Init != nil {
		w.noise(nodes[0])
	}
	if g.Known != nil {
		err = w.repaint(ctx, nodes, steps)
	} else {
		err = w.through(ctx, steps)
	}
	if err != nil {
		return err
	}
	if !finite(x) {
		return fmt.Errorf("images %d to %d are not finite: the weights are damaged, or the noise they start from is", first, first+w.count-1)
	}
	return nil
}

// way lists the nodes that are visited, the end included, and the steps through them.
func (g *Generator) way() ([]sched.Node, []sched.Step, error) {
	nodes, err := g.Config.Nodes(g.Schedule)
	if err != nil {
		return nil, nil, err
	}
	if visited := len(nodes) - 1; g.Init != nil {
		if !g.reaches(visited) {
			return nil, nil, g.tooWeak()
		}
		again := int(math.Round(g.Strength * float64(visited)))
		nodes = nodes[visited-min(again, visited):]
	}
	steps, err := g.Config.StepList(g.Schedule, nodes)
	if err == nil && g.Known != nil {
		err = g.Known.check(g.Config.Sampler)
	}
	return nodes, steps, err
}

// reaches reports whether Strength is a whole step, up to rounding, of those through so many nodes.
func (g *Generator) reaches(nodes int) bool { return g.Strength*float64(nodes) > 1-1e-9 }

// tooWeak says how many steps Strength wants.
func (g *Generator) tooWeak() error {
	sampler, err := sched.SamplerByName(g.Config.Sampler)
	if err != nil {
		return err
	}
	want := fmt.Sprintf("more than the %d that the model has, or more strength", g.Schedule.T())
	for calls := g.Config.Steps + 1; calls <= g.Schedule.T(); calls++ {
		nodes := calls
		if sampler.Nodes != nil {
			nodes = sampler.Nodes(calls)
		}
		if g.reaches(nodes) {
			want = fmt.Sprintf("at least %d", calls)
			break
		}
	}
	return fmt.Errorf("sample.steps %d: a strength of %g is less than one step of %s: want %s", g.Config.Steps, g.Strength, g.Config.Sampler, want)
}

// guides reports whether there is guidance at a node.
func (g *Generator) guides(n sched.Node) bool {
	return g.Schedule.Within(n, g.Config.GuidanceFrom, g.Config.GuidanceTo)
}

// program is what makes the step from a node, and the weight of guidance there.
func (g *Generator) program(n sched.Node) (r *Reverse, weight float64) {
	switch {
	case g.Reverse.guided && g.guides(n):
		return g.Reverse, g.Config.Guidance
	case g.Plain != nil:
		return g.Plain, 1
	}
	return g.Reverse, 1
}

func (g *Generator) class(image int) int {
	if g.Class != nil {
		return g.Class(image)
	}
	return image % g.Reverse.classes
}

// walk is a batch of images on its way from noise.
type walk struct {
	*Generator
	first, count int
	x            []float32 // where they are, while at is nil
	at           *Reverse  // the program that made the last step, which has them
	made, steps  int
	drawn        uint32 // noises of rng.Repaint
}

// noise moves x from noise to the images of Init at a node.
func (w *walk) noise(n sched.Node) {
	values := w.Reverse.size.Values()
	signal, noise := float32(n.Signal), float32(n.Noise)
	for i := range w.count {
		x := w.x[i*values : (i+1)*values]
		for k, v := range of(w.Init, w.first+i, values) {
			x[k] = signal*v + noise*x[k]
		}
	}
}

// of is image i of those given, [n,H,W,C], again from the first where they end.
func of(images []float32, i, values int) []float32 {
	i %= len(images) / values
	return images[i*values : (i+1)*values]
}

// through makes all steps.
func (w *walk) through(ctx context.Context, steps []sched.Step) error {
	for _, s := range steps {
		if err := w.step(ctx, s); err != nil {
			return err
		}
	}
	return w.fetch()
}

// step makes one step.
func (w *walk) step(ctx context.Context, s sched.Step) error {
	r, weight := w.program(s.Node)
	var err error
	switch {
	case w.at == nil:
		err = r.begin(w.x, w.Seed, w.first, w.class)
	case w.at != r:
		err = r.follow(w.at)
	}
	if err == nil {
		err = r.step(ctx, w.made, s, w.Parametrization, weight)
	}
	if err != nil {
		return err
	}
	w.at = r
	w.made++
	if w.OnMoment == nil {
		return nil
	}
	return w.OnMoment(Moment{First: w.first, Count: w.count, Step: w.made, Steps: w.steps, T: int(s.T), reverse: r})
}

// fetch gets the images from the device.
func (w *walk) fetch() error {
	at := w.at
	w.at = nil
	return at.end(w.x)
}

// finite reports whether no value is infinite or NaN: v - v is 0 or NaN.
func finite(values []float32) bool {
	var probe float32
	for _, v := range values {
		probe += v - v
	}
	return probe == 0
}
