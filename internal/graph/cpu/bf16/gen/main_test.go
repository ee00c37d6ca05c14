package main

import (
	"bytes"
	"os"
	"testing"
)

func TestCheckedInKernelsAreCurrent(t *testing.T) {
	for name, want := range map[string][]byte{"kernels_amd64.s": assembly(), "kernels_amd64.go": declarations()} {
		got, err := os.ReadFile("../" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what gen writes: run go generate ./internal/graph/cpu/bf16", name)
		}
	}
}
