package bf16

// Matrix is an operand of float32 in memory: element (i, j) is
// Data[i*Stride+j], or Data[j*Stride+i] if it is transposed.
type Matrix struct {
	Data       []float32
	Stride     int
	Transposed bool
}

// at is element (i, j).
func (m Matrix) at(i, j int) float32 {
	if m.Transposed {
		i, j = j, i
	}
	return m.Data[i*m.Stride+j]
}

// PackPanel rounds rows k0 <= k < k1 of one panel of B to dst, and as many
// zeros as make it padded rows.
func (e *Engine) PackPanel(dst []uint16, b Matrix, p Panel, k0, k1, padded int) {
	clear(dst[roundUp(k1-k0, pair)*p.Width : padded*p.Width])
	switch {
	case k0 == k1:
	case !e.vector:
		packGeneric(dst, p, k1-k0, func(k, j int) float32 { return b.at(k0+k, p.First+j) })
	case b.Transposed:
		packColumns(dst, b, p, k0, k1)
	default:
		packRows(dst, b.Data[k0*b.Stride+p.First:], b.Stride, k1-k0, p)
	}
}

// Convert rounds the given number of rows of n numbers each.
func (e *Engine) Convert(dst []uint16, dstStride int, src []float32, srcStride, rows, n int) {
	switch {
	case rows == 0 || n == 0:
	case e.vector:
		_, _ = dst[(rows-1)*dstStride+n-1], src[(rows-1)*srcStride+n-1]
		convertVector(dst, dstStride, src, srcStride, rows, n)
	default:
		convertGeneric(dst, dstStride, src, srcStride, rows, n)
	}
}

// Transpose rounds element (i, j) of rows x columns to dst[j*dstStride+i].
func (e *Engine) Transpose(dst []uint16, dstStride int, src []float32, srcStride, rows, columns int) {
	switch {
	case rows == 0 || columns == 0:
	case e.vector:
		_, _ = dst[(columns-1)*dstStride+rows-1], src[(rows-1)*srcStride+columns-1]
		transposeVector(dst, dstStride, src, srcStride, rows, columns)
	default:
		transposeGeneric(dst, dstStride, src, srcStride, rows, columns)
	}
}
