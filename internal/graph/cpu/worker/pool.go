// Package worker runs the tasks of one kernel on a fixed set of goroutines.
//
// A kernel splits its work into tasks by extents alone, never by the number of
// workers, and each output element belongs to one task. So the result does not
// depend on how many workers there are, bit for bit.
//
// Many kernels of a small network take less time than the system needs to wake
// a sleeping thread. So a worker that has run out of work looks for more for a
// moment before it sleeps, and a kernel never waits for a worker that has not
// begun: those that have take its tasks.
package worker

import (
	"runtime"
	"sync/atomic"
	"time"
)

// patience is how long to look before sleeping: longer than the gap between
// two kernels, too short to take much from another program.
const patience = 50 * time.Microsecond

// Pool is a fixed set of workers; see New. Run must not be called from two
// goroutines at once.
type Pool struct {
	spin    bool
	fn      func(task, worker int)
	shares  []share  // one for each worker, the caller's first
	helpers []helper // the other workers
	caller  sleeper  // waits for helpers to leave
}

// share is the part of the tasks that is meant for one worker, so that it finds
// in its cache what it wrote there in the kernel before. Who is done with his
// own helps with the others'.
type share struct {
	next atomic.Int64
	end  int64
	_    [48]byte // a cache line each
}

// helper is a worker that has a goroutine of its own.
type helper struct {
	sleeper
	state atomic.Int32
}

// States of a helper. Only while it is in may it read what Run was given.
const (
	out     int32 = iota
	invited       // may come in, or be disinvited
	in
	leaving // the pool is closed
)

// New starts a pool of n >= 1 workers. The caller of Run is one of them, so a
// pool of one starts no goroutine.
func New(n int) *Pool {
	p := &Pool{
		// With more workers than processors, one that looks keeps another from
		// working.
		spin:    n <= runtime.GOMAXPROCS(0),
		shares:  make([]share, n),
		helpers: make([]helper, n-1),
	}
	p.caller.alarm = make(chan struct{}, 1)
	for i := range p.helpers {
		p.helpers[i].alarm = make(chan struct{}, 1)
		go p.serve(i)
	}
	return p
}

// Workers is the number of workers: scratch memory for a kernel is sized by it
// and indexed by the worker argument of its tasks.
func (p *Pool) Workers() int { return len(p.shares) }

// Run calls fn once for each task in [0, tasks), in any order and from any
// worker, and returns when all are done. It does not allocate.
func (p *Pool) Run(tasks int, fn func(task, worker int)) {
	if tasks <= 1 || len(p.helpers) == 0 {
		for task := range tasks {
			fn(task, 0)
		}
		return
	}
	p.fn = fn
	n := len(p.shares)
	for w := range p.shares {
		p.shares[w].next.Store(int64(tasks * w / n))
		p.shares[w].end = int64(tasks * (w + 1) / n)
	}
	for i := range p.helpers {
		h := &p.helpers[i]
		h.state.Store(invited)
		h.wake()
	}
	p.work(0)
	for i := range p.helpers {
		h := &p.helpers[i]
		if !h.state.CompareAndSwap(invited, out) {
			p.caller.wait(p.spin, func() bool { return h.state.Load() == out })
		}
	}
}

// work does the tasks of a worker's own share, then those left in the others.
func (p *Pool) work(worker int) {
	n := len(p.shares)
	for i := range n {
		s := &p.shares[(worker+i)%n]
		for task := s.next.Add(1) - 1; task < s.end; task = s.next.Add(1) - 1 {
			p.fn(int(task), worker)
		}
	}
}

func (p *Pool) serve(i int) {
	h := &p.helpers[i]
	for {
		h.wait(p.spin, func() bool { return h.state.Load() != out })
		switch {
		case h.state.CompareAndSwap(invited, in):
			p.work(i + 1)
			h.state.Store(out)
			p.caller.wake()
		case h.state.Load() == leaving:
			return
		}
	}
}

// Close ends the workers. The pool must be idle and is not usable afterwards.
func (p *Pool) Close() {
	for i := range p.helpers {
		p.helpers[i].state.Store(leaving)
		p.helpers[i].wake()
	}
}

// sleeper lets one goroutine wait for a condition that another brings about.
type sleeper struct {
	asleep atomic.Bool
	alarm  chan struct{}
}

// wait returns once ready does. It looks for a moment if it may, then sleeps.
func (s *sleeper) wait(spin bool, ready func() bool) {
	for start := time.Now(); spin && time.Since(start) < patience; {
		for range 64 {
			if ready() {
				return
			}
		}
	}
	for !ready() {
		s.asleep.Store(true)
		// Whoever takes asleep back decides: we, if the condition came about
		// just before, or wake, which then rings. It may ring for an earlier
		// condition.
		if !ready() || !s.asleep.CompareAndSwap(true, false) {
			<-s.alarm
		}
	}
}

// wake ends the wait of a goroutine that sleeps. The condition it waits for must
// have come about.
func (s *sleeper) wake() {
	if s.asleep.CompareAndSwap(true, false) {
		s.alarm <- struct{}{}
	}
}
