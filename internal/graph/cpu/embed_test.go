package cpu

import (
	"testing"

	"ddpm/internal/graph"
)

func TestEmbedding(t *testing.T) {
	index := make([]uint32, 100)
	for n := range index {
		index[n] = uint32(n * n % 7)
	}
	for _, d := range []int{1, 3, channelTile + 5, 2000} {
		checkOperation(t, graph.Embedding{}, 0, []graph.Shape{{7, d}, {100}}, gaussian(7*d, 1), index)
		checkOperation(t, graph.EmbeddingGrad{Rows: 7}, 1e-6, []graph.Shape{{100}, {100, d}}, index, gaussian(100*d, 2))
	}
}
