package worker

import (
	"sync/atomic"
	"testing"
	"time"
)

func TestRunCallsEachTaskOnce(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 7} {
		p := New(workers)
		for _, tasks := range []int{0, 1, 2, 6, 7, 100} {
			calls := make([]atomic.Int32, tasks)
			for round := range 300 {
				busy := make([]atomic.Bool, workers)
				p.Run(tasks, func(task, worker int) {
					if !busy[worker].CompareAndSwap(false, true) {
						t.Errorf("%d workers: worker %d does two tasks at once", workers, worker)
					}
					calls[task].Add(1)
					busy[worker].Store(false)
				})
				for i := range calls {
					if n := calls[i].Load(); n != int32(round+1) {
						t.Fatalf("%d workers: task %d ran %d times in %d rounds", workers, i, n, round+1)
					}
				}
			}
		}
		p.Close()
	}
}

// Rounds that begin while the workers look, while they fall asleep and while
// they sleep.
func TestRunWakesSleepers(t *testing.T) {
	p := New(2)
	defer p.Close()
	var sum atomic.Int64
	for i := range 200 {
		p.Run(4, func(task, _ int) {
			if task == 3 && i%4 == 0 {
				time.Sleep(patience * 2) // the caller sleeps too
			}
			sum.Add(1)
		})
		time.Sleep(time.Duration(i%5) * patience / 2)
	}
	if sum.Load() != 800 {
		t.Errorf("%d tasks ran, want 800", sum.Load())
	}
}

func TestRunDoesNotAllocate(t *testing.T) {
	p := New(2)
	defer p.Close()
	fn := func(int, int) {}
	if n := testing.AllocsPerRun(1000, func() { p.Run(8, fn) }); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

func BenchmarkRun(b *testing.B) {
	p := New(2)
	defer p.Close()
	fn := func(int, int) {}
	for b.Loop() {
		p.Run(8, fn)
	}
}
