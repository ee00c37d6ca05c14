package cpu

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/bf16"
	"ddpm/internal/graph/cpu/gemm"
)

// How ceilings are measured.
const (
	ceilingTime   = 300 * time.Millisecond // of each, all rounds
	ceilingRounds = 3                      // at least

	productSteps  = 192                    // of K: a panel and the rows of a tile fit the first cache
	productShares = 4                      // tasks for each worker
	productTask   = 500 * time.Microsecond // a task at least

	// Chunks of a copy are so large that Go copies them past the caches, so that no
	// line is read only to be written over.
	copyChunk  = 2 << 20
	copyChunks = 64 // at least; together larger than what caches there are
)

// Ceilings measures the tallest tile of a product on all workers at once, each with
// operands of its own, and a copy by all of them. The fastest of short rounds
// counts: in one of them no other program has a processor. It implements
// graph.Measurable.
func (b *Backend) Ceilings() (graph.Ceilings, error) {
	c := graph.Ceilings{Product: fmt.Sprintf("%s, %s", b.InstructionSet(), b.Precision())}
	var err error
	if c.Flops, err = b.productSpeed(); err != nil {
		return c, err
	}
	if c.Bytes, err = b.copySpeed(); err != nil {
		return c, err
	}
	if !graph.Plausible(c.Flops) || !graph.Plausible(c.Bytes) {
		return c, fmt.Errorf("cpu: ceilings of %v operations and %v bytes a second make no sense", c.Flops, c.Bytes)
	}
	return c, nil
}

// fastest is the time of the fastest round, in seconds.
func fastest(round func()) float64 {
	var best time.Duration
	begun := time.Now()
	for n := 0; n < ceilingRounds || time.Since(begun) < ceilingTime; n++ {
		start := time.Now()
		round()
		if took := time.Since(start); n == 0 || took < best {
			best = took
		}
	}
	return best.Seconds()
}

// tile is a product of matrices of ones, one of the tallest tiles there are.
type tile struct {
	run  func()
	work float64   // operations
	sums []float32 // the result
	want float32   // in each of them
}

// productSpeed is in operations a second.
func (b *Backend) productSpeed() (float64, error) {
	tiles := make([]tile, b.pool.Workers())
	for i := range tiles {
		if b.bf16 != nil {
			tiles[i] = b.tileBF16()
		} else {
			tiles[i] = b.tile()
		}
	}
	repeats := 0
	for start := time.Now(); repeats == 0 || time.Since(start) < productTask; repeats++ {
		tiles[0].run()
	}
	tasks := len(tiles) * productShares
	seconds := fastest(func() {
		b.pool.Run(tasks, func(_, worker int) {
			for range repeats {
				tiles[worker].run()
			}
		})
	})
	if err := tiles[0].check(); err != nil {
		return 0, err
	}
	return tiles[0].work * float64(repeats*tasks) / seconds, nil
}

// check says whether the product was computed.
func (t tile) check() error {
	for _, sum := range t.sums {
		if sum != t.want {
			return fmt.Errorf("cpu: a product of ones over %v steps is %v", t.want, sum)
		}
	}
	return nil
}

func (b *Backend) tile() tile {
	panel := b.gemm.Panel(0, 1<<10) // of a matrix so wide that the panel is whole
	rows := b.gemm.TileRows(panel.Width)
	s := &gemm.Strip{
		Rows: rows, Panel: panel, Layout: gemm.NewLayout(productSteps, 1, productSteps), Stride: panel.Width,
		A: ones[float32](rows*productSteps, 1), B: ones[float32](productSteps*panel.Width, 1), C: make([]float32, rows*panel.Width),
	}
	return tile{func() { b.gemm.Run(s) }, 2 * float64(rows*panel.Columns*productSteps), s.C, productSteps}
}

// tileBF16 is of bfloat16 operands.
func (b *Backend) tileBF16() tile {
	const one = 0x3f80
	panel := b.bf16.Panel(0, 1<<10)
	rows, steps := b.bf16.TileRows(panel.Width), b.bf16.Padded(productSteps)
	s := &bf16.Strip{
		Rows: rows, Panel: panel, Layout: b.bf16.Layout(steps, steps, 0), Stride: panel.Width,
		A: ones[uint16](rows*steps+bf16.Slack, one), B: ones[uint16](steps*panel.Width, one), C: make([]float32, rows*panel.Width),
	}
	return tile{func() { b.bf16.Run(s) }, 2 * float64(rows*panel.Columns*steps), s.C, float32(steps)}
}

func ones[T any](n int, one T) []T {
	v := make([]T, n)
	for i := range v {
		v[i] = one
	}
	return v
}

// copySpeed is in bytes a second, read and written.
func (b *Backend) copySpeed() (float64, error) {
	chunks := max(copyChunks, productShares*b.pool.Workers())
	from, to := make([]byte, chunks*copyChunk), make([]byte, chunks*copyChunk)
	part := func(of []byte, i int) []byte { return of[i*copyChunk:][:copyChunk] }
	// Memory that was never written may be one page of zeros over and over.
	b.pool.Run(chunks, func(chunk, _ int) {
		for i := range part(from, chunk) {
			part(from, chunk)[i] = byte(i*7 + chunk)
		}
	})
	seconds := fastest(func() {
		b.pool.Run(chunks, func(chunk, _ int) { copy(part(to, chunk), part(from, chunk)) })
	})
	if !bytes.Equal(from, to) {
		return 0, errors.New("cpu: a copy is not equal to what was copied")
	}
	return 2 * float64(len(from)) / seconds, nil
}
