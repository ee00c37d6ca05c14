package isa

import (
	"slices"
	"strings"
	"testing"
)

func TestChooseBF16(t *testing.T) {
	plain := []BF16Kind{BF16Generic}
	zen := []BF16Kind{BF16Generic, BF16AVX512}
	sapphire := []BF16Kind{BF16Generic, BF16AVX512, BF16AMX}
	for _, c := range []struct {
		set       Set
		forced    bool
		supported []BF16Kind
		want      BF16Kind
		err       string
	}{
		{AVX512, false, sapphire, BF16AMX, ""},
		{AVX512, true, sapphire, BF16AVX512, ""},
		{AVX512, false, zen, BF16AVX512, ""},
		{AVX512, true, zen, BF16AVX512, ""},
		{Generic, true, sapphire, BF16Generic, ""},
		{Generic, true, plain, BF16Generic, ""},
		{AVX2, true, zen, 0, "DDPM_CPU"},
		{AVX512, false, plain, 0, "neither AMX-BF16 nor AVX512-BF16"},
		{AVX512, true, plain, 0, "neither AMX-BF16 nor AVX512-BF16"},
		{AVX2, false, plain, 0, "neither AMX-BF16 nor AVX512-BF16"},
		{Generic, false, plain, 0, "neither AMX-BF16 nor AVX512-BF16"},
	} {
		got, err := chooseBF16(c.set, c.forced, c.supported)
		if got != c.want || (err == nil) != (c.err == "") {
			t.Errorf("%v, forced %v, of %v: %v, %v", c.set, c.forced, c.supported, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "--precision fp32")) {
			t.Errorf("%v, forced %v, of %v: unclear: %v", c.set, c.forced, c.supported, err)
		}
	}
}

func TestSupportedBF16(t *testing.T) {
	s := SupportedBF16()
	if s[0] != BF16Generic || !slices.IsSorted(s) {
		t.Errorf("%v: want the generic one first and the fastest last", s)
	}
	if len(s) > 1 && !slices.Contains(Supported(), AVX512) {
		t.Errorf("%v on a machine without AVX-512", s)
	}
}
