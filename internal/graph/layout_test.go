package graph_test

import (
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph"
)

// layoutOf places parameters of every kind.
func layoutOf(t *testing.T, order ...int) *graph.Layout {
	b := graph.NewBuilder(graph.Float32)
	params := []func(){
		func() { b.Param("conv", graph.ConvWeight, graph.Init{Bound: 0.5}, 3, 2, 4, 5) },
		func() { b.Param("linear", graph.LinearWeight, graph.Init{Value: 2, Bound: 0.1}, 6, 7) },
		func() { b.Param("vector", graph.Vector, graph.Init{Value: 1}, 9) },
		func() { b.Param("zero", graph.Vector, graph.Init{}, 1) },
	}
	for _, i := range order {
		params[i]()
	}
	return finish(t, b, nil, nil).Layout
}

func TestLayoutPlacesParameters(t *testing.T) {
	l := layoutOf(t, 0, 1, 2, 3)
	var offsets, lengths []int
	for _, p := range l.Params {
		offsets, lengths = append(offsets, p.Offset), append(lengths, p.Len)
	}
	if want := []int{0, 128, 176, 192}; !slices.Equal(offsets, want) {
		t.Errorf("offsets %v, want %v", offsets, want)
	}
	if want := []int{120, 42, 9, 1}; !slices.Equal(lengths, want) {
		t.Errorf("lengths %v, want %v", lengths, want)
	}
	if l.Size != 208 || l.Count != 172 {
		t.Errorf("size %d and count %d, want 208 and 172", l.Size, l.Count)
	}
	if !l.Equal(layoutOf(t, 0, 1, 2, 3)) || l.Equal(layoutOf(t, 0, 1, 2)) || l.Equal(layoutOf(t, 1, 0, 2, 3)) {
		t.Error("Equal is wrong")
	}
}

func TestTorchOrderByHand(t *testing.T) {
	// A kernel of 2 rows, 1 column, 2 channels in and 3 out, each weight written
	// as row, channel in, channel out.
	conv := graph.ParamSpec{Shape: []int{2, 1, 2, 3}, Kind: graph.ConvWeight, Len: 12}
	kernel := []float32{000, 001, 002, 10, 11, 12, 100, 101, 102, 110, 111, 112}
	// PyTorch has channel out first, then channel in, then the row.
	torch := []float32{0, 100, 10, 110, 1, 101, 11, 111, 2, 102, 12, 112}
	got := make([]float32, 12)
	conv.ToTorch(got, kernel)
	if !slices.Equal(got, torch) {
		t.Errorf("convolution: %v, want %v", got, torch)
	}
	if want := []int{3, 2, 2, 1}; !slices.Equal(conv.TorchShape(), want) {
		t.Errorf("convolution: shape %v, want %v", conv.TorchShape(), want)
	}

	linear := graph.ParamSpec{Shape: []int{2, 3}, Kind: graph.LinearWeight, Len: 6}
	got = make([]float32, 6)
	linear.ToTorch(got, []float32{0, 1, 2, 10, 11, 12})
	if want := []float32{0, 10, 1, 11, 2, 12}; !slices.Equal(got, want) {
		t.Errorf("linear: %v, want %v", got, want)
	}
	if want := []int{3, 2}; !slices.Equal(linear.TorchShape(), want) {
		t.Errorf("linear: shape %v, want %v", linear.TorchShape(), want)
	}
}

func TestTorchOrderRoundTrip(t *testing.T) {
	for _, p := range layoutOf(t, 0, 1, 2, 3).Params {
		kernel := make([]float32, p.Len)
		for i := range kernel {
			kernel[i] = float32(i + 1)
		}
		torch, back := make([]float32, p.Len), make([]float32, p.Len)
		p.ToTorch(torch, kernel)
		p.FromTorch(back, torch)
		if !slices.Equal(back, kernel) {
			t.Errorf("%s: there and back gives %v", p.Name, back)
		}
		if same := slices.Equal(torch, kernel); same != (p.Kind == graph.Vector) {
			t.Errorf("%s: PyTorch's order is the same: %v", p.Name, same)
		}
	}
}

func TestInitialWeights(t *testing.T) {
	l := layoutOf(t, 0, 1, 2, 3)
	w := l.InitialWeights(1)
	if !slices.Equal(w, l.InitialWeights(1)) {
		t.Error("one seed gives two sets of weights")
	}
	if slices.Equal(w[:120], l.InitialWeights(2)[:120]) {
		t.Error("two seeds give the same weights")
	}
	end := 0
	for i, p := range l.Params {
		if slices.ContainsFunc(w[end:p.Offset], func(v float32) bool { return v != 0 }) {
			t.Errorf("the gap before %s is not zero", p.Name)
		}
		end = p.Offset + p.Len
		values := w[p.Offset:end]
		var low, high, sum float64 = math.Inf(1), math.Inf(-1), 0
		for _, v := range values {
			low, high, sum = min(low, float64(v)), max(high, float64(v)), sum+float64(v)
		}
		value, bound := p.Init.Value, p.Init.Bound
		if low < value-bound-1e-6 || high > value+bound+1e-6 {
			t.Errorf("%s lies in [%v, %v], want within %v of %v", p.Name, low, high, bound, value)
		}
		// Of n uniform values the mean is off by bound/sqrt(3n), and the largest
		// and smallest come within 10 % of the bounds.
		if bound > 0 {
			if off := math.Abs(sum/float64(p.Len) - value); off > 4*bound/math.Sqrt(3*float64(p.Len)) {
				t.Errorf("%s has mean %v, want %v", p.Name, sum/float64(p.Len), value)
			}
			if low > value-0.9*bound || high < value+0.9*bound {
				t.Errorf("%s lies in [%v, %v], want it to fill %v around %v", p.Name, low, high, bound, value)
			}
		}
		for j, other := range l.Params[:i] {
			if bound > 0 && other.Init.Bound > 0 && relativeTo(other, w[other.Offset]) == relativeTo(p, values[0]) {
				t.Errorf("parameters %d and %d draw the same numbers", i, j)
			}
		}
	}
}

// relativeTo is a weight's place within its bounds, in [-1, 1), to four digits.
func relativeTo(p graph.ParamSpec, w float32) float64 {
	return math.Round(1e4*(float64(w)-p.Init.Value)/p.Init.Bound) / 1e4
}
