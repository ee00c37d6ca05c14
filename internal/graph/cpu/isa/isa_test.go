package isa

import (
	"slices"
	"testing"
)

func TestChoose(t *testing.T) {
	for _, set := range Supported() {
		if got, err := Choose(set.String()); got != set || err != nil {
			t.Errorf("Choose(%q) = %v, %v", set, got, err)
		}
	}
	if got, err := Choose(""); got != Detect() || err != nil {
		t.Errorf(`Choose("") = %v, %v`, got, err)
	}
	if _, err := Choose("sse9"); err == nil || err.Error() != `DDPM_CPU "sse9": want one of generic, avx2, avx512, or unset it` {
		t.Error(err)
	}
	if !slices.Contains(Supported(), AVX512) {
		if _, err := Choose("avx512"); err == nil {
			t.Error("an instruction set that the machine lacks was chosen")
		}
	}
}
