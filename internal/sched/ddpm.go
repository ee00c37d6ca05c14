package sched

import "math"

func init() {
	RegisterSampler("ddpm", Sampler{
		About: "ancestral sampling, Ho et al. 2020, Nichol & Dhariwal 2021",
		Order: 1, Calls: 1, Stochastic: true, Uses: []string{"variance"}, Steps: ddpm,
	})
}

// ddpm is ancestral sampling, Algorithm 2 of Ho et al. (2020), written with the
// posterior of eq. 6 and 7 at the predicted x_0 so that the prediction can be
// clipped, as their code does:
//
//	x_{t-1} = coef1 x_0 + coef2 x_t + std z,   z ~ N(0, I), and z = 0 in the last step
//
// std^2 is PosteriorVariance (FixedSmall), Betas (FixedLarge) or what the network says between
// the two (Learned). Any subset of the timesteps will do: its steps have the betas of the process
// seen at that subset only (Nichol & Dhariwal 2021, section 4). Between whole timesteps, and to an
// end that is not Clean, the posterior is that of the two nodes.
func ddpm(s *Schedule, nodes []Node, opt Options) ([]Step, error) {
	posterior := func(k int) (mean Row, logVarSmall, logVarLarge float64) { return ancestral(nodes[k], nodes[k+1]) }
	last := len(nodes) - 2
	if timesteps, whole := wholeTimesteps(nodes); whole {
		respaced, err := s.Respace(timesteps)
		if err != nil {
			return nil, err
		}
		posterior = func(k int) (mean Row, logVarSmall, logVarLarge float64) {
			i := last - k // the respaced tables run upwards
			mean = Row{OnX0: respaced.PosteriorMeanCoef1[i], OnXt: respaced.PosteriorMeanCoef2[i]}
			return mean, respaced.LogVariance(FixedSmall, i), respaced.LogVariance(FixedLarge, i)
		}
	}
	steps := make([]Step, last+1)
	for k := range steps {
		mean, small, large := posterior(k)
		steps[k] = Step{Node: nodes[k], Prev: mean}
		if nodes[k+1] == Clean {
			break
		}
		switch opt.Variance {
		case FixedSmall:
			steps[k].Prev.OnNoise = math.Exp(0.5 * small)
		case FixedLarge:
			steps[k].Prev.OnNoise = math.Exp(0.5 * large)
		case Learned:
			steps[k].Prev.OnNoise = 1
			steps[k].LogVarMin, steps[k].LogVarMax = small, large
		}
	}
	return steps, nil
}

// wholeTimesteps are the times of nodes without the end, and whether all are whole and the end is Clean.
func wholeTimesteps(nodes []Node) (timesteps []int, ok bool) {
	last := len(nodes) - 1
	for _, n := range nodes[:last] {
		if n.T != math.Trunc(n.T) {
			return nil, false
		}
		timesteps = append(timesteps, int(n.T))
	}
	return timesteps, nodes[last] == Clean
}
