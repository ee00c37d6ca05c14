//go:build gpu && !cpu

package cuda

import (
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph"
)

// normCase is a normalisation of x, or of two parts of it.
type normCase struct {
	parts   []value
	groups  int
	eps     float64
	dy      storage
	bigger  float64 // tolerance of what follows from the statistics
	offsets bool    // the mean is far from zero
}

// cases are all operations of the normalisation, each on what the definitions of
// those before it give.
func (n normCase) cases(t *testing.T) []opTest {
	joined := len(n.parts) > 1
	shape := n.parts[0].Shape.Clone()
	wrap := func(op graph.Op) graph.Op { return op }
	if joined {
		shape[3] += n.parts[1].Shape[3]
		wrap = func(op graph.Op) graph.Op { return graph.Joined{Of: op} }
	}
	c := shape[3]
	given := func(op graph.Op, in ...value) value {
		out, err := define(op, in...)
		if err != nil {
			t.Fatal(err)
		}
		v := value{Operand: out}
		for i := range v.Data {
			v.Data[i] = float32s.round(v.Data[i])
		}
		return v
	}
	statistics := graph.GroupNormStats{Groups: n.groups, Eps: n.eps}
	cases := []opTest{{op: wrap(statistics), in: n.parts, tolerance: 2e-6}}
	stats := given(wrap(statistics), n.parts...)
	gamma, beta := spreadOf(float32s, 1, 0.3, c), spreadOf(float32s, 0, 1, c)
	dy, residual := spreadOf(n.dy, 0, 1, shape...), spreadOf(n.dy, 0, 2, shape...)
	for _, silu := range []bool{false, true} {
		operands := slices.Concat(n.parts, []value{stats, gamma, beta})
		forward := graph.GroupNorm{Groups: n.groups, SiLU: silu}
		cases = append(cases, opTest{op: wrap(forward), in: operands, out: n.dy, tolerance: n.bigger})

		operands = append(slices.Clip(operands), dy)
		sums := wrap(graph.GroupNormGradSums(forward))
		cases = append(cases, opTest{op: sums, in: operands, tolerance: n.bigger})

		operands = append(slices.Clip(operands), given(sums, operands...))
		data := wrap(graph.GroupNormGradData(forward))
		cases = append(cases, opTest{op: data, in: operands, out: n.dy, tolerance: n.bigger})

		operands = append(slices.Clip(operands), residual)
		added := opTest{op: graph.Plus{Of: data}, in: operands, out: n.dy, tolerance: n.bigger}
		cases = append(cases, added)
		added.over = len(operands)
		cases = append(cases, added)
	}
	return cases
}

func TestGroupNorm(t *testing.T) {
	var all []normCase
	for _, s := range []storage{float32s, bfloat16s} {
		tolerance := 1e-5
		x := func(shape ...int) value { return normals(s, shape...) }
		y := func(shape ...int) value { return spreadOf(s, -1, 1, shape...) }
		for _, n := range []normCase{
			{parts: []value{x(2, 32, 32, 64)}, groups: 32},  // several chunks
			{parts: []value{x(3, 4, 4, 96)}, groups: 32},    // one block an image
			{parts: []value{x(1, 41, 41, 13)}, groups: 13},  // odd, several chunks
			{parts: []value{x(1, 3, 3, 517)}, groups: 11},   // odd, several slabs
			{parts: []value{x(1, 2, 2, 4112)}, groups: 257}, // several slabs
			{parts: []value{x(1, 1, 1, 24)}, groups: 4},
			{parts: []value{x(2, 24, 24, 24), y(2, 24, 24, 40)}, groups: 4}, // a group of both
			{parts: []value{x(2, 4, 4, 16), y(2, 4, 4, 8)}, groups: 1},
			{parts: []value{x(2, 5, 5, 3), y(2, 5, 5, 13)}, groups: 2},
			{parts: []value{x(1, 20, 20, 7), y(1, 20, 20, 41)}, groups: 3},
		} {
			n.dy, n.bigger, n.eps = s, tolerance, 1e-6
			all = append(all, n)
		}
	}
	all = append(all,
		// Parts of different storage, and an output unlike them.
		normCase{parts: []value{normals(bfloat16s, 2, 6, 6, 8), normals(float32s, 2, 6, 6, 5)}, groups: 1, bigger: 1e-5, eps: 1e-6},
		normCase{parts: []value{normals(float32s, 2, 6, 6, 3), normals(float32s, 2, 6, 6, 5)}, groups: 2, dy: bfloat16s, bigger: 1e-5, eps: 1e-6},
		normCase{parts: []value{normals(float32s, 2, 6, 6, 16)}, groups: 2, dy: bfloat16s, bigger: 1e-5, eps: 1e-6},
		normCase{parts: []value{shifted(normals(float32s, 2, 6, 6, 16), 4)}, groups: 2, bigger: 1e-5, eps: 1e-6},
	)
	for _, n := range all {
		runAll(t, n.cases(t))
	}
}

// TestGroupNormFarFromZero has means of 1000 standard deviations: what squares
// would lose, and one pixel far from the others, where a block begins.
func TestGroupNormFarFromZero(t *testing.T) {
	for _, shape := range [][]int{{2, 8, 8, 24}, {1, 32, 32, 64}, {1, 41, 41, 13}} {
		far := spreadOf(float32s, 1000, 1, shape...)
		outlier := spreadOf(float32s, 0, 1, shape...)
		for c := range shape[3] {
			outlier.Data[c] = 300
		}
		groups := shape[3]
		if groups > 13 {
			groups = 8
		}
		for _, c := range []struct {
			x         value
			tolerance float64 // of rstd, about 1
		}{{far, 1e-4}, {outlier, 1e-5}} {
			op := graph.GroupNormStats{Groups: groups, Eps: 1e-6}
			test := opTest{op: op, in: []value{c.x}}
			d := deviceFor(t)
			var got []float64
			if err := d.Do(func() (err error) { got, err = test.compute(d); return err }); err != nil {
				t.Fatal(err)
			}
			want, err := define(op, c.x)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(got); i += 2 {
				mean, rstd := want.Data[i], want.Data[i+1]
				if off := got[i+1]/rstd - 1; !(math.Abs(off) < c.tolerance) {
					t.Errorf("%v: 1/standard deviation of group %d is %v, want %v", shape, i/2, got[i+1], rstd)
				}
				if !(math.Abs(got[i]-mean) < 3e-7*(math.Abs(mean)+1/rstd)) {
					t.Errorf("%v: mean of group %d is %v, want %v", shape, i/2, got[i], mean)
				}
			}
		}
	}
}

// momentsOf is what a producer of x leaves in so many slots: of each, and of each quad
// of channels, the mean and the sum of squared differences from it.
func momentsOf(x value, slots int) value {
	images, pixels, quads := x.Shape[0], x.Shape[1]*x.Shape[2], x.Shape[3]/quad
	v := value{Operand: graph.Operand{Shape: graph.Shape{images * slots * 2 * quads}}}
	v.Data = make([]float64, v.Shape[0])
	for i := range images * slots * quads {
		slot, q := i/quads, i%quads
		var of []float64
		for p := range pixels / slots {
			of = append(of, x.Data[((slot*pixels/slots+p)*quads+q)*quad:][:quad]...)
		}
		var mean, squares float64
		for _, e := range of {
			mean += e / float64(len(of))
		}
		for _, e := range of {
			squares += (e - mean) * (e - mean)
		}
		v.Data[2*slot*quads+q] = float32s.round(mean)
		v.Data[(2*slot+1)*quads+q] = float32s.round(squares)
	}
	return v
}

func TestGroupNormOfWhatIsFound(t *testing.T) {
	x := func(mean float64, shape ...int) value { return spreadOf(bfloat16s, mean, 2, shape...) }
	for _, c := range []struct {
		parts  []value
		slots  []int
		groups int
	}{
		{[]value{x(1, 2, 8, 8, 64)}, []int{4}, 16},
		{[]value{x(30, 3, 16, 16, 96)}, []int{64}, 8},
		{[]value{x(1, 2, 8, 8, 24)}, []int{1}, 1},
		{[]value{x(1, 1, 4, 4, 640)}, []int{2}, 32},
		{[]value{x(1, 2, 8, 8, 64), x(-2, 2, 8, 8, 32)}, []int{4, 2}, 8},
		{[]value{x(-5, 2, 8, 8, 20), x(5, 2, 8, 8, 28)}, []int{1, 8}, 4}, // a group of both
	} {
		var op graph.Op = graph.GroupNormStats{Groups: c.groups, Eps: 1e-6}
		if len(c.parts) > 1 {
			op = graph.Joined{Of: op}
		}
		test := opTest{op: op, tolerance: 1e-5}
		for i, part := range c.parts {
			test.found = append(test.found, momentsOf(part, c.slots[i]))
			test.of = append(test.of, part)
			test.in = append(test.in, x(0, part.Shape...))
		}
		t.Run(test.name(), test.run)
	}

	// Sums of gradients are added over slots; x is not read again.
	groups, in := graph.GroupNorm{Groups: 2, SiLU: true}, x(0, 2, 4, 4, 8)
	gamma, beta := spreadOf(float32s, 1, 0.3, 8), spreadOf(float32s, 0, 1, 8)
	statistics, err := define(graph.GroupNormStats{Groups: 2, Eps: 1e-6}, in)
	if err != nil {
		t.Fatal(err)
	}
	left := spreadOf(float32s, 0, 1, 2*3*2*8)
	test := opTest{op: graph.GroupNormGradSums(groups), found: []value{left}}
	test.in = []value{in, {Operand: statistics}, gamma, beta, spreadOf(bfloat16s, 0, 1, 2, 4, 4, 8)}
	d := deviceFor(t)
	var got []float64
	if err := d.Do(func() (err error) { got, err = test.compute(d); return err }); err != nil {
		t.Fatal(err)
	}
	want := make([]float64, 2*2*8)
	for i := range want {
		for slot := range 3 {
			want[i] += left.Data[(i/16*3+slot)*16+i%16]
		}
	}
	if err := near(got, want, 1e-6, 0); err != nil {
		t.Error(err)
	}
}

// chunkSums are the sums of each channel over chunks of an image's pixels.
func chunkSums(x graph.Operand, chunk int) value {
	images, pixels, channels := image(x.Shape)
	chunks := pieces(pixels, chunk)
	v := value{Operand: graph.Operand{Shape: graph.Shape{images * chunks * channels}}}
	v.Data = make([]float64, v.Shape[0])
	for i, e := range x.Data {
		pixel := i / channels
		v.Data[(pixel/pixels*chunks+pixel%pixels/chunk)*channels+i%channels] += e
	}
	return v
}

// TestSumsOfWhatIsFound sums what a normalisation's gradient left.
func TestSumsOfWhatIsFound(t *testing.T) {
	for _, c := range []struct {
		shape []int
		chunk int
	}{{[]int{2, 8, 8, 24}, 16}, {[]int{3, 5, 5, 3}, 4}, {[]int{9, 40, 40, 8}, 5}, {[]int{300, 2, 2, 8}, 1}} {
		x, junk := normals(float32s, c.shape...), spreadOf(float32s, 0, 1, c.shape...)
		for _, op := range []graph.Op{graph.SumPixels{}, graph.SumRows{}} {
			test := opTest{op: op, in: []value{junk}, of: []value{x}, found: []value{chunkSums(x.Operand, c.chunk)}, tolerance: 2e-6}
			t.Run(test.name(), test.run)
		}
	}
}

// TestGroupNormGradLeavesSums compares what the gradient leaves with its own result.
func TestGroupNormGradLeavesSums(t *testing.T) {
	for _, c := range []struct {
		s      storage
		parts  [][]int
		groups int
	}{
		{bfloat16s, [][]int{{2, 32, 32, 64}}, 32},
		{bfloat16s, [][]int{{3, 4, 4, 96}}, 32},
		{float32s, [][]int{{1, 41, 41, 13}}, 13},
		{float32s, [][]int{{1, 3, 3, 517}}, 11},
		{float32s, [][]int{{1, 2, 2, 4112}}, 257},
		{bfloat16s, [][]int{{2, 24, 24, 24}, {2, 24, 24, 40}}, 4},
	} {
		shape, channels := graph.Shape(c.parts[0]).Clone(), 0
		var in []value
		for _, part := range c.parts {
			in = append(in, normals(c.s, part...))
			channels += part[3]
		}
		shape[3] = channels
		var op graph.Op = graph.GroupNormGradData{Groups: c.groups, SiLU: true}
		if len(in) > 1 {
			op = graph.Joined{Of: op}
		}
		op = graph.Plus{Of: op}
		in = append(in, spreadOf(float32s, 0.5, 0.1, shape[0], c.groups, 2), spreadOf(float32s, 1, 0.3, channels), spreadOf(float32s, 0, 1, channels),
			spreadOf(c.s, 0, 1, shape...), spreadOf(float32s, 0, 1, shape[0], 2, channels), spreadOf(c.s, 0, 2, shape...))
		test := opTest{op: op, in: in, out: c.s}
		t.Run(test.name(), func(t *testing.T) {
			d := deviceFor(t)
			n := normOf(callOf(op, shape, shapesIn(in)), c.groups)
			var dx, left []float64
			if err := d.Do(func() (err error) {
				dx, left, err = test.leaving(d, graph.SumPixels{}, shape[0]*n.chunks*channels)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			want := chunkSums(graph.Operand{Shape: shape, Data: dx}, n.chunk)
			rounding := 1e-6
			if c.s == bfloat16s {
				rounding = 4e-3 // of what was summed before it was rounded
			}
			if err := near(left, want.Data, rounding, 0); err != nil {
				t.Error(err)
			}
		})
	}
}
