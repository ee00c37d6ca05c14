//go:build gpu && !cpu

package cuda

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// attentionCase is attention on operands, and its gradient.
type attentionCase struct {
	n, h, w, c, heads int
	// storages are those of q, k, v, dout and the result; none are those of the
	// backend.
	storages []storage
	// shifts move q, k, v, dout and the result, in bytes.
	shifts [5]int
	// sharp is the standard deviation of q and k, or 0 for 1.
	sharp float64
}

func (c attentionCase) name() string {
	name := fmt.Sprintf("%dx%dx%dx%d_heads_%d", c.n, c.h, c.w, c.c, c.heads)
	for _, s := range c.storages {
		name += "_" + s.String()
	}
	if c.shifts != [5]int{} {
		name += fmt.Sprintf("_shifted_%d", c.shifts)
	}
	if c.sharp > 0 {
		name += fmt.Sprintf("_sharp_%g", c.sharp)
	}
	return strings.ReplaceAll(name, " ", "_")
}

// tests are the two operations.
func (c attentionCase) tests(precision graph.Precision) []opTest {
	shape := []int{c.n, c.h, c.w, c.c}
	d := &device{precision: precision}
	at := func(i int) storage {
		switch {
		case len(c.storages) > 0:
			return c.storages[i]
		case d.stored(shape):
			return bfloat16s
		}
		return float32s
	}
	sharp := max(1, c.sharp)
	operand := func(i int, mean, std float64) value {
		return shifted(spreadOf(at(i), mean, std, shape...), c.shifts[i])
	}
	q, k, v, dout := operand(0, 0, sharp), operand(1, 0.125, sharp), operand(2, 0.5, 1), operand(3, -0.25, 1)
	tolerance := attentionTolerance(precision)
	if c.sharp > 0 {
		// What rounding does to a score of some tens is its weight's relative error.
		tolerance *= 10
	}
	test := opTest{op: graph.Attention{Heads: c.heads}, in: []value{q, k, v}, tolerance: tolerance}
	test.out, test.outShift = at(4), c.shifts[4]
	gradient := test
	gradient.op, gradient.in = graph.AttentionGrad{Heads: c.heads}, []value{q, k, v, dout}
	return []opTest{test, gradient}
}

// attentionTolerance is what the rounding of operands, weights and slopes costs:
// they have 24, 11 and 8 significant bits.
func attentionTolerance(p graph.Precision) float64 {
	switch p {
	case graph.BF16:
		return 1e-2
	case graph.TF32:
		return 2e-3
	}
	return 1e-5
}

// attentionCases reach every kernel in every precision, with keys that fill one
// block and with more, with channels that fill the slices and not.
var attentionCases = []attentionCase{
	{n: 1, h: 1, w: 1, c: 8, heads: 1},
	{n: 2, h: 1, w: 7, c: 24, heads: 3},
	{n: 3, h: 4, w: 4, c: 48, heads: 2},
	{n: 1, h: 5, w: 13, c: 64, heads: 1},
	{n: 1, h: 1, w: 1, c: 24, heads: 3},
	{n: 1, h: 20, w: 14, c: 64, heads: 2},
	{n: 1, h: 15, w: 10, c: 72, heads: 1},
	{n: 1, h: 9, w: 15, c: 128, heads: 1},
	{n: 1, h: 8, w: 8, c: 136, heads: 1},
	{n: 2, h: 13, w: 11, c: 144, heads: 1},
	{n: 1, h: 16, w: 16, c: 256, heads: 1},
	{n: 1, h: 5, w: 14, c: 264, heads: 1},
	{n: 1, h: 13, w: 11, c: 264, heads: 1},
	{n: 1, h: 17, w: 16, c: 136, heads: 1},
	// One element at a time.
	{n: 1, h: 1, w: 1, c: 1, heads: 1},
	{n: 1, h: 13, w: 10, c: 5, heads: 5},
	{n: 2, h: 9, w: 8, c: 16, heads: 8},
	{n: 2, h: 11, w: 12, c: 40, heads: 2},
	{n: 1, h: 7, w: 19, c: 33, heads: 1},
	{n: 1, h: 10, w: 7, c: 72, heads: 1, shifts: [5]int{4, 0, 8, 4, 0}},
	{n: 1, h: 10, w: 7, c: 72, heads: 1, shifts: [5]int{4: 8}},
	// Scores of some tens.
	{n: 1, h: 5, w: 27, c: 16, heads: 1, sharp: 5},
	{n: 1, h: 3, w: 7, c: 6, heads: 1, sharp: 5},
}

// mixedAttention has operands that are not all of the backend's storage type.
var mixedAttention = []attentionCase{
	{n: 1, h: 5, w: 14, c: 24, heads: 1, storages: []storage{float32s, bfloat16s, bfloat16s, float32s, bfloat16s}},
	{n: 1, h: 5, w: 14, c: 24, heads: 3, storages: []storage{bfloat16s, float32s, float32s, bfloat16s, float32s}},
}

func TestAttention(t *testing.T) {
	used := map[string]bool{}
	for _, precision := range precisions {
		cases := attentionCases
		if precision == graph.BF16 {
			cases = append(cases[:len(cases):len(cases)], mixedAttention...)
		}
		for _, c := range cases {
			for _, test := range c.tests(precision) {
				note(t, used, precision, test)
				name := fmt.Sprintf("%s/%T_%s", precision, test.op, c.name())
				t.Run(name, productCase{opTest: test, precision: precision}.run)
			}
		}
	}
	for _, k := range kernels.All() {
		tall := strings.Contains(k.Name, "_128x256x256_") // TestAttentionTall
		if strings.HasPrefix(k.Name, "attn_") && !tall && !used[k.Name] {
			t.Errorf("no case uses %s", k.Name)
		}
	}
}

// note adds the kernels that an operation uses.
func note(t *testing.T, used map[string]bool, precision graph.Precision, test opTest) {
	t.Helper()
	d := deviceOf(precision, 99<<10)
	var shapes []graph.Shape
	var m operands
	for _, v := range test.in {
		shapes = append(shapes, v.Shape)
		m.in = append(m.in, tensor{ptr: kernels.Ptr(1024 + v.shift), shape: v.Shape, bf16: v.storage == bfloat16s})
	}
	out, err := test.op.Infer(shapes)
	if err != nil {
		t.Fatal(err)
	}
	m.out = tensor{ptr: kernels.Ptr(1024 + test.outShift), shape: out, bf16: test.out == bfloat16s}
	k, ok := d.attention(callOf(test.op, out, shapes))
	if !ok {
		t.Fatalf("no kernel for %T", test.op)
	}
	for _, l := range k.launches(m) {
		used[l.kernel] = true
	}
}

// A gradient keeps three numbers of a query of each head, and no scores.
func TestAttentionScratch(t *testing.T) {
	for _, c := range []struct {
		precision    graph.Precision
		n, h, w, c   int
		heads, bytes int
	}{
		{graph.BF16, 128, 16, 16, 256, 1, 128 * 256 * 12},
		{graph.TF32, 128, 16, 16, 256, 1, 128 * 256 * 12},
		{graph.FP32, 64, 64, 64, 256, 8, 64 * 8 * 4096 * 12},
		{graph.BF16, 2, 1, 9, 6, 3, 2 * 3 * 9 * 12},
	} {
		shape := graph.Shape{c.n, c.h, c.w, c.c}
		op := graph.AttentionGrad{Heads: c.heads}
		k, ok := deviceOf(c.precision, 99<<10).attention(callOf(op, nil, []graph.Shape{shape, shape, shape, shape}))
		if !ok || k.scratch != c.bytes {
			t.Errorf("%s, %v, %d heads: %d bytes, want %d", c.precision, shape, c.heads, k.scratch, c.bytes)
		}
	}
}

// deviceOf is a device whose blocks of threads may have so much shared memory.
func deviceOf(precision graph.Precision, shared int) *device {
	return &device{Device: &driver.Device{Info: driver.DeviceInfo{SharedBytes: shared}}, precision: precision}
}

// Blocks are tall where the GPU has the memory for them and the batch is large
// enough. Small ones run on every GPU.
func TestAttentionBlocks(t *testing.T) {
	for _, c := range []struct {
		shared, n, h, w, c int
		block              string
	}{
		{163 << 10, 128, 16, 16, 256, "128x256x256_whole"},
		{163 << 10, 48, 16, 16, 256, "128x256x256_whole"},
		{163 << 10, 47, 16, 16, 256, "64x256x256_whole"},
		{99 << 10, 128, 16, 16, 256, "64x256x256_whole"},
		{163 << 10, 48, 8, 17, 136, "128x256x256_whole"},
		{163 << 10, 128, 17, 16, 256, "64x128x256"},
		{163 << 10, 128, 8, 16, 256, "64x128x256"},
		{163 << 10, 128, 4, 4, 256, "64x128x256"},
		{163 << 10, 128, 16, 16, 128, "64x64x128"},
		{163 << 10, 128, 16, 16, 64, "64x128x64"},
	} {
		shape := graph.Shape{c.n, c.h, c.w, c.c}
		shapes := []graph.Shape{shape, shape, shape, shape}
		k, _ := deviceOf(graph.BF16, c.shared).attention(callOf(graph.AttentionGrad{Heads: 1}, nil, shapes))
		value := tensor{ptr: 1024, shape: shape, bf16: true}
		launches := k.launches(operands{out: value, in: []tensor{value, value, value, value}})
		for i, family := range []string{"queries", "keys"} {
			l := launches[i]
			if want := "attn_" + family + "_bf16_" + c.block; l.kernel != want {
				t.Errorf("%v with %d bytes of shared memory: %s, want %s", shape, c.shared, l.kernel, want)
			}
			const fixed = 3 << 10 // at most, in every kernel
			if l.shared+fixed > c.shared {
				t.Errorf("%s wants %d bytes of shared memory, of %d", l.kernel, l.shared+fixed, c.shared)
			}
		}
	}
}

// tallAttention has blocks own 128 rows, whatever the batch, until the test ends.
func tallAttention(t *testing.T) {
	attention := families[1]
	t.Cleanup(func() { families[1] = attention })
	families[1] = func(d *device, c call) (kernel, bool) {
		switch op := c.heart.(type) {
		case graph.Attention:
			a := d.attentionOf(c, op.Heads)
			a.tall = true
			return kernel{launches: a.forward}, true
		case graph.AttentionGrad:
			a := d.attentionOf(c, op.Heads)
			a.tall = true
			return a.gradient(), true
		}
		return kernel{}, false
	}
}

// Two runs give the same bits.
func TestAttentionTwice(t *testing.T) {
	c := attentionCase{n: 2, h: 13, w: 11, c: 144, heads: 2}
	for _, precision := range precisions {
		for _, test := range c.tests(precision) {
			if !slices.Equal(bitsOf(t, precision, test), bitsOf(t, precision, test)) {
				t.Errorf("%s %T: not the same bits", precision, test.op)
			}
		}
	}
}

// Tall blocks are right, and give the same bits as small ones.
func TestAttentionTall(t *testing.T) {
	for _, c := range []attentionCase{
		{n: 2, h: 13, w: 11, c: 144, heads: 1},
		{n: 1, h: 16, w: 16, c: 512, heads: 2},
		{n: 1, h: 13, w: 15, c: 264, heads: 1},
	} {
		for _, test := range c.tests(graph.BF16) {
			t.Run(fmt.Sprintf("%T_%s", test.op, c.name()), func(t *testing.T) {
				small := bitsOf(t, graph.BF16, test)
				tallAttention(t)
				if tall := bitsOf(t, graph.BF16, test); !slices.Equal(small, tall) {
					t.Error("tall blocks have not the same bits")
				}
				productCase{opTest: test, precision: graph.BF16}.run(t)
			})
		}
	}
}

// bitsOf is the result of an operation.
func bitsOf(t *testing.T, precision graph.Precision, test opTest) []float64 {
	t.Helper()
	onDevice := *deviceFor(t)
	d := &onDevice
	d.precision = precision
	var got []float64
	if err := d.Do(func() (err error) { got, err = test.compute(d); return err }); err != nil {
		t.Fatal(err)
	}
	return got
}

// Operands that are weights are read in bfloat16 where the state has such a copy,
// and as they are where it has none.
func TestAttentionOfWeights(t *testing.T) {
	shape := graph.Shape{2, 3, 5, 24}
	k, _ := deviceOf(graph.BF16, 99<<10).attention(callOf(graph.Attention{Heads: 1}, shape, []graph.Shape{shape, shape, shape}))
	out := tensor{ptr: 4096, shape: shape, bf16: true}
	for _, c := range []struct {
		q      tensor
		kernel string
		want   kernels.AttentionTensor
	}{
		{tensor{ptr: 1024, shape: shape, rounded: 2048}, "attn_forward_bf16_64x128x64", kernels.AttentionTensor{Data: 2048, Bf16: 1}},
		{tensor{ptr: 1024, shape: shape, rounded: 2050}, "attn_forward_bf16_64x64x64_any", kernels.AttentionTensor{Data: 2050, Bf16: 1}},
		{tensor{ptr: 1024, shape: shape}, "attn_forward_bf16_64x64x64_any", kernels.AttentionTensor{Data: 1024}},
	} {
		l := k.launches(operands{out: out, in: []tensor{c.q, c.q, c.q}})[0]
		if got := l.params.(*kernels.AttentionParams).Q; l.kernel != c.kernel || got != c.want {
			t.Errorf("%+v: %s reads %+v, want %s and %+v", c.q, l.kernel, got, c.kernel, c.want)
		}
	}
}
