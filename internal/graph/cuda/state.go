//go:build gpu && !cpu

package cuda

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// state is a network's arenas in device memory.
type state struct {
	device *device
	layout *graph.Layout
	arenas [5]kernels.Ptr // by graph.Arena; 0 where there is none
	// rounded are Params and EMA in bfloat16, which products read in bf16
	// precision; stale says that they are behind.
	rounded [2]kernels.Ptr
	stale   [2]bool
	changes [2]int // of Params and EMA so far

	sum    kernels.Ptr // of gradients; made when first needed
	summed bool        // since the last update
	optimiser
	doUpdate, doAccumulate func() error
	update                 graph.Update
	first                  bool
	scale, norm            float64
}

// optimiser is what an update needs beside the arenas.
type optimiser struct {
	scalars kernels.Ptr   // device: kernels.AdamScalarsParams, then kernels.AccumulateScalarsParams
	norm    kernels.Ptr   // device: the norm, then scratch for it
	pinned  driver.Pinned // the scalars, then the norm
	// fromGrads and fromSum take the norm and step Adam; add sums gradients.
	fromGrads, fromSum, add []launch
}

var errNotTraining = errors.New("cuda: the state was made without training")

// NewState allocates the arenas.
func (b *Backend) NewState(l *graph.Layout, training bool) (graph.State, error) {
	s := &state{device: b.device, layout: l}
	s.doUpdate, s.doAccumulate = s.updateNow, s.accumulateNow
	err := b.device.Do(func() error { return s.allocate(training) })
	if err != nil {
		return nil, errors.Join(s.explain(err, training), s.Close())
	}
	return s, nil
}

func (s *state) allocate(training bool) error {
	kinds := []graph.Arena{graph.Params, graph.EMA}
	if training {
		kinds = append(kinds, graph.Grads, graph.AdamM, graph.AdamV)
	}
	var err error
	for _, a := range kinds {
		if s.arenas[a], err = s.device.zeroed(4 * s.layout.Size); err != nil {
			return err
		}
	}
	if s.device.precision == graph.BF16 {
		for i := range s.rounded {
			if s.rounded[i], err = s.device.zeroed(2 * s.layout.Size); err != nil {
				return err
			}
		}
	}
	if training {
		return s.prepare()
	}
	return nil
}

// zeroed allocates cleared memory.
func (d *device) zeroed(bytes int) (kernels.Ptr, error) {
	p, err := d.Alloc(int64(align(max(bytes, 1))))
	if err != nil {
		return 0, err
	}
	return p, d.stream.Zero(p, int64(align(max(bytes, 1))))
}

// explain adds to an error of too little memory what the network needs of it.
func (s *state) explain(err error, training bool) error {
	if !errors.Is(err, driver.ErrOutOfMemory) {
		return err
	}
	what, arenas := "weights", 2
	if training {
		what, arenas = "weights, gradients and optimiser state", 5
	}
	return fmt.Errorf("%w: %s take %s, and %s had %s free when it was opened",
		err, what, graph.Bytes(int64(arenas)*4*int64(s.layout.Size)), s.device.Info.Name, graph.Bytes(s.device.Info.Free))
}

// scalarBytes is room for each of the structs of scalars.
const scalarBytes = 256

// prepare allocates what the optimiser needs and binds its launches.
func (s *state) prepare() (err error) {
	d, n := s.device, s.layout.Size
	if s.scalars, err = d.zeroed(2 * scalarBytes); err != nil {
		return err
	}
	if s.optimiser.norm, err = d.zeroed(align(4) + gradNormScratch(n)); err != nil {
		return err
	}
	if s.pinned, err = d.AllocPinned(2*scalarBytes + 4); err != nil {
		return err
	}
	s.fromGrads = s.adam(s.arenas[graph.Grads], s.scalars)
	return d.prepareAll(s.fromGrads)
}

// adam takes the norm of a sum of gradients and steps Adam.
func (s *state) adam(grads, scalars kernels.Ptr) []launch {
	d, n, norm := s.device, s.layout.Size, s.optimiser.norm
	launches := d.gradNormLaunches(grads, n, norm, norm+kernels.Ptr(align(4)))
	return append(launches, d.adamLaunches(adamArenas{
		params: s.arenas[graph.Params], grads: grads, m: s.arenas[graph.AdamM], v: s.arenas[graph.AdamV],
		ema: s.arenas[graph.EMA], rounded: s.rounded[graph.Params],
	}, n, norm, scalars)...)
}

// summing makes the sum of gradients, if there is none yet.
func (s *state) summing() (err error) {
	if s.sum != 0 {
		return nil
	}
	d := s.device
	if s.sum, err = d.zeroed(4 * s.layout.Size); err != nil {
		return err
	}
	s.fromSum = s.adam(s.sum, s.scalars)
	s.add = d.accumulateLaunches(s.sum, s.arenas[graph.Grads], s.layout.Size, s.scalars+scalarBytes)
	return errors.Join(d.prepareAll(s.fromSum), d.prepareAll(s.add))
}

func (d *device) prepareAll(launches []launch) error {
	for _, l := range launches {
		if err := d.prepare(l); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) runAll(launches []launch) error {
	for i := range launches {
		if err := d.run(launches[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *state) Layout() *graph.Layout { return s.layout }

func (s *state) Read(a graph.Arena, dst []float32) error {
	if err := s.check(a, dst); err != nil {
		return err
	}
	return s.device.Do(func() error { return s.device.stream.Read(driver.Bytes(dst), s.arenas[a]) })
}

func (s *state) Write(a graph.Arena, src []float32) error {
	if err := s.check(a, src); err != nil {
		return err
	}
	return s.device.Do(func() error {
		if int(a) < len(s.stale) {
			s.stale[a] = true
			s.changes[a]++
		}
		return s.device.stream.Write(s.arenas[a], driver.Bytes(src))
	})
}

func (s *state) check(a graph.Arena, host []float32) error {
	if s.arenas[a] == 0 {
		return fmt.Errorf("%w: it has no %v", errNotTraining, a)
	}
	if len(host) != s.layout.Size {
		return fmt.Errorf("cuda: %v: %d values for an arena of %d", a, len(host), s.layout.Size)
	}
	return nil
}

// refresh rounds weights that have changed.
func (s *state) refresh(a graph.Arena) error {
	if s.rounded[a] == 0 || !s.stale[a] {
		return nil
	}
	s.stale[a] = false
	return s.device.runAll(s.device.roundLaunches(s.rounded[a], s.arenas[a], s.layout.Size))
}

// stepped notes that an update was queued: it rounds the weights itself, not their
// average.
func (s *state) stepped() {
	s.stale[graph.EMA] = true
	s.changes[graph.Params]++
	s.changes[graph.EMA]++
}

func (s *state) Accumulate(first bool, scale float64) error {
	if s.arenas[graph.Grads] == 0 {
		return errNotTraining
	}
	s.first, s.scale = first, scale
	return s.device.Do(s.doAccumulate)
}

func (s *state) accumulateNow() error {
	if err := s.summing(); err != nil {
		return err
	}
	s.summed = true
	// The last use of the pinned memory must be over.
	if err := s.device.stream.Synchronize(); err != nil {
		return err
	}
	host := s.pinned[scalarBytes : 2*scalarBytes]
	*structIn[kernels.AccumulateScalarsParams](host) = accumulateScalars(s.first, s.scale)
	if err := s.device.stream.Upload(s.scalars+scalarBytes, host); err != nil {
		return err
	}
	return s.device.runAll(s.add)
}

func (s *state) Update(u graph.Update) (float64, error) {
	if s.arenas[graph.Grads] == 0 {
		return 0, errNotTraining
	}
	s.update = u
	err := s.device.Do(s.doUpdate)
	return s.norm, err
}

func (s *state) updateNow() error {
	d := s.device
	// A gradient that is not finite leaves even stale weights as they are.
	if err := s.refresh(graph.Params); err != nil {
		return err
	}
	if err := d.stream.Synchronize(); err != nil {
		return err
	}
	host := s.pinned[:scalarBytes]
	*structIn[kernels.AdamScalarsParams](host) = adamScalars(s.update)
	if err := d.stream.Upload(s.scalars, host); err != nil {
		return err
	}
	launches := s.fromGrads
	if s.summed {
		launches, s.summed = s.fromSum, false
	}
	if err := d.runAll(launches); err != nil {
		return err
	}
	s.stepped()
	back := s.pinned[2*scalarBytes : 2*scalarBytes+4]
	if err := d.stream.Download(back, s.optimiser.norm); err != nil {
		return err
	}
	if err := d.stream.Synchronize(); err != nil {
		return err
	}
	s.norm = float64(floatIn(back))
	return nil
}

// Close frees the arenas.
func (s *state) Close() error {
	return s.device.Release(func() error {
		all := append(s.arenas[:], s.rounded[0], s.rounded[1], s.sum, s.scalars, s.optimiser.norm)
		errs := []error{s.device.stream.Synchronize(), s.device.FreePinned(s.pinned)}
		for _, p := range all {
			errs = append(errs, s.device.Free(p))
		}
		*s = state{device: s.device, layout: s.layout}
		return errors.Join(errs...)
	})
}

// structIn is a struct of scalars that lies in pinned memory.
func structIn[T any](b driver.Pinned) *T { return (*T)(unsafe.Pointer(&b[0])) }

// floatIn reads a number that the device left in pinned memory.
func floatIn(b []byte) float32 {
	return math.Float32frombits(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
}

// structBytes are the bytes of structs, the same memory.
func structBytes[T any](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(*new(T))))
}
