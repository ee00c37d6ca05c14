package model

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/graph/reference"
	"ddpm/internal/safetensors"
)

// tiny is testdata/unet_tiny.json.
var tiny = Config{
	Block: "resnet", Channels: 8, Mult: []float64{1, 2}, Blocks: 1, Attention: []int{8}, MidAttention: true,
	Groups: 4, NormEps: 1e-6, Init: "pytorch", FreqShift: 1,
}

const goldenBatch, goldenSize = 2, 16

// golden is the independent PyTorch model's weights, inputs and results.
type golden struct {
	file *safetensors.File
	t    *testing.T
}

func openGolden(t *testing.T) golden {
	t.Helper()
	f, err := safetensors.Open("../../testdata/unet_tiny.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return golden{f, t}
}

func (g golden) floats(name string) []float32 {
	g.t.Helper()
	v, err := g.file.ReadFloat32(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

// nhwc reads an [N,C,H,W] tensor of the golden batch.
func (g golden) nhwc(name string) []float32 {
	const c, pixels = 3, goldenSize * goldenSize
	src := g.floats(name)
	dst := make([]float32, len(src))
	for i, v := range src {
		n, ch, p := i/(c*pixels), i/pixels%c, i%pixels
		dst[(n*pixels+p)*c+ch] = v
	}
	return dst
}

// weights is the arena of the golden weights.
func (g golden) weights(l *graph.Layout, prefix string) []float32 {
	arena := make([]float32, l.Size)
	for _, p := range l.Params {
		p.FromTorch(arena[p.Offset:p.Offset+p.Len], g.floats(prefix+p.Name))
	}
	return arena
}

func (g golden) feeds() graph.Feeds {
	steps, err := g.file.ReadInt64("golden.t")
	if err != nil {
		g.t.Fatal(err)
	}
	ts := make([]float32, len(steps))
	for i, s := range steps {
		ts[i] = float32(s)
	}
	return graph.Feeds{"x": g.nhwc("golden.x"), "target": g.nhwc("golden.target"), "t": ts}
}

// tinyLoss is the golden graph: prediction, and mean squared error to a target.
func tinyLoss(t *testing.T, dt graph.DType) *graph.Graph {
	t.Helper()
	return tinyLossOf(t, tiny, dt)
}

func tinyLossOf(t *testing.T, c Config, dt graph.DType) *graph.Graph {
	t.Helper()
	b := graph.NewBuilder(dt)
	x := b.Input("x", dt, goldenBatch, goldenSize, goldenSize, 3)
	target := b.Input("target", dt, goldenBatch, goldenSize, goldenSize, 3)
	ts := b.Input("t", dt, goldenBatch)
	eps := UNet(b, c, Inputs{X: x, T: ts})
	loss := b.Mean(b.SquaredError(eps, target))
	g, err := b.Finish(loss, map[string]*graph.Node{"eps": eps, "loss": loss})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// run loads a graph with the golden weights and runs it once.
func (g golden) run(b graph.Backend, net *graph.Graph) (graph.Program, graph.State) {
	g.t.Helper()
	plan, err := graph.Compile(net, b)
	if err != nil {
		g.t.Fatal(err)
	}
	state, err := b.NewState(net.Layout, true)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := state.Write(graph.Params, g.weights(net.Layout, "")); err != nil {
		g.t.Fatal(err)
	}
	program, err := b.Load(plan, state, graph.Params)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := program.Run(context.Background(), g.feeds()); err != nil {
		g.t.Fatal(err)
	}
	return program, state
}

// worst is the largest |got-want| relative to the largest |want|.
func worst(got, want []float32) float64 {
	var diff, scale float64
	for i, w := range want {
		diff = max(diff, math.Abs(float64(got[i])-float64(w)))
		scale = max(scale, math.Abs(float64(w)))
	}
	return diff / scale
}

// The tolerances are a few times the float32 noise floor that
// testdata/unet_tiny.json records for the PyTorch model itself; Winograd's
// algorithm rounds up to twice as much.
const (
	epsTolerance  = 2e-6
	gradTolerance = 6e-6
	zeroTolerance = 5e-9 // of gradients that are zero in exact arithmetic
)

func (g golden) compare(program graph.Program, state graph.State) {
	g.t.Helper()
	eps := make([]float32, goldenBatch*goldenSize*goldenSize*3)
	if err := program.Output("eps", eps); err != nil {
		g.t.Fatal(err)
	}
	if d := worst(eps, g.nhwc("golden.eps")); d > epsTolerance {
		g.t.Errorf("eps: off by %.2g of its largest value, want %.2g", d, epsTolerance)
	}
	var loss [1]float32
	if err := program.Output("loss", loss[:]); err != nil {
		g.t.Fatal(err)
	}
	if want := g.floats("golden.loss")[0]; math.Abs(float64(loss[0]/want)-1) > 5e-7 {
		g.t.Errorf("loss %v, want %v", loss[0], want)
	}
	l := state.Layout()
	grads := make([]float32, l.Size)
	if err := state.Read(graph.Grads, grads); err != nil {
		g.t.Fatal(err)
	}
	want := g.weights(l, "grad.")
	for _, p := range l.Params {
		got, want := grads[p.Offset:p.Offset+p.Len], want[p.Offset:p.Offset+p.Len]
		if strings.HasSuffix(p.Name, "to_k.bias") {
			for i, v := range got {
				if math.Abs(float64(v)) > zeroTolerance {
					g.t.Errorf("gradient of %s[%d]: %.2g, want 0 within %.2g", p.Name, i, v, zeroTolerance)
				}
			}
			continue
		}
		if d := worst(got, want); d > gradTolerance {
			g.t.Errorf("gradient of %s: off by %.2g of its largest value, want %.2g", p.Name, d, gradTolerance)
		}
	}
}

func TestTinyUNetMatchesPyTorchByDefinition(t *testing.T) {
	g := openGolden(t)
	program, state := g.run(reference.Backend{}, tinyLoss(t, graph.Float64))
	g.compare(program, state)
}

func TestTinyUNetMatchesPyTorchOnTheCPU(t *testing.T) {
	for _, set := range isa.Supported() {
		t.Run(set.String(), func(t *testing.T) {
			b := cpu.New(2, set)
			defer b.Close()
			g := openGolden(t)
			program, state := g.run(b, tinyLoss(t, graph.Float32))
			g.compare(program, state)
		})
	}
}

// TestTinyUNetInBF16 holds rounded products to PyTorch's results: bfloat16 has 8
// bits of fraction, so each product is within 2^-8, and sums of many are closer.
func TestTinyUNetInBF16(t *testing.T) {
	for _, kind := range isa.SupportedBF16() {
		for _, conv := range []graph.ConvAlgorithm{graph.DirectConv, graph.AutoConv} {
			t.Run(fmt.Sprintf("%v/%v", kind, conv), func(t *testing.T) {
				b := cpu.New(2, isa.Detect())
				defer b.Close()
				b.RoundTo(kind)
				g := openGolden(t)
				config := tiny
				config.Conv = string(conv)
				program, state := g.run(b, tinyLossOf(t, config, graph.Float32))
				g.compareRounded(program, state, rounded{eps: [2]float64{1e-4, 1e-2}, loss: 1e-3, grads: 2e-2})
			})
		}
	}
}

// rounded is what a precision may lose, relative to the golden results as a whole.
type rounded struct {
	eps         [2]float64 // at least, as nothing was rounded else, and at most
	loss, grads float64
}

func (g golden) compareRounded(program graph.Program, state graph.State, r rounded) {
	g.t.Helper()
	eps := make([]float32, goldenBatch*goldenSize*goldenSize*3)
	if err := program.Output("eps", eps); err != nil {
		g.t.Fatal(err)
	}
	if d := distance(eps, g.nhwc("golden.eps")); !(d >= r.eps[0] && d <= r.eps[1]) {
		g.t.Errorf("eps: off by %.2g, want %.2g to %.2g", d, r.eps[0], r.eps[1])
	}
	var loss [1]float32
	if err := program.Output("loss", loss[:]); err != nil {
		g.t.Fatal(err)
	}
	if want := g.floats("golden.loss")[0]; !(math.Abs(float64(loss[0]/want)-1) <= r.loss) {
		g.t.Errorf("loss %v, want %v within %.2g", loss[0], want, r.loss)
	}
	grads := make([]float32, state.Layout().Size)
	if err := state.Read(graph.Grads, grads); err != nil {
		g.t.Fatal(err)
	}
	if d := distance(grads, g.weights(state.Layout(), "grad.")); !(d <= r.grads) {
		g.t.Errorf("gradient: off by %.2g, want %.2g", d, r.grads)
	}
}

// distance is |got-want| / |want|.
func distance(got, want []float32) float64 {
	var diff, norm float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		diff += d * d
		norm += float64(w) * float64(w)
	}
	return math.Sqrt(diff / norm)
}

func TestTinyUNetHasTheGoldenParameters(t *testing.T) {
	g := openGolden(t)
	l := tinyLoss(t, graph.Float32).Layout
	if l.Count != 45259 {
		t.Errorf("%d parameters, want 45259", l.Count)
	}
	for _, p := range l.Params {
		info, ok := g.file.Tensor(p.Name)
		if !ok {
			t.Errorf("%s: PyTorch's model has no such parameter", p.Name)
			continue
		}
		if got := p.TorchShape(); len(got) != len(info.Shape) {
			t.Errorf("%s: shape %v, want %v", p.Name, got, info.Shape)
		}
	}
}

// TestTenStepsMatchPyTorch follows a whole training step, optimiser included,
// for ten steps: scripts/reference/steps.py.
func TestTenStepsMatchPyTorch(t *testing.T) {
	b := cpu.New(2, isa.Detect())
	defer b.Close()
	tenSteps(t, b)
}

func tenSteps(t *testing.T, b graph.Backend) {
	want, err := safetensors.Open("../../testdata/unet_tiny_steps.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	g := openGolden(t)
	net := tinyLoss(t, graph.Float32)
	plan, err := graph.Compile(net, b)
	if err != nil {
		t.Fatal(err)
	}
	state, err := b.NewState(net.Layout, true)
	if err != nil {
		t.Fatal(err)
	}
	weights := g.weights(net.Layout, "")
	for _, a := range []graph.Arena{graph.Params, graph.EMA} {
		if err := state.Write(a, weights); err != nil {
			t.Fatal(err)
		}
	}
	program, err := b.Load(plan, state, graph.Params)
	if err != nil {
		t.Fatal(err)
	}
	trace := golden{want, t}
	losses, norms := trace.floats("loss"), trace.floats("grad_norm")
	for k := range losses {
		if err := program.Run(context.Background(), g.feeds()); err != nil {
			t.Fatal(err)
		}
		var loss [1]float32
		if err := program.Output("loss", loss[:]); err != nil {
			t.Fatal(err)
		}
		norm, err := state.Update(graph.Update{
			Step: k + 1, LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Clip: 1,
			EMADecay: min(0.995, float64(1+k)/float64(10+k)),
		})
		if err != nil {
			t.Fatal(err)
		}
		// Adam divides by the size of the gradient, so where that is tiny its
		// rounding noise moves a weight by as much as the learning rate; the
		// loss hardly feels those weights.
		if d := math.Abs(float64(loss[0]/losses[k]) - 1); d > 1e-5 {
			t.Errorf("step %d: loss %v, want %v", k+1, loss[0], losses[k])
		}
		if d := math.Abs(norm/float64(norms[k]) - 1); d > 1e-4 {
			t.Errorf("step %d: gradient norm %v, want %v", k+1, norm, norms[k])
		}
	}
	for arena, prefix := range map[graph.Arena]string{graph.Params: "param.", graph.EMA: "ema."} {
		got, want := make([]float32, net.Layout.Size), trace.weights(net.Layout, prefix)
		if err := state.Read(arena, got); err != nil {
			t.Fatal(err)
		}
		for _, p := range net.Layout.Params {
			if strings.HasSuffix(p.Name, "to_k.bias") {
				continue // its gradient is rounding noise alone
			}
			var sum float64
			for i := p.Offset; i < p.Offset+p.Len; i++ {
				d := float64(got[i] - want[i])
				sum += d * d
			}
			// Ten steps move a weight by up to 10*lr = 1e-2.
			if rms := math.Sqrt(sum / float64(p.Len)); rms > 1e-5 {
				t.Errorf("%v %s: off by %.2g, want 1e-5", arena, p.Name, rms)
			}
		}
	}
}
