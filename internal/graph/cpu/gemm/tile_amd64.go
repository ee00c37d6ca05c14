package gemm

import (
	"unsafe"

	"ddpm/internal/graph/cpu/isa"
)

// tile is the argument of a micro-kernel. Strides, offsets and splits count
// elements; the kernels, written by gen, know the layout of this struct.
type tile struct {
	a, b, c    unsafe.Pointer
	bias       unsafe.Pointer // nil, or the panel's columns
	mask       unsafe.Pointer // of the panel's columns, one lane each, in its width
	offsets    unsafe.Pointer // of the segments of A
	segments   int
	steps      int
	rowStride  int
	stepStride int
	splitA     int
	strideC    int
	splitC     int
	addend     unsafe.Pointer // nil, or what is added to the product; strides as C
	partial    int            // not 0: fewer columns than the width
}

// packing is the argument of a packing routine.
type packing struct {
	dst, src, mask unsafe.Pointer
	stride, rows   int
}

// laneMasks[32-n:] is n lanes of ones and then zeros.
var laneMasks = func() (m [64]int32) {
	for i := range 32 {
		m[i] = -1
	}
	return m
}()

func (e *Engine) setTiles() {
	switch e.set {
	case isa.AVX512:
		e.wide, e.narrow = 32, 16
		e.wideRows, e.narrowRows = avx512WideRows, avx512NarrowRows
	case isa.AVX2:
		e.wide, e.narrow = 16, 8
		e.wideRows, e.narrowRows = avx2WideRows, avx2NarrowRows
	default:
		e.wide, e.narrow = genericWidth, genericWidth
		e.wideRows, e.narrowRows = genericRows, genericRows
	}
}

// assembly cuts a strip into tiles of nearly equal height.
func (e *Engine) assembly(s *Strip) {
	l := s.Layout
	t := tile{
		b:          unsafe.Pointer(unsafe.SliceData(s.B)),
		bias:       unsafe.Pointer(unsafe.SliceData(s.Bias)),
		mask:       unsafe.Pointer(&laneMasks[32-s.Panel.Columns]),
		offsets:    unsafe.Pointer(unsafe.SliceData(l.Offsets)),
		segments:   len(l.Offsets),
		steps:      l.Steps,
		rowStride:  l.Row,
		stepStride: l.Step,
		splitA:     s.SplitA,
		strideC:    s.Stride,
		splitC:     s.SplitC,
	}
	addend := s.addend()
	if s.Panel.Columns < s.Panel.Width {
		t.partial = 1
	}
	tiles := ceil(s.Rows, e.TileRows(s.Panel.Width))
	for i := range tiles {
		first := s.Rows * i / tiles
		rows := s.Rows*(i+1)/tiles - first
		t.a = unsafe.Pointer(&s.A[first*l.Row])
		t.c = unsafe.Pointer(&s.C[first*s.Stride])
		if addend != nil {
			t.addend = unsafe.Pointer(&addend[first*s.Stride])
		}
		switch {
		case e.set == isa.AVX512 && s.Panel.Width == e.wide:
			avx512Wide(&t, rows)
		case e.set == isa.AVX512:
			avx512Narrow(&t, rows)
		case s.Panel.Width == e.wide:
			avx2Wide(&t, rows)
		default:
			avx2Narrow(&t, rows)
		}
	}
}

// packRows copies the given number of rows of src, at least one.
func (e *Engine) packRows(dst, src []float32, stride, rows int, p Panel) {
	if e.set == isa.Generic {
		packGeneric(dst, src, stride, rows, p)
		return
	}
	_, _ = dst[rows*p.Width-1], src[(rows-1)*stride+p.Columns-1]
	packing := packing{
		dst:    unsafe.Pointer(unsafe.SliceData(dst)),
		src:    unsafe.Pointer(unsafe.SliceData(src)),
		mask:   unsafe.Pointer(&laneMasks[32-p.Columns]),
		stride: stride,
		rows:   rows,
	}
	switch {
	case e.set == isa.AVX512 && p.Width == e.wide:
		avx512PackWide(&packing)
	case e.set == isa.AVX512:
		avx512PackNarrow(&packing)
	case p.Width == e.wide:
		avx2PackWide(&packing)
	default:
		avx2PackNarrow(&packing)
	}
}
