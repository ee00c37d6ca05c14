package cpu

import (
	"ddpm/internal/graph/cpu/bf16"
	"ddpm/internal/graph/cpu/gemm"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/graph/cpu/vector"
	"ddpm/internal/graph/cpu/worker"
)

// engine is what the kernels run on. Its methods bind a kernel to its
// operands and return the function that runs it; see the package comment for
// the rules they all keep.
type engine struct {
	set  isa.Set
	pool *worker.Pool
	gemm *gemm.Engine
	bf16 *bf16.Engine // nil where products are of float32 operands
	vec  vector.Kernels
	// tables are each worker's, for the kernel that runs.
	tables []normTables
}

func newEngine(workers int, set isa.Set) *engine {
	pool := worker.New(workers)
	return &engine{set: set, pool: pool, gemm: gemm.New(pool, set), vec: vector.For(set), tables: make([]normTables, workers)}
}

// own is a worker's part of scratch memory for all of them.
func (e *engine) own(scratch []float32, worker int) []float32 {
	n := len(scratch) / e.pool.Workers()
	return scratch[worker*n:][:n]
}

// manyTasks is enough tasks to balance any pool.
const manyTasks = 32

func ceil(n, d int) int { return (n + d - 1) / d }

// cut is the range of part i when n things are cut into parts of nearly equal
// size.
func cut(n, parts, i int) (first, end int) { return n * i / parts, n * (i + 1) / parts }
