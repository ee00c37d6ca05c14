package main

import (
	"testing"

	"ddpm/internal/graph/cpu/asmgen"
)

func TestCheckedInKernelsAreCurrent(t *testing.T) { asmgen.Check(t, assembly(), declarations()) }
