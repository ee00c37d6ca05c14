package sched

import (
	"math"
	"testing"
)

// The solvers as their papers have them, one value at a time, where the samplers are sums of rows.

// singlestepPapers go from x at a node to another one.
var singlestepPapers = map[string]func(m mixture, s *Schedule, x float64, from, to Node) float64{
	"euler": func(m mixture, _ *Schedule, x float64, from, to Node) float64 {
		y := x / from.Signal
		d := (y - m.x0(x, from)) / from.Sigma()
		return to.Signal * (y + (to.Sigma()-from.Sigma())*d)
	},
	"heun": func(m mixture, _ *Schedule, x float64, from, to Node) float64 {
		y := x / from.Signal
		d := (y - m.x0(x, from)) / from.Sigma()
		next := y + (to.Sigma()-from.Sigma())*d
		d2 := (next - m.x0(to.Signal*next, to)) / to.Sigma()
		return to.Signal * (y + (to.Sigma()-from.Sigma())*(d+d2)/2)
	},
	"dpm_solver_2": func(m mixture, s *Schedule, x float64, from, to Node) float64 {
		h := to.Lambda() - from.Lambda()
		mid := s.NodeAt(from.Lambda() + h/2)
		u := mid.Signal/from.Signal*x - mid.Noise*math.Expm1(h/2)*m.eps(x, from)
		return to.Signal/from.Signal*x - to.Noise*math.Expm1(h)*m.eps(u, mid)
	},
	"dpm_solver_3": func(m mixture, s *Schedule, x float64, from, to Node) float64 {
		h := to.Lambda() - from.Lambda()
		s1, s2 := s.NodeAt(from.Lambda()+h/3), s.NodeAt(from.Lambda()+2*h/3)
		eps := m.eps(x, from)
		u1 := s1.Signal/from.Signal*x - s1.Noise*math.Expm1(h/3)*eps
		d1 := m.eps(u1, s1) - eps
		u2 := s2.Signal/from.Signal*x - s2.Noise*math.Expm1(2*h/3)*eps - s2.Noise*2*(math.Expm1(2*h/3)/(2*h/3)-1)*d1
		d2 := m.eps(u2, s2) - eps
		return to.Signal/from.Signal*x - to.Noise*math.Expm1(h)*eps - to.Noise*1.5*(math.Expm1(h)/h-1)*d2
	},
	"dpmpp_2s": func(m mixture, s *Schedule, x float64, from, to Node) float64 {
		h := to.Lambda() - from.Lambda()
		mid := s.NodeAt(from.Lambda() + h/2)
		u := mid.Noise/from.Noise*x - mid.Signal*math.Expm1(-h/2)*m.x0(x, from)
		return to.Noise/from.Noise*x - to.Signal*math.Expm1(-h)*m.x0(u, mid)
	},
}

func (m mixture) x0(x float64, n Node) float64 {
	x0, _ := m.at(x, n)
	return x0
}

func (m mixture) eps(x float64, n Node) float64 {
	_, eps := m.at(x, n)
	return eps
}

// unipcPaper is UniPC: a predictor to the next node, and the corrector as soon as the network was called there.
func unipcPaper(m mixture, nodes []Node, x float64, order int) float64 {
	var models []float64 // x_0 predicted at the nodes so far
	models = append(models, m.x0(x, nodes[0]))
	for k := 0; k < len(nodes)-1; k++ {
		from, to := nodes[k], nodes[k+1]
		h := to.Lambda() - from.Lambda()
		b := math.Expm1(-h)
		step := func(r, differences []float64) float64 {
			next := to.Noise/from.Noise*x - to.Signal*math.Expm1(-h)*models[k]
			for i, a := range unipcCoefs(h, r) {
				next -= to.Signal * b * a * differences[i] / r[i]
			}
			return next
		}
		var r, differences []float64
		for i := 1; i < order && i <= k; i++ {
			r = append(r, (nodes[k-i].Lambda()-from.Lambda())/h)
			differences = append(differences, models[k-i]-models[k])
		}
		var predicted float64
		if len(r) == 0 {
			predicted = to.Noise/from.Noise*x - to.Signal*math.Expm1(-h)*models[k]
		} else {
			predicted = step(r, differences)
		}
		if k == len(nodes)-2 {
			return predicted
		}
		models = append(models, m.x0(predicted, to))
		x = step(append(r, 1), append(differences, models[k+1]-models[k]))
	}
	return x
}

func TestSolversAreThoseOfTheirPapers(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	m := toys["two modes"]
	nodes := []Node{s.NodeAt(-2.5), s.NodeAt(-1.2), s.NodeAt(-0.5), s.NodeAt(0.3), s.NodeAt(0.8), s.NodeAt(2)}
	check := func(name string, paper func(x float64) float64) {
		x := []float64{-1.7, -0.4, 0.1, 1.2}
		var want []float64
		for _, x := range x {
			want = append(want, paper(x))
		}
		execute(steps(t, name, s, nodes, Options{}), m.denoiser(Eps), x, callbacks[float64]{})
		for i := range x {
			if math.Abs(x[i]-want[i]) > 1e-12 {
				t.Errorf("%s: %.15f, want %.15f", name, x[i], want[i])
			}
		}
	}
	for name, paper := range singlestepPapers {
		check(name, func(x float64) float64 {
			for k := range nodes[1:] {
				x = paper(m, s, x, nodes[k], nodes[k+1])
			}
			return x
		})
	}
	check("unipc", func(x float64) float64 { return unipcPaper(m, nodes, x, 2) })
	check("unipc_3", func(x float64) float64 { return unipcPaper(m, nodes, x, 3) })
}

// phi_k(z) is the integral over u from 0 to 1 of exp((1-u) z) u^(k-1) / (k-1)!, here by Simpson's rule.
func phiIntegral(k int, z float64) float64 {
	const n = 2000
	factorial := math.Gamma(float64(k))
	var sum float64
	for i := 0; i <= n; i++ {
		u := float64(i) / n
		weight := 2 + 2*float64(i%2)
		if i == 0 || i == n {
			weight = 1
		}
		sum += weight * math.Exp((1-u)*z) * math.Pow(u, float64(k-1)) / factorial
	}
	return sum / (3 * n)
}

func TestUniPCCoefficients(t *testing.T) {
	for k := 1; k <= 4; k++ {
		for _, z := range []float64{-8, -1.5, -1, -0.9, -1e-3, 0.5, 2} {
			if got, want := phi(k, z), phiIntegral(k, z); !within(got, want, 1e-9) {
				t.Errorf("phi_%d(%g) = %.12g, want %.12g", k, z, got, want)
			}
		}
	}
	for _, r := range [][]float64{{1}, {-0.7}} {
		if a := unipcCoefs(0.3, r); len(a) != 1 || a[0] != 0.5 {
			t.Errorf("a single coefficient is %v, want 1/2", a)
		}
	}
	for _, h := range []float64{0.01, 0.5, 3} {
		for _, r := range [][]float64{{-1, 1}, {-0.6, -1.3}, {-2, -3.5, 1}} {
			a := unipcCoefs(h, r)
			for j := 1; j <= len(r); j++ {
				var got float64
				for i := range a {
					got += a[i] * math.Pow(r[i], float64(j-1))
				}
				want := math.Gamma(float64(j+1)) * phiIntegral(j+1, -h) * -h / math.Expm1(-h)
				if !within(got, want, 1e-9) {
					t.Errorf("h = %g, r = %v, equation %d: %g, want %g", h, r, j, got, want)
				}
			}
		}
	}
}

// The step before the last one to x_0 looks back one node only.
func TestUniPC3LowersItsOrderBeforeTheEnd(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	all := nodesAt(s, 900, 700, 500, 300, 100)
	toClean := steps(t, "unipc_3", s, all, Options{})
	toNode := steps(t, "unipc_3", s, all[:5], Options{})
	if toClean[3].Prev.OnKept[2] != 0 || toClean[2].Prev.OnKept[2] == 0 || toNode[3].Prev.OnKept[2] == 0 {
		t.Errorf("steps\n%v, and\n%v: want the fourth of five to look back one node, and the last of four two",
			toClean, toNode)
	}
}
