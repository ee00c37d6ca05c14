package philox

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/rng"
)

// probabilities are round ones, and those at which the comparison with a number
// of 24 bits turns.
var probabilities = []float64{
	0, math.SmallestNonzeroFloat64, 0x1p-24, math.Nextafter(0x1p-24, 0), math.Nextafter(0x1p-24, 1),
	0.1, 0.25, 1. / 3, 0.5, math.Nextafter(0.5, 0), math.Nextafter(0.5, 1), 0.9,
	1 - 0x1p-23, 1 - 0x1p-24, math.Nextafter(1-0x1p-24, 0), math.Nextafter(1-0x1p-24, 1), math.Nextafter(1, 0),
}

// Both sides of the comparison only ever change from false to true as the word
// grows, so they are the same everywhere if they are on both sides of the limit
// and at the ends.
func TestLimitIsTheComparisonOfNumbers(t *testing.T) {
	tested := probabilities
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		p := r.Float64()
		onGrid := math.Ceil(p*(1<<24)) / (1 << 24)
		tested = append(tested, p, p*0x1p-20, math.Nextafter(onGrid, 0))
		if onGrid < 1 {
			tested = append(tested, onGrid, math.Nextafter(onGrid, 1))
		}
	}
	for _, p := range tested {
		limit := limit(p)
		for _, v := range []uint32{0, 1, limit - 1, limit, limit + 1, 1<<24 - 1} {
			if v >= 1<<24 {
				continue
			}
			for _, word := range []uint32{v << 8, v<<8 | 1, v<<8 | 0xff} {
				if got, want := word>>8 >= limit, rng.Uniform(word) >= p; got != want {
					t.Fatalf("p = %v: word %#x is kept: %v, want %v", p, word, got, want)
				}
			}
		}
	}
}

// fence is the number of elements on each side of an output that must not be
// written. It is more than the widest kernel's stride.
const fence = 80

var fencePost = math.Float32frombits(0x7fc0dead)

func fenced(n int) (all, data []float32) {
	all = make([]float32, n+2*fence)
	for i := range all {
		all[i] = fencePost
	}
	return all, all[fence : fence+n : fence+n]
}

func checkFence(t *testing.T, what string, all []float32) {
	t.Helper()
	for i, v := range all {
		if (i < fence || i >= len(all)-fence) && math.Float32bits(v) != math.Float32bits(fencePost) {
			t.Fatalf("%s: element %d was written", what, i-fence)
		}
	}
}

// operand is numbers of either sign, infinities and NaN.
func operand(n int) []float32 {
	x := make([]float32, n)
	rng.Key{Seed: 3, Stream: rng.Noise}.Normals(x)
	for i := range x {
		switch i % 23 {
		case 5:
			x[i] = float32(math.Inf(i%2*2 - 1))
		case 11:
			x[i] = float32(math.NaN())
		case 17:
			x[i] = float32(math.Copysign(0, -1))
		}
	}
	return x
}

// definition is dropout as graph.Dropout defines it, in float32.
func definition(x []float32, key rng.Key, block uint32, p float64) []float32 {
	y := make([]float32, len(x))
	for i := range x {
		if rng.Uniform(key.Block(block + uint32(i/4))[i%4]) >= p {
			y[i] = x[i] * float32(1/(1-p))
		}
	}
	return y
}

func checkSame(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		bothNaN := got[i] != got[i] && w != w
		if math.Float32bits(got[i]) != math.Float32bits(w) && !bothNaN {
			t.Fatalf("%s: element %d of %d is %v, want %v", what, i, len(want), got[i], w)
		}
	}
}

var keys = []rng.Key{
	{},
	{Seed: 0x0123456789abcdef, Stream: rng.Dropout + 7, Step: 0xfedcba98, Sample: 12345},
	{Seed: math.MaxUint64, Stream: math.MaxUint32, Step: math.MaxUint32, Sample: math.MaxUint32},
}

func TestDropout(t *testing.T) {
	for _, set := range isa.Supported() {
		t.Run(set.String(), func(t *testing.T) {
			check := func(n int, key rng.Key, block uint32, p float64) {
				t.Helper()
				what := fmt.Sprintf("n = %d, key %v, block %d, p = %v", n, key, block, p)
				x := operand(n)
				want := definition(x, key, block, p)
				d := NewDropout(set, p)

				all, y := fenced(n)
				d.Apply(y, x, key, block)
				checkSame(t, what, y, want)
				checkFence(t, what, all)

				all, y = fenced(n)
				copy(y, x)
				d.Apply(y, y, key, block)
				checkSame(t, "in place: "+what, y, want)
				checkFence(t, "in place: "+what, all)
			}
			for n := range 200 { // none, tails of every length, up to three strides and a tail
				check(n, keys[1], 77, 0.4)
			}
			for _, key := range keys {
				// The last of these are numbered beyond 2^32, which wraps.
				for _, block := range []uint32{0, 1, math.MaxUint32 - 100, math.MaxUint32 - 21, math.MaxUint32 - 2} {
					check(333, key, block, 0.4)
				}
			}
			for _, p := range probabilities {
				check(1027, keys[1], 0, p)
			}
		})
	}
}

// A probability at which one word of those drawn is exactly on the limit, and
// its neighbours, on all lanes.
func TestDropoutAtTheLimit(t *testing.T) {
	const n = 150
	for _, set := range isa.Supported() {
		x := operand(n)
		for i := range x {
			u := rng.Uniform(keys[1].Block(uint32(i / 4))[i%4])
			for _, p := range []float64{u, math.Nextafter(u, 0), math.Nextafter(u, 1)} {
				y := make([]float32, n)
				NewDropout(set, p).Apply(y, x, keys[1], 0)
				checkSame(t, fmt.Sprintf("%v: p = %v", set, p), y, definition(x, keys[1], 0, p))
			}
		}
	}
}

func TestRangesMayBeCutAtBlocks(t *testing.T) {
	for _, set := range isa.Supported() {
		d := NewDropout(set, 0.3)
		x := operand(1001)
		whole := make([]float32, len(x))
		d.Apply(whole, x, keys[1], 9)
		for _, cut := range []int{4, 60, 64, 68, 512, 1000} {
			parts := make([]float32, len(x))
			d.Apply(parts[:cut], x[:cut], keys[1], 9)
			d.Apply(parts[cut:], x[cut:], keys[1], 9+uint32(cut/BlockSize))
			checkSame(t, fmt.Sprintf("%v, cut at %d", set, cut), parts, whole)
		}
	}
}

func TestNothingAllocates(t *testing.T) {
	for _, set := range isa.Supported() {
		d := NewDropout(set, 0.1)
		x := operand(1001)
		if n := testing.AllocsPerRun(10, func() { d.Apply(x, x, keys[1], 0) }); n != 0 {
			t.Errorf("%v: %v allocations", set, n)
		}
	}
}

// BenchmarkDropout reports the memory read and written, from the second-level
// cache.
func BenchmarkDropout(b *testing.B) {
	const n = 1 << 15
	x, y := make([]float32, n), make([]float32, n)
	keys[1].Normals(x)
	for _, set := range isa.Supported() {
		b.Run(set.String(), func(b *testing.B) {
			d := NewDropout(set, 0.1)
			b.SetBytes(2 * 4 * n)
			for b.Loop() {
				d.Apply(y, x, keys[1], 0)
			}
		})
	}
}
