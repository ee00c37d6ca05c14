package isa

import "golang.org/x/sys/cpu"

func (s Set) supported() bool {
	switch s {
	case AVX2:
		return cpu.X86.HasAVX2 && cpu.X86.HasFMA
	case AVX512:
		return cpu.X86.HasAVX512F
	}
	return s == Generic
}
