package winograd

import (
	"unsafe"

	"ddpm/internal/graph/cpu/isa"
)

// The arguments of the kernels, which gen writes: it knows the layout of these
// structs. Strides count elements. A mask has a lane for each channel of the last
// vector, and is nil if they are all there.

type gather struct {
	dst, pixels, mask unsafe.Pointer
	plane             int
	vectors           int
	first             int // channel
}

type scatter struct {
	dst, src, bias, perSample, residual, mask unsafe.Pointer
	plane                                     int
	vectors                                   int
	pixel, row                                int
	rows, columns                             int
}

type taps struct {
	planes, taps, mask unsafe.Pointer
	plane              int
	tap, row           int
	rows, vectors      int
}

type block struct {
	dst, src       unsafe.Pointer
	dstRow, srcRow int
}

// laneMasks[16-n:] is n lanes of ones and then zeros.
var laneMasks = func() (m [32]int32) {
	for i := range 16 {
		m[i] = -1
	}
	return m
}()

// vectors is how many vectors hold the channels, and the mask of the last.
func (k Kernels) vectors(channels int) (n int, mask unsafe.Pointer) {
	lanes := k.Lanes()
	if rest := channels % lanes; rest != 0 {
		mask = unsafe.Pointer(&laneMasks[16-rest])
	}
	return (channels + lanes - 1) / lanes, mask
}

func data(x []float32) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(x)) }

func (k Kernels) gather(dst []float32, plane int, pixels *Pixels, first, channels int, gradient bool) {
	a := gather{dst: data(dst), pixels: unsafe.Pointer(&pixels.at), plane: plane, first: first}
	a.vectors, a.mask = k.vectors(channels)
	switch {
	case k.set == isa.AVX512 && gradient:
		avx512Gradient(&a)
	case k.set == isa.AVX512:
		avx512Input(&a)
	case gradient:
		avx2Gradient(&a)
	default:
		avx2Input(&a)
	}
}

func (k Kernels) output(o *Output) {
	a := scatter{
		dst: data(o.Dst), src: data(o.Src),
		bias: data(o.Bias), perSample: data(o.PerSample), residual: data(o.Residual),
		plane: o.Plane, pixel: o.Pixel, row: o.Row, rows: o.Rows, columns: o.Columns,
	}
	a.vectors, a.mask = k.vectors(o.Channels)
	if k.set == isa.AVX512 {
		avx512Output(&a)
	} else {
		avx2Output(&a)
	}
}

func (k Kernels) taps(t *Taps, toPlanes bool) {
	a := taps{
		planes: data(t.Planes), taps: data(t.Taps),
		plane: t.Plane, tap: t.Tap, row: t.Row, rows: t.Rows,
	}
	if t.Flipped {
		a.taps, a.tap = data(t.Taps[8*t.Tap:]), -t.Tap
	}
	a.vectors, a.mask = k.vectors(t.Columns)
	switch {
	case k.set == isa.AVX512 && toPlanes:
		avx512Weights(&a)
	case k.set == isa.AVX512:
		avx512WeightGradient(&a)
	case toPlanes:
		avx2Weights(&a)
	default:
		avx2WeightGradient(&a)
	}
}

func (k Kernels) transposeBlock(dst []float32, dstRow int, src []float32, srcRow int) {
	a := block{data(dst), data(src), dstRow, srcRow}
	if k.set == isa.AVX512 {
		avx512Transpose(&a)
	} else {
		avx2Transpose(&a)
	}
}
