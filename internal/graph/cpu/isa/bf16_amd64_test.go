package isa

import (
	"testing"

	"golang.org/x/sys/cpu"
)

func TestSavesTiles(t *testing.T) {
	for xcr0, want := range map[uint64]bool{0: false, 0xe7: false, 1 << 17: false, 1 << 18: false, 0x600e7: true} {
		if savesTiles(xcr0) != want {
			t.Errorf("XCR0 %#x: want %v", xcr0, want)
		}
	}
	// Bits 5 to 7 are the registers of AVX-512, which the system must save for
	// a program to see that instruction set.
	if cpu.X86.HasAVX512F && xcr0()&0xe6 != 0xe6 {
		t.Errorf("XCR0 %#x on a machine with AVX-512", xcr0())
	}
}
