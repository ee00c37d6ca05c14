package main

import (
	"bytes"
	"os"
	"testing"

	"ddpm/internal/graph/cpu/winograd"
)

func TestCheckedInKernelsAreCurrent(t *testing.T) {
	for name, want := range map[string][]byte{"kernels_amd64.s": assembly(), "kernels_amd64.go": declarations()} {
		got, err := os.ReadFile("../" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what gen writes: run go generate ./internal/graph/cpu/winograd", name)
		}
	}
}

func TestPoints(t *testing.T) {
	if a != winograd.A || b != winograd.B {
		t.Errorf("the kernels' points are %v and %v, want %v and %v", a, b, winograd.A, winograd.B)
	}
}
