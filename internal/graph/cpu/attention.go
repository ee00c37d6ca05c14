package cpu

import (
	"math"

	"ddpm/internal/graph/cpu/gemm"
)

// attentionCuts says how attention over sequences [B,L,C] is cut. Rows of the
// matrix of scores are made a block at a time, enough for a worker to keep in
// its cache, and never all at once.
type attentionCuts struct {
	length, channels, heads, width int // width of a head
	sequences                      int // B*heads
	blocks                         int // of the rows of a sequence
	rows                           int // of the largest block
	pitch                          int // of a row of scores
	scale                          float32
}

// scoreElements is about how many scores a worker keeps.
const scoreElements = 1 << 15

func cutAttention(b, l, c, heads int) attentionCuts {
	a := attentionCuts{length: l, channels: c, heads: heads, width: c / heads, sequences: b * heads}
	a.blocks = ceil(l, min(112, max(14, scoreElements/l)))
	a.rows = ceil(l, a.blocks)
	// One cache line more than the row: columns of scores are read too, and
	// a power of two would map them all to the same few sets of the cache.
	a.pitch = ceil(l, 16)*16 + 16
	a.scale = float32(1 / math.Sqrt(float64(a.width)))
	return a
}

// matrix is the part [L,width] of x that a sequence owns.
func (a attentionCuts) matrix(x []float32, sequence int) gemm.Matrix {
	first := sequence/a.heads*a.length*a.channels + sequence%a.heads*a.width
	return gemm.Matrix{Data: x[first:], Stride: a.channels}
}

// attention binds out = softmax(q kᵀ / sqrt(d)) v for each of heads heads on
// q, k, v, out [b,l,c]; head h owns channels [h*d, (h+1)*d), d = c/heads.
func (e *engine) attention(b, l, c, heads int, out, q, k, v, ws []float32) func() {
	a := cutAttention(b, l, c, heads)
	kSize, vSize := e.gemm.PackedSize(a.width, l), e.gemm.PackedSize(l, a.width)
	ks := gemm.Carve(&ws, a.sequences*kSize)
	vs := gemm.Carve(&ws, a.sequences*vSize)
	scores := gemm.Carve(&ws, e.pool.Workers()*a.rows*a.pitch)
	rowsOfQ := gemm.NewLayout(c, 1, a.width)
	rowsOfP := gemm.NewLayout(a.pitch, 1, l)

	pack := func(s, _ int) {
		e.gemm.Pack(ks[s*kSize:][:kSize], a.matrix(k, s).T(), a.width, l)
		e.gemm.Pack(vs[s*vSize:][:vSize], a.matrix(v, s), l, a.width)
	}
	run := func(task, worker int) {
		s := task / a.blocks
		first, end := cut(l, a.blocks, task%a.blocks)
		p := e.own(scores, worker)
		e.gemm.Block(&gemm.Strip{
			Rows: end - first, A: a.matrix(q, s).Data[first*c:], Layout: rowsOfQ, B: ks[s*kSize:][:kSize],
			C: p, Stride: a.pitch,
		}, l)
		a.softmax(p, end-first)
		e.gemm.Block(&gemm.Strip{
			Rows: end - first, A: p, Layout: rowsOfP, B: vs[s*vSize:][:vSize],
			C: a.matrix(out, s).Data[first*c:], Stride: c,
		}, a.width)
	}
	return func() {
		e.pool.Run(a.sequences, pack)
		e.pool.Run(a.sequences*a.blocks, run)
	}
}

func (e *engine) attentionWorkspace(b, l, c, heads int) int {
	a := cutAttention(b, l, c, heads)
	return gemm.Scratch(
		a.sequences*e.gemm.PackedSize(a.width, l), a.sequences*e.gemm.PackedSize(l, a.width),
		e.pool.Workers()*a.rows*a.pitch)
}

// attentionGrad binds dq, dk and dv, the gradients of attention. With the
// scores S = q kᵀ / sqrt(d) and P = softmax(S), computed again block by block,
//
//	dv = Pᵀ dout            dP = dout vᵀ
//	dS = P (dP - sum over the row of P dP)
//	dq = dS k / sqrt(d)     dk = dSᵀ q / sqrt(d)
func (e *engine) attentionGrad(b, l, c, heads int, dq, dk, dv, q, k, v, dout, ws []float32) func() {
	a := cutAttention(b, l, c, heads)
	workers := e.pool.Workers()
	columns, rows, block := e.gemm.PackedSize(a.width, l), e.gemm.PackedSize(l, a.width), e.gemm.PackedSize(a.rows, a.width)
	kColumns := gemm.Carve(&ws, workers*columns) // kᵀ as the right operand
	vColumns := gemm.Carve(&ws, workers*columns)
	kRows := gemm.Carve(&ws, workers*rows) // k as the right operand
	blockRows := gemm.Carve(&ws, workers*block)
	ps := gemm.Carve(&ws, workers*a.rows*a.pitch)
	dps := gemm.Carve(&ws, workers*a.rows*a.pitch)

	rowsOfQ := gemm.NewLayout(c, 1, a.width)
	rowsOfP := gemm.NewLayout(a.pitch, 1, l)
	columnsOfP := make([]*gemm.Layout, a.blocks)
	for i := range columnsOfP {
		first, end := cut(l, a.blocks, i)
		columnsOfP[i] = gemm.NewLayout(1, a.pitch, end-first)
	}

	run := func(s, worker int) {
		q, k, v, dout := a.matrix(q, s), a.matrix(k, s), a.matrix(v, s), a.matrix(dout, s)
		dq, dk, dv := a.matrix(dq, s), a.matrix(dk, s), a.matrix(dv, s)
		kColumns, vColumns, kRows := e.own(kColumns, worker), e.own(vColumns, worker), e.own(kRows, worker)
		blockRows, p, dp := e.own(blockRows, worker), e.own(ps, worker), e.own(dps, worker)
		e.gemm.Pack(kColumns, k.T(), a.width, l)
		e.gemm.Pack(vColumns, v.T(), a.width, l)
		e.gemm.Pack(kRows, k, l, a.width)
		for i := range a.blocks {
			first, end := cut(l, a.blocks, i)
			n := end - first
			e.gemm.Block(&gemm.Strip{
				Rows: n, A: q.Data[first*c:], Layout: rowsOfQ, B: kColumns, C: p, Stride: a.pitch,
			}, l)
			a.softmax(p, n)
			e.gemm.Block(&gemm.Strip{
				Rows: n, A: dout.Data[first*c:], Layout: rowsOfQ, B: vColumns, C: dp, Stride: a.pitch,
			}, l)
			a.softmaxGrad(dp, p, n)
			e.gemm.Block(&gemm.Strip{
				Rows: n, A: dp, Layout: rowsOfP, B: kRows, C: dq.Data[first*c:], Stride: c,
			}, a.width)
			for _, g := range [...]struct{ dst, left, right []float32 }{{dv.Data, p, dout.Data}, {dk.Data, dp, q.Data}} {
				e.gemm.Pack(blockRows, gemm.Matrix{Data: g.right[first*c:], Stride: c}, n, a.width)
				e.gemm.Block(&gemm.Strip{
					Rows: l, A: g.left, Layout: columnsOfP[i], B: blockRows, C: g.dst, Stride: c, Accumulate: i > 0,
				}, a.width)
			}
		}
	}
	return func() { e.pool.Run(a.sequences, run) }
}

func (e *engine) attentionGradWorkspace(b, l, c, heads int) int {
	a := cutAttention(b, l, c, heads)
	workers := e.pool.Workers()
	columns := workers * e.gemm.PackedSize(a.width, l)
	scores := workers * a.rows * a.pitch
	return gemm.Scratch(
		columns, columns, workers*e.gemm.PackedSize(l, a.width), workers*e.gemm.PackedSize(a.rows, a.width),
		scores, scores)
}

// softmax turns rows of products q kᵀ into probabilities.
func (a attentionCuts) softmax(p []float32, rows int) {
	for i := range rows {
		row := p[i*a.pitch:][:a.length]
		highest := row[0]
		for _, x := range row {
			if x > highest { // five times as fast as max
				highest = x
			}
		}
		var sum float64
		for j, x := range row {
			y := exp64((x - highest) * a.scale)
			row[j] = float32(y)
			sum += y
		}
		inverse := float32(1 / sum)
		for j := range row {
			row[j] *= inverse
		}
	}
}

// softmaxGrad turns rows of dP into rows of dS / sqrt(d).
func (a attentionCuts) softmaxGrad(dp, p []float32, rows int) {
	for i := range rows {
		dp, p := dp[i*a.pitch:][:a.length], p[i*a.pitch:][:a.length]
		var sum float32
		for j, x := range p {
			sum += x * dp[j]
		}
		for j, x := range p {
			dp[j] = a.scale * x * (dp[j] - sum)
		}
	}
}
