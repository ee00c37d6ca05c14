package rng

import (
	"math"
	"testing"
)

// Known-answer vectors of Random123 for philox4x32-10.
func TestPhiloxKnownAnswers(t *testing.T) {
	ones := uint32(math.MaxUint32)
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{ones, ones, ones, ones}, [2]uint32{ones, ones}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := Philox(c.counter, c.key); got != c.want {
			t.Errorf("Philox(%x, %x) = %x, want %x", c.counter, c.key, got, c.want)
		}
	}
}

func TestNormalsHaveNormalMoments(t *testing.T) {
	z := make([]float32, 400_001)
	Key{Seed: 1, Stream: Noise, Step: 2, Sample: 3}.Normals(z)
	var m1, m2, m3, m4 float64
	for _, v := range z {
		x := float64(v)
		m1 += x
		m2 += x * x
		m3 += x * x * x
		m4 += x * x * x * x
	}
	n := float64(len(z))
	for i, c := range []struct{ got, want, tolerance float64 }{
		{m1 / n, 0, 0.01}, {m2 / n, 1, 0.01}, {m3 / n, 0, 0.03}, {m4 / n, 3, 0.06},
	} {
		if math.Abs(c.got-c.want) > c.tolerance {
			t.Errorf("moment %d: %.4f, want %.4f within %.2f", i+1, c.got, c.want, c.tolerance)
		}
	}
}

func TestNormalsAtReadsTheSameSequence(t *testing.T) {
	key := Key{Seed: 9, Stream: Prior}
	whole, part := make([]float32, 64), make([]float32, 17)
	key.Normals(whole)
	key.NormalsAt(part, 40)
	for i, v := range part {
		if v != whole[40+i] {
			t.Fatalf("position %d: %v, want %v", 40+i, v, whole[40+i])
		}
	}
}

func TestIntNIsUniform(t *testing.T) {
	counts := make([]int, 7)
	for i := range 70_000 {
		counts[Key{Seed: 4, Stream: Timestep, Step: uint32(i)}.IntN(7)]++
	}
	for v, c := range counts {
		if c < 9_500 || c > 10_500 {
			t.Errorf("value %d drawn %d times of 70000, want about 10000", v, c)
		}
	}
}
