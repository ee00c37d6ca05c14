package gemm

// The portable panels are as wide as the accumulators that fit in the scalar
// registers of every machine: two rows of four.
const (
	genericWidth = 4
	genericRows  = 16
)

// generic computes a strip in plain Go.
func (s *Strip) generic() {
	for i := 0; i < s.Rows; i += 2 {
		s.genericRows(i, min(i+1, s.Rows-1))
	}
}

// genericRows computes rows i0 and i1 of a strip, which may be the same one.
func (s *Strip) genericRows(i0, i1 int) {
	l := s.Layout
	begin := func(i int) (a, c int) {
		a, c = i*l.Row, i*s.Stride
		if i >= (s.Rows+1)/2 {
			a, c = a+s.SplitA, c+s.SplitC
		}
		return a, c
	}
	a0, c0 := begin(i0)
	a1, c1 := begin(i1)
	var bias [genericWidth]float32
	if s.Bias != nil {
		copy(bias[:], s.Bias[:s.Panel.Columns])
	}
	x0, x1, x2, x3 := bias[0], bias[1], bias[2], bias[3]
	y0, y1, y2, y3 := x0, x1, x2, x3
	b := s.B
	for _, offset := range l.Offsets {
		u, v := a0+offset, a1+offset
		for range l.Steps {
			w := (*[genericWidth]float32)(b)
			b = b[genericWidth:]
			x, y := s.A[u], s.A[v]
			x0 += x * w[0]
			x1 += x * w[1]
			x2 += x * w[2]
			x3 += x * w[3]
			y0 += y * w[0]
			y1 += y * w[1]
			y2 += y * w[2]
			y3 += y * w[3]
			u, v = u+l.Step, v+l.Step
		}
	}
	s.store(c0, [genericWidth]float32{x0, x1, x2, x3})
	if i1 != i0 {
		s.store(c1, [genericWidth]float32{y0, y1, y2, y3})
	}
}

func (s *Strip) store(at int, values [genericWidth]float32) {
	c := s.C[at:][:s.Panel.Columns]
	if addend := s.addend(); addend != nil {
		for j, v := range addend[at:][:s.Panel.Columns] {
			values[j] += v
		}
	}
	copy(c, values[:])
}

func packGeneric(dst, src []float32, stride, rows int, p Panel) {
	for k := range rows {
		row := dst[k*p.Width:][:p.Width]
		clear(row[copy(row, src[k*stride:][:p.Columns]):])
	}
}
