package cpu

import "testing"

func TestConcatAndSliceChannels(t *testing.T) {
	for _, s := range [][3]int{{1, 1, 1}, {3, 5, 2}, {700, 24, 48}, {3, 1, grain}} {
		M, Ca, Cb := s[0], s[1], s[2]
		a, b := gaussian(M*Ca, 1), gaussian(M*Cb, 2)
		var want []float64
		for row := range M {
			want = append(want, widen(a[row*Ca:(row+1)*Ca])...)
			want = append(want, widen(b[row*Cb:(row+1)*Cb])...)
		}
		checkKernel(t, [][]float64{want, widen(a), widen(b)}, 0, func(e *engine) bound {
			y, gotA, gotB := poison(len(want)), poison(len(a)), poison(len(b))
			join := concat(e.pool, M, Ca, Cb, y, a, b)
			front := sliceChannels(e.pool, M, Ca+Cb, 0, Ca, gotA, y)
			back := sliceChannels(e.pool, M, Ca+Cb, Ca, Cb, gotB, y)
			return bound{[][]float32{y, gotA, gotB}, func() {
				join()
				front()
				back()
			}}
		})
	}
}

func TestUpsampleNearest2x(t *testing.T) {
	for _, s := range [][4]int{{1, 1, 1, 5}, {3, 2, 3, 5}, {2, 16, 8, 48}} {
		N, H, W, C := s[0], s[1], s[2], s[3]
		x, dy := gaussian(N*H*W*C, 1), gaussian(4*N*H*W*C, 2)
		y, dx := make([]float64, len(dy)), make([]float64, len(x))
		for i := range y {
			n, h, w, c := i/(4*H*W*C), i/(2*W*C)%(2*H), i/C%(2*W), i%C
			from := ((n*H+h/2)*W+w/2)*C + c
			y[i] = float64(x[from])
			dx[from] += float64(dy[i])
		}
		checkKernel(t, [][]float64{y}, 0, func(e *engine) bound {
			got := poison(len(y))
			return bound{[][]float32{got}, upsampleNearest2x(e.pool, N, H, W, C, got, x)}
		})
		checkKernel(t, [][]float64{dx}, 2e-7, func(e *engine) bound {
			got := poison(len(dx))
			return bound{[][]float32{got}, e.upsampleNearest2xGrad(N, H, W, C, got, dy)}
		})
	}
}
