package cpu

import (
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/rng"
)

// bound is a kernel bound to its operands: outputs and a function that fills
// them.
type bound struct {
	outputs [][]float32
	run     func()
}

// bindKernel binds a kernel to operands, an output of n elements and poisoned
// memory.
func bindKernel(k kernel, n int, in ...[]float32) bound {
	m := operands{out: poison(n), ws: poison(k.workspace)}
	for _, x := range in {
		m.in = append(m.in, memory{floats: x})
	}
	return bound{[][]float32{m.out}, k.bind(m)}
}

// checkOperation holds the kernel of an operation against its definition, see
// checkKernel. Operands are []float32 or []uint32.
func checkOperation(t *testing.T, op graph.Op, tolerance float64, shapes []graph.Shape, values ...any) {
	t.Helper()
	shape, err := op.Infer(shapes)
	if err != nil {
		t.Fatal(err)
	}
	var in []graph.Operand
	var memories []memory
	for i, v := range values {
		var m memory
		data := make([]float64, shapes[i].TotalSize())
		switch v := v.(type) {
		case []float32:
			m.floats = v
			data = widen(v)
		case []uint32:
			m.words = v
			for j, word := range v {
				data[j] = float64(word)
			}
		}
		in, memories = append(in, graph.Operand{Shape: shapes[i], Data: data}), append(memories, m)
	}
	want := graph.Operand{Shape: shape, Data: make([]float64, shape.TotalSize())}
	op.Eval(want, in)
	checkKernel(t, [][]float64{want.Data}, tolerance, func(e *engine) bound {
		k := e.kernel(op, shape, shapes)
		m := operands{out: poison(len(want.Data)), in: memories, ws: poison(k.workspace)}
		return bound{[][]float32{m.out}, k.bind(m)}
	})
}

// bindWeights does so for a kernel with weights, operand at, which are
// transformed in every run.
func bindWeights(k weightsKernel, at, n int, in ...[]float32) bound {
	form := poison(k.weights)
	bind := k.bind
	k.bind = func(m operands) func() {
		m.form = form
		return bind(m)
	}
	b := bindKernel(k.kernel, n, in...)
	if k.transform == nil {
		return b
	}
	transform, run := k.transform(form, in[at]), b.run
	b.run = func() {
		transform()
		run()
	}
	return b
}

// checkMatrixKernel runs a kernel with every instruction set and several
// numbers of workers. Its outputs must be within 1e-5 of want, relative to the
// greatest element; they must not depend on the workers, nor on what was in the
// workspace or in the outputs; and it must not allocate.
func checkMatrixKernel(t *testing.T, want [][]float64, bind func(e *engine) bound) {
	t.Helper()
	for _, set := range isa.Supported() {
		var first [][]float32
		for _, workers := range []int{1, 2, 3, 5} {
			e := newEngine(workers, set)
			b := bind(e)
			b.run()
			if first == nil {
				first = b.outputs
				for i := range want {
					if worst, at := furthest(b.outputs[i], want[i]); !(worst <= 1e-5) {
						t.Errorf("%v: output %d: element %d is %g, want %g: off by %.2g of the greatest",
							set, i, at, b.outputs[i][at], want[i][at], worst)
					}
				}
			}
			for i := range want {
				if !slices.Equal(b.outputs[i], first[i]) {
					t.Errorf("%v: output %d with %d workers differs from that with 1", set, i, workers)
				}
			}
			if workers == 2 {
				if n := testing.AllocsPerRun(4, b.run); n != 0 {
					t.Errorf("%v: %v allocations a run", set, n)
				}
			}
			e.pool.Close()
		}
	}
}

// furthest is the greatest difference, relative to the greatest element.
func furthest(got []float32, want []float64) (worst float64, at int) {
	scale := math.SmallestNonzeroFloat64
	for i, w := range want {
		scale = max(scale, math.Abs(w))
		switch d := math.Abs(float64(got[i]) - w); {
		case math.IsNaN(d):
			return math.Inf(1), i
		case d > worst:
			worst, at = d, i
		}
	}
	return worst / scale, at
}

func gaussian(n int, sample uint32) []float32 {
	x := make([]float32, n)
	rng.Key{Stream: rng.Noise, Sample: sample}.Normals(x)
	return x
}

// poison is memory that nothing may be read from before it is written.
func poison(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.NaN())
	}
	return x
}

// benchmarkMatrixKernel reports the speed of a kernel with 1 and 2 threads.
func benchmarkMatrixKernel(b *testing.B, flops int, bind func(e *engine) func()) {
	for _, workers := range []int{1, 2} {
		b.Run([]string{"threads=1", "threads=2"}[workers-1], func(b *testing.B) {
			e := newEngine(workers, isa.Detect())
			defer e.pool.Close()
			run := bind(e)
			run()
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(flops)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
