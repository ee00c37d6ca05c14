package sched

import (
	"fmt"
	"math"
)

func init() {
	RegisterSampler("ddim", Sampler{
		About: "DDIM, Song et al. 2021",
		Order: 1, Calls: 1, Uses: []string{"eta"}, Steps: ddim,
	})
}

// ddim is the sampler of Song, Meng & Ermon, "Denoising Diffusion Implicit
// Models" (2021), eq. 12 and 16. With a and aPrev the alphas_cumprod of this
// node and of the next one:
//
//	sigma  = eta sqrt((1 - aPrev) / (1 - a)) sqrt(1 - a / aPrev)
//	x_prev = sqrt(aPrev) x_0 + sqrt(1 - aPrev - sigma^2) eps + sigma z,   z ~ N(0, I)
//
// eta = 0 is deterministic: an Euler step of the diffusion ODE. eta = 1 is DDPM
// with FixedSmall on the same timesteps. Where x_0 is clipped, eps stays as the
// network gave it.
func ddim(_ *Schedule, nodes []Node, opt Options) ([]Step, error) {
	if !(opt.Eta >= 0 && opt.Eta <= 1) {
		return nil, fmt.Errorf("sched: ddim: eta %g: want 0 to 1", opt.Eta)
	}
	steps := make([]Step, len(nodes)-1)
	for k, from := range nodes[:len(nodes)-1] {
		to := nodes[k+1]
		sigma := opt.Eta * ancestralNoise(from, to)
		// At eta = 1 rounding can take the difference just below 0.
		onEps := math.Sqrt(max(to.Noise*to.Noise-sigma*sigma, 0))
		steps[k] = Step{Node: from, Prev: Row{OnX0: to.Signal, OnEps: onEps, OnNoise: sigma}}
	}
	return steps, nil
}

// ancestralNoise is the standard deviation of q(x_to | x_from, x_0).
func ancestralNoise(from, to Node) float64 {
	_, logVar, _ := ancestral(from, to)
	return math.Exp(0.5 * logVar)
}
