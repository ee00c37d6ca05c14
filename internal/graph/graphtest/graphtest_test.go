package graphtest

import (
	"testing"

	"ddpm/internal/graph/reference"
)

func TestReferenceAgainstItself(t *testing.T) { RunAll(t, reference.Backend{}) }
