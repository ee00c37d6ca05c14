package philox

import (
	"unsafe"

	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/rng"
)

const rounds = 10

// What is added to the two words of the key after each round: Philox's Weyl
// sequence.
const weyl0, weyl1 = 0x9E3779B9, 0xBB67AE85

// call is the argument of a kernel, which knows its layout. A stride is the
// elements that one turn of the kernel's loop takes.
type call struct {
	y, x    unsafe.Pointer
	strides int
	counter [4]uint32 // of the first block
	keys    [rounds][2]uint32
	limit   uint32
	scale   float32
}

// vector does as many whole strides as x has, and returns how many elements they
// are.
func (d Dropout) vector(y, x []float32, key rng.Key, block uint32) int {
	stride := 0
	switch d.set {
	case isa.AVX512:
		stride = avx512Stride
	case isa.AVX2:
		stride = avx2Stride
	}
	if stride == 0 || len(x) < stride {
		return 0
	}
	c := call{
		y:       unsafe.Pointer(unsafe.SliceData(y)),
		x:       unsafe.Pointer(unsafe.SliceData(x)),
		strides: len(x) / stride,
		counter: [4]uint32{block, uint32(key.Stream), key.Step, key.Sample},
		limit:   d.limit,
		scale:   d.scale,
	}
	k := [2]uint32{uint32(key.Seed), uint32(key.Seed >> 32)}
	for i := range c.keys {
		c.keys[i] = k
		k[0] += weyl0
		k[1] += weyl1
	}
	if d.set == isa.AVX512 {
		avx512Dropout(&c)
	} else {
		avx2Dropout(&c)
	}
	return c.strides * stride
}
