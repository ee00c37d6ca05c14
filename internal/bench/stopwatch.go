package bench

import (
	"runtime"
	"slices"
	"time"

	"ddpm/internal/graph"
)

// Of steps whose number is not given.
const (
	enoughTime = 4 * time.Second
	leastSteps = 5
	mostSteps  = 1000
)

// aheadSteps are steps from one wait to the next for a device that runs behind the
// host: so many that the wait takes little of them.
const aheadSteps = 10

// stopwatch times steps that follow one another. It does not allocate between
// start and stop.
type stopwatch struct {
	warmup, steps int
	profile       *profile // of the operations, or nil
	longest       int      // steps of a lap at most

	begun       time.Time
	first       time.Duration   // from then to the end of the first step
	timed       int             // steps
	wall, cpu   []time.Duration // of a step, by lap
	spent       time.Duration   // by the timed steps
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
	w := &stopwatch{
		warmup: o.Warmup, steps: o.Steps, longest: 1, begun: o.begun,
		wall: make([]time.Duration, 0, n), cpu: make([]time.Duration, 0, n),
	}
	if _, ok := o.Backend.(graph.Ahead); ok {
		w.longest = aheadSteps
	}
	return w
}

// stride is how many steps the next lap has.
func (w *stopwatch) stride() int {
	switch {
	case w.warmup > 0:
		return min(w.longest, w.warmup)
	case w.steps > 0:
		return max(1, min(w.longest, w.steps-w.timed))
	}
	return w.longest
}

// finished notes that a step is over.
func (w *stopwatch) finished() {
	if w.first == 0 {
		w.first = max(time.Since(w.begun), 1)
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

// lap ends so many steps and begins the next ones.
func (w *stopwatch) lap(steps int) {
	n := time.Duration(steps)
	wall, cpu := time.Since(w.lapWall)/n, w.usage.time().Sub(w.lapCPU)/n
	w.finished()
	if w.warmup > 0 {
		w.warmup -= steps
		w.stop()
		w.allocations = 0
		w.profile.forget()
		w.start()
		return
	}
	w.wall, w.cpu = append(w.wall, wall), append(w.cpu, cpu)
	w.spent += n * wall
	w.timed += steps
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
	if w.steps > 0 {
		return w.timed >= w.steps
	}
	return w.timed >= mostSteps || w.timed >= leastSteps && w.spent >= enoughTime
}

func (w *stopwatch) result(mode string, batch int, forward, work int64) *Result {
	r := &Result{
		Mode: mode, Batch: batch, Steps: w.timed, Step: spanOf(w.wall), First: w.first,
		ForwardFlops: forward, StepFlops: work * int64(batch),
		// Rounded down: what the runtime allocates for itself now and then is not
		// the step's.
		Allocations: int64(w.allocations) / int64(w.timed),
		PeakMemory:  peakMemory(),
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
	DeviceMemory int64 // by the plan, in bytes; 0 if the device's is the process's
	// First is from the beginning of Run to the end of the first step.
	First time.Duration
	Ops   []Op // if asked for, the longest first
}

// setDeviceMemory notes what the plan takes of a device apart from the host.
func (r *Result) setDeviceMemory(b graph.Backend, bytes int64) {
	if _, isHost := b.(graph.Processor); !isHost {
		r.DeviceMemory = bytes
	}
}

// ImagesPerSecond is the speed of a step that takes so long.
func (r *Result) ImagesPerSecond(step time.Duration) float64 {
	return float64(r.Batch) / step.Seconds()
}

// FlopsPerSecond is likewise in floating-point operations.
func (r *Result) FlopsPerSecond(step time.Duration) float64 {
	return float64(r.StepFlops) / step.Seconds()
}
