package graph

import (
	"math"
	"testing"
)

func TestFloor(t *testing.T) {
	c := Ceilings{Flops: 100, Bytes: 10}
	for _, w := range []struct {
		flops, bytes int64
		want         float64
		computing    bool
	}{
		{1000, 99, 10, true},
		{1000, 101, 10.1, false}, // the ridge is at ten operations a byte
		{0, 5, 0.5, false},
		{300, 0, 3, true},
		{0, 0, 0, false},
	} {
		if got, computing := c.Floor(w.flops, w.bytes); got != w.want || computing != w.computing {
			t.Errorf("%d operations on %d bytes: %v, computing %t; want %v, %t", w.flops, w.bytes, got, computing, w.want, w.computing)
		}
	}
}

func TestPlausible(t *testing.T) {
	for speed, want := range map[float64]bool{1e12: true, 0: false, -1: false, math.Inf(1): false, math.NaN(): false} {
		if Plausible(speed) != want {
			t.Errorf("%v: %t", speed, !want)
		}
	}
}
