//go:build gpu && !cpu

package cuda

import (
	"math"
	"testing"

	"ddpm/internal/graph"
)

// vlbCoefs are rows of coefficients of the bound, every second one of t = 0.
func vlbCoefs(n int) value {
	v := value{Operand: graph.Operand{Shape: graph.Shape{n, graph.VLBCoefs}}}
	for i := range n {
		row := [graph.VLBCoefs]float64{
			graph.VLBX0OnXt: 1.25, graph.VLBX0OnOut: -0.5, graph.VLBMeanOnX0: 0.04, graph.VLBLogVarTrue: -7.25,
			graph.VLBLogVarMin: -7.25, graph.VLBLogVarMax: -6.5 - 0.25*float64(i%3), graph.VLBDecoder: float64(i % 2),
		}
		v.Data = append(v.Data, row[:]...)
	}
	for i := range v.Data {
		v.Data[i] = float32s.round(v.Data[i])
	}
	return v
}

func TestVLB(t *testing.T) {
	var cases []opTest
	for _, s := range [][]int{{1, 1, 1, 1}, {3, 5, 7, 3}, {2, 4, 4, 8}, {4, 9, 11, 4}, {2, 75, 74, 3}, {3, 2}} {
		for _, with := range []bool{false, true} {
			shape := s
			if with {
				shape = wide(s)
			}
			for _, stored := range []storage{float32s, bfloat16s} {
				in := []value{spreadOf(stored, 0, 1, shape...), normals(float32s, s...), spreadOf(float32s, 0, 1.5, s...), vlbCoefs(s[0])}
				derror := normals(float32s, s[0])
				cases = append(cases,
					opTest{op: graph.VLB{}, in: in, tolerance: 3e-6},
					opTest{op: graph.VLBGrad{StopMean: s[0]%2 == 0}, in: append(in[:4:4], derror), out: stored, tolerance: 3e-6},
					opTest{op: graph.VLBGrad{}, in: append(in[:4:4], derror), out: float32s, tolerance: 3e-6})
			}
		}
	}
	runAll(t, cases)
}

// TestDecoderTerms holds the term of t = 0 and its derivatives to their definition value by
// value: for deviations of a hundredth of an 8-bit step to a thousand steps, out to where the
// mass is lost, inside and at both ends.
func TestDecoderTerms(t *testing.T) {
	const deviations, distances = 25, 41
	const n = 3 * deviations * distances
	operand := func(shape ...int) value {
		return value{Operand: graph.Operand{Shape: shape, Data: make([]float64, graph.Shape(shape).TotalSize())}}
	}
	out, x, target := operand(n, 2), operand(n, 1), operand(n, 1)
	coefs, derror := operand(n, graph.VLBCoefs), operand(n)
	for i := range n {
		deviation := math.Exp(math.Log(0.01)+math.Log(1e5)*float64(i/distances%deviations)/(deviations-1)) / 127.5
		// Up to ten deviations, but for rounding evenly on both sides.
		d := deviation * 10 * (float64(i%distances)/(distances-1)*2 - 1)
		row := coefs.Data[i*graph.VLBCoefs:]
		row[graph.VLBX0OnXt], row[graph.VLBX0OnOut], row[graph.VLBMeanOnX0], row[graph.VLBDecoder] = 1, 1, 1, 1
		row[graph.VLBLogVarMax] = float32s.round(2*math.Log(deviation) + 0.5)
		row[graph.VLBLogVarMin] = float32s.round(row[graph.VLBLogVarMax] - 1)
		out.Data[2*i] = float32s.round(d)
		x.Data[i] = float64(i/(distances*deviations)) - 1 // with a target of 0 this is x_0
		derror.Data[i] = float32s.round(math.Ln2)
	}
	in := []value{out, x, target, coefs}
	for _, c := range []struct {
		op      graph.Op
		in      []value
		allowed float64
	}{
		{graph.VLB{}, in, 3e-6}, {graph.VLBGrad{}, append(in[:4:4], derror), 4e-6},
	} {
		want, err := define(c.op, c.in...)
		if err != nil {
			t.Fatal(err)
		}
		got := computed(t, opTest{op: c.op, in: c.in})
		worst, at := 0.0, 0
		for i, w := range want.Data {
			// A derivative in d is a few over the deviation.
			unit := 1.0
			if row := i * n / len(got); len(got) > n && i%2 == 0 {
				unit = math.Exp(-0.5 * coefs.Data[row*graph.VLBCoefs+graph.VLBLogVarMax])
			}
			off := math.Abs(got[i]-w) / (unit + math.Abs(w))
			if !(off <= worst) {
				worst, at = off, i
			}
		}
		t.Logf("%T: %.2g", c.op, worst)
		if !(worst <= c.allowed) {
			t.Errorf("%T: value %d is %v, want %v: off by %.2g, allowed %.2g", c.op, at, got[at], want.Data[at], worst, c.allowed)
		}
	}
}

// TestBoundKeepsNaN shows that an output which is none spoils the term of its image alone.
func TestBoundKeepsNaN(t *testing.T) {
	in := []value{normals(float32s, 4, 2, 2, 6), normals(float32s, 4, 2, 2, 3), normals(float32s, 4, 2, 2, 3), vlbCoefs(4)}
	in[0].Data[2*24+4], in[0].Data[3*24+1] = math.NaN(), math.NaN() // a variance, and at t = 0 a mean
	got := computed(t, opTest{op: graph.VLB{}, in: in})
	for i, v := range got {
		if math.IsNaN(v) != (i >= 2) {
			t.Errorf("the term of image %d is %v", i, v)
		}
	}
}
