package sched

import "math"

func init() { RegisterSpacing("karras", karras) }

// karras is the spacing of Karras et al., "Elucidating the Design Space of
// Diffusion-Based Generative Models" (2022), eq. 5 with rho = 7: even steps of the
// seventh root of Sigma, which are short where there is little noise.
func karras(s *Schedule, n int) []Node {
	const rho = 7
	return s.even(n,
		func(n Node) float64 { return math.Pow(n.Sigma(), 1.0/rho) },
		func(root float64) float64 { return -rho * math.Log(root) })
}
