package sched

func init() { registerRange("linear", Linear) }

// Linear is the schedule of Ho et al. (2020): betas in even steps from start to
// end, 1e-4 to 0.02 for their T = 1000.
func Linear(T int, start, end float64) []float64 {
	betas := make([]float64, T)
	for t := range betas {
		// The conversion forbids a fused multiply-add, so that every machine
		// computes the same table.
		betas[t] = start + float64(float64(t)*((end-start)/float64(max(T-1, 1))))
	}
	return betas
}
