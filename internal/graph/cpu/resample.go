package cpu

import (
	"ddpm/internal/graph/cpu/vector"
	"ddpm/internal/graph/cpu/worker"
)

// concat joins rows on channels: y [M, Ca+Cb] from a [M, Ca] and b [M, Cb].
func concat(p *worker.Pool, M, Ca, Cb int, y, a, b []float32) func() {
	C := Ca + Cb
	return forRange(p, M, rowsPerTask(C), func(from, to int) {
		for row := from; row < to; row++ {
			y := y[row*C : (row+1)*C]
			copy(y[:Ca], a[row*Ca:])
			copy(y[Ca:], b[row*Cb:])
		}
	})
}

// sliceChannels copies channels [first, first+width) of src [M, C] to dst
// [M, width]: the gradient of one operand of concat.
func sliceChannels(p *worker.Pool, M, C, first, width int, dst, src []float32) func() {
	return forRange(p, M, rowsPerTask(width), func(from, to int) {
		for row := from; row < to; row++ {
			copy(dst[row*width:(row+1)*width], src[row*C+first:])
		}
	})
}

// upsampleNearest2x repeats each pixel of x [N, H, W, C] in a 2x2 block of
// y [N, 2H, 2W, C].
func upsampleNearest2x(p *worker.Pool, N, H, W, C int, y, x []float32) func() {
	return forRange(p, N*H, rowsPerTask(4*W*C), func(from, to int) {
		for row := from; row < to; row++ {
			x := x[row*W*C : (row+1)*W*C]
			y := y[row*4*W*C : (row+1)*4*W*C]
			upper, lower := y[:2*W*C], y[2*W*C:]
			for w := range W {
				pixel := x[w*C : (w+1)*C]
				copy(upper[2*w*C:], pixel)
				copy(upper[(2*w+1)*C:], pixel)
			}
			copy(lower, upper)
		}
	})
}

// upsampleNearest2xGrad sums each 2x2 block of dy [N, 2H, 2W, C] into
// dx [N, H, W, C].
func (e *engine) upsampleNearest2xGrad(N, H, W, C int, dx, dy []float32) func() {
	return forRange(e.pool, N*H, rowsPerTask(4*W*C), func(from, to int) {
		for row := from; row < to; row++ {
			dx := vector.Dense(dx[row*W*C:], C)
			dy := dy[row*4*W*C:]
			left := vector.Rows{Data: dy, Stride: 2 * C}
			right := vector.Rows{Data: dy[C:], Stride: 2 * C}
			e.vec.AddRows(dx, left, right, W, C)
			left.Data, right.Data = dy[2*W*C:], dy[(2*W+1)*C:]
			e.vec.AddBothRows(dx, left, right, W, C)
		}
	})
}
