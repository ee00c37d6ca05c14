// Package worker runs the tasks of one kernel on a fixed set of goroutines.
//
// A kernel splits its work into tasks by shape alone, never by the number of
// workers, and each output element belongs to one task. So the result does not
// depend on how many workers there are, bit for bit.
package worker

import "sync"

// Pool is a fixed set of workers. The zero value is not usable; see New.
// Run must not be called from two goroutines at once.
type Pool struct {
	workers int
	start   []chan job
	done    sync.WaitGroup
}

type job struct {
	tasks int
	fn    func(task, worker int)
}

// New starts a pool of n >= 1 workers. The caller of Run is one of them, so a
// pool of one starts no goroutine.
func New(n int) *Pool {
	p := &Pool{workers: n}
	for w := 1; w < n; w++ {
		start := make(chan job, 1)
		p.start = append(p.start, start)
		go func() {
			for j := range start {
				p.share(j, w)
				p.done.Done()
			}
		}()
	}
	return p
}

// Workers is the number of workers: scratch memory for a kernel is sized by it
// and indexed by the worker argument of its tasks.
func (p *Pool) Workers() int { return p.workers }

// Run calls fn once for each task in [0, tasks), worker w taking one contiguous
// share in rising order, and returns when all are done. It does not allocate.
func (p *Pool) Run(tasks int, fn func(task, worker int)) {
	j := job{tasks, fn}
	if tasks <= 1 || p.workers == 1 {
		for task := range tasks {
			fn(task, 0)
		}
		return
	}
	p.done.Add(len(p.start))
	for _, start := range p.start {
		start <- j
	}
	p.share(j, 0)
	p.done.Wait()
}

func (p *Pool) share(j job, w int) {
	for task := j.tasks * w / p.workers; task < j.tasks*(w+1)/p.workers; task++ {
		j.fn(task, w)
	}
}

// Close ends the workers. The pool must be idle.
func (p *Pool) Close() {
	for _, start := range p.start {
		close(start)
	}
	p.start = nil
	p.workers = 1
}
