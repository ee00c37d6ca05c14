//go:build gpu && !cpu

package cuda

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// productCase is an operation computed in tiles of a kind, not those that would be
// chosen, by so many blocks for each.
type productCase struct {
	opTest
	precision graph.Precision
	block     block
	shares    int
	// rounded are what the kernel rounds the operands to, if they are not exact.
	rounded []value
}

func (c productCase) run(t *testing.T) {
	onDevice := *deviceFor(t)
	d := &onDevice
	d.precision = c.precision
	in := c.in
	if c.rounded != nil {
		in = c.rounded
	}
	want, err := define(c.op, in...)
	if err != nil {
		t.Fatal(err)
	}
	chosen := families[0]
	defer func() { families[0] = chosen }()
	if c.shares > 0 {
		families[0] = func(d *device, op call) (kernel, bool) {
			p, ok := d.passOf(op)
			p.choose = func([]tensor) tiling { return d.share(p.product, c.block, c.shares) }
			k := d.bind(p)
			k.scratch = 4 * c.shares * p.rows * p.n
			return k, ok
		}
	}
	var got []float64
	if err := d.Do(func() (err error) { got, err = c.compute(d); return err }); err != nil {
		t.Fatal(err)
	}
	rounding := 0.0
	if c.out == bfloat16s {
		rounding = 1.0 / 256
	}
	if err := near(got, want.Data, c.tolerance, rounding); err != nil {
		t.Error(err)
	}
}

func (c productCase) name() string {
	return fmt.Sprintf("%s_%s_%d_%s", c.precision, c.block.name, c.shares, c.opTest.name())
}

// products makes cases of one precision.
type products struct {
	t         *testing.T
	precision graph.Precision
}

// productTolerance is what sums of the longest products here lose in float32, some of them
// truncated by tensor cores. Operands are exact in the precision.
const productTolerance = 1e-5

// operand is a value that products of the precision take as it is.
func (p products) operand(s storage, mean float64, shape ...int) value {
	if p.precision == graph.FP32 {
		return spreadOf(float32s, mean, 1, shape...)
	}
	v := spreadOf(bfloat16s, mean, 1, shape...)
	v.storage = s
	return v
}

// activation is stored as the backend stores it.
func (p products) activation(mean float64, shape ...int) value {
	d := &device{precision: p.precision}
	if d.stored(shape) {
		return p.operand(bfloat16s, mean, shape...)
	}
	return p.operand(float32s, mean, shape...)
}

// geometry is a convolution on an image of height and width in memory.
type geometry struct {
	n, h, w, c, k, r, s int
	op                  graph.Conv2D
}

var (
	same    = graph.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}
	halving = graph.Conv2D{Stride: 2, Bottom: 1, Right: 1}
	point   = graph.Conv2D{Stride: 1}
)

// cases are the passes of a convolution, with all that may be fused with them:
// split, if not 0, is the number of channels of the first of two images.
func (p products) cases(g geometry, split int, doubled bool) (forward, data, weight opTest) {
	parts := []value{p.activation(0.25, g.n, g.h, g.w, g.c)}
	seen := graph.Shape{g.n, g.h, g.w, g.c}
	op, gradWeight := graph.Op(g.op), graph.Op(graph.Conv2DGradWeight{Conv2D: g.op, R: g.r, S: g.s})
	switch {
	case split > 0:
		parts = []value{p.activation(0.25, g.n, g.h, g.w, split), p.activation(-0.5, g.n, g.h, g.w, g.c-split)}
		op, gradWeight = graph.Joined{Of: op}, graph.Joined{Of: gradWeight}
	case doubled:
		seen[1], seen[2] = 2*g.h, 2*g.w
		op, gradWeight = graph.Doubled{Of: op}, graph.Doubled{Of: gradWeight}
	}
	weights := graph.Shape{g.r, g.s, g.c, g.k}
	e, err := g.op.Geometry(seen, weights)
	if err != nil {
		p.t.Fatal(err)
	}
	y := []int{e.N, e.OH, e.OW, e.K}
	w, dy := p.operand(float32s, 0, weights...), p.activation(0.5, y...)

	residual := p.activation(2, y...)
	in := append(parts[:len(parts):len(parts)], w, p.operand(float32s, 1, g.k), p.operand(float32s, -1, g.n, g.k), residual)
	forward = opTest{
		op: graph.Plus{Of: graph.PlusPerSample{Of: op}}, in: in, out: residual.storage, over: len(in), tolerance: productTolerance,
	}
	residual = p.activation(3, seen...)
	data = opTest{
		op: graph.Plus{Of: graph.Conv2DGradData{Conv2D: g.op, Height: seen[1], Width: seen[2]}},
		in: []value{w, dy, residual}, out: residual.storage, over: 3, tolerance: productTolerance,
	}
	weight = opTest{op: gradWeight, in: append(parts[:len(parts):len(parts)], dy), out: float32s, tolerance: productTolerance}
	return forward, data, weight
}

var precisions = []graph.Precision{graph.BF16, graph.TF32, graph.FP32}

// Every kernel of convolutions, on shapes that fill a few tiles and not the last,
// with few steps and many, by one block for a tile and by several.
func TestProducts(t *testing.T) {
	for _, precision := range precisions {
		p := products{t, precision}
		d := &device{precision: precision}
		var cases []productCase
		add := func(b block, shares int, tests ...opTest) {
			for _, test := range tests {
				cases = append(cases, productCase{opTest: test, precision: precision, block: b, shares: shares})
			}
		}
		for _, b := range d.blocks() {
			wide := b.n + 8
			forward, _, weight := p.cases(geometry{1, 12, 11, 24, wide, 3, 3, same}, 8, false)
			add(b, 1, forward, weight)
			add(b, 3, forward, weight)
			_, data, _ := p.cases(geometry{1, 12, 11, wide, 24, 3, 3, same}, 0, false)
			add(b, 1, data)
			add(b, 3, data)
			forward, data, weight = p.cases(geometry{2, 3, 4, 8, 16, 3, 3, same}, 0, true)
			add(b, 1, forward, data, weight)
			forward, data, weight = p.cases(geometry{3, 8, 6, 16, 8, 3, 3, halving}, 0, false)
			add(b, 1, forward, data, weight)
			add(b, 2, data)
			forward, data, weight = p.cases(geometry{2, 5, 7, 40, 24, 1, 1, point}, 0, false)
			add(b, 1, forward, data, weight)
		}
		for _, k := range []int{3, 8} {
			forward, _, weight := p.cases(geometry{2, 9, 8, 24, k, 3, 3, same}, 16, false)
			add(block128x8, 1, forward, weight)
			add(block128x8, 2, forward, weight)
		}
		for _, g := range []geometry{
			{2, 7, 6, 3, 72, 3, 3, same},
			{1, 9, 8, 72, 3, 3, 3, same},
			{2, 5, 7, 33, 65, 1, 1, point},
			{1, 9, 7, 5, 6, 3, 3, graph.Conv2D{Stride: 3, Top: 2, Bottom: 1, Left: 1}},
			{1, 6, 9, 16, 8, 5, 4, graph.Conv2D{Stride: 2, Top: 2, Bottom: 1, Right: 3}},
			{2, 6, 5, 24, 16, 3, 3, halving},
		} {
			split := 0
			if g.c > 3 {
				split = g.c/2 - 1
			}
			forward, data, weight := p.cases(g, split, false)
			add(blockAny, 1, forward, data, weight)
			add(blockAny, 2, forward, data, weight)
		}
		forward, _, weight := p.cases(geometry{2, 3, 4, 8, 16, 3, 3, same}, 0, true)
		add(blockAny, 1, forward, weight)
		for _, c := range cases {
			t.Run(c.name(), c.run)
		}
	}
}

// Operands of any type and alignment, in the tiles that are chosen.
func TestProductOperands(t *testing.T) {
	p := products{t, graph.BF16}
	var cases []productCase
	add := func(out storage, op graph.Op, in ...value) {
		cases = append(cases, productCase{opTest: opTest{op: op, in: in, out: out, tolerance: productTolerance}, precision: graph.BF16})
	}
	for _, s := range []storage{float32s, bfloat16s} {
		for _, shift := range []int{0, 4, 8} {
			x, w, bias := p.operand(s, 0.25, 2, 5, 4, 16), p.operand(float32s, 0, 3, 3, 16, 24), p.operand(float32s, 1, 24)
			dy := p.operand(s, 0.5, 2, 5, 4, 24)
			add(s, same, shifted(x, shift), w, shifted(bias, shift))
			add(s, graph.Conv2DGradData{Conv2D: same, Height: 5, Width: 4}, w, shifted(dy, shift))
			add(float32s, graph.Conv2DGradWeight{Conv2D: same, R: 3, S: 3}, x, shifted(dy, shift))
			add(float32s, graph.Conv2DGradWeight{Conv2D: same, R: 3, S: 3}, shifted(x, shift), dy)
			add(s, graph.Plus{Of: same}, x, w, bias, shifted(p.operand(s, 2, 2, 5, 4, 24), shift))
		}
		a, b := p.operand(s, 0.25, 2, 5, 4, 3), p.operand(bfloat16s, 0.5, 2, 5, 4, 8)
		add(bfloat16s, graph.Joined{Of: same}, a, b, p.operand(float32s, 0, 3, 3, 11, 8), p.operand(float32s, 1, 8))
		rows := p.operand(s, 0.25, 70, 48)
		add(float32s, graph.Linear{}, rows, p.operand(float32s, 0, 48, 72), p.operand(float32s, 1, 72))
		add(float32s, graph.LinearGradData{}, p.operand(float32s, 0, 72, 48), rows)
		add(float32s, graph.LinearGradWeight{}, rows, p.operand(s, 0.5, 70, 72))
		image := p.operand(s, 0.25, 3, 4, 5, 48)
		add(bfloat16s, graph.Linear{}, image, p.operand(float32s, 0, 48, 72), p.operand(float32s, 1, 72))
		add(bfloat16s, graph.LinearGradData{}, p.operand(float32s, 0, 72, 48), image)
		add(float32s, graph.LinearGradWeight{}, image, p.operand(s, 0.5, 3, 4, 5, 72))
	}
	for _, c := range cases {
		t.Run(c.name(), c.run)
	}
}

// TF32 rounds to nearest, halves away from zero; tensor cores alone would truncate.
func TestTF32Rounds(t *testing.T) {
	rounded := func(in []value) []value {
		var all []value
		for _, v := range in {
			r := value{Operand: graph.Operand{Shape: v.Shape}, storage: v.storage}
			for _, x := range v.Data {
				bits := (math.Float32bits(float32(x)) + 0x1000) &^ 0x1fff
				r.Data = append(r.Data, float64(math.Float32frombits(bits)))
			}
			all = append(all, r)
		}
		return all
	}
	x, w := spreadOf(float32s, 0.25, 1, 2, 5, 7, 24), spreadOf(float32s, 0, 1, 3, 3, 24, 16)
	dy, bias := spreadOf(float32s, 0.5, 1, 2, 5, 7, 16), value{Operand: graph.Operand{Shape: graph.Shape{16}}}
	bias.Data = make([]float64, 16)
	for _, b := range []block{block128x128, block64x64, blockAny} {
		for _, test := range []opTest{
			{op: same, in: []value{x, w, bias}},
			{op: graph.Conv2DGradData{Conv2D: same, Height: 5, Width: 7}, in: []value{w, dy}},
			{op: graph.Conv2DGradWeight{Conv2D: same, R: 3, S: 3}, in: []value{x, dy}},
		} {
			test.out, test.tolerance = float32s, productTolerance
			c := productCase{opTest: test, precision: graph.TF32, block: b, shares: 1, rounded: rounded(test.in)}
			t.Run(c.name(), c.run)
		}
	}
}

// What is chosen for the layers of a U-Net of 32x32 images, and how much memory
// their shares take.
func TestTilings(t *testing.T) {
	d := &device{precision: graph.BF16}
	conv := func(n, size, c, k int) (graph.Op, []graph.Shape) {
		return same, []graph.Shape{{n, size, size, c}, {3, 3, c, k}, {k}}
	}
	data := func(n, size, c, k int) (graph.Op, []graph.Shape) {
		return graph.Conv2DGradData{Conv2D: same, Height: size, Width: size}, []graph.Shape{{3, 3, c, k}, {n, size, size, k}}
	}
	weight := func(n, size, c, k int) (graph.Op, []graph.Shape) {
		return graph.Conv2DGradWeight{Conv2D: same, R: 3, S: 3}, []graph.Shape{{n, size, size, c}, {n, size, size, k}}
	}
	for _, c := range []struct {
		pass          func(n, size, c, k int) (graph.Op, []graph.Shape)
		n, size, c, k int
		block         string
		shares        int
	}{
		{conv, 128, 32, 128, 128, "128x128", 1},
		{conv, 128, 16, 512, 256, "128x128", 1},
		{conv, 128, 8, 256, 256, "128x64", 1},
		{conv, 128, 4, 256, 256, "64x64", 1},
		{conv, 128, 32, 3, 128, "any", 1},
		{conv, 128, 32, 128, 3, "128x8", 1},
		{conv, 4, 4, 256, 256, "128x64", 9},
		{data, 128, 32, 384, 128, "128x128", 1},
		{data, 128, 32, 128, 3, "any", 1},
		{weight, 128, 32, 128, 128, "128x128", 29},
		{weight, 128, 4, 512, 256, "128x128", 3},
		{weight, 128, 32, 3, 128, "any", 128},
		{weight, 128, 32, 128, 3, "128x8", 29},
	} {
		op, in := c.pass(c.n, c.size, c.c, c.k)
		out, err := op.Infer(in)
		if err != nil {
			t.Fatal(err)
		}
		p, ok := d.passOf(callOf(op, out, in))
		if !ok {
			t.Fatalf("no kernel for %T", op)
		}
		var operands []tensor
		for _, s := range in {
			operands = append(operands, tensor{shape: s, bf16: d.stored(s)})
		}
		tiling := p.choose(operands)
		if tiling.name != c.block || tiling.shares != c.shares {
			t.Errorf("%T of %v: %s by %d, want %s by %d", op, in, tiling.name, tiling.shares, c.block, c.shares)
		}
		if k, _ := d.matmul(callOf(op, out, in)); k.scratch > 32<<20 {
			t.Errorf("%T of %v: %d bytes of scratch memory", op, in, k.scratch)
		}
	}
}

// The launcher's blocks are those of the kernels: it and they declare them.
func TestBlocks(t *testing.T) {
	for _, pass := range []string{"conv_forward", "conv_data", "conv_weight"} {
		for _, precision := range precisions {
			module := fmt.Sprintf("%s_%s", pass, precision)
			ptx, err := kernels.PTX("sm_80", module)
			if err != nil {
				t.Fatal(err)
			}
			d := &device{precision: precision}
			for _, b := range append(d.blocks(), block128x8, blockAny) {
				name := module + "_" + b.name
				if b.name == block128x8.name && pass == "conv_data" {
					continue
				}
				m := regexp.MustCompile(`(?s)\.entry ` + name + `\(.*?\.maxntid (\d+)`).FindStringSubmatch(ptx)
				if m == nil {
					t.Errorf("there is no %s", name)
				} else if threads, _ := strconv.Atoi(m[1]); threads != b.threads {
					t.Errorf("%s has %d threads, is launched with %d", name, threads, b.threads)
				}
				if sums := 4 * b.m * b.n; b.shared() < sums {
					t.Errorf("%s: %d bytes of shared memory, and sums of %d", name, b.shared(), sums)
				}
			}
		}
	}
}
