package sched

import "math"

func init() {
	RegisterSampler("dpmpp_2s", Sampler{
		About: "DPM-Solver++(2S), Lu et al. 2022: singlestep on x0",
		Order: 2, Calls: 2, Kept: 1, Nodes: singlestepNodes(2), Steps: dpmpp2S,
	})
}

// dpmpp2S is DPM-Solver++(2S) of Lu et al. (2022), Algorithm 1, with r = 1/2. From s to t
// with h = lambda_t - lambda_s, and u halfway in lambda:
//
//	u   = Noise_u/Noise_s x_s - Signal_u (exp(-h/2) - 1) x_0(x_s, s)
//	x_t = Noise_t/Noise_s x_s - Signal_t (exp(-h) - 1) x_0(u)
func dpmpp2S(s *Schedule, nodes []Node, opt Options) ([]Step, error) {
	return singlestep(s, nodes, opt, ddimStages, dpmpp2SStages), nil
}

func dpmpp2SStages(s *Schedule, from, to Node) []stage {
	h := to.Lambda() - from.Lambda()
	u := ddimStages(s, from, s.NodeAt(from.Lambda()+h/2))[0]
	end := stage{Node: to, onStart: to.Noise / from.Noise}
	end.onX0[1] = -to.Signal * math.Expm1(-h)
	return []stage{u, end}
}
