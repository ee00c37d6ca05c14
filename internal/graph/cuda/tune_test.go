//go:build gpu && !cpu

package cuda

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
	"ddpm/internal/model"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// Every tiling that may stand in for another computes its very bits: of short and long
// sums, whole and in shares.
func TestTilingsOfTheSameBits(t *testing.T) {
	for _, precision := range precisions {
		p := products{t, precision}
		ways := map[int]int{} // by shares
		for _, g := range []geometry{
			{2, 9, 8, 40, 72, 3, 3, same},
			{1, 4, 4, 256, 72, 3, 3, same},
			{3, 8, 6, 16, 72, 3, 3, halving},
			{4, 16, 8, 24, 72, 1, 1, point},
		} {
			forward, data, weight := p.cases(g, 0, false)
			for _, test := range []opTest{forward, data, weight} {
				test.over = 0 // each way computes from the same operands
				for _, shares := range []int{1, 2} {
					ways[shares] += compareTilings(t, test, precision, shares)
				}
			}
		}
		if ways[1] < 8 || ways[2] < 4 {
			t.Errorf("%s: only so many ways were compared, by shares: %v", precision, ways)
		}
	}
}

// compareTilings computes an operation by each tiling that may stand in for that of the
// first block, and returns their number.
func compareTilings(t *testing.T, test opTest, precision graph.Precision, shares int) (others int) {
	t.Helper()
	onDevice := *deviceFor(t)
	d := &onDevice
	d.precision = precision
	matmul := families[0]
	defer func() { families[0] = matmul }()
	var want []float64
	for way, last := 0, 0; way <= last; way++ {
		var name string
		families[0] = func(d *device, op call) (kernel, bool) {
			p, ok := d.passOf(op)
			tilings := d.sameBits(p.product, d.share(p.product, d.blocks()[0], shares))
			last, name = len(tilings)-1, tilings[way].name
			p.choose = func([]tensor) tiling { return tilings[way] }
			k := d.bind(p)
			k.scratch = 4 * tilings[0].shares * p.rows * p.n
			return k, ok
		}
		var got []float64
		if err := d.Do(func() (err error) { got, err = test.compute(d); return err }); err != nil {
			t.Fatalf("%s by %s in %d shares: %v", test.name(), name, shares, err)
		}
		if way == 0 {
			want = got
		} else if !slices.Equal(got, want) {
			t.Errorf("%s: in %d shares %s differs from %s", test.name(), shares, name, d.blocks()[0].name)
		}
		others = way
	}
	return others
}

// Tilings whose shares are others are not of the same bits.
func TestSharesBoundTheWays(t *testing.T) {
	d := &device{precision: graph.BF16}
	p := product{kernels: "conv_weight", m: 64, n: 64, phases: 1, rows: 64}
	for _, c := range []struct {
		k, shares int
		want      []string // beside 128x128
	}{
		{8 * 4 * 7, 1, []string{"128x64", "64x64"}}, // 7 steps, or 3.5 of twice the depth
		{8 * 4 * 8, 2, []string{"128x64", "64x64"}}, // 4 steps, or 2
		{8 * 4 * 6, 2, []string{"128x64"}},          // 3 steps, which are no 1.5
		{8 * 4 * 9, 3, []string{"128x64"}},
	} {
		p.k = c.k
		var got []string
		for _, s := range d.sameBits(p, d.share(p, block128x128, c.shares))[1:] {
			got = append(got, s.name)
			if s.shares != c.shares {
				t.Errorf("k %d in %d shares: %s has %d", c.k, c.shares, s.name, s.shares)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("k %d in %d shares: %v, want %v", c.k, c.shares, got, c.want)
		}
	}
}

// tunedSetup is a small run, most of whose products have several ways.
func tunedSetup(b graph.Backend) train.Setup {
	return train.Setup{
		Seed: 1,
		Model: model.Config{
			Block: "resnet", Channels: 16, Mult: []float64{1, 2}, Blocks: 1, MidAttention: true,
			Groups: 2, NormEps: 1e-6, Dropout: 0.1, Init: "pytorch", FreqShift: 1,
		},
		Size:      model.Size{Height: 8, Width: 8, Channels: 3},
		Diffusion: sched.Config{T: 20, Schedule: "cosine", Prediction: "v"},
		Train: train.Config{
			Steps: 6, Batch: 4, Accumulate: 1, LR: 1e-2, Decay: "cosine", Beta1: 0.9, Beta2: 0.999, AdamEps: 1e-8,
			Clip: 1, EMA: 0.9, LogEvery: 2, Samples: 3, KeepLast: 1,
		},
		Sample: sched.SamplerConfig{Sampler: "ddim", Steps: 2, Spacing: "trailing", Variance: "fixed_small"},
		Batch:  2, Backend: b,
	}
}

func openFor(t *testing.T, o graph.Options) *Backend {
	t.Helper()
	b, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// A step whose products are all computed in the last way there is equals that of the
// defaults, byte for byte.
func TestTuningChangesNoBit(t *testing.T) {
	for _, precision := range precisions {
		t.Run(string(precision), func(t *testing.T) {
			t.Setenv(cacheVariable, t.TempDir())
			b := openFor(t, graph.Options{Precision: precision})
			d := b.device
			want := weightsAfterSteps(t, b)
			plan, err := train.CompileStep(tunedSetup(b))
			if err != nil {
				t.Fatal(err)
			}
			questions := d.questions([]*graph.Plan{plan})
			if len(questions) < 5 {
				t.Fatalf("only %d products have several ways", len(questions))
			}
			d.tuned = map[string]string{}
			for _, q := range questions {
				d.tuned[d.tunedKey(q.key)] = q.candidates[len(q.candidates)-1]
			}
			asked := 0
			for _, q := range questions {
				if d.chosen(q.key, q.candidates) == q.candidates[0] {
					t.Errorf("%s is still computed by %s", q.key, q.candidates[0])
				}
				asked += q.calls
			}
			t.Logf("%d products in %d instructions", len(questions), asked)
			if got := weightsAfterSteps(t, b); !bytes.Equal(got, want) {
				t.Error("a tuned step has other bits")
			}
		})
	}
}

// weightsAfterSteps are the weights after two steps, as bytes.
func weightsAfterSteps(t *testing.T, b *Backend) []byte {
	t.Helper()
	s := tunedSetup(b)
	plan, err := train.CompileStep(s)
	if err != nil {
		t.Fatal(err)
	}
	state, err := b.NewState(plan.Graph.Layout, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = state.Close() }()
	for _, a := range []graph.Arena{graph.Params, graph.EMA} {
		if err := state.Write(a, plan.Graph.Layout.InitialWeights(1)); err != nil {
			t.Fatal(err)
		}
	}
	stepper, err := train.NewStepper(s, plan, state)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stepper.Close() }()
	images := make([]byte, s.Train.Batch*s.Size.Values())
	for i := range images {
		images[i] = byte(i * i)
	}
	for k := range 2 {
		if _, err := stepper.Step(context.Background(), k, images); err != nil {
			t.Fatal(err)
		}
	}
	var all []byte
	weights := make([]float32, plan.Graph.Layout.Size)
	for _, a := range []graph.Arena{graph.Params, graph.EMA, graph.AdamM, graph.AdamV} {
		if err := state.Read(a, weights); err != nil {
			t.Fatal(err)
		}
		all = append(all, driver.Bytes(weights)...)
	}
	return all
}

// tunes runs the tuner on the step of a small run.
func tunes(t *testing.T, ctx context.Context, b *Backend) (results map[string]graph.Tuning, file string, err error) {
	t.Helper()
	plan, err := train.CompileStep(tunedSetup(b))
	if err != nil {
		t.Fatal(err)
	}
	results = map[string]graph.Tuning{}
	file, err = b.Tune(ctx, []*graph.Plan{plan}, time.Millisecond, func(r graph.Tuning) { results[r.Product] = r })
	return results, file, err
}

// What the tuner measures is kept for the next open; what it does not measure is not
// touched.
func TestTunerKeepsTheFastest(t *testing.T) {
	t.Setenv(cacheVariable, t.TempDir())
	b := openFor(t, graph.Options{Precision: graph.BF16})
	d := b.device
	if err := d.cache.update(func(f *findings) { f.Tuned["bf16 another product"] = "64x64" }); err != nil {
		t.Fatal(err)
	}
	results, file, err := tunes(t, context.Background(), b)
	if err != nil || file != d.cache.path() {
		t.Fatalf("%s, %v", file, err)
	}
	plan, err := train.CompileStep(tunedSetup(b))
	if err != nil {
		t.Fatal(err)
	}
	questions := d.questions([]*graph.Plan{plan})
	if len(questions) != len(results) || len(questions) < 5 {
		t.Errorf("%d of %d products were measured", len(results), len(questions))
	}
	next := openFor(t, graph.Options{Precision: graph.BF16}).device
	for _, q := range questions {
		r := results[q.key]
		if len(r.Ways) != len(q.candidates) || r.Calls != q.calls {
			t.Errorf("%s: %+v", q.key, r)
			continue
		}
		for i, w := range r.Ways {
			if w.Name != q.candidates[i] || w.Differs || w.Time <= 0 {
				t.Errorf("%s: %+v", q.key, w)
			}
		}
		for _, d := range []*device{d, next} {
			if got := d.chosen(q.key, q.candidates); got != r.Ways[r.Best].Name {
				t.Errorf("%s by %s, and %s was the fastest", q.key, got, r.Ways[r.Best].Name)
			}
		}
	}
	if next.tuned["bf16 another product"] != "64x64" {
		t.Errorf("the table is %v", next.tuned)
	}
	other := openFor(t, graph.Options{Precision: graph.TF32}).device
	for _, q := range questions {
		if got := other.chosen(q.key, q.candidates); got != q.candidates[0] {
			t.Errorf("another precision computes %s by %s", q.key, got)
		}
	}
}

// A way whose result has other bytes is never taken, however fast it is.
func TestTunerTakesNoOtherBits(t *testing.T) {
	t.Setenv(cacheVariable, t.TempDir())
	b := openFor(t, graph.Options{Precision: graph.BF16})
	matmul := families[0]
	defer func() { families[0] = matmul }()
	const wrong = "64x64"
	families[0] = func(d *device, c call) (kernel, bool) {
		k, ok := matmul(d, c)
		if !ok {
			return k, false
		}
		return kernel{scratch: k.scratch, launches: func(m operands) []launch {
			launches := k.launches(m)
			if p, ok := launches[0].params.(*kernels.ConvForwardParams); ok && strings.HasSuffix(launches[0].kernel, wrong) {
				p.Result.Bias = 0
			}
			return launches
		}}, true
	}
	results, _, err := tunes(t, context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	differ := 0
	for _, r := range results {
		forward := strings.HasPrefix(r.Product, "conv_forward")
		for i, w := range r.Ways {
			switch {
			case !forward && w.Differs:
				t.Errorf("%s by %s is said to differ", r.Product, w.Name)
			case forward && i > 0 && (w.Differs != (w.Name == wrong || r.Ways[0].Name == wrong)):
				t.Errorf("%s by %s: differs %t", r.Product, w.Name, w.Differs)
			case w.Differs && r.Best == i:
				t.Errorf("%s is computed by %s, which differs", r.Product, w.Name)
			}
			if w.Differs {
				differ++
			}
		}
	}
	if differ == 0 {
		t.Error("no way differs")
	}
}

func TestFastestWay(t *testing.T) {
	way := func(us int) graph.Way { return graph.Way{Time: time.Duration(us) * time.Microsecond} }
	differs := graph.Way{Differs: true}
	for _, c := range []struct {
		ways []graph.Way
		want int
	}{
		{[]graph.Way{way(100)}, 0},
		{[]graph.Way{way(100), way(98)}, 0}, // within the noise
		{[]graph.Way{way(100), way(96)}, 1},
		{[]graph.Way{way(100), way(90), way(89), way(95)}, 2},
		{[]graph.Way{way(100), differs, way(101)}, 0},
		{[]graph.Way{way(100), differs, way(50)}, 2},
	} {
		if got := fastestWay(c.ways); got != c.want {
			t.Errorf("of %v the best is %d, want %d", c.ways, got, c.want)
		}
	}
}

// A tuner that is stopped keeps what it measured.
func TestTunerStops(t *testing.T) {
	t.Setenv(cacheVariable, t.TempDir())
	b := openFor(t, graph.Options{Precision: graph.BF16})
	plan, err := train.CompileStep(tunedSetup(b))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	measured := 0
	file, err := b.Tune(ctx, []*graph.Plan{plan}, time.Millisecond, func(graph.Tuning) {
		measured++
		cancel()
	})
	if !errors.Is(err, context.Canceled) || measured != 1 || file != b.device.cache.path() {
		t.Errorf("%d measured, then %v, kept in %q", measured, err, file)
	}
}

// A table that makes no sense is no reason to fail.
func TestChosen(t *testing.T) {
	d := &device{precision: graph.BF16}
	candidates := []string{"a", "b"}
	for key, want := range map[string]string{"": "a", "good": "b", "unknown": "a", "of tf32": "a"} {
		d.tuned = map[string]string{"bf16 good": "b", "bf16 unknown": "c", "tf32 of tf32": "b"}
		if got := d.chosen(key, candidates); got != want {
			t.Errorf("%q is computed by %s, want %s", key, got, want)
		}
	}
}

// The ways of the set sm_90a give the same bits too.
func TestTunerOfTensorMaps(t *testing.T) {
	o := hopperOptions(t)
	onlyOf(t, "tma_conv_forward_8x16") // the others take time
	b := openFor(t, o)
	needsHopper(t, b.device)
	builder := graph.NewBuilder(graph.Float32)
	x := builder.Input("x", graph.Float32, 8, 16, 16, 64)
	w := builder.Input("w", graph.Float32, 3, 3, 64, 128)
	bias := builder.Input("bias", graph.Float32, 128)
	g, err := builder.Finish(nil, map[string]*graph.Node{"y": builder.Apply(same, x, w, bias)})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := graph.Compile(g, b)
	if err != nil {
		t.Fatal(err)
	}
	measured := 0
	_, err = b.Tune(context.Background(), []*graph.Plan{plan}, time.Millisecond, func(r graph.Tuning) {
		measured++
		for _, w := range r.Ways {
			if w.Differs || w.Time <= 0 || !strings.HasPrefix(w.Name, "tma_conv_forward_") {
				t.Errorf("%s by %+v", r.Product, w)
			}
		}
		if len(r.Ways) < 2 {
			t.Errorf("%s has %d ways", r.Product, len(r.Ways))
		}
	})
	if err != nil || measured != 1 {
		t.Errorf("%d products were measured: %v", measured, err)
	}
}
