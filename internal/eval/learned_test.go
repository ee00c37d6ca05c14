package eval

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

const toyChannels = 4

// wide puts a variance v(t) behind the channels of each pixel of the toy network's output.
func wide(s *sched.Schedule, p sched.Prediction, v func(t int) float64) Network {
	narrow := toyNetwork(s, p)
	return func(ctx context.Context, x []float32, t []float64, class []int, out []float32) error {
		plain := make([]float32, len(x))
		if err := narrow(ctx, x, t, class, plain); err != nil {
			return err
		}
		size := len(x) / len(t)
		for pixel := range len(x) / toyChannels {
			for c := range toyChannels {
				out[pixel*2*toyChannels+c] = plain[pixel*toyChannels+c]
				out[pixel*2*toyChannels+toyChannels+c] = float32(v(int(t[pixel*toyChannels/size])))
			}
		}
		return nil
	}
}

// toyOptimum is the v of the variance that x_{t-1} has for the toy's data when x_t is known.
func toyOptimum(s *sched.Schedule) func(t int) float64 {
	return func(t int) float64 {
		a, coef1 := s.AlphasCumprod[t], s.PosteriorMeanCoef1[t]
		variance := s.PosteriorVariance[t] + coef1*coef1*toyVariance*(1-a)/(a*toyVariance+1-a)
		small, large := s.LogVarianceRange(t)
		return 2*(math.Log(variance)-small)/(large-small) - 1
	}
}

func learnedOptions(s *sched.Schedule, p sched.Prediction) Options {
	opt := toyOptions(s)
	opt.Parametrization.Prediction, opt.Variance, opt.LearnSigma, opt.Channels = p, sched.Learned, true, toyChannels
	opt.Images = 20
	return opt
}

func TestBoundUsesTheLearnedVariance(t *testing.T) {
	s := linear(t, 40, 1e-2, 0.3)
	best := toyOptimum(s)
	for _, p := range []sched.Prediction{sched.Eps, sched.V, sched.XStart} {
		opt := learnedOptions(s, p)
		bits := func(v func(t int) float64) float64 { return evaluate(t, wide(s, p, v), opt).BitsPerDim }
		got := evaluate(t, wide(s, p, best), opt)
		for name, worse := range map[string]float64{
			"below the optimum":     bits(func(t int) float64 { return best(t) - 0.1 }),
			"above the optimum":     bits(func(t int) float64 { return best(t) + 0.1 }),
			"at the small variance": bits(func(int) float64 { return -1 }),
			"at the large variance": bits(func(int) float64 { return 1 }),
		} {
			if !(worse > got.BitsPerDim+1e-4) {
				t.Errorf("%s: %.6f bits/dim %s, want more than the %.6f at it", p, worse, name, got.BitsPerDim)
			}
		}
		// The entropy of the data in bins of 2/255, and what the prior misses.
		a := s.AlphasCumprod[39]
		want := 0.5*math.Log2(2*math.Pi*math.E*toyVariance) + math.Log2(255.0/2) +
			sched.BitsPerDim(sched.NormalKL(0, math.Log(a*toyVariance+1-a), 0, 0))
		if math.Abs(got.BitsPerDim-want) > 0.01*want { // few draws dominate it; package sched takes the mean over all
			t.Errorf("%s: %.5f bits/dim with the exact reverse step, want %.5f", p, got.BitsPerDim, want)
		}
		if got.Variance != "learned" {
			t.Errorf("the report says variance %s", got.Variance)
		}

		// The loss is that of the first half of the output, and a fixed variance
		// knows nothing of the second.
		opt.Variance = sched.FixedSmall
		fixed := evaluate(t, wide(s, p, best), opt)
		opt.LearnSigma = false
		if narrow := evaluate(t, toyNetwork(s, p), opt); !reflect.DeepEqual(fixed, narrow) || got.LSimple != narrow.LSimple {
			t.Errorf("%s: with fixed variance %+v, without a learned one %+v", p, fixed, narrow)
		}
	}
}

// A pixel has its predictions, then its variances.
func TestLearnedOutputIsInterleaved(t *testing.T) {
	s := linear(t, 7, 1e-2, 0.3)
	opt := learnedOptions(s, sched.Eps)
	opt.Images, opt.Batch = 1, 1
	image, x0 := make([]byte, opt.Values), make([]float32, opt.Values)
	toyImage(0, image)
	for i, v := range image {
		x0[i] = float32(v)/127.5 - 1
	}
	var want float64
	r := evaluate(t, func(_ context.Context, xt []float32, t []float64, _ []int, out []float32) error {
		rng.Key{Seed: 5, Step: uint32(t[0])}.Normals(out)
		predicted, variances := make([]float32, opt.Values), make([]float32, opt.Values)
		for pixel := range opt.Values / toyChannels {
			for c := range toyChannels {
				i, o := pixel*toyChannels+c, out[pixel*2*toyChannels:]
				s.PredictXStart(xt[i:i+1], int(t[0]), o[c:c+1], predicted[i:i+1])
				variances[i] = o[toyChannels+c]
			}
		}
		want += s.VLBTerm(x0, xt, predicted, variances, int(t[0]), sched.Learned)
		return nil
	}, opt)
	if want += s.PriorKL(x0); math.Abs(r.BitsPerDim-sched.BitsPerDim(want)) > 1e-5*r.BitsPerDim {
		t.Errorf("%.7f bits/dim, want %.7f", r.BitsPerDim, sched.BitsPerDim(want))
	}
}

func TestTheNetworkIsToldTheClasses(t *testing.T) {
	s := linear(t, 3, 0.1, 0.2)
	opt := toyOptions(s)
	opt.Images, opt.Batch, opt.Count = 3, 4, 3
	var got []int
	_, err := Evaluate(context.Background(), func(_ context.Context, _ []float32, _ []float64, class []int, _ []float32) error {
		got = append(got, class...)
		return nil
	}, func(i int, dst []byte) (int, error) {
		_, err := toyImage(i, dst)
		return i - 1, err
	}, opt)
	if want := []int{-1, -1, -1, 0, 0, 0, 1, 1, 1}; err != nil || !slices.Equal(got, want) {
		t.Errorf("classes %v, %v, want %v", got, err, want)
	}
}

// consistent is a network whose consistency parametrization gives the toy's perfect x_0.
func TestConsistencyModelsAreMeasuredByTheirPrediction(t *testing.T) {
	s := linear(t, 20, 1e-2, 0.3)
	p := sched.Parametrization{Prediction: sched.V, Consistency: true}
	consistent := func(_ context.Context, x []float32, t []float64, _ []int, out []float32) error {
		size := len(x) / len(t)
		for i, v := range x {
			n := s.Node(t[i/size])
			x0, _ := toyCoefs(n.Signal * n.Signal)
			onXt, onOut := p.XStartCoefs(n)
			out[i] = float32((x0*float64(v) - onXt*float64(v)) / onOut)
		}
		return nil
	}
	opt := toyOptions(s)
	opt.Parametrization.Prediction = sched.V
	want := evaluate(t, toyNetwork(s, sched.V), opt)
	opt.Parametrization = p
	got := evaluate(t, consistent, opt)
	if math.Abs(got.LSimple-want.LSimple) > 1e-4*want.LSimple || math.Abs(got.BitsPerDim-want.BitsPerDim) > 1e-4*want.BitsPerDim {
		t.Errorf("L_simple %v and %v bits/dim, want %v and %v", got.LSimple, got.BitsPerDim, want.LSimple, want.BitsPerDim)
	}
}

// What networks are trained on is what they are measured by: graph.VLB is sched's VLBTerm.
func TestGraphVLBIsTheBound(t *testing.T) {
	const pixels, channels = 6, 2
	const values = pixels * channels
	plain := linear(t, 12, 1e-3, 0.2)
	zero, err := sched.FromBetas(sched.ZeroTerminalSNR(plain.Betas))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*sched.Schedule{"plain": plain, "zero terminal SNR": zero} {
		for _, p := range []sched.Prediction{sched.Eps, sched.V, sched.XStart} {
			for _, variance := range []sched.Variance{sched.FixedSmall, sched.FixedLarge, sched.Learned} {
				for step := range s.T() {
					node := s.Node(float64(step))
					if p == sched.Eps && node.Signal == 0 {
						continue
					}
					drawn := make([]float32, 4*values)
					rng.Key{Seed: 9, Step: uint32(step)}.Normals(drawn)
					x0, eps, xt, target := make([]float32, values), drawn[values:2*values], make([]float32, values), make([]float64, values)
					for i := range x0 {
						x0[i] = float32(math.Round(min(max(float64(drawn[i])+1, 0), 2)*127.5))/127.5 - 1 // some at -1 and 1
					}
					s.QSample(x0, step, eps, xt)
					onX0, onEps := p.Target(s, step)
					onXt, onOut := p.XStartCoefs(node)
					width := channels
					coefs := []float64{onXt, onOut, s.PosteriorMeanCoef1[step], s.PosteriorLogVarianceClipped[step], 0, s.LogVariance(variance, step), 0}
					if variance == sched.Learned {
						width = 2 * channels
						coefs[graph.VLBLogVarMin], coefs[graph.VLBLogVarMax] = s.LogVarianceRange(step)
					}
					if step == 0 {
						coefs[graph.VLBDecoder] = 1
					}
					out, predicted, learned := make([]float64, pixels*width), make([]float32, values), make([]float32, values)
					for i := range target {
						at := i/channels*width + i%channels
						target[i] = onX0*float64(x0[i]) + onEps*float64(eps[i])
						out[at] = target[i] + 0.1*float64(drawn[2*values+i])
						predicted[i] = float32(onXt*float64(xt[i]) + onOut*out[at])
						if variance == sched.Learned {
							learned[i] = drawn[3*values+i] / 2
							out[at+channels] = float64(learned[i])
						}
					}
					image := graph.Shape{1, pixels, channels}
					got := graph.Operand{Data: make([]float64, 1), Shape: graph.Shape{1}}
					graph.VLB{}.Eval(got, []graph.Operand{
						{Data: out, Shape: graph.Shape{1, pixels, width}}, {Data: float64s(xt), Shape: image}, {Data: target, Shape: image},
						{Data: coefs, Shape: graph.Shape{1, graph.VLBCoefs}},
					})
					want := sched.BitsPerDim(s.VLBTerm(x0, xt, predicted, learned, step, variance))
					// x_t and x_0 were rounded to float32, which the smallest variances magnify.
					if math.Abs(got.Data[0]-want) > 1e-4*(math.Abs(want)+0.01) {
						t.Errorf("%s, %s, %s, t=%d: graph has %.9g bits, sched %.9g", name, p, variance, step, got.Data[0], want)
					}
				}
			}
		}
	}
}

func float64s(values []float32) []float64 {
	wide := make([]float64, len(values))
	for i, v := range values {
		wide[i] = float64(v)
	}
	return wide
}

func TestLearnedErrors(t *testing.T) {
	s := linear(t, 5, 0.1, 0.2)
	for want, change := range map[string]func(*Options){
		"eval: variance learned: want a network that predicts variances": func(o *Options) { o.LearnSigma = false },
		"eval: images of 256 values and 0 channels":                      func(o *Options) { o.Channels = 0 },
		"eval: images of 256 values and 3 channels":                      func(o *Options) { o.Channels = 3 },
	} {
		opt := learnedOptions(s, sched.Eps)
		change(&opt)
		_, err := Evaluate(context.Background(), toyNetwork(s, sched.Eps), toyImage, opt)
		if got := fmt.Sprint(err); len(got) < len(want) || got[:len(want)] != want {
			t.Errorf("error %q, want %q", got, want)
		}
	}
}
