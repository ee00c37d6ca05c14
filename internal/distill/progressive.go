package distill

import (
	"context"
	"errors"

	"ddpm/internal/graph"
	"ddpm/internal/sched"
)

// progressive feeds progressive distillation (Salimans & Ho, "Progressive Distillation for
// Fast Sampling of Diffusion Models", 2022, Algorithm 2). At each stage the student learns to do in one
// DDIM step what its teacher does in two; then it is the teacher.
//
//	x_u  = the teacher's two steps from x_t, by way of x_s
//	x_0  = (x_u - ratio x_t) / (Signal_u - Signal_t ratio),   ratio = Noise_u / Noise_t
//
// is the prediction with which a single step leads there too. The weight of its error is the
// truncated signal-to-noise ratio of section 4, max(SNR, 1). The t are those that the spacing
// trailing visits with the student's number of steps.
type progressive struct {
	*teaching
	nodes []sched.Node // of the teacher at this stage, the end included
	at    []int        // where each image is among them
}

func newProgressive(t *teaching) *progressive {
	return &progressive{teaching: t, at: make([]int, len(t.start))}
}

// Begin makes the student the teacher where a stage begins.
func (p *progressive) Begin(_ context.Context, k int) error {
	if n := p.StartSteps >> (k / p.StageSteps); len(p.nodes) != n+1 {
		nodes, err := sched.Nodes(trailing, p.schedule, n)
		if err != nil {
			return err
		}
		p.nodes = append(nodes, sched.Clean)
	}
	if k > 0 && k%p.StageSteps == 0 {
		if err := p.promote(); err != nil {
			return err
		}
	}
	return p.load(k)
}

// promote makes the student's averaged weights those of the teacher, from which it goes on itself.
func (p *progressive) promote() error {
	if err := p.student.Read(graph.EMA, p.weights); err != nil {
		return err
	}
	p.loaded = false
	none := make([]float32, len(p.weights))
	return errors.Join(
		p.student.Write(graph.Params, p.weights),
		p.student.Write(graph.AdamM, none),
		p.student.Write(graph.AdamV, none),
	)
}

// place is the number of the student's step that an image of step k is at.
func (p *progressive) place(k, image int) int { return p.draw(k, image, len(p.nodes)/2) }

func (p *progressive) Timesteps(k, first, n int) []int {
	ts := make([]int, n)
	for i := range ts {
		ts[i] = int(p.nodes[2*p.place(k, first+i)].T)
	}
	return ts
}

func (p *progressive) Feed(ctx context.Context, k, first int, images []byte, labels []int32) (graph.Feeds, error) {
	for i := range p.at {
		p.at[i] = 2 * p.place(k, first+i)
		p.start[i] = p.nodes[p.at[i]]
	}
	p.noise(k, first, images, labels)
	return p.feeds, p.aim(ctx)
}

// aim fills goal and weight.
func (p *progressive) aim(ctx context.Context) error {
	copy(p.moved, p.xt)
	for n := range 2 {
		for i, at := range p.at {
			p.from[i], p.to[i] = p.nodes[at+n], p.nodes[at+n+1]
		}
		if err := p.teach(ctx, p.moved, p.from, p.x0); err != nil {
			return err
		}
		p.move(p.moved, p.moved, p.x0, p.from, p.to)
	}
	values := p.setup.Size.Values()
	for i, start := range p.start {
		onX, onX0 := step(start, p.to[i])
		for j := i * values; j < (i+1)*values; j++ {
			p.x0[j] = float32((float64(p.moved[j]) - onX*float64(p.xt[j])) / onX0)
		}
		snr := start.Signal * start.Signal / (start.Noise * start.Noise)
		p.weight[i] = float32(max(snr, 1) * p.regress(i, p.x0))
	}
	return nil
}
