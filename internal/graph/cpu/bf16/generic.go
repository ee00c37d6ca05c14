package bf16

import "math"

// Round is the nearest bfloat16 to x, the even one of two as near. A denormal
// number becomes zero, one too large an infinity; a NaN stays one.
func Round(x float32) uint16 {
	const exponent, mantissa = 0x7f800000, 0x007fffff
	u := math.Float32bits(x)
	switch {
	case u&exponent == 0:
		return uint16(u >> 16 & 0x8000)
	case u&exponent == exponent && u&mantissa != 0:
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// Float32 is the value of a bfloat16.
func Float32(x uint16) float32 { return math.Float32frombits(uint32(x) << 16) }

// generic computes a strip in plain Go.
func (s *Strip) generic() {
	l, width, columns := s.Layout, s.Panel.Width, s.Panel.Columns
	for i := range s.Rows {
		a, c := i*l.Row, i*s.Stride
		if i >= (s.Rows+1)/2 {
			a, c = a+s.SplitA, c+s.SplitC
		}
		var sums [wide]float32
		if s.Bias != nil {
			copy(sums[:columns], s.Bias)
		}
		b := s.B
		for _, offset := range l.Offsets {
			for k := 0; k < l.Steps; k += pair {
				row := b[:pair*width]
				b = b[pair*width:]
				x0, x1 := Float32(s.A[a+offset+k]), Float32(s.A[a+offset+k+1])
				// The instructions take the second of a pair first, and the
				// conversions forbid to fuse a product with its sum, which
				// would make the result depend on the processor.
				for j := range columns {
					sums[j] += float32(x1 * Float32(row[2*j+1]))
					sums[j] += float32(x0 * Float32(row[2*j]))
				}
			}
		}
		to := s.C[c:][:columns]
		if s.Add != nil {
			for j, v := range s.Add[c:][:columns] {
				sums[j] += v
			}
		}
		copy(to, sums[:])
	}
}

// convertGeneric rounds rows of n numbers.
func convertGeneric(dst []uint16, dstStride int, src []float32, srcStride, rows, n int) {
	for i := range rows {
		to := dst[i*dstStride:][:n]
		for j, v := range src[i*srcStride:][:n] {
			to[j] = Round(v)
		}
	}
}

// transposeGeneric rounds element (i, j) of rows x columns to dst[j*dstStride+i].
func transposeGeneric(dst []uint16, dstStride int, src []float32, srcStride, rows, columns int) {
	for i := range rows {
		for j, v := range src[i*srcStride:][:columns] {
			dst[j*dstStride+i] = Round(v)
		}
	}
}

// packGeneric packs k rows of one panel, the last pair filled up with zeros.
func packGeneric(dst []uint16, p Panel, k int, element func(k, j int) float32) {
	for q := range roundUp(k, pair) {
		for j := range p.Width {
			var v uint16
			if q < k && j < p.Columns {
				v = Round(element(q, j))
			}
			dst[(q/pair*p.Width+j)*pair+q%pair] = v
		}
	}
}
