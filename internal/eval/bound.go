package eval

import (
	"context"
	"fmt"
	"math"

	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// Network fills out with the model's raw output for the flat batch x, one t in
// 0..T-1 and one class, -1 for none, for each of its len(t) images. It must neither
// change x nor keep a slice.
type Network func(ctx context.Context, x []float32, t []float64, class []int, out []float32) error

// Source writes image i of a set into dst, bytes in any fixed layout whose last extent is
// Options.Channels, and returns its class, -1 for none, or an error that names the image.
type Source func(i int, dst []byte) (class int, err error)

// Options say what Evaluate evaluates, on which images, and how thoroughly.
type Options struct {
	Schedule        *sched.Schedule
	Parametrization sched.Parametrization // how x_0 follows from the network's output
	LearnSigma      bool                  // that output is [H,W,2C] for an image: the prediction, then the variance
	Variance        sched.Variance        // of the reverse step; Learned wants LearnSigma
	Clip            bool                  // clip the predicted x_0 to [-1, 1], as Ho et al. do

	Values   int    // of an image: H W C
	Channels int    // C; only needed with LearnSigma
	Count    int    // images the source has; 0 is endless
	Images   int    // images to evaluate, spread evenly over the source; 0, or more than Count, is all
	Stride   int    // 1 evaluates every t; k every k-th, see Evaluate
	Batch    int    // images in a network call, of any t
	Seed     uint64 // of the noise

	// OnProgress, if not nil, is called after each network call with the number
	// of images that went through the network and that will in all.
	OnProgress func(done, total int)
}

// Report is the result of Evaluate.
//
// The standard errors are over images: how far the figure would move if others
// of the same kind were evaluated. They are 0 when there is only one.
type Report struct {
	Images      int    `json:"images"`
	T           int    `json:"t"`
	Stride      int    `json:"stride"`
	Evaluations int    `json:"evaluations"` // images that went through the network
	Estimate    bool   `json:"estimate"`    // some t were left out and the others stand for them
	Prediction  string `json:"prediction"`
	Variance    string `json:"variance"`
	Clip        bool   `json:"clip"`

	LSimple   float64 `json:"l_simple"` // mean squared error of the network's prediction against its training target, t uniform
	LSimpleSE float64 `json:"l_simple_se"`

	BitsPerDim   float64 `json:"bits_per_dim"` // the variational bound: Prior + Decoder + the KL of all Quartiles
	BitsPerDimSE float64 `json:"bits_per_dim_se"`
	Prior        float64 `json:"prior"`   // L_T in bits per dimension
	Decoder      float64 `json:"decoder"` // L_0, likewise

	Quartiles [4]Quartile `json:"quartiles"`
}

// Quartile is a quarter of the timesteps: t in First..Last, none of them when
// Last < First (T < 4).
type Quartile struct {
	First       int     `json:"first"`
	Last        int     `json:"last"`
	Evaluations int     `json:"evaluations"`
	LSimple     float64 `json:"l_simple"` // mean over the quartile; 0 without evaluations
	KL          float64 `json:"kl"`       // what the KL terms of t > 0 add to the bound, bits per dimension
}

// Evaluate measures a network on held-out images: the loss it was trained on and
// the variational bound on -log2 p(x_0) in bits per dimension (Ho et al. 2020,
// eq. 5), whose terms sched.VLBTerm spells out.
//
// For each image and each t one x_t is drawn, with noise that depends on the
// seed, the image's number and t alone: two networks see the same x_t, and the
// batch size does not matter. Loss and bound come from the same network calls.
//
// With Stride k > 1 an image is evaluated at t = 0, whose decoder term is like
// no other, and at m = ceil((T-1)/k) of the other t: evenly spaced, from a start
// drawn for each image so that every t is as likely as every other. Weighted by
// (T-1)/m they estimate loss and bound without bias.
func Evaluate(ctx context.Context, network Network, source Source, opt Options) (*Report, error) {
	plan, err := opt.resolve()
	if err != nil {
		return nil, err
	}
	e := evaluator{Options: opt, plan: plan, source: source}
	e.allocate()
	for from := 0; from < plan.total; from += opt.Batch {
		n := min(opt.Batch, plan.total-from)
		for slot := range n {
			if err := e.prepare(slot, from+slot); err != nil {
				return nil, err
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := network(ctx, e.xt[:n*opt.Values], e.t[:n], e.class[:n], e.out[:n*opt.outValues()]); err != nil {
			return nil, fmt.Errorf("eval: %w", err)
		}
		for slot := range n {
			if err := e.add(slot, from+slot); err != nil {
				return nil, err
			}
		}
		if opt.OnProgress != nil {
			opt.OnProgress(from+n, plan.total)
		}
	}
	return e.report(), nil
}

// plan is the list of evaluations, image by image, by rising t.
type plan struct {
	images int
	others int // evaluations of an image at t > 0
	total  int
	weight float64 // of an evaluation at t > 0
}

// outValues is the number of values of the network's output for an image.
func (o *Options) outValues() int {
	if o.LearnSigma {
		return 2 * o.Values
	}
	return o.Values
}

func (o *Options) resolve() (plan, error) {
	T := o.Schedule.T()
	switch {
	case o.Values < 1:
		return plan{}, fmt.Errorf("eval: images of %d values: want at least 1", o.Values)
	case o.LearnSigma && (o.Channels < 1 || o.Values%o.Channels != 0):
		return plan{}, fmt.Errorf("eval: images of %d values and %d channels: want the channels of an image", o.Values, o.Channels)
	case o.Variance == sched.Learned && !o.LearnSigma:
		return plan{}, fmt.Errorf("eval: variance %s: want a network that predicts variances", o.Variance)
	case o.Batch < 1:
		return plan{}, fmt.Errorf("eval: batch %d: want at least 1", o.Batch)
	case o.Stride < 1 || o.Stride > T:
		return plan{}, fmt.Errorf("eval: stride %d: want 1 (every timestep) to %d", o.Stride, T)
	case o.Images < 0 || o.Count < 0:
		return plan{}, fmt.Errorf("eval: images %d of %d: want 1 or more, or 0 for all", o.Images, o.Count)
	case o.Images == 0 && o.Count == 0:
		return plan{}, fmt.Errorf("eval: images 0 (all) of an endless data set: want how many to evaluate")
	}
	p := plan{images: o.Images}
	if o.Images == 0 || o.Count > 0 && o.Images > o.Count {
		p.images = o.Count
	}
	p.others = (T - 1 + o.Stride - 1) / o.Stride
	p.total = p.images * (1 + p.others)
	if p.others > 0 {
		p.weight = float64(T-1) / float64(p.others)
	}
	return p, nil
}

// timestep is the k-th smallest t at which an image with the given start is
// evaluated; start is below max(T-1, 1). Every t > 0 comes from exactly p.others
// pairs of a k and a start.
func (p plan) timestep(T, start, k int) int {
	if k == 0 {
		return 0
	}
	return 1 + ((k-1)*(T-1)+start)/p.others
}

// evaluator holds a batch, [Batch, Values] each but for out, and the sums. All sums are
// float64 and in the order of the plan.
type evaluator struct {
	Options
	plan   plan
	source Source

	image     []byte
	x0Image   []float32 // the image prepared last
	x0, eps   []float32
	xt, out   []float32
	predicted []float32 // x_0, one image
	learned   []float32 // the variance, likewise
	t         []float64
	class     []int
	start     int // of the image prepared last
	label     int // likewise

	loss, nats  []float64 // of each image: weighted sum over t of the squared error, and the bound
	prior       float64
	decoder     float64
	evaluations [4]int
	weights     [4]float64
	losses, kl  [4]float64
}

func (e *evaluator) allocate() {
	n := min(e.Batch, e.plan.total)
	batch := func() []float32 { return make([]float32, n*e.Values) }
	image := func() []float32 { return make([]float32, e.Values) }
	e.x0, e.eps, e.xt, e.out = batch(), batch(), batch(), make([]float32, n*e.outValues())
	e.image, e.x0Image, e.predicted, e.learned = make([]byte, e.Values), image(), image(), image()
	e.t, e.class = make([]float64, n), make([]int, n)
	e.loss, e.nats = make([]float64, e.plan.images), make([]float64, e.plan.images)
}

// index is the number in the source of an image.
func (e *evaluator) index(image int) int {
	if e.Count == 0 {
		return image
	}
	return int(int64(image) * int64(e.Count) / int64(e.plan.images))
}

// of cuts a slot's part out of a batch.
func (e *evaluator) of(batch []float32, slot int) []float32 {
	return batch[slot*e.Values : (slot+1)*e.Values]
}

// prepare fills a slot of the batch with an evaluation of the plan.
func (e *evaluator) prepare(slot, evaluation int) error {
	image, k := evaluation/(1+e.plan.others), evaluation%(1+e.plan.others)
	T, index := e.Schedule.T(), e.index(image)
	if k == 0 {
		var err error
		if e.label, err = e.source(index, e.image); err != nil {
			return fmt.Errorf("eval: held-out image %d: %w", index, err)
		}
		for i, v := range e.image {
			e.x0Image[i] = float32(v)/127.5 - 1
		}
		prior := e.Schedule.PriorKL(e.x0Image)
		e.prior += prior
		e.nats[image] += prior
		e.start = e.key(T, index).IntN(max(T-1, 1)) // T is no timestep, so no noise comes from this key
	}
	t := e.plan.timestep(T, e.start, k)
	e.t[slot], e.class[slot] = float64(t), e.label
	copy(e.of(e.x0, slot), e.x0Image)
	e.key(t, index).Normals(e.of(e.eps, slot))
	e.Schedule.QSample(e.x0Image, t, e.of(e.eps, slot), e.of(e.xt, slot))
	return nil
}

func (e *evaluator) key(step, index int) rng.Key {
	return rng.Key{Seed: e.Seed, Stream: rng.Evaluation, Step: uint32(step), Sample: uint32(index)}
}

// add accounts for the network's output in a slot.
func (e *evaluator) add(slot, evaluation int) error {
	image, t := evaluation/(1+e.plan.others), int(e.t[slot])
	x0, eps, xt := e.of(e.x0, slot), e.of(e.eps, slot), e.of(e.xt, slot)
	out := e.out[slot*e.outValues() : (slot+1)*e.outValues()]
	onX0, onEps := e.Parametrization.Target(e.Schedule, t)
	node := e.Schedule.Node(float64(t))
	onXt, onOut := e.Parametrization.XStartCoefs(node)
	// What is compared with the target is the output or, of a consistency model, the prediction that
	// its x_0 amounts to.
	lossOnXt, lossOnOut := 0.0, 1.0
	if e.Parametrization.Consistency {
		epsOnXt, epsOnOut := e.Parametrization.EpsCoefs(node)
		lossOnXt, lossOnOut = onX0*onXt+onEps*epsOnXt, onX0*onOut+onEps*epsOnOut
	}
	var squared float64
	for i := range x0 {
		o := out[i]
		if e.LearnSigma { // a pixel has its C predictions, then its C variances
			at := i + i/e.Channels*e.Channels
			o, e.learned[i] = out[at], out[at+e.Channels]
		}
		d := lossOnXt*float64(xt[i]) + lossOnOut*float64(o) - (onX0*float64(x0[i]) + onEps*float64(eps[i]))
		squared += d * d
		prediction := onXt*float64(xt[i]) + onOut*float64(o)
		if e.Clip {
			prediction = min(max(prediction, -1), 1)
		}
		e.predicted[i] = float32(prediction)
	}
	squared /= float64(e.Values)
	term := e.Schedule.VLBTerm(x0, xt, e.predicted, e.learned, t, e.Variance)
	if sum := squared + term; math.IsNaN(sum) || math.IsInf(sum, 0) {
		return fmt.Errorf("eval: the network's output for held-out image %d at t=%d is not finite: its weights are damaged or its training diverged",
			e.index(image), t)
	}

	weight, q := 1.0, quartile(e.Schedule.T(), t)
	if t == 0 {
		e.decoder += term
	} else {
		weight = e.plan.weight
		e.kl[q] += weight * term
	}
	e.nats[image] += weight * term
	e.loss[image] += weight * squared
	e.losses[q] += weight * squared
	e.weights[q] += weight
	e.evaluations[q]++
	return nil
}

// quartile of t: number q holds t from ceil(q T / 4) to below ceil((q+1) T / 4).
func quartile(T, t int) int { return 4 * t / T }

func (e *evaluator) report() *Report {
	T, n := e.Schedule.T(), float64(e.plan.images)
	r := &Report{
		Images: e.plan.images, T: T, Stride: e.Stride, Evaluations: e.plan.total, Estimate: e.plan.others < T-1,
		Prediction: e.Parametrization.String(), Variance: e.Variance.String(), Clip: e.Clip,
		Prior: sched.BitsPerDim(e.prior / n), Decoder: sched.BitsPerDim(e.decoder / n),
	}
	// The weights of one image sum to T.
	r.LSimple, r.LSimpleSE = meanAndError(e.loss, 1/float64(T))
	r.BitsPerDim, r.BitsPerDimSE = meanAndError(e.nats, sched.BitsPerDim(1))
	for q := range r.Quartiles {
		c := &r.Quartiles[q]
		c.First, c.Last = (q*T+3)/4, ((q+1)*T+3)/4-1
		c.Evaluations = e.evaluations[q]
		if c.Evaluations > 0 {
			c.LSimple = e.losses[q] / e.weights[q]
		}
		c.KL = sched.BitsPerDim(e.kl[q] / n)
	}
	return r
}

// meanAndError is the mean of scale times the values and its standard error.
func meanAndError(values []float64, scale float64) (mean, standardError float64) {
	n := float64(len(values))
	for _, v := range values {
		mean += scale * v / n
	}
	if len(values) < 2 {
		return mean, 0
	}
	var squares float64
	for _, v := range values {
		squares += (scale*v - mean) * (scale*v - mean)
	}
	return mean, math.Sqrt(squares / (n - 1) / n)
}
