//go:build gpu && !cpu

package cuda

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/graphtest"
	"ddpm/internal/rng"
)

func TestDiffusion(t *testing.T) {
	const drawn, phase = 4e-6, 2e-6
	var cases []opTest
	add := func(tolerance float64, out storage, op graph.Op, in ...value) {
		cases = append(cases, opTest{op: op, in: in, out: out, tolerance: tolerance})
	}
	coefs := func(noise float64) value {
		v := value{Operand: graph.Operand{Shape: graph.Shape{graph.PSampleCoefs}}}
		for i := range graph.PSampleCoefs {
			v.Data = append(v.Data, float32s.round(0.3+0.17*float64(i)))
		}
		v.Data[graph.PrevOnNoise] = noise
		return v
	}
	for _, s := range [][4]int{{1, 1, 1, 1}, {3, 5, 7, 3}, {2, 8, 8, 3}, {3, 4, 6, 8}, {2, 40, 33, 3}, {1, 37, 37, 1}, {2, 16, 16, 24}} {
		n, h, w, c := s[0], s[1], s[2], s[3]
		flip := value{Operand: graph.Operand{Shape: graph.Shape{n}, Data: make([]float64, n)}}
		for i := range n {
			flip.Data[i] = float64((i + 1) % 2)
		}
		for _, out := range []storage{float32s, bfloat16s} {
			signal, noise := normals(float32s, n), spreadOf(float32s, 0, 1, n)
			targetSignal, targetNoise := spreadOf(float32s, 0, 2, n), spreadOf(float32s, 0, 3, n)
			add(drawn, out, graph.QSample{Stream: rng.Noise},
				bytesOf(n, h, w, c), flip, wordsOf(n, 4), signal, noise, targetSignal, targetNoise)
			for _, x := range []storage{float32s, bfloat16s} {
				for _, clip := range []bool{false, true} {
					add(drawn, out, graph.PSample{Stream: rng.Ancestral, Clip: clip},
						normals(x, n, h, w, c), spreadOf(out, 0, 1, n, h, w, c), wordsOf(n, 4), coefs(0.5))
				}
			}
			add(1e-6, out, graph.PSample{Stream: rng.Ancestral},
				normals(out, n, h, w, c), spreadOf(out, 0, 1, n, h, w, c), wordsOf(n, 4), coefs(0))
			for i, p := range []float64{0, 0.1, 0.5} {
				op := graph.Dropout{P: p, Stream: rng.Dropout + rng.Stream(i)}
				add(1e-7, out, op, normals(out, n, h, w, c), wordsOf(n, 4))
			}
		}
		add(1e-7, bfloat16s, graph.Dropout{P: 0.2, Stream: rng.Dropout}, normals(float32s, n, h, w, c), wordsOf(n, 4))
		add(1e-7, float32s, graph.Dropout{P: 0.2, Stream: rng.Dropout}, shifted(normals(float32s, n, h, w, c), 4), wordsOf(n, 4))
		add(drawn, float32s, graph.PSample{Stream: rng.Prior}, shifted(normals(float32s, n, h, w, c), 4),
			normals(float32s, n, h, w, c), wordsOf(n, 4), coefs(0.5))
	}
	// An element whose number is the probability itself is kept.
	keys := wordsOf(1, 4)
	key := rng.Key{
		Seed: uint64(keys.Data[0]) | uint64(keys.Data[1])<<32, Stream: rng.Dropout,
		Step: uint32(keys.Data[2]), Sample: uint32(keys.Data[3]),
	}
	for i, word := range key.Block(0) {
		x := value{Operand: graph.Operand{Shape: graph.Shape{1, 1, 1, 4}, Data: make([]float64, 4)}}
		x.Data[i] = 1
		add(1e-7, float32s, graph.Dropout{P: rng.Uniform(word), Stream: rng.Dropout}, x, keys)
	}
	runAll(t, cases)
}

// wide is a shape with twice the channels.
func wide(s []int) []int { return append(slices.Clone(s[:len(s)-1]), 2*s[len(s)-1]) }

// limitsOf are limits of dynamic thresholding, of which none clips and then divides by 1.
func limitsOf(n int) value {
	v := spreadOf(float32s, 0, 1, n)
	for i := range v.Data {
		v.Data[i] = float32s.round(1.1 + v.Data[i]*v.Data[i])
	}
	return v
}

// TestSamplerSteps holds what p_sample_general does beyond the plain step to its
// definition.
func TestSamplerSteps(t *testing.T) {
	var cases []opTest
	add := func(op graph.PSample, out storage, x, y value, kept ...value) {
		op.Stream, op.Kept = rng.Ancestral, len(kept)
		n := x.Shape[0]
		coefs := spreadOf(float32s, 0, 0.7, op.Coefs())
		coefs.Data[graph.LogVarMin], coefs.Data[graph.LogVarMax] = -4.5, -3.25
		in := []value{x, y, wordsOf(n, 4), coefs}
		if op.Limited {
			in = append(in, limitsOf(n))
		}
		cases = append(cases, opTest{op: op, in: append(in, kept...), out: out, tolerance: 4e-6})
	}
	for _, s := range [][]int{{1, 1, 1, 1}, {3, 5, 7, 3}, {2, 21, 33, 3}, {2, 4, 6, 8}, {3, 2}} {
		for _, out := range []storage{float32s, bfloat16s} {
			x := normals(float32s, s...)
			narrow, both := normals(out, s...), spreadOf(out, 0, 1, wide(s)...)
			k0, k1, k2 := spreadOf(float32s, 0, 3, s...), spreadOf(out, 1, 1, s...), spreadOf(out, -1, 1, s...)
			add(graph.PSample{}, out, x, both)
			add(graph.PSample{Clip: true}, float32s, x, narrow, k0)
			add(graph.PSample{Learned: true}, out, x, both, k0, k1)
			add(graph.PSample{Learned: true, Limited: true}, out, x, both, k0, k1, k2)
			add(graph.PSample{Limited: true}, float32s, x, narrow)
		}
		// What is not whole in memory.
		x, y, k0 := normals(float32s, s...), spreadOf(float32s, 0, 1, s...), spreadOf(float32s, 0, 3, s...)
		add(graph.PSample{Limited: true}, float32s, shifted(x, 4), y, k0)
		add(graph.PSample{}, float32s, x, shifted(y, 4), k0)
		add(graph.PSample{}, float32s, x, y, k0, shifted(k0, 4))
	}
	runAll(t, cases)
	// The last shape, and more kept values than there is a kernel for.
	in := shapesIn(cases[len(cases)-1].in)
	if _, ok := deviceFor(t).kernel(graph.PSample{Kept: mostKept + 1}, in[0], append(in, in[0], in[0])); ok {
		t.Errorf("there is a kernel for %d kept values", mostKept+1)
	}
}

// x0Coefs are coefficients of which PSample leaves x_0 = 0.75 x_t - 0.625 out alone.
func x0Coefs() value {
	v := value{Operand: graph.Operand{Shape: graph.Shape{graph.PSampleCoefs}, Data: make([]float64, graph.PSampleCoefs)}}
	v.Data[graph.X0OnXt], v.Data[graph.X0OnOut], v.Data[graph.PrevOnXt] = 0.75, -0.625, 1
	return v
}

// computed is what the device makes of an operation.
func computed(t *testing.T, c opTest) []float64 {
	t.Helper()
	d := deviceFor(t)
	var got []float64
	if err := d.Do(func() (err error) { got, err = c.compute(d); return err }); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestX0LimitIsOneOfTheValues finds each limit among the x_0 that PSample computes, bit
// for bit.
func TestX0LimitIsOneOfTheValues(t *testing.T) {
	for _, s := range [][]int{{1, 1}, {3, 5, 7, 3}, {2, 8, 8, 8}, {2, 29, 31, 3}} {
		for _, c := range []struct {
			x, y value
		}{
			{normals(float32s, s...), spreadOf(float32s, 0, 1, s...)},
			{normals(bfloat16s, s...), spreadOf(float32s, 0, 40, wide(s)...)},
			{shifted(spreadOf(float32s, 0, 1e-3, s...), 4), spreadOf(bfloat16s, 0, 1, s...)}, // most below 1
			{spreadOf(float32s, 0, 1e30, s...), spreadOf(float32s, 0, 1e-30, wide(s)...)},
		} {
			n, size := s[0], graph.Shape(s).TotalSize()/s[0]
			step := opTest{op: graph.PSample{Stream: rng.Ancestral}, in: []value{c.x, c.y, wordsOf(n, 4), x0Coefs()}}
			x0 := computed(t, step)[n*size:]
			for i, v := range x0 {
				x0[i] = math.Abs(v)
			}
			for i := range n {
				slices.Sort(x0[i*size : (i+1)*size])
			}
			for _, quantile := range []float64{1e-9, 0.3, 0.5, 0.9, 0.995, 1} {
				op := graph.X0Limit{Quantile: quantile}
				limits := computed(t, opTest{op: op, in: []value{c.x, c.y, x0Coefs()}})
				for i, got := range limits {
					if want := max(x0[i*size+op.Rank(size)], 1); got != want {
						t.Errorf("%v, quantile %g: the limit of image %d is %v, want %v", s, quantile, i, got, want)
					}
				}
			}
		}
	}
}

// TestX0LimitOfEqualValues has more of one value than a place can tell apart.
func TestX0LimitOfEqualValues(t *testing.T) {
	const size = 1200
	x, y := normals(float32s, 1, size), spreadOf(float32s, 0, 1, 1, size)
	for i := range x.Data {
		x.Data[i], y.Data[i] = 4, 0
		if i%3 == 0 {
			x.Data[i] = -8
		}
	}
	for _, c := range []struct{ quantile, want float64 }{{0.1, 3}, {2.0 / 3, 3}, {2.0/3 + 1e-6, 6}, {1, 6}} {
		got := computed(t, opTest{op: graph.X0Limit{Quantile: c.quantile}, in: []value{x, y, x0Coefs()}})
		if got[0] != c.want {
			t.Errorf("quantile %g: %v, want %v", c.quantile, got[0], c.want)
		}
	}
}

// TestThresholdingKeepsNaN shows that no value which is not finite is clipped to one
// that is, and that the definition's limit is found beside it.
func TestThresholdingKeepsNaN(t *testing.T) {
	const n, size = 3, 700
	x, y := normals(float32s, n, size), spreadOf(float32s, 0, 1, n, size)
	bad := map[int]bool{}
	for i, v := range map[int]float64{5: math.Inf(1), 300: math.NaN(), 301: math.Inf(-1), 699: math.MaxFloat32} {
		x.Data[size+i] = v
		bad[size+i] = i != 699
	}
	y.Data[2*size-1] = -math.MaxFloat32 // to infinity by the sum
	bad[2*size-1] = true
	for i := 2 * size; i < 3*size; i++ {
		x.Data[i] = math.NaN()
		bad[i] = true
	}
	op := graph.X0Limit{Quantile: 0.995}
	want, err := define(op, x, y, x0Coefs())
	if err != nil {
		t.Fatal(err)
	}
	limits := computed(t, opTest{op: op, in: []value{x, y, x0Coefs()}})
	// The sum that overflows float32 alone is NaN here, and comes first.
	if !(math.Abs(limits[0]-want.Data[0]) < 1e-6*want.Data[0]) || !(limits[1] >= 1 && limits[1] < 100) || !math.IsNaN(limits[2]) {
		t.Errorf("limits %v, want %v", limits, want.Data)
	}
	given := value{Operand: graph.Operand{Shape: graph.Shape{n}, Data: limits}}
	step := graph.PSample{Stream: rng.Ancestral, Limited: true}
	x0 := computed(t, opTest{op: step, in: []value{x, y, wordsOf(n, 4), x0Coefs(), given}})[n*size:]
	for i, v := range x0 {
		if math.IsNaN(v) != bad[i] || v > 1 || v < -1 {
			t.Errorf("x_0 %d is %v; was not finite: %v", i, v, bad[i])
		}
	}
}

// TestTimestepEmbedding compares with the definition, whose angles are not rounded to
// float32 as the kernel's are.
func TestTimestepEmbedding(t *testing.T) {
	steps := value{Operand: graph.Operand{Shape: graph.Shape{5}, Data: []float64{0, 1, 17, 500, 999}}}
	for _, op := range []graph.TimestepEmbedding{
		{Dim: 2}, {Dim: 24, FreqShift: 1}, {Dim: 128, CosFirst: true}, {Dim: 1030}, {Dim: 1030, CosFirst: true, FreqShift: 1},
	} {
		t.Run(fmt.Sprintf("%+v", op), opTest{op: op, in: []value{steps}, tolerance: 7e-5}.run)
	}
}

// TestSinesOfRoundedAngles compares with the exact sines of the kernel's own angles,
// which reach a hundred and sixty turns.
func TestSinesOfRoundedAngles(t *testing.T) {
	b := graphtest.Open(t, "cuda", graph.FP32)
	const n, dim = 1000, 64
	g := graph.NewBuilder(graph.Float32)
	out := g.TimestepEmbedding(graph.TimestepEmbedding{Dim: dim}, g.Input("t", graph.Float32, n))
	net, err := g.Finish(nil, map[string]*graph.Node{"out": out})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := graph.Compile(net, b)
	if err != nil {
		t.Fatal(err)
	}
	state, err := b.NewState(net.Layout, false)
	if err != nil {
		t.Fatal(err)
	}
	program, err := b.Load(plan, state, graph.Params)
	if err != nil {
		t.Fatal(err)
	}
	ts, got := make([]float32, n), make([]float32, n*dim)
	for i := range ts {
		ts[i] = float32(i)
	}
	if err := program.Run(t.Context(), graph.Feeds{"t": ts}); err != nil {
		t.Fatal(err)
	}
	if err := program.Output("out", got); err != nil {
		t.Fatal(err)
	}
	var worst float64
	for i, step := range ts {
		for j := range dim / 2 {
			angle := step * float32(math.Exp(-math.Log(10000)*float64(j)/(dim/2)))
			sin, cos := math.Sincos(float64(angle))
			row := got[i*dim:]
			worst = max(worst, math.Abs(float64(row[j])-sin), math.Abs(float64(row[dim/2+j])-cos))
		}
	}
	if !(worst <= 1e-6) {
		t.Errorf("off by %.2g, want 1e-6", worst)
	}
	if err := errors.Join(program.Close(), state.Close()); err != nil {
		t.Error(err)
	}
}
