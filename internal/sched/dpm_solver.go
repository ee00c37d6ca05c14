package sched

import "math"

func init() {
	RegisterSampler("dpm_solver_2", Sampler{
		About: "DPM-Solver-2, Lu et al. 2022: singlestep on eps",
		Order: 2, Calls: 2, Kept: 1, Nodes: singlestepNodes(2),
		Steps: func(s *Schedule, nodes []Node, opt Options) ([]Step, error) {
			return singlestep(s, nodes, opt, ddimStages, dpmSolver2), nil
		},
	})
	RegisterSampler("dpm_solver_3", Sampler{
		About: "DPM-Solver-3, Lu et al. 2022: singlestep on eps",
		Order: 3, Calls: 3, Kept: 2, Nodes: singlestepNodes(3),
		Steps: func(s *Schedule, nodes []Node, opt Options) ([]Step, error) {
			return singlestep(s, nodes, opt, ddimStages, dpmSolver2, dpmSolver3), nil
		},
	})
}

// dpmSolver2 is DPM-Solver-2 of Lu, Zhou, Bao, Chen, Li & Zhu, "DPM-Solver" (2022),
// Algorithm 1, with r_1 = 1/2. From s to t with h = lambda_t - lambda_s, and u halfway in lambda:
//
//	u   = Signal_u/Signal_s x_s - Noise_u (exp(h/2) - 1) eps(x_s, s)
//	x_t = Signal_t/Signal_s x_s - Noise_t (exp(h) - 1) eps(u)
func dpmSolver2(s *Schedule, from, to Node) []stage {
	if isLong(from, to) {
		return ddimStages(s, from, to)
	}
	x := start(from)
	h := to.Lambda() - from.Lambda()
	u := epsStep(x, s.NodeAt(from.Lambda()+h/2), x.eps(0))
	return []stage{u, epsStep(x, to, u.eps(1))}
}

// dpmSolver3 is DPM-Solver-3 of the same, Algorithm 2, with r_1 = 1/3 and r_2 = 2/3:
//
//	u_1 = Signal_1/Signal_s x_s - Noise_1 (exp(r_1 h) - 1) eps_s
//	D_1 = eps(u_1) - eps_s
//	u_2 = Signal_2/Signal_s x_s - Noise_2 (exp(r_2 h) - 1) eps_s
//	      - Noise_2 r_2/r_1 ((exp(r_2 h) - 1)/(r_2 h) - 1) D_1
//	D_2 = eps(u_2) - eps_s
//	x_t = Signal_t/Signal_s x_s - Noise_t (exp(h) - 1) eps_s - Noise_t/r_2 ((exp(h) - 1)/h - 1) D_2
func dpmSolver3(s *Schedule, from, to Node) []stage {
	if isLong(from, to) {
		return ddimStages(s, from, to)
	}
	const r1, r2 = 1.0 / 3, 2.0 / 3
	x := start(from)
	h := to.Lambda() - from.Lambda()
	eps := x.eps(0)
	u1 := epsStep(x, s.NodeAt(from.Lambda()+r1*h), eps)
	d1 := u1.eps(1).plus(-1, eps)
	u2 := epsStep(x, s.NodeAt(from.Lambda()+r2*h), eps)
	u2 = u2.plus(-u2.Noise*r2/r1*(math.Expm1(r2*h)/(r2*h)-1), d1)
	d2 := u2.eps(2).plus(-1, eps)
	end := epsStep(x, to, eps)
	end = end.plus(-end.Noise/r2*(math.Expm1(h)/h-1), d2)
	return []stage{u1, u2, end}
}

// epsStep is DPM-Solver-1 with any eps: from x to a node.
func epsStep(x stage, to Node, eps stage) stage {
	return stage{Node: to}.plus(to.Signal/x.Signal, x).plus(-to.Noise*math.Expm1(to.Lambda()-x.Lambda()), eps)
}
