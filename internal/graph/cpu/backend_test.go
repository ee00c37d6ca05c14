package cpu

import (
	"fmt"
	"testing"

	"ddpm/internal/graph/cpu/gemm"
	"ddpm/internal/graph/graphtest"
)

func TestBackend(t *testing.T) {
	for _, isa := range gemm.Supported() {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprintf("%v-%d", isa, threads), func(t *testing.T) {
				b := New(threads, isa)
				defer b.Close()
				graphtest.RunAll(t, b)
			})
		}
	}
}

func BenchmarkBackend(b *testing.B) {
	backend := New(0, gemm.Detect())
	defer backend.Close()
	graphtest.BenchAll(b, backend)
}
