//go:build gpu && !cpu

package cuda

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// boxedCase is a weight gradient by boxes, in so many shares.
type boxedCase struct {
	op     graph.Op
	in     []value // parts of x, then dy
	shares int
}

// boxedCases has every kernel with every kind of boxes: of 8 images and of 16, with
// images, channels and columns missing from the last ones, of two parts of x, of rows of
// dy that see nothing of x; with more steps than there are stages, and by several blocks
// for a group of boxes, some of which have no step.
func boxedCases(t *testing.T) []boxedCase {
	p := products{t, graph.BF16}
	var all []boxedCase
	add := func(shares int, op graph.Op, in ...[]int) {
		c := boxedCase{op: op, shares: shares}
		for i, shape := range in {
			c.in = append(c.in, p.activation(0.25*float64(i+1), shape...))
		}
		all = append(all, c)
	}
	grad := func(g graph.Conv2D, r, s int) graph.Op { return graph.Conv2DGradWeight{Conv2D: g, R: r, S: s} }
	same3 := grad(same, 3, 3)
	for _, shares := range []int{1, 3} {
		add(shares, same3, []int{9, 3, 16, 64}, []int{9, 3, 16, 192})
		add(shares, same3, []int{17, 4, 4, 192}, []int{17, 4, 4, 64})
		add(shares, graph.Doubled{Of: same3}, []int{9, 4, 8, 128}, []int{9, 8, 16, 64})
		add(shares, grad(halving, 3, 3), []int{9, 6, 16, 64}, []int{9, 3, 8, 192})
		add(shares, graph.LinearGradWeight{}, []int{3, 11, 13, 320}, []int{3, 11, 13, 128})
	}
	add(5, graph.Joined{Of: same3}, []int{8, 2, 8, 64}, []int{8, 2, 8, 128}, []int{8, 2, 8, 128})
	add(2, graph.Doubled{Of: same3}, []int{17, 1, 4, 64}, []int{17, 2, 8, 128})
	add(2, grad(graph.Conv2D{Stride: 2, Top: 1, Bottom: 1, Left: 1, Right: 1}, 3, 3), []int{16, 7, 8, 128}, []int{16, 4, 4, 64})
	add(1, grad(graph.Conv2D{Stride: 1, Right: 1}, 2, 2), []int{8, 3, 8, 128}, []int{8, 2, 8, 128})
	add(1, grad(graph.Conv2D{Stride: 1, Top: 2, Left: 2, Bottom: 1}, 2, 3), []int{8, 3, 8, 64}, []int{8, 5, 8, 64})
	add(2, grad(graph.Conv2D{Stride: 1, Top: 1, Bottom: 1}, 3, 1), []int{16, 3, 4, 64}, []int{16, 3, 4, 64})
	add(2, graph.Joined{Of: grad(point, 1, 1)}, []int{2, 5, 7, 64}, []int{2, 5, 7, 128}, []int{2, 5, 7, 128})
	return all
}

func (c boxedCase) name() string {
	return fmt.Sprintf("%d_%s", c.shares, opTest{op: c.op, in: c.in, out: float32s}.name())
}

// compute runs a kernel of the case, and returns the gradient.
func (c boxedCase) compute(d *device, name string) (got []float64, err error) {
	chosen := families[0]
	defer func() { families[0] = chosen }()
	families[0] = func(d *device, op call) (kernel, bool) {
		w, ok := boxedWeightOf(op)
		return kernel{scratch: 4 * c.shares * w.rows * w.columns, launches: func(m operands) []launch {
			return w.launches(m, name, c.shares)
		}}, ok
	}
	test := opTest{op: c.op, in: c.in, out: float32s}
	err = d.Do(func() (err error) { got, err = test.compute(d); return err })
	return got, err
}

func (c boxedCase) call(t *testing.T) call {
	shapes := make([]graph.Shape, len(c.in))
	for i, v := range c.in {
		shapes[i] = v.Shape
	}
	out, err := c.op.Infer(shapes)
	if err != nil {
		t.Fatal(err)
	}
	return callOf(c.op, out, shapes)
}

// Every kernel against the definition; those for the same boxes give the same bits, and
// the same again.
func TestBoxedWeights(t *testing.T) {
	for _, c := range boxedCases(t) {
		t.Run(c.name(), func(t *testing.T) {
			d := hopper(t)
			w, ok := boxedWeightOf(c.call(t))
			if !ok {
				t.Fatal("it does not fit boxes")
			}
			want, err := define(c.op, c.in...)
			if err != nil {
				t.Fatal(err)
			}
			var first []float64
			for _, name := range append(w.kernels(), w.kernels()[0]) {
				got, err := c.compute(d, name)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if err := near(got, want.Data, productTolerance, 0); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if first == nil {
					first = got
				}
				if !slices.Equal(got, first) {
					t.Errorf("%s and %s: not the same bits", w.kernels()[0], name)
				}
			}
		})
	}
}

// bitsVariable has TestBoxedWeightBits print a digest of results, for another process.
const bitsVariable = "DDPM_TEST_PRINT_BITS"

// The bits of what is chosen do not depend on how many multiprocessors there are, nor on
// the order in which threads run.
func TestBoxedWeightBits(t *testing.T) {
	d := hopper(t)
	digest := sha256.New()
	for _, c := range boxedCases(t) {
		var got []float64
		test := opTest{op: c.op, in: c.in, out: float32s}
		if err := d.Do(func() (err error) { got, err = test.compute(d); return err }); err != nil {
			t.Fatal(err)
		}
		for _, v := range got {
			digest.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(v)))
		}
	}
	line := fmt.Sprintf("bits %x", digest.Sum(nil))
	if os.Getenv(bitsVariable) != "" {
		fmt.Println(line)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command(self, "-test.run", "^"+t.Name()+"$")
	other.Env = append(os.Environ(), bitsVariable+"=1", "STANDIN_MULTIPROCESSORS=3", "STANDIN_SEED=17")
	out, err := other.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), line+"\n") {
		t.Errorf("another device has not the same bits: %s, want %s", out, line)
	}
}

// What is chosen for the layers of a U-Net of 32x32 images, and what is left to the
// kernels of the set sm_80.
func TestBoxedWeightChoices(t *testing.T) {
	grad := func(g graph.Conv2D, size int) graph.Op { return graph.Conv2DGradWeight{Conv2D: g, R: size, S: size} }
	same3 := grad(same, 3)
	image := func(n, size, channels int) graph.Shape { return graph.Shape{n, size, size, channels} }
	for _, c := range []struct {
		op     graph.Op
		in     []graph.Shape
		kernel string // none if empty
		shares int
	}{
		{same3, []graph.Shape{image(128, 32, 128), image(128, 32, 128)}, "tma_weight_3_joint", 44},
		{graph.Joined{Of: same3}, []graph.Shape{image(128, 32, 256), image(128, 32, 128), image(128, 32, 128)}, "tma_weight_3_joint", 14},
		{same3, []graph.Shape{image(128, 16, 256), image(128, 16, 256)}, "tma_weight_3_joint", 11},
		{graph.Joined{Of: same3}, []graph.Shape{image(128, 16, 256), image(128, 16, 256), image(128, 16, 256)}, "tma_weight_3_joint", 5},
		{same3, []graph.Shape{image(128, 4, 256), image(128, 4, 256)}, "tma_weight_3_joint", 8},
		{graph.Doubled{Of: same3}, []graph.Shape{image(128, 16, 256), image(128, 32, 256)}, "tma_weight_2_joint", 4},
		{grad(halving, 3), []graph.Shape{image(128, 32, 128), image(128, 16, 128)}, "tma_weight_1", 26},
		{grad(point, 1), []graph.Shape{image(128, 32, 384), image(128, 32, 128)}, "tma_weight_1", 64},
		{graph.LinearGradWeight{}, []graph.Shape{image(128, 16, 256), image(128, 16, 768)}, "tma_weight_1", 22},
		{same3, []graph.Shape{image(128, 32, 3), image(128, 32, 128)}, "", 0},
		{same3, []graph.Shape{image(128, 32, 128), image(128, 32, 3)}, "", 0},
		{same3, []graph.Shape{image(128, 32, 96), image(128, 32, 128)}, "", 0},
		{same3, []graph.Shape{image(128, 2, 256), image(128, 2, 256)}, "", 0},
		{same3, []graph.Shape{image(3, 32, 128), image(3, 32, 128)}, "", 0},
		{same3, []graph.Shape{image(8, 32, 64), image(8, 32, 64)}, "", 0},
		{graph.LinearGradWeight{}, []graph.Shape{{128, 512}, {128, 512}}, "", 0},
		{grad(graph.Conv2D{Stride: 3}, 3), []graph.Shape{image(8, 24, 128), image(8, 8, 128)}, "", 0},
		{graph.Doubled{Of: grad(graph.Conv2D{Stride: 1}, 3)}, []graph.Shape{image(8, 9, 128), image(8, 16, 128)}, "", 0},
	} {
		out, err := c.op.Infer(c.in)
		if err != nil {
			t.Fatal(err)
		}
		d := &device{sets: kernels.Sets(), precision: graph.BF16}
		var key string
		d.choose = func(asked string, candidates []string) string { key = asked; return candidates[0] }
		k, ok := d.tmaWeight(callOf(c.op, out, c.in))
		if ok != (c.kernel != "") {
			t.Errorf("%T of %v: %v", c.op, c.in, ok)
		}
		if !ok {
			continue
		}
		m := operands{out: tensor{shape: out}, scratch: 1 << 30}
		for _, s := range c.in {
			m.in = append(m.in, tensor{shape: s, bf16: true})
		}
		launches := k.launches(m)
		if l := launches[0]; l.kernel != c.kernel || l.grid[1] != c.shares || key == "" {
			t.Errorf("%T of %v: %v asked as %q, want %s by %d", c.op, c.in, l, key, c.kernel, c.shares)
		}
		if sums := 4 * c.shares * out.TotalSize(); len(launches) != 2 || k.scratch < sums || k.scratch > 64<<20 {
			t.Errorf("%T of %v: %v with %d bytes of scratch memory", c.op, c.in, launches, k.scratch)
		}

		// An operand that lies elsewhere goes to a kernel that takes it.
		m.in[0].ptr = 8
		if l := k.launches(m)[0]; strings.HasPrefix(l.kernel, "tma") {
			t.Errorf("%T of %v: %v of an operand at 8", c.op, c.in, l)
		}

		// Kernels that are not trusted are not used.
		d.trust = func(name string) bool { return !strings.HasSuffix(name, "_joint") }
		m.in[0].ptr = 0
		if k, ok = d.tmaWeight(callOf(c.op, out, c.in)); !ok || k.launches(m)[0].kernel != strings.TrimSuffix(c.kernel, "_joint") {
			t.Errorf("%T of %v: without %s there is %v", c.op, c.in, c.kernel, ok)
		}
		d.trust = func(string) bool { return false }
		if _, ok = d.tmaWeight(callOf(c.op, out, c.in)); ok {
			t.Errorf("%T of %v: a kernel that is not trusted", c.op, c.in)
		}
	}
}

// The guard's calls run the kernels that they name, each at least once.
func TestBoxedWeightCases(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range tmaWeightCases() {
		out, err := c.op.Infer(c.in)
		if err != nil || !out.Eq(c.out) {
			t.Errorf("%s: %v, %v", c.kernel, out, err)
		}
		d := &device{sets: kernels.Sets(), precision: graph.BF16}
		d.trust = func(name string) bool { return name == c.kernel }
		if _, ok := d.tmaWeight(callOf(c.op, c.out, c.in)); !ok {
			t.Errorf("%s does not run for %T of %v", c.kernel, c.op, c.in)
		}
		seen[c.kernel] = true
	}
	for taps := 1; taps <= 3; taps++ {
		for _, name := range (&boxedWeight{taps: taps}).kernels() {
			if !seen[name] {
				t.Errorf("there is no call for %s", name)
			}
		}
	}
}
