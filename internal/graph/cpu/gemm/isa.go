package gemm

import (
	"fmt"
	"strings"
)

// ISA is a family of micro-kernels.
type ISA int

// Generic is portable Go, on every machine, and the oracle of the others.
const (
	Generic ISA = iota
	AVX2        // with FMA
	AVX512
)

var isaNames = [...]string{Generic: "generic", AVX2: "avx2", AVX512: "avx512"}

func (i ISA) String() string { return isaNames[i] }

// Supported lists the families this machine can run, slowest first.
func Supported() []ISA {
	supported := []ISA{Generic}
	for _, i := range []ISA{AVX2, AVX512} {
		if i.supported() {
			supported = append(supported, i)
		}
	}
	return supported
}

// Detect is the fastest family this machine can run.
func Detect() ISA {
	s := Supported()
	return s[len(s)-1]
}

// Choose is the family named by the environment variable DDPM_CPU, whose value
// is the argument, or the fastest if it is empty. A family that is unknown or
// that the machine lacks is an error.
func Choose(name string) (ISA, error) {
	if name == "" {
		return Detect(), nil
	}
	for i, known := range isaNames {
		if name != known {
			continue
		}
		if !ISA(i).supported() {
			return 0, fmt.Errorf("DDPM_CPU %q: this processor has no such instructions, want one of %s, or unset it", name, join(Supported()))
		}
		return ISA(i), nil
	}
	return 0, fmt.Errorf("DDPM_CPU %q: want one of %s, or unset it", name, strings.Join(isaNames[:], ", "))
}

func join(isas []ISA) string {
	names := make([]string, len(isas))
	for i, isa := range isas {
		names[i] = isa.String()
	}
	return strings.Join(names, ", ")
}
