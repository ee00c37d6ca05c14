//go:build gpu && !cpu

package main

import "testing"

// TestGPUScripts type commands on a machine with a GPU, or with a library that
// stands in for its driver.
func TestGPUScripts(t *testing.T) {
	runScripts(t, "testdata/gpu", []string{"DDPM_LIBCUDA", "LD_LIBRARY_PATH", "CUDA_CACHE_PATH"})
}
