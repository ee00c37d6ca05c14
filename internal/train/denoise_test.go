package train

import (
	"context"
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/reference"
	"ddpm/internal/model"
	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// objectiveSetup is a run in float64 of a network as small as there is, of 6 timesteps.
func objectiveSetup(t *testing.T, edit func(*Setup)) Setup {
	t.Helper()
	s := setupOn(t, reference.Backend{})
	s.Size = model.Size{Height: 2, Width: 2, Channels: 3}
	s.Data.Flip, s.Model.Dropout, s.Model.MidAttention = false, 0, false
	s.Model.Mult, s.Diffusion.T, s.Train.Batch = []float64{1}, 6, 8
	edit(&s)
	return s
}

// pixels are the bytes of n images.
func pixels(s Setup, n int) []byte {
	values := make([]byte, n*s.Size.Values())
	for i := range values {
		values[i] = byte(i*i*37 + 255*(i%3))
	}
	return values
}

// passed is what a forward and backward pass of the batch gives.
type passed struct {
	loss   float64
	losses []float32 // without the weight of the draw; nil if the graph does not have them
	grads  []float64
	layout *graph.Layout
	state  *reference.State
}

// pass feeds the batch of step 0 to the graph of a run.
func pass(t *testing.T, s Setup) passed {
	t.Helper()
	feeder, err := Denoising{}.Open(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return passOf(t, s, feeder)
}

func passOf(t *testing.T, s Setup, feeder Feeder) passed {
	t.Helper()
	plan, err := CompileStep(s)
	if err != nil {
		t.Fatal(err)
	}
	layout := plan.Graph.Layout
	state, err := s.Backend.NewState(layout, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := state.Write(graph.Params, layout.InitialWeights(4)); err != nil {
		t.Fatal(err)
	}
	program, err := s.Backend.Load(plan, state, graph.Params)
	if err != nil {
		t.Fatal(err)
	}
	if err := feeder.Begin(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	feeds, err := feeder.Feed(t.Context(), 0, 0, pixels(s, s.Train.Batch), make([]int32, s.Train.Batch))
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Run(t.Context(), feeds); err != nil {
		t.Fatal(err)
	}
	p := passed{layout: layout, state: state.(*reference.State)}
	p.grads = slices.Clone(p.state.Arenas[graph.Grads])
	loss := make([]float32, 1)
	if err := program.Output("loss", loss); err != nil {
		t.Fatal(err)
	}
	p.loss = float64(loss[0])
	if _, ok := plan.Outputs["losses"]; ok {
		p.losses = make([]float32, s.Train.Batch)
		if err := program.Output("losses", p.losses); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// byHand computes, from the definitions in package sched, the mean squared error of each
// image of the batch and its term of the bound, in bits.
func byHand(t *testing.T, s Setup, state graph.State) (ts []int, errors, terms []float64) {
	t.Helper()
	n, values := s.Train.Batch, s.Size.Values()
	schedule, err := sched.New(s.Diffusion)
	if err != nil {
		t.Fatal(err)
	}
	prediction, err := sched.ParsePrediction(s.Diffusion.Prediction)
	if err != nil {
		t.Fatal(err)
	}
	variance, err := sched.ParseVariance(s.Sample.Variance)
	if err != nil {
		t.Fatal(err)
	}
	x0, eps, xt := make([]float32, n*values), make([]float32, n*values), make([]float32, n*values)
	for i, v := range pixels(s, n) {
		x0[i] = float32(v)/127.5 - 1
	}
	ft := make([]float32, n)
	for i := range n {
		key := rng.Key{Seed: s.Seed, Stream: rng.Timestep, Sample: uint32(i)}
		ts = append(ts, key.IntN(s.Diffusion.T))
		ft[i] = float32(ts[i])
		key.Stream = rng.Noise
		image := func(x []float32) []float32 { return x[i*values : (i+1)*values] }
		key.Normals(image(eps))
		schedule.QSample(image(x0), ts[i], image(eps), image(xt))
	}

	g, err := model.Inference(s.Model, s.Size, n)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := graph.Compile(g, s.Backend)
	if err != nil {
		t.Fatal(err)
	}
	program, err := s.Backend.Load(plan, state, graph.Params)
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Run(context.Background(), graph.Feeds{"x": xt, "t": ft}); err != nil {
		t.Fatal(err)
	}
	out := make([]float32, plan.Outputs["out"].Len())
	if err := program.Output("out", out); err != nil {
		t.Fatal(err)
	}

	channels := s.Size.Channels
	wide := channels
	if s.Model.LearnSigma {
		wide *= 2
	}
	errors, terms = make([]float64, n), make([]float64, n)
	for i := range x0 {
		image, at := i/values, i/channels*wide+i%channels
		k := ts[image]
		x0, eps, xt, out, share := float64(x0[i]), float64(eps[i]), float64(xt[i]), out[at:], 1/float64(values)
		onX0, onEps := prediction.Target(schedule, k)
		d := float64(out[0]) - (onX0*x0 + onEps*eps)
		errors[image] += d * d * share

		onXt, onOut := prediction.XStartCoefs(schedule.Node(float64(k)))
		coef1, coef2 := schedule.PosteriorMeanCoef1[k], schedule.PosteriorMeanCoef2[k]
		mean := coef1*(onXt*xt+onOut*float64(out[0])) + coef2*xt
		trueLogVar, logVar := schedule.PosteriorLogVarianceClipped[k], 0.0
		if s.Model.LearnSigma {
			v := (float64(out[channels]) + 1) / 2
			logVar = v*math.Log(schedule.Betas[k]) + (1-v)*trueLogVar
		} else {
			logVar = schedule.LogVariance(variance, k)
		}
		if k == 0 {
			terms[image] -= sched.BitsPerDim(sched.DecoderLogLikelihood(x0, mean, logVar)) * share
		} else {
			terms[image] += sched.BitsPerDim(sched.NormalKL(coef1*x0+coef2*xt, trueLogVar, mean, logVar)) * share
		}
	}
	return ts, errors, terms
}

// TestLossesByDefinition compares the losses of each image with what the papers' equations
// give for the network's output. Importance sampling, which starts uniform, has the graph
// show them.
func TestLossesByDefinition(t *testing.T) {
	const T = 6
	one := func(int, *sched.Schedule) float64 { return 1 }
	none := func(int, *sched.Schedule) float64 { return 0 }
	snr := func(t int, s *sched.Schedule) float64 { return s.AlphasCumprod[t] / (1 - s.AlphasCumprod[t]) }
	constant := func(c float64) func(int, *sched.Schedule) float64 {
		return func(int, *sched.Schedule) float64 { return c }
	}
	for name, c := range map[string]struct {
		edit                     func(*Setup)
		errorWeight, boundWeight func(t int, s *sched.Schedule) float64
	}{
		"simple": {func(*Setup) {}, one, none},
		"min_snr of x0": {func(s *Setup) {
			s.Diffusion.Prediction, s.Train.Weighting, s.Train.MinSNRGamma = "x0", "min_snr", 2
		}, func(t int, s *sched.Schedule) float64 { return min(snr(t, s), 2) }, none},
		"p2 of eps": {func(s *Setup) {
			s.Diffusion.Prediction, s.Train.Weighting, s.Train.P2Gamma, s.Train.P2K = "eps", "p2", 1, 1
		}, func(t int, s *sched.Schedule) float64 { return 1 / (1 + snr(t, s)) }, none},
		"vlb, fixed_small": {func(s *Setup) { s.Train.Loss = "vlb" }, none, constant(T)},
		"vlb of eps, fixed_large": {func(s *Setup) {
			s.Train.Loss, s.Diffusion.Prediction, s.Sample.Variance = "vlb", "eps", "fixed_large"
		}, none, constant(T)},
		"vlb, learned": {func(s *Setup) { s.Train.Loss, s.Model.LearnSigma = "vlb", true }, none, constant(T)},
		"hybrid": {func(s *Setup) {
			s.Train.Loss, s.Train.VLBWeight, s.Model.LearnSigma = "hybrid", 0.5, true
		}, one, constant(0.5 * T)},
		"hybrid of eps, min_snr": {func(s *Setup) {
			s.Train.Loss, s.Train.VLBWeight, s.Model.LearnSigma = "hybrid", 0.5, true
			s.Diffusion.Prediction, s.Train.Weighting, s.Train.MinSNRGamma = "eps", "min_snr", 2
		}, func(t int, s *sched.Schedule) float64 { return min(1, 2/snr(t, s)) }, constant(0.5 * T)},
	} {
		t.Run(name, func(t *testing.T) {
			s := objectiveSetup(t, func(s *Setup) { s.Train.Timesteps = "importance" })
			c.edit(&s)
			p := pass(t, s)
			schedule := newSchedule(t, T)
			ts, errors, terms := byHand(t, s, p.state)
			if !slices.Contains(ts, 0) || slices.Max(ts) == 0 {
				t.Fatalf("t = %v: want 0 and others", ts)
			}
			var mean float64
			for i, k := range ts {
				want := c.errorWeight(k, schedule)*errors[i] + c.boundWeight(k, schedule)*terms[i]
				mean += want / float64(len(ts))
				// Inputs and the output are rounded to float32.
				if math.Abs(float64(p.losses[i])-want) > 2e-5*(1+math.Abs(want)) {
					t.Errorf("t = %d: loss %v, want %v", k, p.losses[i], want)
				}
			}
			if math.Abs(p.loss-mean) > 2e-5*(1+mean) {
				t.Errorf("the loss of the batch is %v, want %v", p.loss, mean)
			}
		})
	}
}

// Losses at a t that is drawn more often weigh less, and are remembered for the t they were at,
// although the next step is drawn before they are known.
func TestImportanceInTheObjective(t *testing.T) {
	s := objectiveSetup(t, func(s *Setup) { s.Train.Timesteps = "importance" })
	feeder, err := Denoising{}.Open(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := feeder.(*denoising)
	d.importance = full(s.Diffusion.T, func(t, _ int) float32 { return float32(1 + t) })
	d.importance.waitingT = make([]float32, s.Train.Batch)
	d.importance.waiting = make([]float32, s.Train.Batch)
	d.timesteps = d.importance
	p := passOf(t, s, feeder)
	ts := slices.Clone(d.Timesteps(0, 0, s.Train.Batch))
	var want float64
	for i, k := range ts {
		share := 0.999*float64(1+k)/(1+2+3+4+5+6) + 0.001/6
		want += float64(p.losses[i]) / (6 * share) / float64(s.Train.Batch)
	}
	if math.Abs(p.loss/want-1) > 1e-5 {
		t.Errorf("loss %v, want %v, the weighted mean of %v at t = %v", p.loss, want, p.losses, ts)
	}

	if _, err := d.Feed(t.Context(), 1, 0, pixels(s, s.Train.Batch), make([]int32, s.Train.Batch)); err != nil {
		t.Fatal(err)
	}
	d.Observe(0, p.losses)
	if slices.Equal(ts, d.Timesteps(1, 0, s.Train.Batch)) || !slices.Equal(ts, d.Timesteps(0, 0, s.Train.Batch)) {
		t.Errorf("step 0 was at t = %v, and after step 1 at %v", ts, d.Timesteps(0, 0, s.Train.Batch))
	}
	for i, k := range ts {
		if d.importance.waitingT[i] != float32(k) || d.importance.waiting[i] != p.losses[i] {
			t.Errorf("loss %v at t = %d waits as %v at %v", p.losses[i], k, d.importance.waiting[i], d.importance.waitingT[i])
		}
	}
}

// In the hybrid loss the bound trains the variance alone: it does not reach the half of the
// output that predicts.
func TestHybridLeavesTheMeanToTheSquaredError(t *testing.T) {
	gradients := func(loss string, weight float64) (mean, variance []float64) {
		p := pass(t, objectiveSetup(t, func(s *Setup) {
			s.Model.LearnSigma, s.Train.Loss, s.Train.VLBWeight = true, loss, weight
		}))
		i := slices.IndexFunc(p.layout.Params, func(p graph.ParamSpec) bool { return p.Name == "conv_out.bias" })
		at := p.layout.Params[i].Offset
		return p.grads[at : at+3], p.grads[at+3 : at+6]
	}
	alone, nothing := gradients("hybrid", 1e-30)
	mean, variance := gradients("hybrid", 0.5)
	twice, variance2 := gradients("hybrid", 1)
	bound, whole := gradients("vlb", 1)
	for c := range mean {
		if mean[c] != alone[c] || twice[c] != alone[c] {
			t.Errorf("the squared error gives the mean the gradient %v, with the bound it is %v and %v", alone[c], mean[c], twice[c])
		}
		if variance[c] == 0 || math.Abs(nothing[c]) > 1e-25 || math.Abs(variance2[c]/variance[c]-2) > 1e-9 {
			t.Errorf("variance: gradients %v, %v and %v for weights 0, 0.5 and 1", nothing[c], variance[c], variance2[c])
		}
		if bound[c] == 0 || math.Abs(whole[c]/variance2[c]-1) > 1e-9 {
			t.Errorf("the bound alone gives the mean %v and the variance %v, want something and %v", bound[c], whole[c], variance2[c])
		}
	}
}

// A run that uses none of it has the graph it always had.
func TestPlainObjectiveHasNoOtherInputs(t *testing.T) {
	names := func(edit func(*Setup)) (names []string) {
		g, err := Denoising{}.Graph(objectiveSetup(t, edit), 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range g.Inputs {
			names = append(names, in.Name)
		}
		for _, out := range g.Outputs {
			names = append(names, out.Name)
		}
		return names
	}
	plain := []string{"images", "keys", "flip", "signal", "noise", "target_signal", "target_eps", "t", "loss"}
	got := names(func(s *Setup) {
		s.Train.Loss, s.Train.Weighting, s.Train.Timesteps, s.Train.ClassDropout = "simple", "none", "uniform", 0.1
	})
	if !slices.Equal(got, plain) {
		t.Errorf("inputs and outputs %v, want %v", got, plain)
	}
	got = names(func(s *Setup) {
		s.Train.Loss, s.Train.Weighting, s.Train.Timesteps = "hybrid", "p2", "importance"
		s.Model.LearnSigma, s.Model.Classes = true, 3
	})
	if len(got) != len(plain)+6 {
		t.Errorf("inputs and outputs %v, want the plain ones and 6 more", got)
	}
}

func TestClassesOfTrainingImages(t *testing.T) {
	open := func(dropout float64) *denoising {
		feeder, err := Denoising{}.Open(objectiveSetup(t, func(s *Setup) {
			s.Model.Classes, s.Train.ClassDropout, s.Train.Batch = 5, dropout, 1000
		}), nil)
		if err != nil {
			t.Fatal(err)
		}
		return feeder.(*denoising)
	}
	labels := make([]int32, 1000)
	for i := range labels {
		labels[i] = int32(i % 5)
	}
	classes := func(d *denoising, k int) []uint32 {
		feeds, err := d.Feed(t.Context(), k, 0, nil, labels)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(feeds["class"].([]uint32))
	}
	without := 0
	d := open(0.1)
	const steps = 10
	for k := range steps {
		got := classes(d, k)
		for i, class := range got {
			switch class {
			case 5:
				without++
			case uint32(labels[i]):
			default:
				t.Fatalf("class %d of an image of class %d", class, labels[i])
			}
		}
		if !slices.Equal(got, classes(open(0.1), k)) {
			t.Errorf("step %d has other classes in another run", k)
		}
	}
	if got, std := float64(without)/(1000*steps), math.Sqrt(0.1*0.9/(1000*steps)); math.Abs(got-0.1) > 4*std {
		t.Errorf("%.4f of the images go without class, want 0.1", got)
	}
	if slices.Equal(classes(d, 0), classes(d, 1)) {
		t.Error("the same images go without class in every step")
	}
	if got := classes(open(0), 0); slices.Contains(got, 5) {
		t.Error("a dropout of 0 drops classes")
	}
	if got := classes(open(1), 0); slices.Min(got) != 5 {
		t.Error("a dropout of 1 keeps classes")
	}
	labels[0] = -1
	if got := classes(open(0), 0); got[0] != 5 || got[1] != 1 {
		t.Errorf("classes %v... of labels -1 and 1, want 5 and 1", got[:2])
	}
}

func TestObjectivesThatDoNotFit(t *testing.T) {
	for _, c := range []struct {
		edit func(*Setup)
		want string
	}{
		{func(s *Setup) { s.Train.Loss = "hybrid" },
			"train.loss hybrid: its bound trains the variance, which the network does not predict: set model.learn_sigma to true"},
		{func(s *Setup) { s.Model.LearnSigma = true },
			"model.learn_sigma true: train.loss simple trains no variance: set train.loss to hybrid"},
		{func(s *Setup) { s.Train.Loss, s.Sample.Variance = "vlb", "learned" },
			"sample.variance learned: the network predicts none for train.loss vlb"},
		{func(s *Setup) { s.Train.Loss, s.Train.Weighting = "vlb", "p2" },
			"train.weighting p2: train.loss vlb has no squared error to weigh"},
		{func(s *Setup) { s.Diffusion.ZeroTerminalSNR, s.Train.Weighting = true, "min_snr" },
			"train.weighting min_snr: with diffusion.zero_terminal_snr the last t would have no weight"},
		{func(s *Setup) { s.Diffusion.ZeroTerminalSNR, s.Train.Timesteps = true, "lognormal" },
			"train.timesteps lognormal: with diffusion.zero_terminal_snr the last t would never be drawn"},
		{func(s *Setup) { s.Diffusion.Consistency = true }, "diffusion.consistency true: ddpm distill trains such networks"},
	} {
		_, err := NewPlan(objectiveSetup(t, c.edit))
		wantError(t, err, c.want)
	}
}
