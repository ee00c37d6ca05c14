package data_test

import (
	"math"
	"slices"
	"testing"

	"ddpm/internal/data"
)

func TestEveryEpochIsAPermutation(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 9, 100, 1000, 1023, 1024, 1025, 50_000} {
		for epoch := range int64(3) {
			at := data.Shuffled(7, epoch, n)
			seen := make([]bool, n)
			for position := range int64(n) {
				i := at(position)
				if i < 0 || i >= int64(n) || seen[i] {
					t.Fatalf("n %d, epoch %d, position %d: image %d is impossible or comes twice", n, epoch, position, i)
				}
				seen[i] = true
			}
		}
	}
}

// Sets of billions of images work too; their whole order cannot be looked at.
func TestLargePermutationIsInjective(t *testing.T) {
	const n = 2_000_000_000
	at := data.Shuffled(1, 0, n)
	var seen []int64
	for position := range int64(20_000) {
		i := at(position * 99_999)
		if i < 0 || i >= n {
			t.Fatalf("image %d of %d", i, n)
		}
		seen = append(seen, i)
	}
	slices.Sort(seen)
	if got := len(slices.Compact(seen)); got != 20_000 {
		t.Errorf("%d different images of 20000 positions", got)
	}
}

// Over many epochs every image comes at every position equally often, and every
// image follows every other equally often: chi-square, bounded by its mean plus
// five standard deviations.
func TestShuffleIsFair(t *testing.T) {
	const epochs = 4000
	for _, n := range []int{3, 5, 8, 12} {
		place, follow := make([]float64, n*n), make([]float64, n*n)
		for epoch := range int64(epochs) {
			at := data.Shuffled(3, epoch, n)
			for position := range n {
				image := int(at(int64(position)))
				place[position*n+image]++
				if position > 0 {
					follow[int(at(int64(position-1)))*n+image]++
				}
			}
		}
		chi := func(counts []float64, want float64, skip func(i int) bool) (sum float64) {
			for i, c := range counts {
				if !skip(i) {
					sum += (c - want) * (c - want) / want
				}
			}
			return sum
		}
		limit := func(freedom float64) float64 { return freedom + 5*math.Sqrt(2*freedom) }
		if got, most := chi(place, epochs/float64(n), func(int) bool { return false }), limit(float64((n-1)*(n-1))); got > most {
			t.Errorf("n %d: chi-square of positions %.1f, want at most %.1f", n, got, most)
		}
		if got, most := chi(follow, epochs/float64(n), func(i int) bool { return i/n == i%n }), limit(float64(n*n-n)); got > most {
			t.Errorf("n %d: chi-square of successors %.1f, want at most %.1f", n, got, most)
		}
	}
}

func TestOrderDependsOnSeedAndEpoch(t *testing.T) {
	order := func(seed uint64, epoch int64) (o []int64) {
		at := data.Shuffled(seed, epoch, 100)
		for p := range int64(100) {
			o = append(o, at(p))
		}
		return o
	}
	base := order(1, 0)
	if !slices.Equal(base, order(1, 0)) {
		t.Error("the same seed and epoch give two orders")
	}
	for _, other := range [][]int64{order(1, 1), order(2, 0), order(1<<32+1, 0)} {
		if slices.Equal(base, other) {
			t.Error("another seed or epoch gives the same order")
		}
	}
}

func BenchmarkShuffle(b *testing.B) {
	at := data.Shuffled(1, 0, 50_000)
	position := int64(0)
	for b.Loop() {
		at(position)
		position = (position + 1) % 50_000
	}
}
