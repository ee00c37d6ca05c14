//go:build gpu && !cpu

package cuda

import (
	"context"
	"errors"
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// step is an optimiser step of a state: one graph of the driver from the inputs to
// the new weights, or where the batch has parts, one graph for a part, launched for
// each. There are two of everything that is fed, a slot each: while a step reads one
// slot, the inputs of the next are uploaded into the other, by another stream.
type step struct {
	*program
	parts   int
	slots   [2]slot
	next    int         // the slot that is staged
	fixed   kernels.Ptr // AccumulateScalarsParams of the first part and of the others
	sums    [2][]launch // of their gradients
	results kernels.Ptr // losses by part, the gradient's norm, then each image's loss, if there are any
	losses  *tensor     // the output of each image's loss, if there is one
	host    driver.Pinned
	scalars driver.Pinned

	doStage, doStart, doWait func() error
	part                     int
	update                   graph.Update
	result                   graph.StepResult
}

// slot is the inputs of one step and the graph that reads them.
type slot struct {
	pinned driver.Pinned // inputs by part
	staged kernels.Ptr   // where they are uploaded to
	ready  *driver.Event // they have arrived
	graph  *driver.Graph // of a whole step
	queue  func() error  // a whole step
}

// LoadStep makes a plan that trains ready to make steps of so many parts.
func (b *Backend) LoadStep(plan *graph.Plan, s graph.State, parts int) (graph.Step, error) {
	p, err := b.load(plan, s, graph.Params)
	if err != nil {
		return nil, err
	}
	st := &step{program: p, parts: parts}
	st.doStage, st.doStart, st.doWait = st.stageNow, st.startNow, st.waitNow
	if err := b.device.Do(st.prepare); err != nil {
		return nil, errors.Join(st.explain(err), st.Close())
	}
	return st, nil
}

// prepare allocates the slots and captures their graphs.
func (s *step) prepare() (err error) {
	d := s.device
	bytes := 4 * (s.parts + 1)
	if r, ok := s.plan.Outputs["losses"]; ok {
		losses := s.at(r)
		s.losses = &losses
		bytes += s.parts * losses.bytes()
		s.result.Losses = make([]float32, s.parts*losses.len())
	}
	if s.results, err = d.zeroed(bytes); err != nil {
		return err
	}
	if s.host, err = d.AllocPinned(bytes); err != nil {
		return err
	}
	if s.scalars, err = d.AllocPinned(scalarBytes); err != nil {
		return err
	}
	if s.parts > 1 {
		if err := s.state.summing(); err != nil {
			return err
		}
		if err := s.prepareSums(); err != nil {
			return err
		}
		// A graph of all parts would be as many times as large.
		if err := s.program.capture(); err != nil {
			return err
		}
	}
	for i := range s.slots {
		slot := &s.slots[i]
		bytes := s.parts * s.feedBytes
		if slot.pinned, err = d.AllocPinned(bytes); err != nil {
			return err
		}
		if slot.staged, err = d.Alloc(int64(bytes)); err != nil {
			return err
		}
		if slot.ready, err = d.NewEvent(false); err != nil {
			return err
		}
		slot.queue = func() error { return s.queue(slot) }
		if s.parts > 1 {
			continue
		}
		if slot.graph, err = d.capture(slot.queue); err != nil {
			return err
		}
	}
	return nil
}

// prepareSums binds the sums of parts; their scalars never change.
func (s *step) prepareSums() (err error) {
	if s.fixed, err = s.device.zeroed(2 * scalarBytes); err != nil {
		return err
	}
	for i, first := range []bool{true, false} {
		values := []kernels.AccumulateScalarsParams{accumulateScalars(first, 1/float64(s.parts))}
		scalars := s.fixed + kernels.Ptr(i*scalarBytes)
		if err := s.device.stream.Write(scalars, structBytes(values)); err != nil {
			return err
		}
		st := s.state
		s.sums[i] = s.device.accumulateLaunches(st.sum, st.arenas[graph.Grads], st.layout.Size, scalars)
	}
	return nil
}

// queue is a whole step.
func (s *step) queue(from *slot) error {
	d, st := s.device, s.state
	loss := s.at(s.plan.Outputs["loss"])
	if err := d.runAll(s.once); err != nil {
		return err
	}
	for part := range s.parts {
		staged := from.staged + kernels.Ptr(part*s.feedBytes)
		if err := d.stream.Copy(s.feeds, staged, int64(s.feedBytes)); err != nil {
			return err
		}
		if err := d.launch(s.program.graph, s.doQueue); err != nil {
			return err
		}
		if err := d.stream.Copy(s.results+kernels.Ptr(4*part), loss.ptr, 4); err != nil {
			return err
		}
		if s.losses != nil {
			if err := d.stream.Copy(s.eachLoss(part), s.losses.ptr, int64(s.losses.bytes())); err != nil {
				return err
			}
		}
		if s.parts == 1 {
			continue
		}
		if err := d.runAll(s.sums[min(part, 1)]); err != nil {
			return err
		}
	}
	update := st.fromGrads
	if s.parts > 1 {
		update = st.fromSum
	}
	if err := d.runAll(update); err != nil {
		return err
	}
	norm := s.results + kernels.Ptr(4*s.parts)
	if err := d.stream.Copy(norm, st.optimiser.norm, 4); err != nil {
		return err
	}
	return d.stream.Download(s.host, s.results)
}

// eachLoss is where the results have the losses of a part's images.
func (s *step) eachLoss(part int) kernels.Ptr {
	return s.results + kernels.Ptr(4*(s.parts+1)+part*s.losses.bytes())
}

// Stage copies the inputs of a part to pinned memory and queues their upload, beside
// the step that is running.
func (s *step) Stage(part int, feeds graph.Feeds) error {
	s.part, s.call.feeds = part, feeds
	err := s.device.Do(s.doStage)
	s.call.feeds = nil
	return err
}

func (s *step) stageNow() error {
	slot := &s.slots[s.next]
	from, to := s.part*s.feedBytes, (s.part+1)*s.feedBytes
	// Another part, or the same one staged before, may still be on its way.
	if err := slot.ready.Synchronize(); err != nil {
		return err
	}
	if err := s.fill(slot.pinned[from:to], s.call.feeds); err != nil {
		return err
	}
	uploads := s.device.uploads
	if err := uploads.Upload(slot.staged+kernels.Ptr(from), slot.pinned[from:to]); err != nil {
		return err
	}
	return uploads.Record(slot.ready)
}

// Start queues the step.
func (s *step) Start(ctx context.Context, u graph.Update) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.update = u
	return s.device.Do(s.doStart)
}

func (s *step) startNow() error {
	slot, stream := &s.slots[s.next], s.device.stream
	if err := stream.Wait(slot.ready); err != nil {
		return err
	}
	if err := s.state.refresh(graph.Params); err != nil {
		return err
	}
	*structIn[kernels.AdamScalarsParams](s.scalars) = adamScalars(s.update)
	if err := stream.Upload(s.state.scalars, s.scalars); err != nil {
		return err
	}
	if err := s.device.launch(slot.graph, slot.queue); err != nil {
		return err
	}
	s.state.stepped()
	s.next = 1 - s.next
	return nil
}

// Wait waits for the step.
func (s *step) Wait() (graph.StepResult, error) {
	err := s.device.Do(s.doWait)
	return s.result, err
}

func (s *step) waitNow() error {
	if err := s.device.stream.Synchronize(); err != nil {
		return err
	}
	s.result = graph.StepResult{Part: -1, GradNorm: float64(floatIn(s.host[4*s.parts:])), Losses: s.result.Losses}
	for part := range s.parts {
		loss := float64(floatIn(s.host[4*part:]))
		s.result.Loss += loss / float64(s.parts)
		if s.result.Part < 0 && (math.IsNaN(loss) || math.IsInf(loss, 0)) {
			s.result.Part, s.result.GradNorm = part, math.NaN()
		}
	}
	copy(driver.Bytes(s.result.Losses), s.host[4*(s.parts+1):])
	return nil
}

// Close frees what the steps run in.
func (s *step) Close() error {
	err := s.device.Release(func() error {
		d := s.device
		errs := []error{d.uploads.Synchronize(), d.stream.Synchronize()}
		for i := range s.slots {
			slot := &s.slots[i]
			if slot.graph != nil {
				errs = append(errs, slot.graph.Destroy())
			}
			if slot.ready != nil {
				errs = append(errs, slot.ready.Destroy())
			}
			errs = append(errs, d.FreePinned(slot.pinned), d.Free(slot.staged))
		}
		errs = append(errs, d.FreePinned(s.host), d.FreePinned(s.scalars), d.Free(s.results), d.Free(s.fixed))
		*s = step{program: s.program}
		return errors.Join(errs...)
	})
	return errors.Join(err, s.program.Close())
}
