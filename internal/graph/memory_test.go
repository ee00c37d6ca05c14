package graph

import (
	"strings"
	"testing"
)

// sized is a device of so many bytes.
type sized struct {
	Backend
	bytes int64
}

func (sized) Name() string { return "toy" }

func (s sized) Memory() int64 { return s.bytes }

func TestCheckMemory(t *testing.T) {
	const planned = 2000
	for _, b := range []Backend{sized{bytes: planned}, sized{bytes: 0}, struct{ Backend }{}} {
		if err := CheckMemory(b, planned); err != nil {
			t.Errorf("%v: %v", b, err)
		}
	}
	err := CheckMemory(sized{bytes: planned - 1}, planned)
	if err == nil || !strings.Contains(err.Error(), "this needs 2 kB of memory and toy has 2 kB") {
		t.Errorf("error %v", err)
	}
}

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
