package sched

func init() { RegisterSpacing("logsnr", logSNR) }

// logSNR takes even steps of Lambda, as Lu et al., "DPM-Solver" (2022): each divides
// the noise relative to the signal by the same factor.
func logSNR(s *Schedule, n int) []Node {
	return s.even(n, Node.Lambda, func(lambda float64) float64 { return lambda })
}
