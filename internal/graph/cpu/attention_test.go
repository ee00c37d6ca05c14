package cpu

import (
	"fmt"
	"math"
	"testing"
)

// attentionOracle is out, dq, dk and dv of attention in float64 by plain loops.
func attentionOracle(b, l, c, heads int, q, k, v, dout []float32) (out, dq, dk, dv []float64) {
	out, dq = make([]float64, len(q)), make([]float64, len(q))
	dk, dv = make([]float64, len(q)), make([]float64, len(q))
	d := c / heads
	scale := 1 / math.Sqrt(float64(d))
	p, dp := make([]float64, l), make([]float64, l)
	dot := func(x []float32, i int, y []float32, j int) (sum float64) {
		for e := range d {
			sum += float64(x[i+e]) * float64(y[j+e])
		}
		return sum
	}
	for n := range b {
		for h := range heads {
			at := func(row int) int { return (n*l+row)*c + h*d }
			for i := range l {
				highest := math.Inf(-1)
				for j := range l {
					p[j] = scale * dot(q, at(i), k, at(j))
					highest = max(highest, p[j])
				}
				var sum float64
				for j := range l {
					p[j] = math.Exp(p[j] - highest)
					sum += p[j]
				}
				var mean float64
				for j := range l {
					p[j] /= sum
					dp[j] = dot(dout, at(i), v, at(j))
					mean += p[j] * dp[j]
				}
				for j := range l {
					ds := scale * p[j] * (dp[j] - mean)
					for e := range d {
						out[at(i)+e] += p[j] * float64(v[at(j)+e])
						dv[at(j)+e] += p[j] * float64(dout[at(i)+e])
						dq[at(i)+e] += ds * float64(k[at(j)+e])
						dk[at(j)+e] += ds * float64(q[at(i)+e])
					}
				}
			}
		}
	}
	return out, dq, dk, dv
}

func TestAttention(t *testing.T) {
	for _, s := range []struct{ b, l, c, heads int }{
		{1, 1, 4, 1}, {2, 7, 24, 2}, {3, 64, 48, 1}, {2, 64, 48, 4}, {1, 256, 20, 2}, {1, 301, 5, 1}, {1, 700, 6, 2}, {9, 130, 6, 1},
	} {
		n := s.b * s.l * s.c
		q, k, v, dout := gaussian(n, 1), gaussian(n, 2), gaussian(n, 3), gaussian(n, 4)
		out, dq, dk, dv := attentionOracle(s.b, s.l, s.c, s.heads, q, k, v, dout)
		t.Run(fmt.Sprintf("%+v", s), func(t *testing.T) {
			checkMatrixKernel(t, [][]float64{out}, func(e *engine) bound {
				out := poison(n)
				ws := poison(e.attentionWorkspace(s.b, s.l, s.c, s.heads))
				return bound{[][]float32{out}, e.attention(s.b, s.l, s.c, s.heads, out, q, k, v, ws)}
			})
			checkMatrixKernel(t, [][]float64{dq, dk, dv}, func(e *engine) bound {
				dq, dk, dv := poison(n), poison(n), poison(n)
				ws := poison(e.attentionGradWorkspace(s.b, s.l, s.c, s.heads))
				return bound{[][]float32{dq, dk, dv}, e.attentionGrad(s.b, s.l, s.c, s.heads, dq, dk, dv, q, k, v, dout, ws)}
			})
		})
	}
}

// TestAttentionOfLargeScores: a softmax that subtracts the greatest score does
// not overflow.
func TestAttentionOfLargeScores(t *testing.T) {
	const b, l, c = 1, 9, 4
	q, k, v := gaussian(b*l*c, 1), gaussian(b*l*c, 2), gaussian(b*l*c, 3)
	for i := range q {
		q[i] *= 1000
	}
	out, _, _, _ := attentionOracle(b, l, c, 1, q, k, v, v)
	checkMatrixKernel(t, [][]float64{out}, func(e *engine) bound {
		out := poison(len(q))
		return bound{[][]float32{out}, e.attention(b, l, c, 1, out, q, k, v, poison(e.attentionWorkspace(b, l, c, 1)))}
	})
}

func BenchmarkAttention(b *testing.B) {
	for _, s := range []struct{ b, l, c int }{{16, 64, 48}, {16, 256, 256}, {1, 1024, 256}} {
		n := s.b * s.l * s.c
		q, k, v, dout := gaussian(n, 1), gaussian(n, 2), gaussian(n, 3), gaussian(n, 4)
		out, dq, dk, dv := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
		product := 2 * n * s.l
		b.Run(fmt.Sprintf("%dx%dx%d/forward", s.b, s.l, s.c), func(b *testing.B) {
			benchmarkMatrixKernel(b, 2*product, func(e *engine) func() {
				return e.attention(s.b, s.l, s.c, 1, out, q, k, v, make([]float32, e.attentionWorkspace(s.b, s.l, s.c, 1)))
			})
		})
		b.Run(fmt.Sprintf("%dx%dx%d/gradient", s.b, s.l, s.c), func(b *testing.B) {
			benchmarkMatrixKernel(b, 5*product, func(e *engine) func() {
				ws := make([]float32, e.attentionGradWorkspace(s.b, s.l, s.c, 1))
				return e.attentionGrad(s.b, s.l, s.c, 1, dq, dk, dv, q, k, v, dout, ws)
			})
		})
	}
}
