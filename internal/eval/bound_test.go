package eval

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// The toy: every value of an image is drawn from N(0, toyVariance) and rounded
// to a byte, so that the perfect denoiser is x_0 = c x_t, c = sqrt(a) v / (a v + 1 - a).
const (
	toyValues   = 256
	toyVariance = 0.3 * 0.3
)

func toyImage(i int, dst []byte) (class int, err error) {
	z := make([]float32, len(dst))
	rng.Key{Seed: 77, Stream: rng.Noise, Sample: uint32(i)}.Normals(z)
	for k, v := range z {
		x := math.Sqrt(toyVariance) * float64(v)
		dst[k] = byte(min(max((x+1)*127.5, 0), 255) + 0.5)
	}
	return -1, nil
}

// toyCoefs gives the perfect x_0 and eps as multiples of x_t.
func toyCoefs(a float64) (x0, eps float64) {
	x0 = math.Sqrt(a) * toyVariance / (a*toyVariance + 1 - a)
	return x0, (1 - math.Sqrt(a)*x0) / math.Sqrt(1-a)
}

func toyNetwork(s *sched.Schedule, p sched.Prediction) Network {
	return func(_ context.Context, x []float32, t []float64, _ []int, out []float32) error {
		n := len(x) / len(t)
		for i, t := range t {
			a := s.AlphasCumprod[int(t)]
			x0, eps := toyCoefs(a)
			factor := map[sched.Prediction]float64{sched.Eps: eps, sched.XStart: x0, sched.V: math.Sqrt(a)*eps - math.Sqrt(1-a)*x0}[p]
			for k := i * n; k < (i+1)*n; k++ {
				out[k] = float32(factor * float64(x[k]))
			}
		}
		return nil
	}
}

func linear(t *testing.T, T int, first, last float64) *sched.Schedule {
	t.Helper()
	betas := make([]float64, T)
	for i := range betas {
		betas[i] = first
		if T > 1 {
			betas[i] += (last - first) * float64(i) / float64(T-1)
		}
	}
	s, err := sched.FromBetas(betas)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func toyOptions(s *sched.Schedule) Options {
	return Options{Schedule: s, Variance: sched.FixedLarge, Values: toyValues, Count: 40, Stride: 1, Batch: 16, Seed: 3}
}

func evaluate(t *testing.T, network Network, opt Options) *Report {
	t.Helper()
	r, err := Evaluate(context.Background(), network, toyImage, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// closedForm is the report's figures with the expectation over the noise taken
// by hand, from the betas alone: the toy denoiser errs by
//
//	x_0 - c x_t = (1 - c sqrt(a)) x_0 - c sqrt(1-a) eps,
//
// whose mean square is (1 - c sqrt(a))^2 x_0^2 + c^2 (1 - a); the error in eps is
// sqrt(a / (1-a)) of it and the error in v is 1 / sqrt(1-a) of it.
func closedForm(betas []float64, images int, opt Options) (r Report) {
	var values []float64
	image := make([]byte, opt.Values)
	for i := range images {
		toyImage(i, image)
		for _, v := range image {
			values = append(values, float64(v)/127.5-1)
		}
	}
	square := 0.0
	for _, x := range values {
		square += x * x / float64(len(values))
	}
	T := len(betas)
	a, prevVariance := 1.0, 0.0
	var counts [4]float64
	for t, beta := range betas {
		prev := a
		a *= 1 - beta
		c, _ := toyCoefs(a)
		mse := math.Pow(1-c*math.Sqrt(a), 2)*square + c*c*(1-a)
		onLoss := map[sched.Prediction]float64{sched.Eps: a / (1 - a), sched.V: 1 / (1 - a), sched.XStart: 1}[opt.Parametrization.Prediction]
		q := t * 4 / T
		r.LSimple += onLoss * mse / float64(T)
		r.Quartiles[q].LSimple += onLoss * mse
		counts[q]++

		posterior := beta * (1 - prev) / (1 - a)
		variance := posterior
		if opt.Variance == sched.FixedLarge {
			variance = beta
		}
		if t == 0 {
			continue
		}
		if t == 1 {
			prevVariance = posterior // of the decoder
		}
		coef := beta * math.Sqrt(prev) / (1 - a)
		kl := 0.5*(math.Log(variance/posterior)-1+posterior/variance) + coef*coef*mse/(2*variance)
		r.Quartiles[q].KL += kl / math.Ln2
	}
	r.Prior = 0.5 * (a*square - a - math.Log(1-a)) / math.Ln2
	for q := range r.Quartiles {
		r.Quartiles[q].LSimple /= counts[q]
	}

	// The decoder sees x_0 = c x_t itself, with the posterior variance of t = 1.
	// The values repeat, as they were bytes.
	a = 1 - betas[0]
	c, _ := toyCoefs(a)
	std := math.Sqrt(prevVariance)
	below := func(z float64) float64 { return 0.5 * math.Erfc(-z/math.Sqrt2) }
	known := map[float64]float64{}
	for _, x := range values {
		if _, ok := known[x]; !ok {
			sum, weight := 0.0, 0.0
			for eps := -6.0; eps <= 6; eps += 0.01 {
				mean := c * (math.Sqrt(a)*x + math.Sqrt(1-a)*eps)
				w := math.Exp(-eps * eps / 2)
				sum -= w * math.Log2(max(below((x+1./255-mean)/std)-below((x-1./255-mean)/std), 1e-12))
				weight += w
			}
			known[x] = sum / weight
		}
		r.Decoder += known[x] / float64(len(values))
	}
	r.BitsPerDim = r.Prior + r.Decoder
	for _, q := range r.Quartiles {
		r.BitsPerDim += q.KL
	}
	return r
}

func TestBoundMatchesClosedForm(t *testing.T) {
	s := linear(t, 62, 1e-3, 0.2) // 62 is no multiple of 4
	for _, p := range []sched.Prediction{sched.Eps, sched.V, sched.XStart} {
		for _, v := range []sched.Variance{sched.FixedSmall, sched.FixedLarge} {
			opt := toyOptions(s)
			opt.Parametrization.Prediction, opt.Variance = p, v
			got, want := evaluate(t, toyNetwork(s, p), opt), closedForm(s.Betas, 40, opt)
			// 10240 values a t: the mean square of their noise is right within 1.4 %
			// (one standard deviation) at a t, and 0.4 % over a quartile.
			check := func(name string, got, want, tolerance float64) {
				if !(math.Abs(got-want) <= tolerance*math.Abs(want)) {
					t.Errorf("%s, %s: %s %.5f, want %.5f within %g %%", p, v, name, got, want, 100*tolerance)
				}
			}
			check("L_simple", got.LSimple, want.LSimple, 0.01)
			check("bits/dim", got.BitsPerDim, want.BitsPerDim, 0.01) // few t dominate it
			check("prior", got.Prior, want.Prior, 1e-5)
			check("decoder", got.Decoder, want.Decoder, 0.02)
			for q := range got.Quartiles {
				check("quartile's L_simple", got.Quartiles[q].LSimple, want.Quartiles[q].LSimple, 0.015)
				check("quartile's KL", got.Quartiles[q].KL, want.Quartiles[q].KL, 0.015)
			}
			if got.Estimate || got.Evaluations != 40*62 || got.Images != 40 || got.T != 62 {
				t.Errorf("%s, %s: %+v, want 40 images at every t", p, v, got)
			}
		}
	}
}

// With small steps and the variance that suits smooth data, the bound of the
// perfect denoiser is nearly tight: it comes close to the code length of the data
// under the true distribution, from above. (The decoder, whose variance is that
// of a smaller step, accounts for most of the gap: 0.12 in the closed form.)
func TestBoundIsNearlyTight(t *testing.T) {
	s := linear(t, 1000, 1e-4, 0.02)
	opt := toyOptions(s)
	opt.Images, opt.Values, opt.Variance = 40, 64, sched.FixedLarge
	r := evaluate(t, toyNetwork(s, sched.Eps), opt)
	exact := 0.0
	image := make([]byte, opt.Values)
	for i := range opt.Images {
		toyImage(i, image)
		for _, v := range image {
			x, std := float64(v)/127.5-1, math.Sqrt(toyVariance)
			mass := 0.5*math.Erfc(-(x+1./255)/std/math.Sqrt2) - 0.5*math.Erfc(-(x-1./255)/std/math.Sqrt2)
			exact -= math.Log2(mass) / float64(opt.Images*opt.Values)
		}
	}
	if gap := r.BitsPerDim - exact; gap < 0 || gap > 0.2 {
		t.Errorf("bound %.4f bits/dim, data %.4f: want a gap from 0 to 0.2", r.BitsPerDim, exact)
	}
}

func TestReportAddsUp(t *testing.T) {
	s := linear(t, 50, 1e-3, 0.2)
	for _, stride := range []int{1, 7, 50} {
		opt := toyOptions(s)
		opt.Stride = stride
		r := evaluate(t, toyNetwork(s, sched.Eps), opt)
		sum, loss := r.Prior+r.Decoder, 0.0
		evaluations := 0
		for _, q := range r.Quartiles {
			sum += q.KL
			loss += q.LSimple * float64(q.Last-q.First+1) / 50
			evaluations += q.Evaluations
		}
		if math.Abs(sum-r.BitsPerDim) > 1e-12*r.BitsPerDim || evaluations != r.Evaluations {
			t.Errorf("stride %d: parts %v in %d evaluations, whole %v in %d", stride, sum, evaluations, r.BitsPerDim, r.Evaluations)
		}
		if stride == 1 && math.Abs(loss-r.LSimple) > 1e-12 {
			t.Errorf("quartiles average %v, L_simple %v", loss, r.LSimple)
		}
	}
}

func TestBatchSizeDoesNotMatter(t *testing.T) {
	s := linear(t, 30, 1e-3, 0.2)
	for _, stride := range []int{1, 4} {
		opt := toyOptions(s)
		opt.Images, opt.Stride, opt.Clip = 9, stride, true
		want := evaluate(t, toyNetwork(s, sched.Eps), opt)
		for _, batch := range []int{1, 7, math.MaxInt} {
			opt.Batch = batch
			if got := evaluate(t, toyNetwork(s, sched.Eps), opt); !reflect.DeepEqual(got, want) {
				t.Errorf("batch %d: %+v\nbatch 16: %+v", batch, got, want)
			}
		}
	}
}

// An image's draws do not depend on which others are evaluated.
func TestNoiseBelongsToTheImage(t *testing.T) {
	s := linear(t, 12, 1e-3, 0.2)
	inputs := func(images int) map[float32]bool {
		seen := map[float32]bool{}
		opt := toyOptions(s)
		opt.Images = images
		evaluate(t, func(_ context.Context, x []float32, t []float64, _ []int, out []float32) error {
			for i := range t {
				seen[x[i*toyValues]] = true
			}
			return nil
		}, opt)
		return seen
	}
	all := inputs(40)
	for x := range inputs(4) {
		if !all[x] {
			t.Fatalf("x_t beginning with %v is drawn among 4 images but not among 40", x)
		}
	}
}

func TestEveryTimestepIsAsLikely(t *testing.T) {
	for _, T := range []int{1, 2, 3, 10, 61} {
		s := linear(t, T, 1e-3, 0.1)
		for stride := 1; stride <= T; stride++ {
			opt := toyOptions(s)
			opt.Stride = stride
			p, err := opt.resolve()
			if err != nil {
				t.Fatal(err)
			}
			counts := make([]int, T)
			for start := range max(T-1, 1) {
				last := -1
				for k := range 1 + p.others {
					now := p.timestep(T, start, k)
					if now <= last {
						t.Fatalf("T %d, stride %d, start %d: t=%d after t=%d", T, stride, start, now, last)
					}
					last = now
					counts[now]++
				}
			}
			for now, c := range counts {
				if want := p.others; now > 0 && c != want || now == 0 && c != max(T-1, 1) {
					t.Errorf("T %d, stride %d: t=%d is chosen %d times, want %d", T, stride, now, c, want)
				}
			}
			if sum := 1 + p.weight*float64(p.others); math.Abs(sum-float64(T)) > 1e-9 {
				t.Errorf("T %d, stride %d: the weights of an image sum to %v", T, stride, sum)
			}
		}
	}
}

func TestStrideEstimates(t *testing.T) {
	s := linear(t, 200, 1e-3, 0.06)
	opt := toyOptions(s)
	opt.Count, opt.Values = 400, 16
	exact := evaluate(t, toyNetwork(s, sched.Eps), opt)
	opt.Stride = 10
	got := evaluate(t, toyNetwork(s, sched.Eps), opt)
	if !got.Estimate || got.Stride != 10 || got.Evaluations != 400*21 {
		t.Errorf("estimate %v, stride %d, %d evaluations; want true, 10, 8400", got.Estimate, got.Stride, got.Evaluations)
	}
	for _, c := range []struct {
		name                 string
		got, standard, exact float64
	}{
		{"bits/dim", got.BitsPerDim, got.BitsPerDimSE, exact.BitsPerDim},
		{"L_simple", got.LSimple, got.LSimpleSE, exact.LSimple},
	} {
		if !(c.standard > 0 && c.standard < 0.05*c.exact) || math.Abs(c.got-c.exact) > 4*c.standard {
			t.Errorf("%s %.4f +- %.4f, exact %.4f", c.name, c.got, c.standard, c.exact)
		}
	}
}

func TestShortSchedules(t *testing.T) {
	for _, T := range []int{1, 2, 3, 5} {
		s := linear(t, T, 0.01, 0.5)
		r := evaluate(t, toyNetwork(s, sched.Eps), toyOptions(s))
		if b, err := json.Marshal(r); err != nil || r.Estimate || !(r.BitsPerDim > 0) {
			t.Errorf("T %d: %s, %v", T, b, err)
		}
		next := 0
		for _, q := range r.Quartiles {
			if q.First != next || q.Evaluations != 40*(q.Last-q.First+1) {
				t.Errorf("T %d: quartile %+v, want it to begin at %d with 40 evaluations of each t", T, q, next)
			}
			next = q.Last + 1
		}
		if next != T {
			t.Errorf("T %d: the quartiles end at %d", T, next)
		}
	}
}

// A network that is wildly wrong, but in the direction of the image: clipped, its
// prediction is perfect.
func TestClipBoundsThePrediction(t *testing.T) {
	s := linear(t, 20, 1e-3, 0.2)
	wild := func(_ context.Context, x []float32, t []float64, _ []int, out []float32) error {
		for i := range out {
			out[i] = 100
		}
		return nil
	}
	ones := func(_ int, dst []byte) (int, error) {
		for i := range dst {
			dst[i] = 255
		}
		return -1, nil
	}
	opt := toyOptions(s)
	opt.Parametrization.Prediction, opt.Variance, opt.Clip = sched.XStart, sched.FixedSmall, true
	r, err := Evaluate(context.Background(), wild, ones, opt)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(r.LSimple-99*99) > 1e-6*99*99 || r.Quartiles[3].KL > 1e-9 || r.Decoder > 1.01 {
		t.Errorf("L_simple %v, KL %v, decoder %v; want 9801 of the output itself, and the bound of a perfect prediction", r.LSimple, r.Quartiles[3].KL, r.Decoder)
	}
	opt.Clip = false
	if r, err = Evaluate(context.Background(), wild, ones, opt); err != nil || r.BitsPerDim < 1000 {
		t.Errorf("not clipped: %v bits/dim, %v; want a huge bound", r.BitsPerDim, err)
	}
}

func TestImagesAreSpreadOverTheSet(t *testing.T) {
	s := linear(t, 2, 0.1, 0.2)
	for _, c := range []struct {
		count, images int
		want          []int
	}{
		{10, 4, []int{0, 2, 5, 7}}, {3, 0, []int{0, 1, 2}}, {3, 9, []int{0, 1, 2}}, {0, 3, []int{0, 1, 2}},
	} {
		var got []int
		opt := toyOptions(s)
		opt.Count, opt.Images, opt.Values = c.count, c.images, 4
		r, err := Evaluate(context.Background(), toyNetwork(s, sched.Eps), func(i int, dst []byte) (int, error) {
			got = append(got, i)
			return toyImage(i, dst)
		}, opt)
		if err != nil || !slices.Equal(got, c.want) || r.Images != len(c.want) {
			t.Errorf("%d of %d: images %d, %v; want %d", c.images, c.count, got, err, c.want)
		}
	}
}

func TestProgress(t *testing.T) {
	s := linear(t, 5, 0.1, 0.2)
	var got [][2]int
	opt := toyOptions(s)
	opt.Images, opt.Batch = 3, 7
	opt.OnProgress = func(done, total int) { got = append(got, [2]int{done, total}) }
	evaluate(t, toyNetwork(s, sched.Eps), opt)
	if want := [][2]int{{7, 15}, {14, 15}, {15, 15}}; !slices.Equal(got, want) {
		t.Errorf("progress %v, want %v", got, want)
	}
}

func TestEvaluateErrors(t *testing.T) {
	s := linear(t, 10, 0.01, 0.2)
	broken := errors.New("broken")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	set := func(change func(*Options)) Options {
		opt := toyOptions(s)
		change(&opt)
		return opt
	}
	failing := func(context.Context, []float32, []float64, []int, []float32) error { return broken }
	output := func(v float32) Network {
		return func(_ context.Context, x []float32, t []float64, _ []int, out []float32) error {
			for i := range out {
				out[i] = v
			}
			return nil
		}
	}
	for _, c := range []struct {
		name    string
		ctx     context.Context
		network Network
		source  Source
		opt     Options
		want    string
	}{
		{"stride 0", nil, nil, nil, set(func(o *Options) { o.Stride = 0 }), "stride 0: want 1 (every timestep) to 10"},
		{"stride beyond T", nil, nil, nil, set(func(o *Options) { o.Stride = 11 }), "stride 11"},
		{"batch 0", nil, nil, nil, set(func(o *Options) { o.Batch = 0 }), "batch 0: want at least 1"},
		{"no values", nil, nil, nil, set(func(o *Options) { o.Values = 0 }), "images of 0 values"},
		{"negative images", nil, nil, nil, set(func(o *Options) { o.Images = -1 }), "images -1 of 40"},
		{"all of an endless set", nil, nil, nil, set(func(o *Options) { o.Count = 0 }), "endless"},
		{"image cannot be read", nil, nil, func(i int, _ []byte) (int, error) {
			if i == 2 {
				return -1, broken
			}
			return -1, nil
		}, toyOptions(s), "held-out image 2: broken"},
		{"network fails", nil, failing, nil, toyOptions(s), "eval: broken"},
		{"output is NaN", nil, output(float32(math.NaN())), nil, toyOptions(s), "held-out image 0 at t=0 is not finite"},
		{"output is infinite", nil, output(float32(math.Inf(-1))), nil, set(func(o *Options) { o.Clip = true }), "held-out image 0 at t=0 is not finite"},
		{"cancelled", cancelled, failing, nil, toyOptions(s), "context canceled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.ctx == nil {
				c.ctx = context.Background()
			}
			if c.network == nil {
				c.network = toyNetwork(s, sched.Eps)
			}
			if c.source == nil {
				c.source = toyImage
			}
			r, err := Evaluate(c.ctx, c.network, c.source, c.opt)
			if r != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("report %v, error %v; want an error with %q", r, err, c.want)
			}
		})
	}
}

func BenchmarkEvaluate(b *testing.B) {
	betas := make([]float64, 1000)
	for i := range betas {
		betas[i] = 1e-4 + 0.02*float64(i)/1000
	}
	s, err := sched.FromBetas(betas)
	if err != nil {
		b.Fatal(err)
	}
	opt := toyOptions(s)
	opt.Images, opt.Values, opt.Stride = 1, 768, 10
	idle := func(context.Context, []float32, []float64, []int, []float32) error { return nil }
	for b.Loop() {
		if _, err := Evaluate(context.Background(), idle, toyImage, opt); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(101*b.N), "us/evaluation")
}
