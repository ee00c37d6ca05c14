package isa

import (
	"errors"
	"fmt"
)

// BF16Kind is a family of instructions that multiply bfloat16 numbers and sum
// in float32.
type BF16Kind int

// BF16Generic is portable Go, on every machine, and the oracle of the others.
const (
	BF16Generic BF16Kind = iota
	BF16AVX512           // VDPBF16PS: AVX512-BF16, with BW
	BF16AMX              // TDPBF16PS: AMX-BF16; conversions are AVX512-BF16's
)

var bf16Names = [...]string{BF16Generic: "generic", BF16AVX512: "avx512-bf16", BF16AMX: "amx-bf16"}

func (k BF16Kind) String() string { return bf16Names[k] }

// BF16 is the family to use beside a set. Forced says that the set was asked
// for rather than detected; then AVX512 excludes AMX. Portable Go, which is
// slow, must be asked for.
func BF16(set Set, forced bool) (BF16Kind, error) {
	return chooseBF16(set, forced, SupportedBF16())
}

// SupportedBF16 lists the families that this machine can run, slowest first.
func SupportedBF16() []BF16Kind {
	supported := []BF16Kind{BF16Generic}
	if hasAVX512BF16() {
		supported = append(supported, BF16AVX512)
		if hasAMXBF16() {
			supported = append(supported, BF16AMX)
		}
	}
	return supported
}

func chooseBF16(set Set, forced bool, supported []BF16Kind) (BF16Kind, error) {
	fastest := supported[len(supported)-1]
	switch {
	case set == Generic && forced:
		return BF16Generic, nil
	case fastest == BF16Generic:
		return 0, errors.New("precision bf16: this processor has neither AMX-BF16 nor AVX512-BF16 instructions: use --precision fp32")
	case set != AVX512:
		return 0, fmt.Errorf("precision bf16: %v has no such instructions: unset DDPM_CPU or use --precision fp32", set)
	case forced:
		return BF16AVX512, nil
	}
	return fastest, nil
}
