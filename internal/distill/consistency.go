package distill

import (
	"context"
	"errors"

	"ddpm/internal/graph"
	"ddpm/internal/sched"
)

// consistency feeds consistency distillation (Song et al., "Consistency Models", 2023,
// Algorithm 2), whose teacher skips timesteps (Luo et al., "Latent Consistency Models", 2023).
// A consistency function f(x_t, t) is where the diffusion ODE through x_t ends: the same all along
// its way. So what the student says at a noisy t should be what it says further on, where the
// teacher's solver leads and it is easier to tell, down to t = 0, where f is x_t itself:
//
//	x_s    = the teacher's way from x_t to s = max(t - Skip, 0)
//	wanted = f(x_s, s)   with the averaged or the current weights, no gradient
//	loss   = mean d(mean square of f(x_t, t) - wanted)
type consistency struct {
	*teaching
	target network      // the student's
	nodes  []sched.Node // where the student learns; at all t from 1 if there are none
	ts     []int        // t of each image

	other, second []float32 // the other end of Heun's step, and x_0 there
}

func newConsistency(t *teaching, target network) (c *consistency, err error) {
	c = &consistency{
		teaching: t, target: target, ts: make([]int, len(t.start)),
		other: make([]float32, len(t.x0)), second: make([]float32, len(t.x0)),
	}
	if t.Nodes > 0 {
		c.nodes, err = sched.Nodes(trailing, t.schedule, t.Nodes)
	}
	return c, err
}

func (c *consistency) Begin(_ context.Context, k int) error { return c.load(k) }

func (c *consistency) Close() error { return errors.Join(c.target.Close(), c.teaching.Close()) }

// timestep draws t of an image of step k.
func (c *consistency) timestep(k, image int) int {
	if len(c.nodes) > 0 {
		return int(c.nodes[c.draw(k, image, len(c.nodes))].T)
	}
	return 1 + c.draw(k, image, c.schedule.T()-1)
}

func (c *consistency) Timesteps(k, first, n int) []int {
	ts := make([]int, n)
	for i := range ts {
		ts[i] = c.timestep(k, first+i)
	}
	return ts
}

func (c *consistency) Feed(ctx context.Context, k, first int, images []byte, labels []int32) (graph.Feeds, error) {
	for i := range c.ts {
		c.ts[i] = c.timestep(k, first+i)
		c.start[i] = c.schedule.Node(float64(c.ts[i]))
	}
	c.noise(k, first, images, labels)
	return c.feeds, c.aim(ctx)
}

// aim fills goal and weight.
func (c *consistency) aim(ctx context.Context) error {
	copy(c.moved, c.xt)
	copy(c.from, c.start)
	for n := range c.SolverSteps {
		for i, t := range c.ts {
			c.to[i] = c.schedule.Node(float64(t - min(c.Skip, t)*(n+1)/c.SolverSteps))
		}
		if err := c.solve(ctx); err != nil {
			return err
		}
		copy(c.from, c.to)
	}
	if err := c.ask(ctx); err != nil {
		return err
	}
	for i := range c.start {
		c.weight[i] = float32(c.regress(i, c.x0))
	}
	return nil
}

// solve takes moved a step of the teacher's solver on: DDIM's, or Heun's, which takes the mean of the x_0
// predicted at both ends. That is the trapezoidal rule for the diffusion ODE, which is
// d(x / Noise) = x_0 d(Signal / Noise).
func (c *consistency) solve(ctx context.Context) error {
	if err := c.teach(ctx, c.moved, c.from, c.x0); err != nil {
		return err
	}
	if c.Solver == heun {
		c.move(c.other, c.moved, c.x0, c.from, c.to)
		if err := c.teach(ctx, c.other, c.to, c.second); err != nil {
			return err
		}
		for i, x0 := range c.second {
			c.x0[i] = (c.x0[i] + x0) / 2
		}
	}
	c.move(c.moved, c.moved, c.x0, c.from, c.to)
	return nil
}

// ask fills x0 with f of moved.
func (c *consistency) ask(ctx context.Context) error {
	n := len(c.from)
	for i, node := range c.from {
		c.times[i] = node.T
	}
	out := c.out[:n*c.target.OutValues()]
	if err := c.target.Predict(ctx, c.moved, c.times[:n], c.labels, out); err != nil {
		return err
	}
	c.predict(c.of, c.moved, c.from, c.x0)
	return nil
}
