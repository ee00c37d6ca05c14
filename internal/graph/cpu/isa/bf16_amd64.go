package isa

import "golang.org/x/sys/cpu"

// hasAVX512BF16 includes what the kernels need besides: masks of 32 words and
// permutations of words.
func hasAVX512BF16() bool {
	return cpu.X86.HasAVX512BF16 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW
}

// hasAMXBF16 is whether the processor has the instructions, the system saves
// their registers, and it lets this process use them.
func hasAMXBF16() bool {
	return cpu.X86.HasAMXTile && cpu.X86.HasAMXBF16 && cpu.X86.HasOSXSAVE && savesTiles(xcr0()) && permitTiles()
}

// savesTiles is whether the system saves both parts of the tile registers,
// XTILECFG and XTILEDATA, given the register that tells.
func savesTiles(xcr0 uint64) bool { return xcr0>>17&3 == 3 }

// xcr0 reads the extended control register 0: what the system saves.
func xcr0() uint64
