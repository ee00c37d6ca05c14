//go:build gpu && !cpu

package cuda

import (
	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// embedding finds the kernels of rows of a table.
func (d *device) embedding(c call) (kernel, bool) {
	switch c.heart.(type) {
	case graph.Embedding:
		return kernel{launches: embeddingRows}, true
	case graph.EmbeddingGrad:
		return kernel{launches: embeddingRowsGrad}, true
	}
	return kernel{}, false
}

func embeddingRows(m operands) []launch {
	table, n := m.in[0], m.out.len()
	return []launch{{
		kernel: "embedding_rows", grid: [3]int{pieces(n, pointThreads), 1, 1}, block: pointThreads,
		params: &kernels.EmbeddingRowsParams{
			Table: table.ptr, Index: m.in[1].ptr, Out: m.out.ptr,
			Width: fastDivisor(table.shape[1]), Rows: uint32(table.shape[0]), Total: int32(n),
		},
	}}
}

func embeddingRowsGrad(m operands) []launch {
	rows, width := m.out.shape[0], m.out.shape[1]
	return []launch{{
		kernel: "embedding_rows_grad", grid: [3]int{rows, pieces(width, pointThreads), 1}, block: pointThreads,
		params: &kernels.EmbeddingRowsGradParams{
			Index: m.in[0].ptr, Dy: m.in[1].ptr, Dtable: m.out.ptr,
			Count: int32(m.in[0].len()), Width: int32(width),
		},
	}}
}
