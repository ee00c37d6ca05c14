package sched

// squaredcos_cap_v2 is diffusers' name of the cosine schedule: the same betas.
func init() {
	Register("squaredcos_cap_v2", func(cfg Config) ([]float64, error) { return Cosine(cfg.T), nil })
}
