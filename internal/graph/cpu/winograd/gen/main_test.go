package main

import (
	"testing"

	"ddpm/internal/graph/cpu/asmgen"
	"ddpm/internal/graph/cpu/winograd"
)

func TestCheckedInKernelsAreCurrent(t *testing.T) { asmgen.Check(t, assembly(), declarations()) }

func TestPoints(t *testing.T) {
	if a != winograd.A || b != winograd.B {
		t.Errorf("the kernels' points are %v and %v, want %v and %v", a, b, winograd.A, winograd.B)
	}
}
