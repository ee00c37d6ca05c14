package cpu

import (
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/isa"
)

var (
	_ graph.Measurable = (*Backend)(nil)
	_ graph.Processor  = (*Backend)(nil)
)

// The speeds are of some processor that exists.
func TestCeilings(t *testing.T) {
	check := func(b *Backend, want string) {
		defer b.Close()
		c, err := b.Ceilings()
		if err != nil {
			t.Fatalf("%s: %v", b.Name(), err)
		}
		if c.Flops < 1e7 || c.Flops > 1e14 || c.Bytes < 1e8 || c.Bytes > 1e13 {
			t.Errorf("%s: %v operations and %v bytes a second", b.Name(), c.Flops, c.Bytes)
		}
		if !strings.HasSuffix(c.Product, want) || c.Listed != 0 {
			t.Errorf("%s: measured by %q, listed %v", b.Name(), c.Product, c.Listed)
		}
		if b.Threads() != 2 || !strings.HasPrefix(b.InstructionSet(), b.set.String()) {
			t.Errorf("%s: %d threads of %s, want 2", b.Name(), b.Threads(), b.InstructionSet())
		}
	}
	for _, set := range isa.Supported() {
		check(New(2, set), ", fp32")
	}
	for _, kind := range isa.SupportedBF16() {
		b := New(2, isa.Detect())
		b.RoundTo(kind)
		check(b, ", bf16")
	}
}

// A tile that was not computed is seen.
func TestCeilingTiles(t *testing.T) {
	b := New(1, isa.Detect())
	defer b.Close()
	for _, kind := range append(isa.SupportedBF16(), isa.BF16Generic) {
		b.RoundTo(kind)
		for name, tile := range map[string]tile{"fp32": b.tile(), "bf16": b.tileBF16()} {
			if tile.check() == nil {
				t.Errorf("%s, %v: a tile passes that was not computed", name, kind)
			}
			tile.run()
			tile.run()
			if err := tile.check(); err != nil {
				t.Errorf("%s, %v: %v", name, kind, err)
			}
			if want := 2 * float64(len(tile.sums)) * float64(tile.want); tile.work != want {
				t.Errorf("%s, %v: %v operations, want %v", name, kind, tile.work, want)
			}
		}
	}
}
