//go:build !amd64

package gemm

func (i ISA) supported() bool { return i == Generic }
