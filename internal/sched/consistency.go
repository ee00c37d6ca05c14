package sched

func init() {
	RegisterSampler("consistency", Sampler{
		About: "Song et al. 2023, of a distilled consistency model only",
		Calls: 1, Stochastic: true, Steps: consistency,
	})
}

// consistency is multistep consistency sampling, Algorithm 1 of Song, Dhariwal, Chen &
// Sutskever, "Consistency Models" (2023). A consistency model knows from any node where the
// diffusion ODE ends, so each call gives an image; noise takes it back to the next node, to be
// drawn better from there:
//
//	x_prev = Signal x_0 + Noise z,   z ~ N(0, I)
//
// A single step adds no noise. There is no order of convergence: more steps are better
// until the errors of the model itself are left. With another model, whose x_0 is a mean over images,
// the steps are defined, but the images lack contrast.
func consistency(_ *Schedule, nodes []Node, _ Options) ([]Step, error) {
	steps := make([]Step, len(nodes)-1)
	for k := range steps {
		to := nodes[k+1]
		steps[k] = Step{Node: nodes[k], Prev: Row{OnX0: to.Signal, OnNoise: to.Noise}}
	}
	return steps, nil
}
