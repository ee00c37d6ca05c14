// Package isa names the instruction sets that the kernels of package cpu are
// written for, and chooses among those of the machine.
package isa

import (
	"fmt"
	"strings"
)

// Set is a family of vector instructions that kernels are written for.
type Set int

// Generic is portable Go, on every machine, and the oracle of the others.
const (
	Generic Set = iota
	AVX2        // with FMA
	AVX512
)

var names = [...]string{Generic: "generic", AVX2: "avx2", AVX512: "avx512"}

func (s Set) String() string { return names[s] }

// Supported lists the sets this machine can run, slowest first.
func Supported() []Set {
	supported := []Set{Generic}
	for _, set := range []Set{AVX2, AVX512} {
		if set.supported() {
			supported = append(supported, set)
		}
	}
	return supported
}

// Detect is the fastest set this machine can run.
func Detect() Set {
	s := Supported()
	return s[len(s)-1]
}

// Choose is the set named by the environment variable DDPM_CPU, whose value
// is the argument, or the fastest if it is empty. A set that is unknown or
// that the machine lacks is an error.
func Choose(name string) (Set, error) {
	if name == "" {
		return Detect(), nil
	}
	for i, known := range names {
		if name != known {
			continue
		}
		if !Set(i).supported() {
			return 0, fmt.Errorf("DDPM_CPU %q: this processor has no such instructions, want one of %s, or unset it", name, join(Supported()))
		}
		return Set(i), nil
	}
	return 0, fmt.Errorf("DDPM_CPU %q: want one of %s, or unset it", name, strings.Join(names[:], ", "))
}

func join(sets []Set) string {
	names := make([]string, len(sets))
	for i, set := range sets {
		names[i] = set.String()
	}
	return strings.Join(names, ", ")
}
