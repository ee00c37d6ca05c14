package cpu

import (
	"context"
	"fmt"
	"time"

	"ddpm/internal/graph"
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
