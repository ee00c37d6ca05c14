package vector

import "ddpm/internal/graph/cpu/isa"

// run runs a kernel in assembly, or returns false if there is none for the set.
func (k Kernels) run(which kernel, c *call) bool {
	switch k.set {
	case isa.AVX512:
		avx512(which, c)
	case isa.AVX2:
		avx2(which, c)
	default:
		return false
	}
	return true
}
