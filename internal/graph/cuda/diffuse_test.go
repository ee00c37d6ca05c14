//go:build gpu && !cpu

package cuda

import (
	"errors"
	"fmt"
	"math"
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
