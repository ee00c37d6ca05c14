package generate

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// Known is the part of images that is given while the rest is painted (Lugmayr et al.,
// "RePaint", 2022). After each step the known part is put back, with the noise that is
// left there,
//
//	x = Signal x_0 + Noise z,   z ~ N(0, I)
//
// and so that the two parts get to fit each other, the way is gone again and again, in
// pieces of Jump steps, Times times each. Back from a node to an earlier one leads
//
//	x_earlier = r x + sqrt(1 - r^2) z,   r = Signal_earlier / Signal
//
// At the end the known part is as it was given.
type Known struct {
	Images []float32 // [n,H,W,C]; image i has that of image i mod n
	Paint  []bool    // [H,W]: the pixels that are not known
	Jump   int       // steps, at least 1
	Times  int       // at least 1, which is never to go back
}

func (k *Known) check(sampler string) error {
	if k.Jump < 1 || k.Times < 1 {
		return fmt.Errorf("generate: a known part with a jump of %d steps, %d times: want at least 1 of each", k.Jump, k.Times)
	}
	if err := single(sampler); err != nil {
		return fmt.Errorf("sample.sampler %q: a known part is put back after each step, %w", sampler, err)
	}
	return nil
}

// single accepts samplers that call the network once for each step from node to node and
// keep nothing but x, so that x may be changed between steps. Those of a consistency model
// throw x away: what is painted would be drawn from new noise at each step, and never get to
// fit the rest.
func single(name string) error {
	var names []string
	for _, n := range sched.SamplerNames() {
		if s, err := sched.SamplerByName(n); err == nil && s.Kept == 0 && s.Calls == 1 && n != "consistency" {
			names = append(names, n)
		}
	}
	if slices.Contains(names, name) {
		return nil
	}
	return fmt.Errorf("which wants a sampler of one network call a step that remembers nothing: one of %s", strings.Join(names, ", "))
}

// repaint makes all steps and keeps to the known part.
func (w *walk) repaint(ctx context.Context, nodes []sched.Node, steps []sched.Step) error {
	k := w.Known
	w.steps = len(steps) * k.Times
	w.place(nodes[0])
	for from := 0; from < len(steps); from += k.Jump {
		to := min(from+k.Jump, len(steps))
		for time := range k.Times {
			if time > 0 {
				w.back(nodes[to], nodes[from])
			}
			for i := from; i < to; i++ {
				if err := w.step(ctx, steps[i]); err != nil {
					return err
				}
				if err := w.fetch(); err != nil {
					return err
				}
				w.place(nodes[i+1])
			}
		}
	}
	return nil
}

// place puts the known part into x at a node.
func (w *walk) place(n sched.Node) {
	values, channels := w.Reverse.size.Values(), w.Reverse.size.Channels
	signal, noise := float32(n.Signal), float32(n.Noise)
	w.normals(func(i int, z []float32) {
		x := w.x[i*values : (i+1)*values]
		for k, v := range of(w.Known.Images, w.first+i, values) {
			if !w.Known.Paint[k/channels] {
				x[k] = signal*v + noise*z[k]
			}
		}
	})
}

// back adds the noise between a node, where x is, and an earlier one.
func (w *walk) back(n, earlier sched.Node) {
	values := w.Reverse.size.Values()
	r := earlier.Signal / n.Signal
	onX, onZ := float32(r), float32(math.Sqrt(1-r*r))
	w.normals(func(i int, z []float32) {
		x := w.x[i*values : (i+1)*values]
		for k := range x {
			x[k] = onX*x[k] + onZ*z[k]
		}
	})
}

// normals hands each image noise that nothing else has.
func (w *walk) normals(use func(i int, z []float32)) {
	z := make([]float32, w.Reverse.size.Values())
	for i := range w.count {
		rng.Key{Seed: w.Seed, Stream: rng.Repaint, Step: w.drawn, Sample: uint32(w.first + i)}.Normals(z)
		use(i, z)
	}
	w.drawn++
}
