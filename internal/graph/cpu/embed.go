package cpu

// embedding computes y[n,:] = table[index[n],:]: y [N, D], index [N].
func (e *engine) embedding(N, D int, y, table []float32, index []uint32) func() {
	return forRange(e.pool, N, rowsPerTask(D), func(from, to int) {
		for n := from; n < to; n++ {
			row := int(index[n])
			copy(y[n*D:(n+1)*D], table[row*D:(row+1)*D])
		}
	})
}

// embeddingGrad computes dtable[k,:], the sum over n of dy[n,:] where index[n] is k, in
// the order of n: dtable [rows, D], dy [N, D]. A task has some columns of all rows.
func (e *engine) embeddingGrad(N, D, rows int, dtable []float32, index []uint32, dy []float32) func() {
	return forRange(e.pool, D, channelTile, func(from, to int) {
		for k := range rows {
			clear(dtable[k*D+from : k*D+to])
		}
		for n := range N {
			sum := dtable[int(index[n])*D:][from:to]
			e.vec.Add(sum, sum, dy[n*D+from:n*D+to])
		}
	})
}
