package sched

func init() {
	RegisterSampler("euler", Sampler{
		About: "Euler's method in sigma, Karras et al. 2022: ddim with eta 0, but for clipping",
		Order: 1, Calls: 1, Steps: euler,
	})
}

// euler is Euler's method for the ODE of Karras, Aittala, Aila & Laine, "Elucidating the
// Design Space of Diffusion-Based Generative Models" (2022), eq. 4: with y = x_t / Signal,
// sigma = Noise / Signal and the predicted x_0,
//
//	d      = (y - x_0) / sigma
//	y_prev = y + (sigma_prev - sigma) d
//
// It is ddim with eta 0, but that d follows x_0 where that is clipped.
func euler(_ *Schedule, nodes []Node, _ Options) ([]Step, error) {
	steps := make([]Step, len(nodes)-1)
	for k, from := range nodes[:len(nodes)-1] {
		steps[k] = Step{Node: from, Prev: firstOrder(from, nodes[k+1])}
	}
	return steps, nil
}
