package sched

import (
	"math"
	"testing"
)

// mixture is data in one dimension of several normal distributions of one variance.
type mixture struct {
	means, weights []float64
	variance       float64
}

// at is the mean of x_0 given x of a node, and the noise that goes with it.
func (m mixture) at(x float64, n Node) (x0, eps float64) {
	v := n.Signal*n.Signal*m.variance + n.Noise*n.Noise
	nearest := math.Inf(1) // of the squared distances to the modes: it is subtracted, lest all shares are 0
	for _, mean := range m.means {
		nearest = min(nearest, (x-n.Signal*mean)*(x-n.Signal*mean))
	}
	var sum float64
	for i, mean := range m.means {
		d := x - n.Signal*mean
		share := m.weights[i] * math.Exp((nearest-d*d)/(2*v))
		sum += share
		x0 += share * (mean + n.Signal*m.variance*d/v)
		eps += share * n.Noise * d / v
	}
	return x0 / sum, eps / sum
}

func (m mixture) cdf(x float64, n Node) float64 {
	std := math.Sqrt(n.Signal*n.Signal*m.variance + n.Noise*n.Noise)
	var sum float64
	for i, mean := range m.means {
		sum += m.weights[i] * normalCDF((x-n.Signal*mean)/std)
	}
	return sum
}

// flow is where the diffusion ODE leads from x: in one dimension it keeps the order of all
// points, and so the share of the distribution below each.
func (m mixture) flow(x float64, from, to Node) float64 {
	if len(m.means) == 1 {
		std := func(n Node) float64 { return math.Sqrt(n.Signal*n.Signal*m.variance + n.Noise*n.Noise) }
		return to.Signal*m.means[0] + std(to)/std(from)*(x-from.Signal*m.means[0])
	}
	share := m.cdf(x, from)
	low, high := -20.0, 20.0
	for high-low > 1e-15*max(1, math.Abs(low)) {
		middle := low + (high-low)/2
		if middle == low || middle == high {
			break
		}
		if m.cdf(middle, to) < share {
			low = middle
		} else {
			high = middle
		}
	}
	return low + (high-low)/2
}

func (m mixture) denoiser(p Prediction) denoiser[float64] {
	network := func(x []float64, n Node, out []float64) {
		for i := range x {
			x0, eps := m.at(x[i], n)
			out[i] = predicted(p, n, x0, eps)
		}
	}
	return denoiser[float64]{parametrization: Parametrization{Prediction: p}, network: network}
}

// evenNodes are n steps between two values of Lambda, every other one longer by the given share and
// the next one shorter.
func evenNodes(s *Schedule, from, to float64, n int, longer float64) []Node {
	nodes := make([]Node, n+1)
	for i := range nodes {
		share := (float64(i) + longer*float64(i%2)) / float64(n)
		nodes[i] = s.NodeAt((1-share)*from + share*to)
	}
	return nodes
}

// odeError is the root mean square error of a sampler at some points, in n steps through evenNodes.
func odeError(t *testing.T, name string, m mixture, p Prediction, from, to float64, n int, longer float64) float64 {
	t.Helper()
	s := mustNew(t, "linear", 1000)
	nodes := evenNodes(s, from, to, n, longer)
	x := []float64{-1.5, -0.9, -0.4, 0.1, 0.3, 0.7, 1.1, 1.7}
	var want []float64
	for _, x := range x {
		want = append(want, m.flow(x, nodes[0], nodes[n]))
	}
	execute(steps(t, name, s, nodes, Options{}), m.denoiser(p), x, callbacks[float64]{})
	var sum float64
	for i := range x {
		sum += (x[i] - want[i]) * (x[i] - want[i])
	}
	return math.Sqrt(sum / float64(len(x)))
}

// toys are data whose diffusion ODE is known.
var toys = map[string]mixture{
	"normal":    {[]float64{0.6}, []float64{1}, 0.25},
	"two modes": {[]float64{-0.8, 1}, []float64{0.4, 0.6}, 0.16},
}

// The error of every solver of the ODE falls with its order. The way starts where there is much
// signal, so that the first steps, of lower order, have their share.
func TestSolversConvergeWithTheirOrder(t *testing.T) {
	for _, name := range solvers(t) {
		sampler, _ := SamplerByName(name)
		if sampler.Stochastic {
			continue
		}
		for toy, m := range toys {
			for _, p := range []Prediction{Eps, XStart, V} {
				for _, longer := range []float64{0, 0.3} {
					coarse := odeError(t, name, m, p, -0.5, 2, 64, longer)
					fine := odeError(t, name, m, p, -0.5, 2, 256, longer)
					slope := math.Log2(coarse/fine) / 2
					if math.Abs(slope-float64(sampler.Order)) > 0.25 {
						t.Errorf("%s, %s, %s prediction, every other step %g longer: errors %.3g and %.3g in 64 and 256 steps "+
							"are of order %.2f, want %d", name, toy, p, longer, coarse, fine, slope, sampler.Order)
					}
				}
			}
		}
	}
}

// Of unipc_3 only the first two steps are of third order, and from noise on they hardly matter.
func TestUniPC3IsOfFourthOrderFromNoise(t *testing.T) {
	for toy, m := range toys {
		for _, longer := range []float64{0, 0.3} {
			coarse := odeError(t, "unipc_3", m, Eps, -3, 2, 128, longer)
			fine := odeError(t, "unipc_3", m, Eps, -3, 2, 512, longer)
			if slope := math.Log2(coarse/fine) / 2; math.Abs(slope-4) > 0.25 {
				t.Errorf("%s: errors %.3g and %.3g in 128 and 512 steps are of order %.2f, want 4", toy, coarse, fine, slope)
			}
		}
	}
}

// moments are the mean and the variance that steps make of data N(mean, v) at the first node. They
// are exact as those of outputVariance: element 0 of the batch is the mean, element 1 a standard
// deviation above it, and element 2+k gets noise 1 at step k only.
func moments(steps []Step, d denoiser[float64], mean, v float64) (gotMean, gotV float64) {
	from := steps[0].Node
	x := make([]float64, 2+len(steps))
	for i := range x {
		x[i] = from.Signal * mean
	}
	x[1] += math.Sqrt(from.Signal*from.Signal*v + from.Noise*from.Noise)
	unit := func(step int, dst []float64) {
		clear(dst)
		dst[2+step] = 1
	}
	execute(steps, d, x, callbacks[float64]{noise: unit})
	for _, xi := range x[1:] {
		gotV += (xi - x[0]) * (xi - x[0])
	}
	return x[0], gotV
}

// Samplers return the mean exactly, and the variance with an error that falls with their order.
func TestSamplersReturnMeanAndVariance(t *testing.T) {
	const mean, start, end = 0.6, -3, 2
	s := mustNew(t, "linear", 1000)
	cases := []struct {
		name string
		opt  Options
	}{
		{"ddpm", Options{Variance: FixedLarge}},
		{"ddim", Options{Eta: 0.5}}, {"ddim", Options{Eta: 1}},
		{"euler_ancestral", Options{}},
	}
	for _, name := range solvers(t) { // as they are, deterministic ones too
		cases = append(cases, struct {
			name string
			opt  Options
		}{name, Options{}})
	}
	for _, c := range cases {
		sampler, _ := SamplerByName(c.name)
		for _, v := range []float64{0.25, 2} {
			m := mixture{[]float64{mean}, []float64{1}, v}
			deviation := func(n int) float64 {
				nodes := evenNodes(s, start, end, n, 0.2)
				gotMean, gotV := moments(steps(t, c.name, s, nodes, c.opt), m.denoiser(Eps), mean, v)
				last := nodes[n]
				if want := last.Signal * mean; math.Abs(gotMean-want) > 1e-12 {
					t.Errorf("%s, %+v: mean %g of data with %g, want %g", c.name, c.opt, gotMean, mean, want)
				}
				return math.Abs(gotV - last.Signal*last.Signal*v - last.Noise*last.Noise)
			}
			coarse, fine := deviation(64), deviation(256)
			slope := math.Log2(coarse/fine) / 2
			// From noise on unipc_3 does better than it promises.
			if slope < float64(sampler.Order)-0.25 || slope > float64(sampler.Order)+0.3 && c.name != "unipc_3" {
				t.Errorf("%s, %+v, data of variance %g: the variance is off by %.3g and %.3g in 64 and 256 steps, "+
					"of order %.2f, want %d", c.name, c.opt, v, coarse, fine, slope, sampler.Order)
			}
			if fine > 0.05 {
				t.Errorf("%s, %+v, data of variance %g: the variance is off by %g in 256 steps", c.name, c.opt, v, fine)
			}
		}
	}
}

// A network that learned the true variance of each step makes ddpm exact on normal data in steps of
// any size (Bao et al., "Analytic-DPM", 2022).
func TestLearnedVarianceIsExactForNormalData(t *testing.T) {
	const mean, v = 0.6, 0.3
	s := mustNew(t, "linear", 1000)
	for name, nodes := range map[string][]Node{
		"whole timesteps":   nodesAt(s, 999, 700, 420, 200, 60, 10),
		"between timesteps": evenNodes(s, -3, 2, 5, 0.4),
	} {
		steps := steps(t, "ddpm", s, nodes, Options{Variance: Learned})
		d := mixture{[]float64{mean}, []float64{1}, v}.denoiser(Eps)
		perfect := d.network
		d.learned = true
		d.network = func(x []float64, n Node, out []float64) {
			perfect(x, n, out[:len(x)])
			k := 0
			for nodes[k] != n {
				k++
			}
			to := nodes[k+1]
			// The posterior is N(c1 x_0 + c2 x_t, small), and the variance of x_0 given x_t
			// is v noise^2 / (signal^2 v + noise^2).
			ratio := n.Signal / to.Signal
			large := 1 - ratio*ratio
			small := large * to.Noise * to.Noise / (n.Noise * n.Noise)
			c1 := to.Signal * large / (n.Noise * n.Noise)
			variance := small + c1*c1*v*n.Noise*n.Noise/(n.Signal*n.Signal*v+n.Noise*n.Noise)
			for i := range x {
				out[len(x)+i] = 2*math.Log(variance/small)/math.Log(large/small) - 1
			}
		}
		gotMean, gotV := moments(steps, d, mean, v)
		end := nodes[len(nodes)-1]
		wantMean, wantV := end.Signal*mean, end.Signal*end.Signal*v+end.Noise*end.Noise
		if end == Clean {
			// The last step decodes to the mean of x_0 given x_t.
			last := nodes[len(nodes)-2]
			wantV = v * v * last.Signal * last.Signal / (last.Signal*last.Signal*v + last.Noise*last.Noise)
		}
		if !within(gotMean, wantMean, 1e-9) || !within(gotV, wantV, 1e-9) {
			t.Errorf("%s: mean %g and variance %g, want %g and %g", name, gotMean, gotV, wantMean, wantV)
		}
	}
}
