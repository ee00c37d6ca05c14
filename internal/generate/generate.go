package generate

import (
	"context"
	"fmt"

	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// Generator draws images from a network.
type Generator struct {
	Reverse    *Reverse
	Schedule   *sched.Schedule
	Prediction sched.Prediction
	Config     sched.SamplerConfig
	Seed       uint64

	// OnMoment, if not nil, is told of every step of every batch. Its error ends
	// the drawing.
	OnMoment func(Moment) error
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
	steps, err := g.Config.StepList(g.Schedule)
	if err != nil {
		return err
	}
	r := g.Reverse
	n := len(x) / r.size.Values()
	r.begin(x, g.Seed, first)
	for k, step := range steps {
		if err := r.step(ctx, k, step, g.Schedule, g.Prediction); err != nil {
			return err
		}
		if g.OnMoment == nil {
			continue
		}
		if err := g.OnMoment(Moment{First: first, Count: n, Step: k + 1, Steps: len(steps), T: step.T, reverse: r}); err != nil {
			return err
		}
	}
	if err := r.end(x); err != nil {
		return err
	}
	if !finite(x) {
		return fmt.Errorf("images %d to %d are not finite: the weights are damaged, or the noise they start from is", first, first+n-1)
	}
	return nil
}

// finite reports whether no value is infinite or NaN: v - v is 0 or NaN.
func finite(values []float32) bool {
	var probe float32
	for _, v := range values {
		probe += v - v
	}
	return probe == 0
}
