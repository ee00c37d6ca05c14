//go:build gpu && !cpu

package cuda

import (
	"math"
	"testing"

	"ddpm/internal/graph"
)

// indicesOf are n rows of a table of so many, drawn at random.
func indicesOf(n, rows int) value {
	v := wordsOf(n)
	for i, word := range v.Data {
		v.Data[i] = float64(uint32(word) % uint32(rows))
	}
	return v
}

func TestEmbedding(t *testing.T) {
	var cases []opTest
	// The same row for all of more than a block's worth of uses, rows that none has, and tables wider than a block.
	for _, c := range []struct{ rows, width, n int }{
		{1, 1, 1}, {1, 5, 600}, {11, 96, 33}, {1000, 3, 257}, {4, 300, 256}, {3, 257, 31}, {2, 512, 1024},
	} {
		index := indicesOf(c.n, c.rows)
		cases = append(cases,
			opTest{op: graph.Embedding{}, in: []value{normals(float32s, c.rows, c.width), index}},
			opTest{op: graph.EmbeddingGrad{Rows: c.rows}, in: []value{index, normals(float32s, c.n, c.width)}, tolerance: 2e-6})
	}
	runAll(t, cases)
}

// TestEmbeddingSumsInOrder holds the gradient of a table to the bits of a sum in the
// order of the batch.
func TestEmbeddingSumsInOrder(t *testing.T) {
	const rows, width, n = 3, 40, 700
	index, dy := indicesOf(n, rows), normals(float32s, n, width)
	want := make([]float32, rows*width)
	for i, row := range index.Data {
		for j := range width {
			want[int(row)*width+j] += float32(dy.Data[i*width+j])
		}
	}
	for i, got := range computed(t, opTest{op: graph.EmbeddingGrad{Rows: rows}, in: []value{index, dy}}) {
		if float32(got) != want[i] {
			t.Fatalf("element %d is %v, want %v", i, got, want[i])
		}
	}
}

// TestEmbeddingBeyondTheTable gives NaN for a row that the table does not have, and no gradient.
func TestEmbeddingBeyondTheTable(t *testing.T) {
	index := value{Operand: graph.Operand{Shape: graph.Shape{3}, Data: []float64{1, 2, math.MaxUint32}}, storage: words32}
	for i, v := range computed(t, opTest{op: graph.Embedding{}, in: []value{normals(float32s, 2, 4), index}}) {
		if math.IsNaN(v) != (i >= 4) {
			t.Errorf("element %d is %v", i, v)
		}
	}
	for i, v := range computed(t, opTest{op: graph.EmbeddingGrad{Rows: 2}, in: []value{index, normals(float32s, 3, 4)}}) {
		if (v == 0) != (i < 4) {
			t.Errorf("gradient %d is %v", i, v)
		}
	}
}
