package cpu

import (
	"math"

	"ddpm/internal/graph/cpu/gemm"
	"ddpm/internal/graph/cpu/vector"
)

// attentionCuts says how attention over sequences [B,L,C] is cut. Rows of the
// matrix of scores are made a block at a time, enough for a worker to keep in
// its cache, and never all at once.
//
// What all blocks of a sequence multiply with, a worker packs when it comes to
// the sequence. Tasks are in the order of sequences, so it does that about once
// for each, and there is memory for one sequence a worker.
type attentionCuts struct {
	length, channels, heads, width int // width of a head
	sequences                      int // B*heads
	blocks                         int // of the rows of a sequence
	parts                          int // runs of blocks that one task of the gradient takes
	rows                           int // of the largest block
	pitch                          int // of a row of scores
	scale                          float32
}

// scoreElements is about how many scores a worker keeps. fewTasks is enough for
// the gradient, which pays for each part of a sequence after the first with
// memory for its share of two sums.
const (
	scoreElements = 1 << 15
	fewTasks      = 8
)

func cutAttention(b, l, c, heads int) attentionCuts {
	a := attentionCuts{length: l, channels: c, heads: heads, width: c / heads, sequences: b * heads}
	a.blocks = ceil(l, min(112, max(14, scoreElements/l)))
	a.rows = ceil(l, a.blocks)
	a.parts = min(a.blocks, ceil(fewTasks, a.sequences))
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

// scores is the softmax of rows [first, end) of q kᵀ / sqrt(d), into p.
func (e *engine) scores(a attentionCuts, layout *gemm.Layout, p, q, kColumns []float32, first, end int) {
	e.gemm.Block(&gemm.Strip{
		Rows: end - first, A: q[first*a.channels:], Layout: layout, B: kColumns, C: p, Stride: a.pitch,
	}, a.length)
	e.vec.Softmax(a.block(p), end-first, a.length, a.scale)
}

// block is a block of scores as rows.
func (a attentionCuts) block(p []float32) vector.Rows { return vector.Rows{Data: p, Stride: a.pitch} }

// packColumns packs xᵀ, of a sequence's x [l, width], as a right operand.
func (e *engine) packColumns(a attentionCuts, dst, x []float32) {
	for i := range e.gemm.Panels(a.length) {
		p := e.gemm.Panel(i, a.length)
		panel := dst[p.First*a.width:][:p.Width*a.width]
		if p.Columns < p.Width {
			clear(panel)
		}
		e.vec.Transpose(vector.Dense(panel, p.Width), vector.Rows{Data: x[p.First*a.channels:], Stride: a.channels}, p.Columns, a.width)
	}
}

// holding is, for each worker, the sequence whose operands it has packed.
type holding []int

func (h holding) reset() {
	for i := range h {
		h[i] = -1
	}
}

// takes says whether a worker still has to pack a sequence, and notes that it
// will.
func (h holding) takes(worker, sequence int) bool {
	if h[worker] == sequence {
		return false
	}
	h[worker] = sequence
	return true
}

// attention binds out = softmax(q kᵀ / sqrt(d)) v for each of heads heads on
// q, k, v, out [b,l,c]; head h owns channels [h*d, (h+1)*d), d = c/heads.
func (e *engine) attention(b, l, c, heads int, out, q, k, v, ws []float32) func() {
	a := cutAttention(b, l, c, heads)
	workers := e.pool.Workers()
	ks := gemm.Carve(&ws, workers*e.gemm.PackedSize(a.width, l))
	vs := gemm.Carve(&ws, workers*e.gemm.PackedSize(l, a.width))
	blocks := gemm.Carve(&ws, workers*a.rows*a.pitch)
	rowsOfQ := gemm.NewLayout(c, 1, a.width)
	rowsOfP := gemm.NewLayout(a.pitch, 1, l)

	held := make(holding, workers)
	run := func(task, worker int) {
		s := task / a.blocks
		first, end := cut(l, a.blocks, task%a.blocks)
		kColumns, vRows, p := e.own(ks, worker), e.own(vs, worker), e.own(blocks, worker)
		if held.takes(worker, s) {
			e.packColumns(a, kColumns, a.matrix(k, s).Data)
			e.gemm.Pack(vRows, a.matrix(v, s), l, a.width)
		}
		e.scores(a, rowsOfQ, p, a.matrix(q, s).Data, kColumns, first, end)
		e.gemm.Block(&gemm.Strip{
			Rows: end - first, A: p, Layout: rowsOfP, B: vRows, C: a.matrix(out, s).Data[first*c:], Stride: c,
		}, a.width)
	}
	return func() {
		held.reset()
		e.pool.Run(a.sequences*a.blocks, run)
	}
}

func (e *engine) attentionWorkspace(b, l, c, heads int) int {
	a := cutAttention(b, l, c, heads)
	workers := e.pool.Workers()
	return gemm.Scratch(
		workers*e.gemm.PackedSize(a.width, l), workers*e.gemm.PackedSize(l, a.width), workers*a.rows*a.pitch)
}

// attentionGrad binds dq, dk and dv, the gradients of attention. With the
// scores S = q kᵀ / sqrt(d) and P = softmax(S), computed again block by block,
//
//	dv = Pᵀ dout            dP = dout vᵀ
//	dS = P (dP - sum over the row of P dP)
//	dq = dS k / sqrt(d)     dk = dSᵀ q / sqrt(d)
//
// A block of rows of S adds to all of dk and dv. Where there are few sequences
// they are cut into parts, runs of blocks; the first sums in the place of the
// result, the others in memory of their own that is added in the end.
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
	size := b * l * c // a part's share of dk, laid out as dk is
	dkParts := gemm.Carve(&ws, (a.parts-1)*size)
	dvParts := gemm.Carve(&ws, (a.parts-1)*size)

	rowsOfQ := gemm.NewLayout(c, 1, a.width)
	rowsOfP := gemm.NewLayout(a.pitch, 1, l)
	columnsOfP := make([]*gemm.Layout, a.blocks)
	for i := range columnsOfP {
		first, end := cut(l, a.blocks, i)
		columnsOfP[i] = gemm.NewLayout(1, a.pitch, end-first)
	}

	held := make(holding, workers)
	run := func(task, worker int) {
		s, part := task/a.parts, task%a.parts
		q, k, v, dout, dq := a.matrix(q, s), a.matrix(k, s), a.matrix(v, s), a.matrix(dout, s), a.matrix(dq, s)
		dk, dv := dk, dv
		if part > 0 {
			dk, dv = dkParts[(part-1)*size:], dvParts[(part-1)*size:]
		}
		dk, dv = a.matrix(dk, s).Data, a.matrix(dv, s).Data
		kColumns, vColumns, kRows := e.own(kColumns, worker), e.own(vColumns, worker), e.own(kRows, worker)
		blockRows, p, dp := e.own(blockRows, worker), e.own(ps, worker), e.own(dps, worker)
		if held.takes(worker, s) {
			e.packColumns(a, kColumns, k.Data)
			e.packColumns(a, vColumns, v.Data)
			e.gemm.Pack(kRows, k, l, a.width)
		}
		// addTo adds leftᵀ right, of a block, to a sum over blocks.
		from, to := cut(a.blocks, a.parts, part)
		addTo := func(sum, left, right []float32, i, n int) {
			e.gemm.Pack(blockRows, gemm.Matrix{Data: right, Stride: c}, n, a.width)
			e.gemm.Block(&gemm.Strip{
				Rows: l, A: left, Layout: columnsOfP[i], B: blockRows, C: sum, Stride: c, Accumulate: i > from,
			}, a.width)
		}
		for i := from; i < to; i++ {
			first, end := cut(l, a.blocks, i)
			n := end - first
			e.scores(a, rowsOfQ, p, q.Data, kColumns, first, end)
			e.gemm.Block(&gemm.Strip{
				Rows: n, A: dout.Data[first*c:], Layout: rowsOfQ, B: vColumns, C: dp, Stride: a.pitch,
			}, l)
			e.vec.SoftmaxGrad(a.block(dp), a.block(p), n, l, a.scale)
			e.gemm.Block(&gemm.Strip{
				Rows: n, A: dp, Layout: rowsOfP, B: kRows, C: dq.Data[first*c:], Stride: c,
			}, a.width)
			addTo(dv, p, dout.Data[first*c:], i, n)
			addTo(dk, dp, q.Data[first*c:], i, n)
		}
	}
	addParts := forRange(e.pool, size, grain, func(from, to int) {
		for i := range a.parts - 1 {
			e.vec.Add(dk[from:to], dk[from:to], dkParts[i*size+from:i*size+to])
			e.vec.Add(dv[from:to], dv[from:to], dvParts[i*size+from:i*size+to])
		}
	})
	return func() {
		held.reset()
		e.pool.Run(a.sequences*a.parts, run)
		if a.parts > 1 {
			addParts()
		}
	}
}

func (e *engine) attentionGradWorkspace(b, l, c, heads int) int {
	a := cutAttention(b, l, c, heads)
	workers := e.pool.Workers()
	columns := workers * e.gemm.PackedSize(a.width, l)
	scores := workers * a.rows * a.pitch
	parts := (a.parts - 1) * b * l * c
	return gemm.Scratch(
		columns, columns, workers*e.gemm.PackedSize(l, a.width), workers*e.gemm.PackedSize(a.rows, a.width),
		scores, scores, parts, parts)
}
