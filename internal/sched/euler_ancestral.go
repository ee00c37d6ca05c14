package sched

import "math"

func init() {
	RegisterSampler("euler_ancestral", Sampler{
		About: "Euler to less noise than is due, the rest drawn anew; on the same nodes it is ddpm with fixed_small",
		Order: 1, Calls: 1, Stochastic: true, Steps: eulerAncestral,
	})
}

// eulerAncestral is euler with noise, in sigma = Noise / Signal as there:
//
//	up     = sqrt(sigma_prev^2 (sigma^2 - sigma_prev^2) / sigma^2)
//	down   = sqrt(sigma_prev^2 - up^2)
//	y_prev = y + (down - sigma) d + up z,   z ~ N(0, I)
//
// Signal_prev up is the standard deviation of q(x_prev | x_t, x_0).
func eulerAncestral(_ *Schedule, nodes []Node, _ Options) ([]Step, error) {
	steps := make([]Step, len(nodes)-1)
	for k, from := range nodes[:len(nodes)-1] {
		to := nodes[k+1]
		up := ancestralNoise(from, to) // times Signal_prev, as is down
		// Rounding can take the difference just below 0.
		down := math.Sqrt(max(to.Noise*to.Noise-up*up, 0))
		onXt := down / from.Noise
		steps[k] = Step{Node: from, Prev: Row{OnXt: onXt, OnX0: to.Signal - onXt*from.Signal, OnNoise: up}}
	}
	return steps, nil
}
