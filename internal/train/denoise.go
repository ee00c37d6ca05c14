package train

import (
	"context"
	"fmt"

	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// Denoising is the objective of Ho et al. (2020): to tell what the network's prediction asks for from a
// noised image,
//
//	x_t  = sqrt(abar_t) x_0 + sqrt(1-abar_t) eps
//	loss = mean (UNet(x_t, t) - target)^2
//
// or what train.loss, train.weighting and train.timesteps make of it: the variational bound, or
// both; a weight for each t; other draws of t.
//
// Only bytes and a few numbers for each image are fed; noise is drawn on the
// device from keys.
type Denoising struct{}

// The inputs of the graph, a value or a row for each image, beside "images", "keys" and
// "class". Those from inputErrorWeight on are there if the objective has use for them.
const (
	inputFlip         = "flip"
	inputT            = "t"
	inputSignal       = "signal" // x_t = signal x_0 + noise eps
	inputNoise        = "noise"
	inputTargetSignal = "target_signal" // target = target_signal x_0 + target_eps eps
	inputTargetEps    = "target_eps"
	inputErrorWeight  = "error_weight" // of the squared error
	inputBoundCoefs   = "bound_coefs"  // of graph.VLB
	inputBoundWeight  = "bound_weight" // of the bound's term
	inputDrawWeight   = "draw_weight"  // of the whole, for a t that was drawn more or less often
)

func (o Denoising) Graph(s Setup, n int) (*graph.Graph, error) {
	if err := o.check(s); err != nil {
		return nil, err
	}
	b := graph.NewBuilder(graph.Float32)
	perImage := func(name string) *graph.Node { return b.Input(name, graph.Float32, n) }
	images := b.Input("images", graph.Uint8, n, s.Size.Height, s.Size.Width, s.Size.Channels)
	keys := b.Input("keys", graph.Uint32, n, 4)

	xt, target := b.QSample(rng.Noise, images, perImage(inputFlip), keys,
		perImage(inputSignal), perImage(inputNoise), perImage(inputTargetSignal), perImage(inputTargetEps))
	in := model.Inputs{X: xt, T: perImage(inputT), Keys: keys}
	if s.Model.Classes > 0 {
		in.Class = b.Input("class", graph.Uint32, n)
	}
	out := model.UNet(b, s.Model, in)

	var losses *graph.Node // [n]
	if s.Train.Loss != lossVLB {
		losses = b.SquaredError(out, target)
		if s.Train.weighted() {
			losses = b.Weigh(losses, perImage(inputErrorWeight))
		}
	}
	if s.Train.bound() {
		coefs := b.Input(inputBoundCoefs, graph.Float32, n, graph.VLBCoefs)
		// Beside the squared error, which trains the mean better, the bound trains the variance alone.
		op := graph.VLB{StopMean: s.Train.Loss == lossHybrid}
		bound := b.Weigh(b.VLB(op, out, xt, target, coefs), perImage(inputBoundWeight))
		if losses == nil {
			losses = bound
		} else {
			losses = b.Add(losses, bound)
		}
	}
	outputs := map[string]*graph.Node{}
	if s.Train.Timesteps == timestepsImportance {
		outputs["losses"] = losses
		losses = b.Weigh(losses, perImage(inputDrawWeight))
	}
	loss := b.Mean(losses)
	outputs["loss"] = loss
	return b.Finish(loss, outputs)
}

// check says what in a run does not go together.
func (Denoising) check(s Setup) error {
	c := s.Train
	switch {
	case s.Diffusion.Consistency:
		return fmt.Errorf("diffusion.consistency true: ddpm distill trains such networks, ddpm train does not: set it to false")
	case c.Loss == lossHybrid && !s.Model.LearnSigma:
		return fmt.Errorf("train.loss hybrid: its bound trains the variance, which the network does not predict: set model.learn_sigma to true, or train.loss to simple")
	case s.Model.LearnSigma && !c.bound():
		return fmt.Errorf("model.learn_sigma true: train.loss simple trains no variance: set train.loss to hybrid, or model.learn_sigma to false")
	case c.Loss == lossVLB && !s.Model.LearnSigma && s.Sample.Variance == sched.Learned.String():
		return fmt.Errorf("sample.variance learned: the network predicts none for train.loss vlb: set model.learn_sigma to true, or sample.variance to fixed_small or fixed_large")
	case c.Loss == lossVLB && c.weighted():
		return fmt.Errorf("train.weighting %s: train.loss vlb has no squared error to weigh: set train.weighting to none", c.Weighting)
	case s.Diffusion.ZeroTerminalSNR && c.weighted():
		return fmt.Errorf("train.weighting %s: with diffusion.zero_terminal_snr the last t would have no weight: set train.weighting to none", c.Weighting)
	case s.Diffusion.ZeroTerminalSNR && c.Timesteps == timestepsLognormal:
		return fmt.Errorf("train.timesteps lognormal: with diffusion.zero_terminal_snr the last t would never be drawn: set train.timesteps to uniform or importance")
	}
	return nil
}

func (Denoising) Memory(Setup) ([]Memory, error) { return nil, nil }

func (Denoising) Open(s Setup, _ graph.State) (Feeder, error) {
	schedule, err := sched.New(s.Diffusion)
	if err != nil {
		return nil, err
	}
	prediction, err := sched.ParsePrediction(s.Diffusion.Prediction)
	if err != nil {
		return nil, err
	}
	part := s.Train.Batch / s.Train.Accumulate
	d := &denoising{
		seed: s.Seed, flips: s.Data.Flip, schedule: schedule, prediction: prediction,
		timesteps: s.Train.newTimesteps(schedule), weights: s.Train.weights(schedule, prediction),
		drawn: [2][]int{make([]int, s.Train.Batch), make([]int, s.Train.Batch)},
		keys:  make([]uint32, 4*part),
		// Fed from here: a slice that changed from step to step would be boxed at each.
		images: make([]byte, part*s.Size.Values()),
	}
	d.feeds = graph.Feeds{"images": d.images, "keys": d.keys}
	floats := func(name string) []float32 {
		values := make([]float32, part)
		d.feeds[name] = values
		return values
	}
	d.flip, d.t, d.signal, d.noise = floats(inputFlip), floats(inputT), floats(inputSignal), floats(inputNoise)
	d.targetSignal, d.targetEps = floats(inputTargetSignal), floats(inputTargetEps)
	if s.Model.Classes > 0 {
		d.class, d.noClass, d.classDropout = make([]uint32, part), s.Model.NoClass(), s.Train.ClassDropout
		d.feeds["class"] = d.class
	}
	if d.weights != nil {
		d.errorWeight = floats(inputErrorWeight)
	}
	if s.Train.bound() {
		if d.bounds, err = boundCoefs(s, schedule, prediction); err != nil {
			return nil, err
		}
		d.boundCoefs = make([]float32, part*graph.VLBCoefs)
		d.feeds[inputBoundCoefs] = d.boundCoefs
		weight := floats(inputBoundWeight)
		for i := range weight {
			weight[i] = float32(s.Train.boundWeight(schedule.T()))
		}
	}
	if m, ok := d.timesteps.(*importance); ok {
		d.importance, d.drawWeight = m, floats(inputDrawWeight)
	}
	return d, nil
}

// denoising feeds Denoising.
type denoising struct {
	seed       uint64
	flips      bool
	schedule   *sched.Schedule
	prediction sched.Prediction
	timesteps  timesteps
	importance *importance // the same, if it is one
	drawn      [2][]int    // the t of step k, [batch], at k mod 2

	weights      []float64 // [T] of the squared error; nil is none
	bounds       []float32 // [T,VLBCoefs] of the bound; nil is none
	noClass      int
	classDropout float64

	feeds  graph.Feeds
	images []byte // of a part
	// One value, row or key for each image of a part; see the inputs of the graph. Those from
	// class on are nil where there is no such input.
	flip, t                 []float32
	signal, noise           []float32
	targetSignal, targetEps []float32
	keys                    []uint32
	class                   []uint32
	errorWeight, drawWeight []float32
	boundCoefs              []float32
}

func (*denoising) Ahead() bool  { return true }
func (*denoising) Close() error { return nil }

func (d *denoising) Begin(_ context.Context, k int) error {
	if d.importance != nil {
		d.importance.begin(k)
	}
	return nil
}

func (d *denoising) Observe(k int, losses []float32) {
	if d.importance != nil {
		d.importance.observe(k, d.drawn[k%2], losses)
	}
}

func (d *denoising) Tensors() map[string][]float32 {
	if d.importance != nil {
		return d.importance.tensors()
	}
	return nil
}

func (d *denoising) Feed(_ context.Context, k, first int, images []byte, labels []int32) (graph.Feeds, error) {
	copy(d.images, images)
	for i, label := range labels {
		image := first + i
		copy(d.keys[4*i:], []uint32{uint32(d.seed), uint32(d.seed >> 32), uint32(k), uint32(image)})

		t, drawWeight := d.timesteps.draw(d.key(k, image, rng.Timestep))
		d.drawn[k%2][image] = t
		d.t[i] = float32(t)
		d.signal[i] = float32(d.schedule.SqrtAlphasCumprod[t])
		d.noise[i] = float32(d.schedule.SqrtOneMinusAlphasCumprod[t])
		onX0, onEps := d.prediction.Target(d.schedule, t)
		d.targetSignal[i], d.targetEps[i] = float32(onX0), float32(onEps)

		d.flip[i] = 0
		if d.flips && d.key(k, image, rng.Flip).IntN(2) == 1 {
			d.flip[i] = 1
		}
		if d.class != nil {
			d.class[i] = uint32(d.classOf(k, image, label))
		}
		if d.errorWeight != nil {
			d.errorWeight[i] = float32(d.weights[t])
		}
		if d.boundCoefs != nil {
			const n = graph.VLBCoefs
			copy(d.boundCoefs[i*n:(i+1)*n], d.bounds[t*n:])
		}
		if d.drawWeight != nil {
			d.drawWeight[i] = float32(drawWeight)
		}
	}
	return d.feeds, nil
}

// classOf is the class that the network is told of an image with a label: now and then
// none, so that it can be asked for images of any class, which guidance needs (Ho &
// Salimans, "Classifier-Free Diffusion Guidance", 2022).
func (d *denoising) classOf(k, image int, label int32) int {
	w := d.key(k, image, rng.ClassDropout).Block(0)
	if label < 0 || rng.Uniform(w[0]) < d.classDropout {
		return d.noClass
	}
	return int(label)
}

func (d *denoising) Timesteps(k, first, n int) []int { return d.drawn[k%2][first : first+n] }

func (d *denoising) key(k, image int, stream rng.Stream) rng.Key {
	return rng.Key{Seed: d.seed, Stream: stream, Step: uint32(k), Sample: uint32(image)}
}
