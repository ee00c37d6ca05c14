package sched

import "math"

func init() {
	RegisterSampler("dpmpp_sde_2m", Sampler{
		About: "SDE-DPM-Solver++(2M), Lu et al. 2022: ddpm with the x0 of dpmpp_2m",
		Order: 2, Calls: 1, Stochastic: true, Kept: 1, Steps: dpmppSDE2M,
	})
}

// dpmppSDE2M is SDE-DPM-Solver++(2M) of Lu et al., "DPM-Solver++" (2022): with D as dpmpp2M has it and z ~ N(0, I),
//
//	x_prev = Noise_prev/Noise exp(-h) x_t + Signal_prev (1 - exp(-2h)) D + Noise_prev sqrt(1 - exp(-2h)) z
//
// which with D = m_k is ancestral sampling with FixedSmall.
func dpmppSDE2M(_ *Schedule, nodes []Node, _ Options) ([]Step, error) {
	steps := make([]Step, len(nodes)-1)
	for k, from := range nodes[:len(nodes)-1] {
		mean, logVariance, _ := ancestral(from, nodes[k+1])
		mean = extrapolate(mean, nodes, k)
		mean.OnNoise = math.Exp(0.5 * logVariance)
		steps[k] = Step{Node: from, Prev: mean}
		steps[k].Kept[0] = Row{OnX0: 1}
	}
	return steps, nil
}
