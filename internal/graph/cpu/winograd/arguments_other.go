//go:build !amd64

package winograd

// Only amd64 has kernels in assembly.

func (k Kernels) gather(dst []float32, plane int, pixels *Pixels, first, channels int, gradient bool) {
	if gradient {
		gatherGeneric(dst, plane, pixels, first, channels, Tile, gradientLine)
	} else {
		gatherGeneric(dst, plane, pixels, first, channels, Window, inputLine)
	}
}

func (k Kernels) output(o *Output) { o.generic() }

func (k Kernels) taps(t *Taps, toPlanes bool) {
	if toPlanes {
		t.weightsGeneric()
	} else {
		t.gradientGeneric()
	}
}

func (k Kernels) transposeBlock(dst []float32, dstRow int, src []float32, srcRow int) {
	panic("winograd: no such instructions")
}
