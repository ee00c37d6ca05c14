package sched

func init() {
	RegisterSampler("heun", Sampler{
		About: "Heun's method in sigma, Karras et al. 2022: singlestep",
		Order: 2, Calls: 2, Kept: 1, Nodes: singlestepNodes(2), Steps: heun,
	})
}

// heun is Algorithm 1 of Karras et al. (2022), where no noise is added: the slope d of euler is averaged
// over both ends of the step, but for the last one, to x_0:
//
//	y'     = y + (sigma_prev - sigma) d
//	d'     = (y' - x_0(y', sigma_prev)) / sigma_prev
//	y_prev = y + (sigma_prev - sigma) (d + d') / 2
//
// The x_0 in d' counts (sigma/sigma_prev - 1)/2 times, and so do its errors: hence isLong.
func heun(s *Schedule, nodes []Node, opt Options) ([]Step, error) {
	return singlestep(s, nodes, opt, ddimStages, heunStages), nil
}

func heunStages(s *Schedule, from, to Node) []stage {
	if isLong(from, to) {
		return ddimStages(s, from, to)
	}
	first := start(from)
	second := ddimStages(s, from, to)[0]
	half := to.Signal * (to.Sigma() - from.Sigma()) / 2
	// Of y = x / Signal, d is eps.
	end := stage{Node: to}.plus(to.Signal/from.Signal, first).plus(half, first.eps(0)).plus(half, second.eps(1))
	return []stage{second, end}
}
