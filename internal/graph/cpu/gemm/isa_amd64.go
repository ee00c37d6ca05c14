package gemm

import "golang.org/x/sys/cpu"

func (i ISA) supported() bool {
	switch i {
	case AVX2:
		return cpu.X86.HasAVX2 && cpu.X86.HasFMA
	case AVX512:
		return cpu.X86.HasAVX512F
	}
	return i == Generic
}
