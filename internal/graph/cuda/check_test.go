//go:build gpu && !cpu

package cuda

import (
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// guardTest has the guard look at a kernel of every device as if it were of the set
// sm_90a: convolutions take it where it is trusted.
type guardTest struct {
	t      *testing.T
	folder string
	notes  []string
	spoil  func(*kernels.ConvForwardParams) // makes the kernel wrong, if not nil
}

const (
	guarded64  = "conv_forward_bf16_64x64"
	notGuarded = "conv_forward_bf16_128x64"
)

var guardedConv = check{
	kernel: guarded64,
	op:     graph.PlusPerSample{Of: same}, out: graph.Shape{2, 5, 4, 16},
	in: []graph.Shape{{2, 5, 4, 24}, {3, 3, 24, 16}, {16}, {2, 16}},
}

// newGuardTest works on a GPU whose context no other test has.
func newGuardTest(t *testing.T) *guardTest {
	if os.Getenv("DDPM_LIBCUDA") == "" {
		t.Skip("a kernel is made to fail by the driver's stand-in alone")
	}
	t.Setenv("STANDIN_DEVICES", "3")
	g := &guardTest{t: t, folder: t.TempDir()}
	t.Setenv(cacheVariable, g.folder)
	all, chosen := allChecks, families[0]
	t.Cleanup(func() { allChecks, families[0] = all, chosen })
	wider := guardedConv
	wider.op, wider.in = same, wider.in[:3]
	allChecks = func() []check { return []check{guardedConv, wider} }
	families[0] = func(d *device, c call) (kernel, bool) {
		p, ok := d.passOf(c)
		if _, conv := c.heart.(graph.Conv2D); !ok || !conv || d.precision != graph.BF16 {
			return chosen(d, c)
		}
		b, trusted := block128x64, d.trusts(guarded64)
		if trusted {
			b = block64x64
		}
		p.choose = func([]tensor) tiling { return d.share(p.product, b, 1) }
		inner := p.params
		p.params = func(m operands, s kernels.ConvShares, r kernels.ConvResult) any {
			params := inner(m, s, r)
			if trusted && g.spoil != nil {
				g.spoil(params.(*kernels.ConvForwardParams))
			}
			return params
		}
		return d.bind(p), true
	}
	return g
}

func (g *guardTest) options() graph.Options {
	g.notes = nil
	return graph.Options{Ordinal: 2, Precision: graph.BF16, Note: func(text string) { g.notes = append(g.notes, text) }}
}

func (g *guardTest) open() *device {
	g.t.Helper()
	b, err := open(g.options())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		if err := b.Close(); err != nil {
			g.t.Error(err)
		}
	})
	return b.device
}

// noted checks the one note there is.
func (g *guardTest) noted(parts ...string) {
	g.t.Helper()
	if len(g.notes) != 1 || slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(g.notes[0], p) }) {
		g.t.Errorf("the notes are %q, want one with %q", g.notes, parts)
	}
}

// runs is the kernel that a device takes for the guarded convolution, which must work.
func (g *guardTest) runs(d *device) string {
	g.t.Helper()
	x, w := normals(bfloat16s, guardedConv.in[0]...), normals(float32s, guardedConv.in[1]...)
	for i := range w.Data {
		w.Data[i] = bfloat16s.round(w.Data[i])
	}
	c := opTest{op: guardedConv.op, in: []value{x, w, normals(float32s, 16), normals(float32s, 2, 16)}, out: bfloat16s, tolerance: 1e-4}
	want, err := define(c.op, c.in...)
	if err != nil {
		g.t.Fatal(err)
	}
	var got []float64
	if err := d.Do(func() (err error) { got, err = c.compute(d); return err }); err != nil {
		g.t.Fatal(err)
	}
	if err := near(got, want.Data, c.tolerance, 1.0/256); err != nil {
		g.t.Error(err)
	}
	k, _ := d.kernel(guardedConv.op, guardedConv.out, guardedConv.in)
	in := d.activations(guardedConv.in)
	in[1].rounded = 256
	return k.launches(operands{out: tensor{shape: guardedConv.out, bf16: true}, in: in})[0].kernel
}

func (g *guardTest) expect(d *device, kernel string) {
	g.t.Helper()
	if got := g.runs(d); got != kernel {
		g.t.Errorf("%s runs, want %s", got, kernel)
	}
}

func TestGuardAcceptsWhatAgrees(t *testing.T) {
	g := newGuardTest(t)
	d := g.open()
	v := d.verdicts[guarded64]
	if v.Wrong != "" || v.Cases != 2 || v.Bound != boundBFloat16 || v.Worst > v.Bound {
		t.Errorf("the verdict is %+v", v)
	}
	if len(g.notes) > 0 {
		t.Errorf("notes %q", g.notes)
	}
	g.expect(d, guarded64)
	// The next open believes the file.
	g.spoil = func(p *kernels.ConvForwardParams) { p.Result.Bias = 0 }
	if v := g.open().verdicts[guarded64]; v.Wrong != "" {
		t.Errorf("the kernel was compared again: %+v", v)
	}
}

// Each way to be wrong is noticed, said, remembered, and taken back by a new
// comparison.
func TestGuardRejectsWhatDiffers(t *testing.T) {
	for name, spoil := range map[string]func(*kernels.ConvForwardParams){
		"no bias":             func(p *kernels.ConvForwardParams) { p.Result.Bias = 0 },
		"bias of a neighbour": func(p *kernels.ConvForwardParams) { p.Result.Bias += 16 },
		"no time embedding":   func(p *kernels.ConvForwardParams) { p.Result.PerSample = 0 },
		"window off by one":   func(p *kernels.ConvForwardParams) { p.Window.Left++ },
		"one row less":        func(p *kernels.ConvForwardParams) { p.Result.Rows-- },
		"one channel less":    func(p *kernels.ConvForwardParams) { p.W.Rows -= 8 },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuardTest(t)
			g.spoil = spoil
			d := g.open()
			v := d.verdicts[guarded64]
			t.Log(v.Wrong)
			g.noted(guarded64+" is not used on this GPU: ", "the sm_80 kernels", "in Conv2D of 2x5x4x24, 3x3x24x16, 16")
			g.expect(d, notGuarded)
			if strings.Contains(strings.Join(g.notes, ""), "again") {
				t.Errorf("the first note is %q", g.notes)
			}
			d = g.open()
			g.noted(v.Wrong + "; ddpm devices --check compares it again")
			g.expect(d, notGuarded)

			g.spoil = nil
			again, err := compareAll(g.options())
			if err != nil || len(again) != 1 || again[0].Kernel != guarded64 || again[0].Wrong != "" {
				t.Errorf("compared again: %+v (%v)", again, err)
			}
			g.expect(g.open(), guarded64)
			if len(g.notes) > 0 {
				t.Errorf("notes %q", g.notes)
			}
		})
	}
}

// Other precisions do not use the kernels, and are not kept waiting.
func TestGuardIsOfBF16(t *testing.T) {
	g := newGuardTest(t)
	o := g.options()
	o.Precision = graph.TF32
	b, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.device.verdicts) > 0 {
		t.Errorf("verdicts %+v", b.device.verdicts)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// A kernel that faults takes the context along. The device is opened again without it.
func TestGuardSurvivesAFault(t *testing.T) {
	g := newGuardTest(t)
	t.Setenv("STANDIN_FAIL", "launch:"+guarded64+":1:700")
	d := g.open()
	g.noted(guarded64+" is not used on this GPU: it faults: ", "CUDA_ERROR_ILLEGAL_ADDRESS")
	g.expect(d, notGuarded)
	t.Setenv("STANDIN_FAIL", "")
	d = g.open()
	g.noted("it faults: ", "ddpm devices --check compares it again")
	g.expect(d, notGuarded)
	if _, err := compareAll(g.options()); err != nil {
		t.Error(err)
	}
	g.expect(g.open(), guarded64)
}

// Where the device cannot be opened again, the next process does without the kernel.
func TestGuardAfterAFaultThatStays(t *testing.T) {
	g := newGuardTest(t)
	t.Setenv("STANDIN_FAIL", "launch:"+guarded64+":1:719,call:cuDevicePrimaryCtxRetain:2:999")
	_, err := open(g.options())
	if err == nil || !strings.Contains(err.Error(), guarded64+" faults on this GPU: ") ||
		!strings.Contains(err.Error(), "start once more, that kernel will not be used") {
		t.Errorf("the error is %v", err)
	}
	t.Setenv("STANDIN_FAIL", "")
	g.expect(g.open(), notGuarded)
	g.noted("CUDA_ERROR_LAUNCH_FAILED")
}

// Where the GPU cannot be opened again, kernels that were not compared yet are not used:
// each of them might cost a start of its own.
func TestUncheckedKernels(t *testing.T) {
	d := hopper(t)
	d.verdicts = map[string]graph.KernelCheck{"tma_weight_1": {Kernel: "tma_weight_1"}}
	unseen := d.unchecked("tma_conv_forward_32x8")
	for _, c := range allChecks() {
		known := c.kernel == "tma_weight_1" || c.kernel == "tma_conv_forward_32x8"
		if v := unseen[c.kernel]; (v.Wrong == "") != known {
			t.Errorf("%s: %+v", c.kernel, v)
		}
	}
}

// Without a file the next process would run into it again.
func TestGuardAfterAFaultThatIsNotKept(t *testing.T) {
	g := newGuardTest(t)
	t.Setenv(cacheVariable, "/dev/null/folder")
	t.Setenv("STANDIN_FAIL", "launch:"+guarded64+":1:719,call:cuDevicePrimaryCtxRetain:2:999")
	if _, err := open(g.options()); err == nil || !strings.Contains(err.Error(), "start once more with "+kernelsVariable+"=sm_80") {
		t.Errorf("the error is %v", err)
	}
}

// A kernel that the driver does not take is not used either.
func TestGuardRejectsWhatCannotBeLaunched(t *testing.T) {
	g := newGuardTest(t)
	t.Setenv("STANDIN_FAIL", "call:cuLaunchKernel:2:701") // the first is what it is compared with
	d := g.open()
	g.noted(guarded64+" is not used on this GPU: launching ", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
	g.expect(d, notGuarded)
}

// Too little memory is no verdict either: another time there may be more.
func TestGuardNeedsMemory(t *testing.T) {
	g := newGuardTest(t)
	t.Setenv("STANDIN_FAIL", "call:cuMemAlloc_v2:1:2")
	if _, err := open(g.options()); !errors.Is(err, driver.ErrOutOfMemory) {
		t.Errorf("the error is %v", err)
	}
	t.Setenv("STANDIN_FAIL", "call:cuLaunchKernel:2:2")
	if _, err := open(g.options()); !errors.Is(err, driver.ErrOutOfMemory) || !strings.Contains(err.Error(), "comparing "+guarded64) {
		t.Errorf("the error is %v", err)
	}
	t.Setenv("STANDIN_FAIL", "")
	g.expect(g.open(), guarded64)
}

// If what kernels are compared with fails, that is no verdict on them.
func TestGuardNeedsItsReference(t *testing.T) {
	g := newGuardTest(t)
	t.Setenv("STANDIN_FAIL", "launch:"+notGuarded+":1:700")
	_, err := open(g.options())
	if !errors.Is(err, driver.ErrDeviceLost) || !strings.Contains(err.Error(), "what "+guarded64+" is compared with") {
		t.Errorf("the error is %v", err)
	}
	t.Setenv("STANDIN_FAIL", "")
	g.expect(g.open(), guarded64)
}

// A GPU works without a folder for what was found out.
func TestGuardWithoutACache(t *testing.T) {
	g := newGuardTest(t)
	t.Setenv(cacheVariable, "/dev/null/folder")
	g.expect(g.open(), guarded64)
	g.noted("cannot be kept for the next start", cacheVariable)
}

// A check that its kernel does not answer is a mistake, and no reason for trust.
func TestGuardWantsTheKernelItself(t *testing.T) {
	g := newGuardTest(t)
	none := guardedConv
	none.kernel = notGuarded
	allChecks = func() []check { return []check{none} }
	g.open()
	g.noted(notGuarded + " is not used on this GPU: it does not run for Conv2D of ")
}

func TestKernelsVariable(t *testing.T) {
	for _, c := range []struct {
		value, capability, want string
	}{
		{"", "8.0", "sm_80"}, {"", "9.0", "sm_80 sm_90a"}, {"", "10.0", "sm_80"},
		{"sm_80", "9.0", "sm_80"}, {"sm_90a", "9.0", "sm_80 sm_90a"}, {"sm_90a", "8.6", "sm_80"},
		{"sm_75", "9.0", `DDPM_KERNELS "sm_75": want one of sm_80, sm_90a`},
		{"", "7.5", "old has compute capability 7.5, and the kernels need 8.0 or newer"},
		{"sm_80", "7.5", "old has compute capability 7.5, and the kernels need 8.0 or newer"},
	} {
		t.Setenv(kernelsVariable, c.value)
		info := driver.DeviceInfo{Name: "old"}
		major, minor, _ := strings.Cut(c.capability, ".")
		info.Capability = [2]int{int(major[0] - '0'), int(minor[0] - '0')}
		if len(major) == 2 {
			info.Capability[0] = 10
		}
		sets, err := setsFor(info)
		got := strings.Join(sets, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s=%s on %s: %s, want %s", kernelsVariable, c.value, c.capability, got, c.want)
		}
	}
}

// hopperOptions are those of a GPU that runs the set sm_90a and that no other test has
// open, if the driver is the stand-in.
func hopperOptions(t *testing.T) graph.Options {
	t.Helper()
	o := graph.Options{Precision: graph.BF16}
	if os.Getenv("DDPM_LIBCUDA") != "" {
		t.Setenv("STANDIN_DEVICES", "3")
		t.Setenv("STANDIN_CAPABILITY", "9.0")
		o.Ordinal = 2
	}
	t.Setenv(cacheVariable, t.TempDir())
	return o
}

// Every kernel of the set has a check, and agrees.
func TestGuardOfEveryKernel(t *testing.T) {
	checked := map[string]bool{}
	for _, c := range allChecks() {
		checked[c.kernel] = true
	}
	for _, k := range kernels.All() {
		if k.Set != "sm_80" && k.Name != sharedCeiling && !checked[k.Name] {
			t.Errorf("%s has no check", k.Name)
		}
	}
	needsHopper(t, hopper(t))
	verdicts, err := compareAll(hopperOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(verdicts) != len(checked) {
		t.Errorf("%d of %d kernels were compared", len(verdicts), len(checked))
	}
	for _, v := range verdicts {
		t.Logf("%s: %d cases, %.2g of %g", v.Kernel, v.Cases, v.Worst, v.Bound)
		if v.Wrong != "" {
			t.Errorf("%s: %s", v.Kernel, v.Wrong)
		}
	}
}

// onlyOf leaves of the checks those of one kernel.
func onlyOf(t *testing.T, kernel string) {
	all := allChecks
	t.Cleanup(func() { allChecks = all })
	allChecks = func() []check {
		return slices.DeleteFunc(all(), func(c check) bool { return c.kernel != kernel })
	}
	if len(allChecks()) == 0 {
		t.Fatalf("%s has no check", kernel)
	}
}

// What a kernel leaves beside its result is compared too.
func TestGuardLooksBesideTheResult(t *testing.T) {
	const kernelName = "tma_conv_forward_8x16"
	needsHopper(t, hopper(t))
	o := hopperOptions(t)
	onlyOf(t, kernelName)
	matmul := families[0]
	defer func() { families[0] = matmul }()
	families[0] = func(d *device, c call) (kernel, bool) {
		k, ok := matmul(d, c)
		if !ok {
			return k, false
		}
		return kernel{scratch: k.scratch, launches: func(m operands) []launch {
			m.aside = nil
			return k.launches(m)
		}}, true
	}
	verdicts, err := compareAll(o)
	if err != nil {
		t.Fatal(err)
	}
	if len(verdicts) == 0 {
		t.Fatal("nothing was compared")
	}
	if want := "GroupNormStats from what it leaves is not finite"; !strings.Contains(verdicts[0].Wrong, want) {
		t.Errorf("the verdict is %+v, want %q", verdicts[0], want)
	}
}

// A kernel that the driver does not compile is not used.
func TestGuardRejectsWhatDoesNotCompile(t *testing.T) {
	if os.Getenv("DDPM_LIBCUDA") == "" {
		t.Skip("a module is made to fail by the driver's stand-in alone")
	}
	o := hopperOptions(t)
	onlyOf(t, "tma_weight_3")
	t.Setenv("STANDIN_FAIL", "call:cuModuleLoadDataEx:2:218") // the first is what it is compared with
	verdicts, err := compareAll(o)
	if err != nil || len(verdicts) != 1 || !strings.HasPrefix(verdicts[0].Wrong, "compiling the kernels of tma_weight: ") {
		t.Errorf("the verdicts are %+v (%v)", verdicts, err)
	}
}

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"a sentence":                            "a sentence",
		"failed\nptxas: line 1\n\tline 2\n":     "failed ptxas: line 1 line 2",
		strings.Repeat("x", 399) + "ä" + "more": strings.Repeat("x", 399) + "...",
	} {
		if got := oneLine(errors.New(text)); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestDifference(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		got, want []float32
		worst     float64
	}{
		{[]float32{3, 4}, []float32{3, 4}, 0},
		{[]float32{0, 0}, []float32{0, 0}, 0},
		{[]float32{1, -1.5}, []float32{1, -1}, 0.5},
		{[]float32{0.5, 7}, []float32{0, 7}, 0.5 / math.Sqrt(24.5)},      // relative to the rms
		{[]float32{0, 0, 0, 9}, []float32{0, 0, 0, 10}, 0.1},             // to the element
		{[]float32{1, nan}, []float32{1, 1}, math.MaxFloat64},            // never written
		{[]float32{1, inf}, []float32{1, 1}, math.MaxFloat64},            //
		{[]float32{1, 1}, []float32{1, nan}, math.MaxFloat64},            //
		{[]float32{1e-20, 1}, []float32{0, 0}, math.MaxFloat64},          // where nothing is wanted
		{[]float32{-1, -1, -1, -1}, []float32{1, 1, 1, 1}, 2},            //
		{[]float32{1, 1, 1, 1}, []float32{1, 1, 1, 1.0078125}, 1. / 129}, // a neighbour in bfloat16
	} {
		if got := difference(driver.Bytes(c.got), driver.Bytes(c.want), false); math.Abs(got-c.worst) > 1e-6*c.worst {
			t.Errorf("%v instead of %v is off by %g, want %g", c.got, c.want, got, c.worst)
		}
		var narrow [2][]uint16
		for i, side := range [][]float32{c.got, c.want} {
			for _, v := range side {
				narrow[i] = append(narrow[i], uint16(math.Float32bits(v)>>16))
			}
		}
		if got := difference(driver.Bytes(narrow[0]), driver.Bytes(narrow[1]), true); math.Abs(got-c.worst) > 1e-2*c.worst {
			t.Errorf("%v instead of %v in bfloat16 is off by %g, want %g", c.got, c.want, got, c.worst)
		}
	}
}

// TestGuardFillsMemoryAgain is about mistakes that show where a block fills a place of its
// shared memory for the second time: some check of each kernel must have it do so.
func TestGuardFillsMemoryAgain(t *testing.T) {
	d := hopper(t)
	d.single = true
	again := map[string]bool{}
	for _, c := range allChecks() {
		p := d.compare(c, 1<<20)
		if p.wrong != "" {
			t.Fatalf("%s: %s", c.kernel, p.wrong)
		}
		d.among(true, c.kernel, func() {
			for _, l := range p.tested.launches(p.m) {
				switch params := l.params.(type) {
				case *kernels.TmaConvNormParams:
					tiles := params.Conv.TilesN * params.Conv.TilesY * params.Conv.TilesX * params.Conv.TilesC * params.Conv.Pieces
					again[l.kernel] = again[l.kernel] || l.grid[0] == 1 && tiles > params.Conv.BoxStages
				case *kernels.TmaConvParams:
					tiles := params.TilesN * params.TilesY * params.TilesX * params.TilesC * params.Pieces
					again[l.kernel] = again[l.kernel] || l.grid[0] == 1 && tiles > params.BoxStages
				case *kernels.TmaWeightParams:
					w, _ := boxedWeightOf(callOf(c.op, c.out, c.in))
					steps := w.rowBoxes() * w.h * w.imageBoxes()
					again[l.kernel] = again[l.kernel] || l.grid[1] == 1 && steps > weightStages[w.taps].count
				}
			}
		})
	}
	for _, c := range allChecks() {
		if !again[c.kernel] {
			t.Errorf("no check of %s fills its memory again", c.kernel)
		}
	}
}
