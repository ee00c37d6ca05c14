package cpu

import (
	"testing"

	"ddpm/internal/graph"
)

// Images of several tasks; one in two is at t = 0.
func TestVLB(t *testing.T) {
	images := graph.Shape{2, 37, 41, 3}
	size := images.TotalSize()
	coefs := []float32{
		1.25, -0.5, 0.25, -4.5, -4.75, -3.5, 0,
		1.25, -0.5, 0.25, -4.5, -4.75, -3.5, 1,
	}
	for _, wide := range []int{1, 2} {
		outputs := graph.Shape{2, 37, 41, 3 * wide}
		shapes := []graph.Shape{outputs, images, images, {2, graph.VLBCoefs}}
		values := []any{gaussian(wide*size, 1), gaussian(size, 2), gaussian(size, 3), coefs}
		checkOperation(t, graph.VLB{}, 1e-7, shapes, values...)
		for _, stop := range []bool{false, true} {
			checkOperation(t, graph.VLBGrad{StopMean: stop}, 1e-7, append(shapes, graph.Shape{2}), append(values, []float32{1, -0.5})...)
		}
	}
}
