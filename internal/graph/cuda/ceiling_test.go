//go:build gpu && !cpu

package cuda

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"ddpm/internal/graph"
)

var (
	_ graph.Measurable = (*Backend)(nil)
	_ graph.Ahead      = (*Backend)(nil)
)

// Each kernel of products computes what its operands make, in as many rounds as it is
// asked for; a speed is of some device that exists.
func TestCeilings(t *testing.T) {
	o := hopperOptions(t)
	t.Setenv("STANDIN_MULTIPROCESSORS", "2")
	for p, want := range map[graph.Precision]string{
		graph.BF16: "bf16", graph.TF32: "mma.sync, tf32", graph.FP32: "mma.sync, tf32, 3 products for one",
	} {
		o.Precision = p
		b, err := start(o)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		c, err := b.Ceilings()
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		t.Logf("%s: %.3g operations by %s and %.3g bytes a second", p, c.Flops, c.Product, c.Bytes)
		if !graph.Plausible(c.Flops) || !graph.Plausible(c.Bytes) || c.Flops > 1e16 || c.Bytes > 1e14 {
			t.Errorf("%s: %v operations and %v bytes a second", p, c.Flops, c.Bytes)
		}
		if !strings.HasSuffix(c.Product, want) {
			t.Errorf("%s: measured by %q, want %q", p, c.Product, want)
		}
		if err := b.Wait(); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// Every kernel of products leaves the sums of its rounds, and sums of fewer are seen.
func TestCeilingProducts(t *testing.T) {
	o := hopperOptions(t)
	t.Setenv("STANDIN_MULTIPROCESSORS", "2")
	b, err := start(o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	d := b.device
	for name, make := range map[string]func() *ceilingProducts{
		"bf16":   func() *ceilingProducts { return d.registerProducts("bf16") },
		"tf32":   func() *ceilingProducts { return d.registerProducts("tf32") },
		"shared": d.sharedProducts,
	} {
		t.Run(name, func(t *testing.T) {
			p := make()
			if name == "shared" {
				needsHopper(t, d)
			}
			if want := float64(2 * p.m * p.n * p.k * p.sets); p.work() != want {
				t.Errorf("%v operations a round, want %v", p.work(), want)
			}
			*p.rounds = 3
			if _, err := d.measure(func(m *meter) (float64, error) { return m.productSpeed(p) }); err != nil || *p.rounds < 3 {
				t.Errorf("%d rounds: %v", *p.rounds, err)
			}
		})
	}
}

// check accepts what so many rounds make, and nothing else.
func TestCeilingCheck(t *testing.T) {
	p := &ceilingProducts{
		m: 2, n: 3, k: 2, sets: 2, a: []float64{1, 2, 3, 4}, b: []float64{1, 1, 2, 0, 0, -1},
		at: func(word int) (row, column int) { return word / 3, word % 3 },
	}
	sums := func(scale float64) []byte {
		var bytes []byte
		for range p.sets {
			for _, v := range []float64{3, 2, -2, 7, 6, -4} {
				bytes = binary.NativeEndian.AppendUint32(bytes, math.Float32bits(float32(scale*v)))
			}
		}
		return bytes
	}
	if err := p.check(sums(100), 100); err != nil {
		t.Error(err)
	}
	last := sums(100)
	copy(last[len(last)-4:], sums(99))
	nan := sums(100)
	binary.NativeEndian.PutUint32(nan[8:], 0x7fc00000)
	for name, wrong := range map[string][]byte{"one round": sums(1), "two more": sums(103), "the last": last, "NaN": nan} {
		if err := p.check(wrong, 100); !errors.Is(err, errImplausible) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestListed(t *testing.T) {
	for name, want := range map[string]float64{
		"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 0, "NVIDIA H200 NVL": 0,
		"NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA A100 80GB PCIe": 312e12, "NVIDIA GeForce RTX 3060": 0,
	} {
		if got := listed(name, graph.BF16); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := listed("NVIDIA H200", graph.TF32); got != 0 {
		t.Errorf("tf32: %v", got)
	}
}
