//go:build gpu && !cpu

package cuda

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

var hopperDevice = sync.OnceValues(func() (*device, error) {
	o := graph.Options{Precision: graph.BF16}
	if os.Getenv("DDPM_LIBCUDA") != "" {
		o.Ordinal = 1
	}
	b, err := start(o)
	if err != nil {
		return nil, err
	}
	return b.device, nil
})

// hopper is a device of compute capability 9.0, whose kernels are all trusted. Where
// there is none the test is skipped.
func hopper(t *testing.T) *device {
	t.Helper()
	if os.Getenv("DDPM_LIBCUDA") != "" {
		t.Setenv("STANDIN_DEVICES", "2")
		t.Setenv("STANDIN_CAPABILITY", "9.0")
	}
	d, err := hopperDevice()
	if err != nil {
		t.Fatal(err)
	}
	needsHopper(t, d)
	own := *d
	return &own
}

// needsHopper skips a test where a GPU does not run the set sm_90a, as no other than one
// of compute capability 9.0 does. The stand-in was asked to be one.
func needsHopper(t *testing.T, d *device) {
	t.Helper()
	switch {
	case slices.Contains(d.sets, "sm_90a"):
	case strings.Contains(d.Info.Name, "stand-in"):
		t.Fatalf("%s runs %v", d.Info.Name, d.sets)
	default:
		t.Skipf("%s does not run the kernels for compute capability 9.0", d.Info.Name)
	}
}

// choosing makes a device take a kernel where it has the choice.
func choosing(d *device, name string) {
	d.choose = func(_ string, candidates []string) string {
		if slices.Contains(candidates, name) {
			return name
		}
		return candidates[0]
	}
}

// tmaCase is an operation that a kernel computes, in so many shares, and what it leaves
// for a reader of the result.
type tmaCase struct {
	opTest
	kernel string
	shares int
	forced bool     // into so many shares, or a few less
	reader graph.Op // or nil
	beside []value  // its operands but the result
}

func (c tmaCase) name() string {
	name := fmt.Sprintf("%s_%d_%s", c.kernel, c.shares, c.opTest.name())
	if c.reader != nil {
		name += strings.NewReplacer("graph.", "_", " ", "_", "{", "_", "}", "").Replace(fmt.Sprintf("%T", c.reader))
	}
	return name
}

// tmaResult is what a case computed.
type tmaResult struct {
	out, beside []float64
	launches    []launch
}

// compute runs the kernels of a case. slots is how many an image has of what is left.
func (c tmaCase) compute(d *device) (r tmaResult, err error) {
	choosing(d, c.kernel)
	var shapes []graph.Shape
	for _, v := range c.in {
		shapes = append(shapes, v.Shape)
	}
	shape, err := c.op.Infer(shapes)
	if err != nil {
		return r, err
	}
	chosen := families[0]
	defer func() { families[0] = chosen }()
	if c.forced {
		families[0] = func(d *device, op call) (kernel, bool) {
			p, ok := d.tmaProductOf(op)
			p.shares = c.shares
			return p.bind(d, op), ok
		}
	}
	k, ok := d.kernel(c.op, shape, shapes)
	if !ok {
		return r, fmt.Errorf("no kernel for %T", c.op)
	}
	m := &memory{device: d}
	defer m.free()
	var o operands
	for _, v := range c.in {
		t, err := m.put(v)
		if err != nil {
			return r, err
		}
		o.in = append(o.in, t)
	}
	o.out = tensor{shape: shape, bf16: c.out == bfloat16s}
	if c.over > 0 {
		o.out.ptr = o.in[c.over-1].ptr
	} else if o.out.ptr, err = m.room(o.out.bytes(), 0); err != nil {
		return r, err
	}
	if o.scratch, err = m.room(k.scratch, 0); err != nil {
		return r, err
	}
	if c.reader != nil {
		if o.aside, err = c.aside(d, m, o.out, shapes); err != nil {
			return r, err
		}
	}
	r.launches = k.launches(o)
	if err := d.launchAll(r.launches); err != nil {
		return r, err
	}
	if _, err := m.get(tensor{ptr: o.scratch, shape: graph.Shape{k.scratch / 4}}, 0); err != nil {
		return r, fmt.Errorf("scratch memory: %w", err)
	}
	if o.aside != nil {
		if r.beside, err = m.get(o.aside.out, 0); err != nil {
			return r, err
		}
	}
	r.out, err = m.get(o.out, 0)
	return r, err
}

// aside places what is left for the reader, and its other operands.
func (c tmaCase) aside(d *device, m *memory, out tensor, in []graph.Shape) (*aside, error) {
	a := &aside{op: c.reader}
	readerIn := []graph.Shape{}
	for _, v := range c.beside {
		t, err := m.put(v)
		if err != nil {
			return nil, err
		}
		a.in, readerIn = append(a.in, t), append(readerIn, v.Shape)
	}
	a.in, readerIn = append(a.in, out), append(readerIn, out.shape)
	b := &Backend{d}
	size := b.Leaves(c.op, out.shape, in, c.reader, readerIn)
	if size == 0 {
		return nil, fmt.Errorf("nothing is left for %T", c.reader)
	}
	a.out = tensor{shape: graph.Shape{size}}
	var err error
	a.out.ptr, err = m.room(a.out.bytes(), 0)
	return a, err
}

// ran checks that the kernel ran, by itself or in shares.
func (c tmaCase) ran(launches []launch) error {
	var names []string
	for _, l := range launches {
		names = append(names, l.kernel)
	}
	if !slices.Contains(names, c.kernel) || slices.Contains(names, "conv_sum_shares") != (c.shares > 1) {
		return fmt.Errorf("what ran is %v", names)
	}
	for _, l := range launches {
		if p, ok := l.params.(*kernels.TmaConvParams); ok && c.shares > 1 && int(p.Pieces) != c.shares {
			return fmt.Errorf("%d shares, want %d", p.Pieces, c.shares)
		}
	}
	return nil
}

func (c tmaCase) run(t *testing.T) {
	d := hopper(t)
	want, err := define(c.op, c.in...)
	if err != nil {
		t.Fatal(err)
	}
	var got tmaResult
	if err := d.Do(func() (err error) { got, err = c.compute(d); return err }); err != nil {
		t.Fatal(err)
	}
	if err := c.ran(got.launches); err != nil {
		t.Fatal(err)
	}
	if err := near(got.out, want.Data, c.tolerance, 1.0/256); err != nil {
		t.Error(err)
	}
	if c.reader == nil {
		return
	}
	// What is left is of the result as it is stored.
	out := graph.Operand{Shape: want.Shape, Data: got.out}
	wanted := c.sumsOf(out, len(got.beside)/(want.Shape[0]*2*want.Shape[3]))
	if _, moments := c.reader.(graph.GroupNormStats); moments {
		wanted = c.momentsOf(out, 4*len(got.beside)/(want.Shape[0]*2*want.Shape[3]))
	}
	if err := near(got.beside, wanted, 1e-5, 0); err != nil {
		t.Errorf("what is left: %v", err)
	}
}

// slotOf is the slot of a pixel: of a phase, then of a tile.
func (c tmaCase) slotOf(y, x, height, width int) int {
	phases := 1
	if _, f := graph.Unfuse(c.op); f.Doubled {
		phases = 2
	}
	var tile tmaTile
	for _, t := range tmaTiles {
		if strings.HasSuffix(c.kernel, "_"+t.name) {
			tile = t
		}
	}
	rows, columns := height/phases/tile.rows, width/phases/tile.columns
	phase := y%phases*phases + x%phases
	return (phase*rows+y/phases/tile.rows)*columns + x/phases/tile.columns
}

// eachValue calls f with the slot of every value of a result.
func (c tmaCase) eachValue(out graph.Operand, f func(image, slot, channel, at int)) {
	n, h, w, channels := out.Shape[0], out.Shape[1], out.Shape[2], out.Shape[3]
	for image := range n {
		for y := range h {
			for x := range w {
				slot := c.slotOf(y, x, h, w)
				for channel := range channels {
					f(image, slot, channel, ((image*h+y)*w+x)*channels+channel)
				}
			}
		}
	}
}

// momentsOf are [images][slots][2][channels/4]: means and sums of squared differences.
func (c tmaCase) momentsOf(out graph.Operand, slots int) []float64 {
	n, quads := out.Shape[0], out.Shape[3]/4
	moments := make([]float64, n*slots*2*quads)
	values := float64(4 * out.Shape[1] * out.Shape[2] / slots)
	c.eachValue(out, func(image, slot, channel, at int) {
		moments[(image*slots+slot)*2*quads+channel/4] += out.Data[at] / values
	})
	c.eachValue(out, func(image, slot, channel, at int) {
		mean := (image*slots+slot)*2*quads + channel/4
		moments[mean+quads] += math.Pow(out.Data[at]-moments[mean], 2)
	})
	return moments
}

// sumsOf are [images][slots][2][channels]: sums of dz xhat and of dz.
func (c tmaCase) sumsOf(dy graph.Operand, slots int) []float64 {
	heart, f := graph.Unfuse(c.reader)
	op, ok := heart.(graph.GroupNormGradSums)
	if !ok {
		return nil
	}
	x := c.beside[0].Operand
	rest := c.beside[1:]
	if f.Joined {
		x, _ = define(graph.Concat{}, c.beside[0], c.beside[1])
		rest = rest[1:]
	}
	stats, gamma, beta := rest[0].Data, rest[1].Data, rest[2].Data
	n, channels := dy.Shape[0], dy.Shape[3]
	sums := make([]float64, n*slots*2*channels)
	c.eachValue(dy, func(image, slot, channel, at int) {
		group := 2 * (image*op.Groups + channel/(channels/op.Groups))
		xhat := (x.Data[at] - stats[group]) * stats[group+1]
		dz := dy.Data[at]
		if z := gamma[channel]*xhat + beta[channel]; op.SiLU {
			s := 1 / (1 + math.Exp(-z))
			dz *= s * (1 + z*(1-s))
		}
		to := (image*slots+slot)*2*channels + channel
		sums[to] += dz * xhat
		sums[to+channels] += dz
	})
	return sums
}

// exactWeights are such that sums of four are bfloat16.
func exactWeights(shape ...int) value {
	v := spreadOf(float32s, 0, 1, shape...)
	for i := range v.Data {
		v.Data[i] = math.Round(max(-16, min(16, 8*v.Data[i]))) / 64
	}
	return v
}

// tmaForward is a convolution with all that may be fused with it.
func tmaForward(kernel string, shares int, op graph.Conv2D, n, h, w, k, r int, parts ...int) tmaCase {
	p := products{precision: graph.BF16}
	var in []value
	channels := 0
	for i, part := range parts {
		in = append(in, p.operand(bfloat16s, 0.25-float64(i), n, h, w, part))
		channels += part
	}
	of := graph.Op(op)
	if len(parts) == 2 {
		of = graph.Joined{Of: op}
	}
	weights := exactWeights(r, r, channels, k)
	out, _ := op.Infer([]graph.Shape{{n, h, w, channels}, weights.Shape, {k}})
	in = append(in, weights, p.operand(float32s, 1, k), p.operand(float32s, -1, n, k), p.operand(bfloat16s, 2, out...))
	return tmaCase{kernel: "tma_conv_forward_" + kernel, shares: shares, opTest: opTest{
		op: graph.Plus{Of: graph.PlusPerSample{Of: of}}, in: in, out: bfloat16s, over: len(in), tolerance: productTolerance,
	}}
}

// inShares is computed in so many shares.
func (c tmaCase) inShares(n int) tmaCase {
	c.shares, c.forced = n, true
	return c
}

// doubled has the operation see its image at twice its extents.
func (c tmaCase) doubled() tmaCase {
	plus := c.op.(graph.Plus).Of.(graph.PlusPerSample)
	c.op = graph.Plus{Of: graph.PlusPerSample{Of: graph.Doubled{Of: plus.Of}}}
	x, residual := c.in[0].Shape, len(c.in)-1
	c.in = slices.Clone(c.in)
	c.in[residual] = products{precision: graph.BF16}.operand(bfloat16s, 2, x[0], 2*x[1], 2*x[2], c.in[residual].Shape[3])
	return c
}

// plain has nothing but the operation and its bias, in memory of its own.
func (c tmaCase) plain() tmaCase {
	c.op = c.op.(graph.Plus).Of.(graph.PlusPerSample).Of
	c.in, c.over = c.in[:len(c.in)-2], 0
	return c
}

// moments has the kernel leave moments.
func (c tmaCase) moments() tmaCase {
	c.reader = graph.GroupNormStats{Groups: 16, Eps: 1e-6}
	return c
}

// tmaData is a data gradient, of an image of n, h, w and c.
func tmaData(kernel string, shares int, op graph.Conv2D, n, h, w, c, r, k int) tmaCase {
	p := products{precision: graph.BF16}
	y, _ := op.Infer([]graph.Shape{{n, h, w, c}, {r, r, c, k}, {k}})
	in := []value{p.operand(float32s, 0, r, r, c, k), p.operand(bfloat16s, 0.5, y...), p.operand(bfloat16s, 3, n, h, w, c)}
	return tmaCase{kernel: "tma_conv_data_" + kernel, shares: shares, opTest: opTest{
		op: graph.Plus{Of: graph.Conv2DGradData{Conv2D: op, Height: h, Width: w}}, in: in, out: bfloat16s, over: 3,
		tolerance: productTolerance,
	}}
}

// sums has the kernel leave gradient sums of a normalisation of x, whose parts have so
// many channels.
func (c tmaCase) sums(silu bool, groups int, parts ...int) tmaCase {
	c.kernel = strings.Replace(c.kernel, "data_", "data_norm_", 1)
	shape := c.in[len(c.in)-1].Shape
	n, channels := shape[0], shape[3]
	c.reader = graph.GroupNormGradSums{Groups: groups, SiLU: silu}
	for i, part := range parts {
		c.beside = append(c.beside, spreadOf(bfloat16s, 0.25-float64(i), 1, n, shape[1], shape[2], part))
	}
	if len(parts) == 2 {
		c.reader = graph.Joined{Of: c.reader}
	}
	stats := spreadOf(float32s, 0.25, 0.25, n, groups, 2)
	for i := range stats.Data {
		stats.Data[i] = stats.storage.round(math.Abs(stats.Data[i]) + 0.5)
	}
	c.beside = append(c.beside, stats, spreadOf(float32s, 1, 0.25, channels), spreadOf(float32s, 0, 0.5, channels))
	return c
}

// Every kernel, with everything that may be fused with it: on batches and images that do
// not fill the last tile, in phases and in shares.
func TestTmaConvolutions(t *testing.T) {
	linear := func(kernel string, shape ...int) tmaCase {
		p := products{precision: graph.BF16}
		rows, k := shape[:3], shape[4]
		at := func(channels int) []int { return append(slices.Clone(rows), channels) }
		return tmaCase{kernel: "tma_conv_forward_" + kernel, shares: 1, opTest: opTest{
			op: graph.Plus{Of: graph.Joined{Of: graph.Linear{}}},
			in: []value{
				p.operand(bfloat16s, 0.25, at(64)...), p.operand(bfloat16s, -1, at(shape[3]-64)...),
				p.operand(float32s, 0, shape[3], k), p.operand(float32s, 1, k), p.operand(bfloat16s, 2, at(k)...),
			},
			out: bfloat16s, over: 5, tolerance: productTolerance,
		}}
	}
	linearData := func(kernel string, shape ...int) tmaCase {
		p := products{precision: graph.BF16}
		at := func(channels int) []int { return append(slices.Clone(shape[:3]), channels) }
		return tmaCase{kernel: "tma_conv_data_" + kernel, shares: 1, opTest: opTest{
			op: graph.Plus{Of: graph.LinearGradData{}},
			in: []value{
				p.operand(float32s, 0, shape[3], shape[4]), p.operand(bfloat16s, 0.5, at(shape[4])...), p.operand(bfloat16s, 3, at(shape[3])...),
			},
			out: bfloat16s, over: 3, tolerance: productTolerance,
		}}
	}
	lopsided := graph.Conv2D{Stride: 1, Top: 2, Left: 2}
	for _, c := range []tmaCase{
		tmaForward("32x8", 1, same, 7, 7, 8, 128, 3, 64, 64),
		tmaForward("16x8", 1, same, 7, 7, 8, 128, 3, 64, 64),
		tmaForward("8x16", 1, same, 13, 4, 4, 128, 3, 64, 64),
		tmaForward("16x8", 1, same, 8, 2, 8, 192, 3, 64),
		tmaForward("32x8", 1, same, 15, 4, 7, 128, 3, 64),
		tmaForward("16x8", 1, lopsided, 8, 7, 8, 128, 3, 64),
		tmaForward("16x8", 1, graph.Conv2D{Stride: 1, Bottom: 1, Right: 1}, 8, 4, 8, 128, 2, 64),
		tmaForward("32x8", 1, point, 8, 4, 16, 256, 1, 128, 64),
		tmaForward("32x8", 1, same, 8, 8, 8, 128, 3, 64).plain(),

		tmaForward("16x8", 1, same, 8, 4, 8, 128, 3, 64).plain().moments(),
		tmaForward("32x8", 1, point, 7, 40, 40, 256, 1, 64).moments(),
		tmaForward("16x8", 1, same, 7, 4, 16, 128, 3, 64).moments(),
		tmaForward("16x8", 1, same, 8, 2, 8, 192, 3, 64).moments(),
		tmaForward("8x16", 1, same, 13, 4, 4, 128, 3, 64).moments(),
		tmaForward("16x8", 1, same, 7, 4, 8, 128, 3, 64).doubled().moments(),

		tmaForward("32x8", 1, halving, 7, 14, 16, 128, 3, 64),
		tmaForward("16x8", 1, halving, 7, 14, 16, 128, 3, 64, 64),
		tmaForward("8x16", 1, halving, 13, 8, 8, 128, 3, 64).moments(),
		tmaForward("16x8", 1, graph.Conv2D{Stride: 2, Top: 1, Left: 1}, 8, 15, 15, 128, 3, 64),
		tmaForward("32x8", 1, same, 7, 7, 8, 128, 3, 64).doubled(),
		tmaForward("8x16", 1, same, 16, 4, 4, 192, 3, 64).doubled(),

		tmaForward("8x16", 4, same, 15, 4, 4, 128, 3, 256),
		tmaForward("16x8", 5, same, 8, 2, 8, 128, 3, 128, 192),
		tmaForward("32x8", 0, same, 7, 7, 8, 128, 3, 128, 192).inShares(3), // the last of which is less
		tmaForward("16x8", 0, halving, 8, 4, 16, 192, 3, 64).inShares(4),
		tmaData("32x8", 0, lopsided, 8, 4, 8, 192, 3, 192).inShares(2),

		tmaData("32x8", 1, same, 7, 7, 8, 128, 3, 64),
		tmaData("16x8", 1, same, 7, 7, 8, 128, 3, 128),
		tmaData("8x16", 1, same, 13, 4, 4, 128, 3, 128),
		tmaData("16x8", 1, same, 8, 2, 8, 192, 3, 64),
		tmaData("16x8", 1, lopsided, 8, 7, 8, 128, 3, 64),
		tmaData("32x8", 1, point, 8, 4, 16, 256, 1, 128),
		tmaData("32x8", 1, halving, 7, 16, 16, 128, 3, 64),
		tmaData("16x8", 1, halving, 8, 8, 16, 128, 3, 128),
		tmaData("8x16", 1, halving, 13, 8, 8, 128, 3, 64),
		tmaData("8x16", 4, same, 15, 4, 4, 128, 3, 256),

		tmaData("32x8", 1, point, 7, 40, 40, 256, 1, 64).sums(true, 32, 256),
		tmaData("16x8", 1, same, 7, 4, 16, 128, 3, 64).sums(true, 16, 72, 56),
		tmaData("16x8", 1, same, 8, 2, 8, 192, 3, 64).sums(false, 16, 192),
		tmaData("8x16", 1, same, 13, 4, 4, 128, 3, 64).sums(true, 16, 64, 64),

		linear("16x8", 7, 4, 8, 128, 256),
		linear("8x16", 16, 4, 4, 192, 128),
		linear("16x8", 4, 6, 8, 192, 128), // rows taken for images
		linearData("32x8", 7, 4, 8, 128, 128),
		linearData("8x16", 16, 4, 4, 128, 192),
		linearData("32x8", 2, 24, 16, 256, 64),
	} {
		t.Run(c.name(), c.run)
	}
}

// Kernels among which the tuner chooses compute the same bits, and so do any number of
// blocks.
func TestTmaConvolutionsGiveOneResult(t *testing.T) {
	d := hopper(t)
	for _, c := range []tmaCase{
		tmaForward("", 1, same, 7, 7, 8, 128, 3, 64, 64),
		tmaForward("", 1, halving, 7, 8, 16, 128, 3, 64),
		tmaForward("", 1, same, 8, 4, 8, 128, 3, 64).doubled(),
		tmaForward("", 5, same, 8, 4, 8, 128, 3, 128, 192),
		tmaData("", 1, same, 7, 7, 8, 128, 3, 64),
		tmaData("", 1, halving, 8, 8, 16, 128, 3, 64),
		tmaData("", 1, same, 8, 8, 8, 192, 3, 64).sums(true, 16, 192),
		tmaForward("", 1, same, 8, 4, 16, 192, 3, 64).moments(),
	} {
		var first tmaResult
		for i, way := range []struct {
			tile       string
			processors int
		}{{"32x8", 132}, {"16x8", 132}, {"16x8", 1}, {"16x8", 3}, {"32x8", 2}} {
			k := c
			k.kernel += way.tile
			if c.reader != nil {
				k.kernel = c.kernel + "16x8"
			}
			d.Info.Processors = way.processors
			var got tmaResult
			err := d.Do(func() (err error) { got, err = k.compute(d); return err })
			if err == nil {
				err = k.ran(got.launches)
			}
			if err != nil {
				t.Fatalf("%s: %v", k.name(), err)
			}
			if i == 0 {
				first = got
			}
			if !slices.Equal(got.out, first.out) || !slices.Equal(got.beside, first.beside) {
				t.Errorf("%s on %d multiprocessors: not the same bits", k.name(), way.processors)
			}
		}
	}
}

// What is chosen for the layers of a U-Net of 32x32 images, and what is left to the
// kernels of the set sm_80.
func TestTmaChoices(t *testing.T) {
	d := &device{
		Device: &driver.Device{Info: driver.DeviceInfo{Processors: 132}}, precision: graph.BF16, sets: []string{"sm_80", "sm_90a"},
	}
	conv := func(n, size, c, k int) (graph.Op, []graph.Shape) {
		return same, []graph.Shape{{n, size, size, c}, {3, 3, c, k}, {k}}
	}
	doubled := func(n, size, c, k int) (graph.Op, []graph.Shape) {
		op, in := conv(n, size, c, k)
		return graph.Doubled{Of: op}, in
	}
	down := func(n, size, c, k int) (graph.Op, []graph.Shape) {
		return halving, []graph.Shape{{n, size, size, c}, {3, 3, c, k}, {k}}
	}
	linear := func(n, size, c, k int) (graph.Op, []graph.Shape) {
		return graph.Linear{}, []graph.Shape{{n, size, size, c}, {c, k}, {k}}
	}
	data := func(n, size, c, k int) (graph.Op, []graph.Shape) {
		return graph.Conv2DGradData{Conv2D: same, Height: size, Width: size}, []graph.Shape{{3, 3, c, k}, {n, size, size, k}}
	}
	up := func(n, size, c, k int) (graph.Op, []graph.Shape) {
		return graph.Conv2DGradData{Conv2D: halving, Height: size, Width: size}, []graph.Shape{{3, 3, c, k}, {n, size / 2, size / 2, k}}
	}
	for _, c := range []struct {
		name          string
		pass          func(n, size, c, k int) (graph.Op, []graph.Shape)
		n, size, c, k int
		kernel        string // empty for one of the set sm_80
		shares        int
		slots         int // of moments or gradient sums
	}{
		{"conv", conv, 128, 32, 128, 128, "tma_conv_forward_32x8", 1, 32},
		{"conv", conv, 128, 16, 512, 256, "tma_conv_forward_32x8", 1, 8},
		{"conv", conv, 128, 8, 256, 256, "tma_conv_forward_16x8", 1, 4},
		{"conv", conv, 128, 4, 256, 256, "tma_conv_forward_8x16", 1, 2},
		{"conv", conv, 128, 4, 512, 256, "tma_conv_forward_8x16", 4, 0},
		{"conv", conv, 16, 4, 512, 256, "tma_conv_forward_8x16", 8, 0},
		{"conv", conv, 128, 32, 3, 128, "", 0, 0},
		{"conv", conv, 128, 32, 128, 3, "", 0, 0},
		{"conv", conv, 128, 32, 128, 64, "", 0, 0},
		{"conv", conv, 9, 16, 128, 128, "", 0, 0},
		{"conv", conv, 4, 32, 128, 128, "", 0, 0},
		{"conv", conv, 128, 2, 256, 256, "", 0, 0},
		{"conv", conv, 8, 8, 2048, 128, "", 0, 0}, // a table without room
		{"doubled", doubled, 128, 16, 256, 256, "tma_conv_forward_32x8", 1, 32},
		{"doubled", doubled, 128, 4, 256, 256, "tma_conv_forward_8x16", 1, 8},
		{"down", down, 128, 32, 128, 128, "tma_conv_forward_32x8", 1, 8},
		{"down", down, 128, 8, 256, 256, "tma_conv_forward_8x16", 1, 2},
		{"linear", linear, 128, 16, 256, 768, "tma_conv_forward_32x8", 1, 8},
		{"linear", linear, 128, 4, 256, 256, "tma_conv_forward_8x16", 1, 2},
		{"data", data, 128, 32, 384, 128, "tma_conv_data_32x8", 1, 32},
		{"data", data, 128, 8, 256, 256, "tma_conv_data_16x8", 1, 4},
		{"data", data, 128, 32, 128, 3, "", 0, 0},
		{"up", up, 128, 32, 128, 128, "tma_conv_data_32x8", 1, 0},
	} {
		op, in := c.pass(c.n, c.size, c.c, c.k)
		out, err := op.Infer(in)
		if err != nil {
			t.Fatal(err)
		}
		what := fmt.Sprintf("%s of %v", c.name, in)
		call := callOf(op, out, in)
		k, ok := d.tma(call)
		if ok != (c.kernel != "") {
			t.Errorf("%s: is taken: %t", what, ok)
		}
		slots := d.tmaMoments(call) + d.tmaGradSums(call)
		if slots != c.slots {
			t.Errorf("%s: %d slots, want %d", what, slots, c.slots)
		}
		if !ok {
			continue
		}
		o := operands{out: tensor{shape: out, bf16: true}}
		for _, s := range in {
			o.in = append(o.in, tensor{shape: s, bf16: d.stored(s)})
		}
		test := tmaCase{kernel: c.kernel, shares: c.shares}
		if err := test.ran(k.launches(o)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if k.scratch > 32<<20 {
			t.Errorf("%s: %d bytes of scratch memory", what, k.scratch)
		}
	}
}

// Operands that are stored otherwise, or lie where copies cannot begin, take the kernels
// of the set sm_80, and so does all where the device's own are not trusted.
func TestTmaFallsBack(t *testing.T) {
	d := hopper(t)
	c := tmaForward("16x8", 1, same, 8, 4, 8, 128, 3, 64)
	for name, change := range map[string]func(in []value){
		"moved activations": func(in []value) { in[0] = shifted(in[0], 8) },
		"wide activations":  func(in []value) { in[0].storage = float32s },
		"a moved bias":      func(in []value) { in[2] = shifted(in[2], 4) },
	} {
		other := c
		other.in, other.over = slices.Clone(c.in), 0
		change(other.in)
		var got tmaResult
		if err := d.Do(func() (err error) { got, err = other.compute(d); return err }); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := other.ran(got.launches); err == nil {
			t.Errorf("%s: %s ran", name, c.kernel)
		}
		want, err := define(other.op, other.in...)
		if err != nil {
			t.Fatal(err)
		}
		if err := near(got.out, want.Data, c.tolerance, 1.0/256); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	call := callOf(c.op, c.in[len(c.in)-1].Shape, func() (shapes []graph.Shape) {
		for _, v := range c.in {
			shapes = append(shapes, v.Shape)
		}
		return shapes
	}())
	if d.tmaMoments(call) == 0 {
		t.Error("no moments are left")
	}
	d.trust = func(name string) bool { return !strings.HasPrefix(name, "tma_conv_forward") }
	if _, ok := d.tma(call); ok || d.tmaMoments(call) > 0 {
		t.Error("a kernel that is not trusted is used")
	}
	d.trust, d.precision = nil, graph.FP32
	if _, ok := d.tma(call); ok {
		t.Error("float32 operands are rounded")
	}
}

// TestKeptWeights changes the weights of a program that keeps what it made of them.
func TestKeptWeights(t *testing.T) {
	d := hopper(t)
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, 8, 8, 8, 64)
	w := b.Param("weight", graph.ConvWeight, graph.Init{Bound: 0.1}, 3, 3, 64, 128)
	y := b.Conv(same, b.Upsample(x), w, b.Param("bias", graph.Vector, graph.Init{}, 128))
	g, err := b.Finish(nil, map[string]*graph.Node{"y": y})
	if err != nil {
		t.Fatal(err)
	}
	backend := &Backend{d}
	s, err := backend.NewState(g.Layout, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	feeds := graph.Feeds{"x": make([]float32, 8*8*8*64)}
	for i, v := range normals(float32s, 8, 8, 8, 64).Data {
		feeds["x"].([]float32)[i] = float32(v)
	}
	results := map[bool][][]float32{}
	for _, keep := range []bool{false, true} {
		g.KeepWeights = keep
		plan, err := graph.Compile(g, backend)
		if err != nil {
			t.Fatal(err)
		}
		if (plan.Kept > 0) != keep {
			t.Errorf("keeping %t: %d words are kept", keep, plan.Kept)
		}
		p, err := backend.Load(plan, s, graph.EMA)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(p.(*program).once); (n > 0) != keep {
			t.Errorf("keeping %t: %d launches run once", keep, n)
		}
		for seed := range uint64(2) {
			if err := s.Write(graph.EMA, g.Layout.InitialWeights(seed)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := p.Run(t.Context(), feeds); err != nil {
					t.Fatal(err)
				}
				y := make([]float32, 8*16*16*128)
				if err := p.Output("y", y); err != nil {
					t.Fatal(err)
				}
				results[keep] = append(results[keep], y)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range results[false] {
		if !slices.Equal(results[true][i], want) {
			t.Errorf("run %d differs where weights are kept", i)
		}
	}
	if slices.Equal(results[true][0], results[true][2]) {
		t.Error("other weights give the same result")
	}
}
