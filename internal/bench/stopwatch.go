package bench

import (
	"runtime"
	"slices"
	"time"
)

// Of steps whose number is not given.
const (
	enoughTime = 4 * time.Second
	leastSteps = 5
	mostSteps  = 1000
)

// stopwatch times steps that follow one another. It does not allocate between
// start and stop.
type stopwatch struct {
	warmup, steps int
	profile       *profile // of the operations, or nil

	wall, cpu   []time.Duration
	spent       time.Duration // by the timed steps
	allocations uint64

	lapWall, lapCPU time.Time
	memory          runtime.MemStats
	usage           usage
}

func newStopwatch(o Options) *stopwatch {
	n := o.Steps
	if n == 0 {
		n = mostSteps
	}
	return &stopwatch{
		warmup: o.Warmup, steps: o.Steps,
		wall: make([]time.Duration, 0, n), cpu: make([]time.Duration, 0, n),
	}
}

// start begins a run of steps.
func (w *stopwatch) start() {
	runtime.ReadMemStats(&w.memory)
	w.allocations -= w.memory.Mallocs // stop adds what it is then
	w.mark()
}

func (w *stopwatch) mark() {
	w.lapCPU, w.lapWall = w.usage.time(), time.Now()
}

// lap ends a step and begins the next.
func (w *stopwatch) lap() {
	wall, cpu := time.Since(w.lapWall), w.usage.time().Sub(w.lapCPU)
	if w.warmup > 0 {
		w.warmup--
		w.stop()
		w.allocations = 0
		w.profile.forget()
		w.start()
		return
	}
	w.wall, w.cpu = append(w.wall, wall), append(w.cpu, cpu)
	w.spent += wall
	w.profile.lap(wall)
	w.mark()
}

// stop ends a run of steps.
func (w *stopwatch) stop() {
	runtime.ReadMemStats(&w.memory)
	w.allocations += w.memory.Mallocs
}

// done reports whether enough steps are timed.
func (w *stopwatch) done() bool {
	n := len(w.wall)
	if w.steps > 0 {
		return n >= w.steps
	}
	return n >= mostSteps || n >= leastSteps && w.spent >= enoughTime
}

func (w *stopwatch) result(mode string, batch int, forward, work int64) *Result {
	steps := len(w.wall)
	r := &Result{
		Mode: mode, Batch: batch, Steps: steps, Step: spanOf(w.wall),
		ForwardFlops: forward, StepFlops: work * int64(batch),
		// Rounded down: what the runtime allocates for itself now and then is not
		// the step's.
		Allocations: int64(w.allocations) / int64(steps),
		PeakMemory:  peakMemory(),
		Ops:         w.profile.ops(),
	}
	if w.usage.known() {
		r.CPU = spanOf(w.cpu)
	}
	return r
}

// Span are the median and the shortest of some times.
type Span struct{ Median, Least time.Duration }

func spanOf(times []time.Duration) Span {
	slices.Sort(times)
	n := len(times)
	return Span{(times[(n-1)/2] + times[n/2]) / 2, times[0]}
}

// Result is what was measured of one mode.
type Result struct {
	Mode         string
	Batch        int // images a step
	Steps        int // timed
	Step         Span
	CPU          Span  // processor time a step, of all threads; 0 is unknown
	ForwardFlops int64 // of the network on an image
	StepFlops    int64 // of a step: training counts as three forward passes
	Allocations  int64 // a step
	PeakMemory   int64 // of the process so far, in bytes; 0 is unknown
	Ops          []Op  // if asked for
}

// ImagesPerSecond is the speed of a step that takes so long.
func (r *Result) ImagesPerSecond(step time.Duration) float64 {
	return float64(r.Batch) / step.Seconds()
}

// FlopsPerSecond is likewise in floating-point operations.
func (r *Result) FlopsPerSecond(step time.Duration) float64 {
	return float64(r.StepFlops) / step.Seconds()
}
