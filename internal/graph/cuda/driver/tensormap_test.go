//go:build gpu && !cpu

package driver

import (
	"os"
	"strings"
	"testing"

	"ddpm/internal/graph/cuda/kernels"
)

// Maps of tensors that are as the driver wants them, and of some that are not.
func TestTensorMaps(t *testing.T) {
	if os.Getenv("DDPM_LIBCUDA") != "" {
		t.Setenv("STANDIN_CAPABILITY", "9.0")
	}
	d := openForTest(t)
	if d.Info.Capability[0] < 9 {
		t.Skipf("%s has no tensor maps", d.Info.Name)
	}
	var memory kernels.Ptr
	steps(t, d, func() (err error) { memory, err = d.Alloc(1 << 20); return err })
	good := Tiled{
		Address: memory, BF16: true, Swizzle: 128,
		// Images beside each other: strides need not grow.
		Extents: []uint64{96, 4, 16, 16}, Strides: []uint64{16 * 16 * 192, 192, 16 * 192}, Box: []uint32{64, 8, 10, 6},
	}
	var map1, map2 TensorMap
	steps(t, d,
		func() (err error) { map1, err = good.Encode(); return err },
		func() (err error) { map2, err = good.Encode(); return err },
	)
	if map1 == (TensorMap{}) || map1 != map2 {
		t.Error("a map is empty, or not the same the second time")
	}
	if words := map1.Words(); byte(words[15]>>56) != map1[127] || byte(words[1]) != map1[8] {
		t.Errorf("words %x of %x", words, map1)
	}
	for _, c := range []struct {
		name   string
		change func(*Tiled)
		want   string
	}{
		{"another place", func(m *Tiled) { m.Address += 512 }, ""},
		{"float32", func(m *Tiled) { m.BF16, m.Box[0] = false, 32 }, ""},
		{"no swizzle", func(m *Tiled) { m.Swizzle, m.Box[0] = 0, 96 }, ""},
		{"steps", func(m *Tiled) { m.Steps = []uint32{1, 1, 2, 2} }, ""},
		{"more than 128 bytes", func(m *Tiled) { m.Box[0] = 72 }, "encoding a tensor map of"},
		{"address", func(m *Tiled) { m.Address += 8 }, "CUDA_ERROR_INVALID_VALUE"},
		{"stride", func(m *Tiled) { m.Strides[1] = 200 }, "CUDA_ERROR_INVALID_VALUE"},
		{"box", func(m *Tiled) { m.Box[2] = 257 }, "CUDA_ERROR_INVALID_VALUE"},
		{"nothing", func(m *Tiled) { m.Extents[1] = 0 }, "CUDA_ERROR_INVALID_VALUE"},
		{"step", func(m *Tiled) { m.Steps = []uint32{1, 9, 1, 1} }, "CUDA_ERROR_INVALID_VALUE"},
		{"rank", func(m *Tiled) { m.Strides = m.Strides[1:] }, "no tensor map can be of"},
		{"pattern", func(m *Tiled) { m.Swizzle = 96 }, "no tensor map can be of"},
	} {
		m := good
		m.Extents = append([]uint64{}, good.Extents...)
		m.Strides = append([]uint64{}, good.Strides...)
		m.Box = append([]uint32{}, good.Box...)
		c.change(&m)
		var got TensorMap
		err := d.Do(func() (err error) { got, err = m.Encode(); return err })
		if c.want == "" && (err != nil || got == map1) {
			t.Errorf("%s: error %v, or the same map", c.name, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	steps(t, d, func() error { return d.Free(memory) })
}
