package cpu

import (
	"context"
	"fmt"
	"time"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/gemm"
)

// RunTimed is Run with the time of each instruction. The transform of weights that
// are kept is not timed: it runs once for many steps. It implements graph.Timed.
func (p *program) RunTimed(ctx context.Context, feeds graph.Feeds, spent []time.Duration) error {
	if len(spent) != len(p.code) {
		return fmt.Errorf("cpu: %d instructions to time, want room for %d times, have %d", len(p.code), len(p.code), len(spent))
	}
	if err := p.begin(feeds); err != nil {
		return err
	}
	start := time.Now()
	for i, run := range p.code {
		if err := ctx.Err(); err != nil {
			return err
		}
		run()
		end := time.Now()
		spent[i] = end.Sub(start)
		start = end
	}
	return nil
}

// Threads is the number of workers. It implements graph.Processor.
func (b *Backend) Threads() int { return b.pool.Workers() }

// InstructionSet names the instructions the matrix kernels use.
func (b *Backend) InstructionSet() string {
	if b.bf16 != nil {
		return fmt.Sprintf("%v+%v", b.set, b.bf16.Kind())
	}
	return fmt.Sprint(b.set)
}

// How the peak is measured.
const (
	peakSteps  = 192                    // of K: a panel and the rows of a tile fit the first cache
	peakShares = 4                      // tasks for each worker
	peakTask   = 500 * time.Microsecond // a task at least
	peakTime   = 300 * time.Millisecond // all rounds
	peakRounds = 3                      // at least
)

// Peak measures the speed of the tallest tile on all workers at once, each with
// operands of its own, and returns that of the fastest round. Rounds are short, so
// that in one of them no other program has a processor.
func (b *Backend) Peak() float64 {
	workers := b.pool.Workers()
	strips := make([]gemm.Strip, workers)
	for i := range strips {
		strips[i] = b.peakStrip()
	}
	s := &strips[0]
	work := 2 * float64(s.Rows) * float64(s.Panel.Columns) * float64(s.Layout.K())

	start := time.Now()
	b.gemm.Run(s)
	repeats := 1
	for time.Since(start) < peakTask {
		b.gemm.Run(s)
		repeats++
	}

	tasks := workers * peakShares
	var best float64
	begun := time.Now()
	for round := 0; round < peakRounds || time.Since(begun) < peakTime; round++ {
		start := time.Now()
		b.pool.Run(tasks, func(_, worker int) {
			for range repeats {
				b.gemm.Run(&strips[worker])
			}
		})
		best = max(best, work*float64(repeats*tasks)/time.Since(start).Seconds())
	}
	return best
}

// peakStrip is one of the tallest tiles, on operands of ones.
func (b *Backend) peakStrip() gemm.Strip {
	panel := b.gemm.Panel(0, 1<<10) // of a matrix so wide that the panel is whole
	rows := b.gemm.TileRows(panel.Width)
	s := gemm.Strip{
		Rows: rows, Panel: panel, Layout: gemm.NewLayout(peakSteps, 1, peakSteps), Stride: panel.Width,
		A: make([]float32, rows*peakSteps), B: make([]float32, peakSteps*panel.Width), C: make([]float32, rows*panel.Width),
	}
	for _, operand := range [][]float32{s.A, s.B} {
		for i := range operand {
			operand[i] = 1
		}
	}
	return s
}
