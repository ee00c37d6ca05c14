package cpu

import (
	"ddpm/internal/graph/cpu/vector"
	"ddpm/internal/graph/cpu/worker"
)

// grain is the number of elements a task takes where each costs a few
// instructions: long enough to hide the hand-over to a worker.
const grain = 8192

// forRange returns a function that runs fn on [0, n) in ranges of at most size
// items, one task each.
func forRange(p *worker.Pool, n, size int, fn func(from, to int)) func() {
	task := func(task, _ int) {
		from := task * size
		fn(from, min(from+size, n))
	}
	tasks := ceil(n, size)
	return func() { p.Run(tasks, task) }
}

// forSamples returns a function that runs fn, for each of N samples, on [0, n)
// in ranges of at most size items, one task each.
func forSamples(p *worker.Pool, N, n, size int, fn func(sample, from, to int)) func() {
	ranges := ceil(n, size)
	task := func(task, _ int) {
		from := task % ranges * size
		fn(task/ranges, from, min(from+size, n))
	}
	return func() { p.Run(N*ranges, task) }
}

// rowsPerTask is the number of rows of the given width that make a grain.
func rowsPerTask(width int) int { return max(1, grain/width) }

// copyInto computes dst = src for n elements.
func copyInto(p *worker.Pool, n int, dst, src []float32) func() {
	return forRange(p, n, grain, func(from, to int) { copy(dst[from:to], src[from:to]) })
}

// add computes y = a + b for n elements. y may be a or b.
func (e *engine) add(n int, y, a, b []float32) func() {
	return forRange(e.pool, n, grain, func(from, to int) { e.vec.Add(y[from:to], a[from:to], b[from:to]) })
}

// addPerSample computes y[n,p,:] = x[n,p,:] + v[n,:], with x and y [N, P, C] and
// v [N, C]. y may be x.
func (e *engine) addPerSample(N, P, C int, y, x, v []float32) func() {
	return forSamples(e.pool, N, P, rowsPerTask(C), func(n, from, to int) {
		at := (n*P + from) * C
		repeated := vector.Rows{Data: v[n*C:], Stride: 0}
		e.vec.AddRows(vector.Dense(y[at:], C), vector.Dense(x[at:], C), repeated, to-from, C)
	})
}

// A task keeps the running sums of up to sumTile columns on its stack while it
// walks down the rows. channelTile is fewer, for more tasks.
const (
	sumTile     = 512
	channelTile = 64
)

// sumPixels computes dv[n,:] = sum over p of dy[n,p,:], the gradient of
// addPerSample: dv [N, C], dy [N, P, C].
func (e *engine) sumPixels(N, P, C int, dv, dy []float32) func() {
	size := min(sumTile, max(channelTile, ceil(C, ceil(manyTasks/2, N))))
	return forSamples(e.pool, N, C, size, func(n, from, to int) {
		e.sumColumns(dv[n*C+from:n*C+to], dy[n*P*C+from:(n+1)*P*C], P, C)
	})
}

// sumRows computes db[c] = sum over rows of dy[row,c], a bias gradient: db [C],
// dy [M, C]. ws holds sumRowsWorkspace floats.
func (e *engine) sumRows(M, C int, db, dy, ws []float32) func() {
	size := sumRowsSize(M, C)
	partials := ceil(M, size)
	if partials <= 1 {
		return e.sumPixels(1, M, C, db, dy)
	}
	rows := forRange(e.pool, M, size, func(from, to int) {
		partial := ws[from/size*C:][:C]
		for c := 0; c < C; c += sumTile {
			e.sumColumns(partial[c:min(c+sumTile, C)], dy[from*C+c:to*C], to-from, C)
		}
	})
	total := e.sumPixels(1, partials, C, db, ws)
	return func() {
		rows()
		total()
	}
}

// sumRowsWorkspace is the workspace of sumRows in float32.
func sumRowsWorkspace(M, C int) int {
	return ceil(M, sumRowsSize(M, C)) * C
}

// sumRowsSize is the number of rows one task sums: at least a grain, and at most
// 64 tasks, so that their partial sums are a small part of the work.
func sumRowsSize(M, C int) int { return max(rowsPerTask(C), ceil(M, 64)) }

// sumColumns computes dst[i] = sum over rows of src[row*stride+i] for at most
// sumTile columns, in float64.
func (e *engine) sumColumns(dst, src []float32, rows, stride int) {
	var sums [sumTile]float64
	e.vec.SumColumns(sums[:], vector.Rows{Data: src, Stride: stride}, rows, len(dst))
	for i := range dst {
		dst[i] = float32(sums[i])
	}
}
