package bf16

import "unsafe"

// amxRows is the number of rows, and of columns of 4 bytes, of a tile register.
const amxRows = 16

// amxTile is the argument of an AMX kernel, which computes up to 2x2 tiles of C.
// Offsets count elements, the strides bytes.
type amxTile struct {
	upper, lower         unsafe.Pointer // the two halves of the rows of A
	b                    unsafe.Pointer
	upperC, lowerC       unsafe.Pointer
	upperInit, lowerInit unsafe.Pointer // what sums begin with; nil for zero
	initStride           int            // 0 repeats one row
	offsets              unsafe.Pointer // of the segments of A
	segments             int
	steps                int // 32 of K each
	rowStride            int
	strideC              int
	config               tileConfig
}

// tileConfig is the operand of LDTILECFG: the shapes of the tile registers.
// Registers 0 to 3 hold C, 4 and 5 the halves of A, 6 and 7 the columns of B.
type tileConfig struct {
	palette, start uint8
	_              [14]uint8
	rowBytes       [16]uint16 // of 8 registers, the others reserved
	rows           [16]uint8
}

// shape sets the registers for tiles of so many rows and columns of C; 0 leaves
// out a second one.
func (c *tileConfig) shape(rows, columns [2]int) {
	*c = tileConfig{palette: 1}
	set := func(tile, rows, rowBytes int) {
		if rows > 0 && rowBytes > 0 {
			c.rows[tile], c.rowBytes[tile] = uint8(rows), uint16(rowBytes)
		}
	}
	for i := range 2 {
		for j := range 2 {
			set(2*i+j, rows[i], 4*columns[j])
		}
		set(4+i, rows[i], 2*amxSteps)
		set(6+i, amxSteps/pair, 4*columns[i])
	}
}

// amx cuts a strip into blocks of nearly equal height.
func (e *Engine) amx(s *Strip) {
	l := s.Layout
	t := amxTile{
		b:         unsafe.Pointer(unsafe.SliceData(s.B)),
		offsets:   unsafe.Pointer(unsafe.SliceData(l.Offsets)),
		segments:  len(l.Offsets),
		steps:     l.Steps / amxSteps,
		rowStride: 2 * l.Row,
		strideC:   4 * s.Stride,
	}
	columns := [2]int{min(s.Panel.Columns, narrow), max(0, s.Panel.Columns-narrow)}
	blocks := ceil(s.Rows, 2*amxRows)
	height := 0 // of the block that the tiles are configured for
	for i := range blocks {
		first := s.Rows * i / blocks
		rows := s.Rows*(i+1)/blocks - first
		upper := rows
		if rows > amxRows || s.SplitA != 0 || s.SplitC != 0 {
			upper = (rows + 1) / 2
		}
		if rows != height {
			height = rows
			t.config.shape([2]int{upper, rows - upper}, columns)
		}
		a, c := first*l.Row, first*s.Stride
		lowerA, lowerC := a+upper*l.Row+s.SplitA, c+upper*s.Stride+s.SplitC
		t.upper, t.upperC = unsafe.Pointer(&s.A[a]), unsafe.Pointer(&s.C[c])
		if rows > upper {
			t.lower, t.lowerC = unsafe.Pointer(&s.A[lowerA]), unsafe.Pointer(&s.C[lowerC])
		}

		// The sums begin with the bias or what is to be added; if there is both,
		// with their sum, which C holds in the meantime.
		switch {
		case s.Add != nil:
			t.upperInit, t.initStride = unsafe.Pointer(&s.Add[c]), t.strideC
			if rows > upper {
				t.lowerInit = unsafe.Pointer(&s.Add[lowerC])
			}
			if s.Bias == nil {
				break
			}
			e.addBias(t.upperC, t.upperInit, s, upper)
			t.upperInit = t.upperC
			if rows > upper {
				e.addBias(t.lowerC, t.lowerInit, s, rows-upper)
				t.lowerInit = t.lowerC
			}
		case s.Bias != nil:
			t.upperInit = unsafe.Pointer(unsafe.SliceData(s.Bias))
			t.lowerInit = t.upperInit
		}

		across := 1
		if rows > upper {
			across = 2
		}
		if e.emulate != nil {
			e.emulate(t, across, s.Panel.Width/narrow)
			continue
		}
		multiply(&t, across, s.Panel.Width/narrow)
	}
}

func (e *Engine) addBias(c, add unsafe.Pointer, s *Strip, rows int) {
	if e.vector {
		addBias(c, add, s, rows)
		return
	}
	for i := range rows {
		for j, b := range s.Bias[:s.Panel.Columns] {
			at := uintptr(4 * (i*s.Stride + j))
			*(*float32)(unsafe.Add(c, at)) = *(*float32)(unsafe.Add(add, at)) + b
		}
	}
}
