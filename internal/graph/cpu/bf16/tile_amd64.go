package bf16

import "unsafe"

// Rows of the tallest tiles of AVX-512.
const (
	wideRows   = avx512WideRows
	narrowRows = avx512NarrowRows
)

// tile is the argument of an AVX-512 micro-kernel. Strides, offsets and splits
// count elements, steps pairs; the kernels, written by gen, know the layout of
// this struct and of those below.
type tile struct {
	a, b, c   unsafe.Pointer
	bias      unsafe.Pointer // nil, or the panel's columns
	add       unsafe.Pointer // nil, or as c
	mask      uint64         // of the panel's columns, one bit each
	offsets   unsafe.Pointer // of the segments of A
	segments  int
	steps     int
	rowStride int
	splitA    int
	strideC   int
	splitC    int
}

// packing is the argument of a packing routine.
type packing struct {
	dst, src unsafe.Pointer
	mask     uint64
	stride   int
	pairs    int
}

// conversion is the argument of convertRows.
type conversion struct {
	dst, src             unsafe.Pointer
	dstStride, srcStride int
	rows, n              int
}

// transposition is the argument of transposePixels and transposePairs.
type transposition struct {
	dst                 unsafe.Pointer
	dstStride           int
	src                 unsafe.Pointer
	srcStride           int
	rows, columns       int    // to load and to store
	rowMask, columnMask uint64 // numbers of a row to load, of a column to store
}

// addition is the argument of addRows: c = add + bias.
type addition struct {
	c, add, bias unsafe.Pointer
	mask         uint64
	stride, rows int
}

func bits(n int) uint64 { return 1<<n - 1 }

// avx512 cuts a strip into tiles of nearly equal height.
func avx512(s *Strip) {
	l := s.Layout
	t := tile{
		b:         unsafe.Pointer(unsafe.SliceData(s.B)),
		bias:      unsafe.Pointer(unsafe.SliceData(s.Bias)),
		mask:      bits(s.Panel.Columns),
		offsets:   unsafe.Pointer(unsafe.SliceData(l.Offsets)),
		segments:  len(l.Offsets),
		steps:     l.Steps / pair,
		rowStride: l.Row,
		splitA:    s.SplitA,
		strideC:   s.Stride,
		splitC:    s.SplitC,
	}
	height := narrowRows
	if s.Panel.Width == wide {
		height = wideRows
	}
	tiles := ceil(s.Rows, height)
	for i := range tiles {
		first := s.Rows * i / tiles
		rows := s.Rows*(i+1)/tiles - first
		t.a = unsafe.Pointer(&s.A[first*l.Row])
		t.c = unsafe.Pointer(&s.C[first*s.Stride])
		if s.Add != nil {
			t.add = unsafe.Pointer(&s.Add[first*s.Stride])
		}
		if s.Panel.Width == wide {
			avx512Wide(&t, rows)
		} else {
			avx512Narrow(&t, rows)
		}
	}
}

// packRows packs so many rows of src, at least one.
func packRows(dst []uint16, src []float32, stride, rows int, p Panel) {
	_, _ = dst[roundUp(rows, pair)*p.Width-1], src[(rows-1)*stride+p.Columns-1]
	args := packing{
		dst:    unsafe.Pointer(unsafe.SliceData(dst)),
		src:    unsafe.Pointer(unsafe.SliceData(src)),
		mask:   bits(p.Columns),
		stride: stride,
		pairs:  rows / pair,
	}
	if args.pairs > 0 {
		pack(&args, p.Width)
	}
	if rows%pair != 0 {
		var last [pair * wide]float32
		copy(last[:p.Columns], src[(rows-1)*stride:])
		args.dst = unsafe.Pointer(&dst[(rows-1)*p.Width])
		args.src = unsafe.Pointer(&last)
		args.stride, args.pairs = wide, 1
		pack(&args, p.Width)
	}
}

func pack(p *packing, width int) {
	if width == wide {
		packWide(p)
	} else {
		packNarrow(p)
	}
}

// packColumns packs rows k0 to k1 of a transposed matrix, at least one.
func packColumns(dst []uint16, b Matrix, p Panel, k0, k1 int) {
	_, _ = dst[roundUp(k1-k0, pair)*p.Width-1], b.Data[(p.First+p.Columns-1)*b.Stride+k1-1]
	const block = 32 // of K: a column of it is a vector
	for k := k0; k < k1; k += block {
		n := min(block, k1-k)
		for j := 0; j < p.Width; j += narrow {
			args := transposition{
				dst:        unsafe.Pointer(&dst[(k-k0)*p.Width+j*pair]),
				dstStride:  p.Width * pair,
				src:        unsafe.Pointer(&b.Data[(p.First+j)*b.Stride+k]),
				srcStride:  b.Stride,
				rows:       min(narrow, p.Columns-j),
				columns:    ceil(n, pair),
				rowMask:    bits(n),
				columnMask: bits(block),
			}
			transposePairs(&args)
		}
	}
}

func convertVector(dst []uint16, dstStride int, src []float32, srcStride, rows, n int) {
	convertRows(&conversion{
		dst:       unsafe.Pointer(unsafe.SliceData(dst)),
		src:       unsafe.Pointer(unsafe.SliceData(src)),
		dstStride: dstStride, srcStride: srcStride,
		rows: rows, n: n,
	})
}

func transposeVector(dst []uint16, dstStride int, src []float32, srcStride, rows, columns int) {
	const tall, broad = 32, 16
	for i := 0; i < rows; i += tall {
		for j := 0; j < columns; j += broad {
			m, n := min(tall, rows-i), min(broad, columns-j)
			transposePixels(&transposition{
				dst:        unsafe.Pointer(&dst[j*dstStride+i]),
				dstStride:  dstStride,
				src:        unsafe.Pointer(&src[i*srcStride+j]),
				srcStride:  srcStride,
				rows:       m,
				columns:    n,
				rowMask:    bits(n),
				columnMask: bits(m),
			})
		}
	}
}

// addBias computes c = add + bias in some rows of a panel.
func addBias(c, add unsafe.Pointer, s *Strip, rows int) {
	addRows(&addition{c, add, unsafe.Pointer(unsafe.SliceData(s.Bias)), bits(s.Panel.Columns), s.Stride, rows})
}

// multiply runs the kernel for so many tiles of 16 rows and of 16 columns.
func multiply(t *amxTile, rows, columns int) {
	switch {
	case rows == 1 && columns == 1:
		amx1x1(t)
	case rows == 1:
		amx1x2(t)
	case columns == 1:
		amx2x1(t)
	default:
		amx2x2(t)
	}
}
