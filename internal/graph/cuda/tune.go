//go:build gpu && !cpu

package cuda

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// The tuner times the ways to compute each product of some plans that give the same
// bits, and keeps which is the fastest on a GPU. Nothing but time may depend on that.

// learned is what was found out about a GPU.
type learned struct {
	cache    *cache
	verdicts map[string]graph.KernelCheck // of the guard, by kernel
	tuned    map[string]string            // ways to compute products, by tunedKey
	// trust and choose, if not nil, answer in place of these while kernels are
	// compared and timed.
	trust  func(kernel string) bool
	choose func(key string, candidates []string) string
}

// chosen is the fastest of several ways that compute the same bits, as it was measured
// on this GPU; without a measurement it is the first, the default. key describes the
// product by its extents: "conv_forward 131072x128x1152".
func (d *device) chosen(key string, candidates []string) string {
	if d.choose != nil {
		return d.choose(key, candidates)
	}
	if best, ok := d.tuned[d.tunedKey(key)]; ok && slices.Contains(candidates, best) {
		return best
	}
	return candidates[0]
}

// tunedKey is a product in the device's precision.
func (d *device) tunedKey(key string) string { return string(d.precision) + " " + key }

// question is a product with several ways to compute it.
type question struct {
	key        string
	candidates []string
	calls      int
	of         *graph.Instruction // the first that asks
}

// questions are those that the kernels of plans ask, in order.
func (d *device) questions(plans []*graph.Plan) []*question {
	var all []*question
	choose := d.choose
	defer func() { d.choose = choose }()
	for _, plan := range plans {
		for i := range plan.Instructions {
			in := &plan.Instructions[i]
			asked := map[string]bool{}
			d.choose = func(key string, candidates []string) string {
				switch at := slices.IndexFunc(all, func(q *question) bool { return q.key == key }); {
				case len(candidates) < 2 || asked[key]:
				case at >= 0:
					all[at].calls++
				default:
					all = append(all, &question{key, slices.Clone(candidates), 1, in})
				}
				asked[key] = true
				return candidates[0]
			}
			if e := d.experiment(in, 0); e.kernel.launches != nil {
				e.kernel.launches(e.m)
			}
		}
	}
	return all
}

// experiment is an instruction in a memory of its own.
type experiment struct {
	kernel kernel
	m      operands
	size   int
}

// experiment lays an instruction out from an address on.
func (d *device) experiment(in *graph.Instruction, begin kernels.Ptr) *experiment {
	typed := func(refs ...graph.Ref) []tensor {
		all := make([]tensor, len(refs))
		for i, r := range refs {
			converted := r.Space == graph.Fed && r.DType == graph.Float32 && d.stored(r.Shape)
			all[i] = tensor{shape: r.Shape, bf16: r.DType == graph.BFloat16 || converted}
		}
		return all
	}
	e := &experiment{}
	r := room{begin: begin}
	e.m.out = r.place(typed(in.Out)[0])
	e.m.in = r.placeOperands(in.Op, d.precision, typed(in.In...))
	if a := in.Aside; a != nil {
		e.m.aside = &aside{op: a.Op, in: typed(a.In...), out: r.place(typed(a.Out)[0])}
		for i, ref := range a.In {
			if ref.Space == in.Out.Space && ref.Offset == in.Out.Offset {
				e.m.aside.in[i] = e.m.out
			} else {
				e.m.aside.in[i] = r.place(e.m.aside.in[i])
			}
		}
	}
	for _, t := range typed(in.Found...) {
		e.m.found = append(e.m.found, r.place(t))
	}
	e.kernel, _ = d.kernel(in.Op, in.Out.Shape, shapesOf(e.m.in))
	e.m.scratch = r.take(e.kernel.scratch)
	e.size = r.size
	return e
}

const (
	leastRounds, mostRounds = 3, 100
	// noise is the part of the default's time that another way must save to be taken:
	// less is not seen again in the next measurement.
	noise = 0.03
)

// Tune measures the products of plans. It implements graph.Tuner.
func (b *Backend) Tune(ctx context.Context, plans []*graph.Plan, limit time.Duration, each func(graph.Tuning)) (file string, err error) {
	d := b.device
	if err := d.cache.update(func(*findings) {}); err != nil {
		return "", err // before it takes time
	}
	best := map[string]string{} // by tunedKey; "" is the default
	err = d.Do(func() error {
		questions := d.questions(plans)
		if len(questions) == 0 {
			return nil
		}
		t, err := d.newTuner(questions)
		if err != nil {
			return err
		}
		for i, q := range questions {
			if err = ctx.Err(); err != nil {
				break
			}
			share := limit / time.Duration(len(questions)-i)
			began := time.Now()
			result, tuneErr := t.tune(ctx, q, share)
			if err = tuneErr; err != nil {
				break
			}
			limit -= min(limit, time.Since(began))
			best[d.tunedKey(q.key)] = ""
			if result.Best > 0 {
				best[d.tunedKey(q.key)] = result.Ways[result.Best].Name
			}
			each(result)
		}
		return after(err, t.free)
	})
	if len(best) == 0 {
		return "", err
	}
	change := func(tuned map[string]string) {
		maps.Copy(tuned, best)
		maps.DeleteFunc(tuned, func(_, way string) bool { return way == "" })
	}
	change(d.tuned)
	return d.cache.path(), errors.Join(err, d.cache.update(func(f *findings) { change(f.Tuned) }))
}

// tuner is what measuring takes.
type tuner struct {
	*lab
	flushed  tensor // as much memory as the second-level cache holds
	begin    kernels.Ptr
	from, to *driver.Event
}

// newTuner makes a tuner with room for each product, computed in any way.
func (d *device) newTuner(questions []*question) (t *tuner, err error) {
	flushed := tensor{shape: graph.Shape{max(1, d.Info.L2Bytes/4)}}
	size := 0
	for _, q := range questions {
		for _, way := range q.candidates {
			d.choosing(q.key, way, func() { size = max(size, d.experiment(q.of, 0).size) })
		}
	}
	t = &tuner{}
	if t.lab, err = d.newLab(align(flushed.bytes()) + size); err != nil {
		return nil, err
	}
	r := room{begin: t.lab.begin}
	t.flushed = r.place(flushed)
	t.begin = r.begin + kernels.Ptr(r.size)
	if t.from, err = d.NewEvent(true); err == nil {
		t.to, err = d.NewEvent(true)
	}
	if err != nil {
		return nil, after(err, t.free)
	}
	return t, nil
}

func (t *tuner) free() error {
	errs := []error{t.lab.free()}
	for _, e := range []*driver.Event{t.from, t.to} {
		if e != nil {
			errs = append(errs, e.Destroy())
		}
	}
	return errors.Join(errs...)
}

// choosing has f choose a way to compute a product, and the default of all others.
func (d *device) choosing(key, way string, f func()) {
	choose := d.choose
	defer func() { d.choose = choose }()
	d.choose = func(asked string, candidates []string) string {
		if asked == key && slices.Contains(candidates, way) {
			return way
		}
		return candidates[0]
	}
	f()
}

// contender is a way on its way to be timed.
type contender struct {
	*ready
	written []tensor
	times   []time.Duration
}

// tune times the ways to compute a product in turn, so that a clock that changes is
// the same to all, for about the time given.
func (t *tuner) tune(ctx context.Context, q *question, limit time.Duration) (result graph.Tuning, err error) {
	result = graph.Tuning{Product: q.key, Calls: q.calls}
	var all []*contender
	var want [][]byte
	for i, name := range q.candidates {
		c, err := t.contend(q, name)
		if err != nil {
			return result, fmt.Errorf("%s by %s: %w", q.key, name, err)
		}
		all = append(all, c)
		got, err := c.results(c.written...)
		if err != nil {
			return result, fmt.Errorf("%s by %s: %w", q.key, name, err)
		}
		if i == 0 {
			want = got
		}
		same := slices.EqualFunc(got, want, bytes.Equal)
		result.Ways = append(result.Ways, graph.Way{Name: name, Differs: !same})
	}
	began := time.Now()
	for round := 0; round < leastRounds || round < mostRounds && time.Since(began) < limit; round++ {
		for i, c := range all {
			if err := ctx.Err(); err != nil {
				return result, err
			}
			if result.Ways[i].Differs {
				continue
			}
			spent, err := t.time(c)
			if err != nil {
				return result, fmt.Errorf("%s by %s: %w", q.key, q.candidates[i], err)
			}
			c.times = append(c.times, spent)
		}
	}
	for i, c := range all {
		if !result.Ways[i].Differs {
			slices.Sort(c.times)
			result.Ways[i].Time = c.times[len(c.times)/2]
		}
	}
	result.Best = fastestWay(result.Ways)
	return result, nil
}

// fastestWay is the index of the way to use: the default, the first, unless another
// with the same result saves more than noise.
func fastestWay(ways []graph.Way) int {
	best := 0
	least := time.Duration(float64(ways[0].Time) * (1 - noise))
	for i, w := range ways[1:] {
		if !w.Differs && w.Time < least {
			best, least = i+1, w.Time
		}
	}
	return best
}

// contend prepares one way to compute a product, on the same operands as all others.
func (t *tuner) contend(q *question, way string) (c *contender, err error) {
	t.choosing(q.key, way, func() {
		e := t.experiment(q.of, t.begin)
		c = &contender{written: []tensor{e.m.out}}
		inputs := slices.Concat(e.m.in, e.m.found)
		if a := e.m.aside; a != nil {
			c.written = append(c.written, a.out)
			inputs = append(inputs, a.in...)
		}
		t.filled = 0
		if err = t.fill(q.of.Op, inputs); err == nil {
			c.ready, err = t.ready(e.kernel.launches(e.m))
		}
	})
	return c, err
}

// time runs a way once, on a second-level cache that holds other things, as it does in a
// step.
func (t *tuner) time(c *contender) (time.Duration, error) {
	if err := t.stream.Fill(t.flushed.ptr, 0, int64(t.flushed.len())); err != nil {
		return 0, err
	}
	if err := t.stream.Record(t.from); err != nil {
		return 0, err
	}
	if err := c.run(); err != nil {
		return 0, err
	}
	if err := t.stream.Record(t.to); err != nil {
		return 0, err
	}
	if err := t.stream.Synchronize(); err != nil {
		return 0, err
	}
	return driver.Elapsed(t.from, t.to)
}
