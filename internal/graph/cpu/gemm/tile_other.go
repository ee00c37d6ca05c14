//go:build !amd64

package gemm

func (e *Engine) setTiles() {
	e.wide, e.narrow = genericWidth, genericWidth
	e.wideRows, e.narrowRows = genericRows, genericRows
}

func (e *Engine) assembly(s *Strip) { s.generic() }

func (e *Engine) packRows(dst, src []float32, stride, rows int, p Panel) {
	packGeneric(dst, src, stride, rows, p)
}
