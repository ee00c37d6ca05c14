package cpu

import (
	"fmt"
	"testing"

	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/graph/graphtest"
)

func TestBackend(t *testing.T) {
	for _, set := range isa.Supported() {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprintf("%v-%d", set, threads), func(t *testing.T) {
				b := New(threads, set)
				defer b.Close()
				graphtest.RunAll(t, b)
			})
		}
	}
}

func BenchmarkBackend(b *testing.B) {
	backend := New(0, isa.Detect())
	defer backend.Close()
	graphtest.BenchAll(b, backend)
}
