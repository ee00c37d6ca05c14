package graph

import "testing"

func TestBytes(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want string
	}{
		{0, "0 B"}, {999, "999 B"}, {1000, "1 kB"}, {12345, "12.3 kB"}, {999_499, "999 kB"}, {999_500, "1 MB"},
		{71_400_000_000, "71.4 GB"}, {1 << 62, "4.61e+03 PB"},
	} {
		if got := Bytes(c.n); got != c.want {
			t.Errorf("%d: %s, want %s", c.n, got, c.want)
		}
	}
}
