package sched

// scaled_linear is the name that latent diffusion (Rombach et al., "High-Resolution
// Image Synthesis with Latent Diffusion Models", 2022) gave to Quadratic, with
// betas from 0.00085 to 0.012 for T = 1000 in Stable Diffusion.
func init() { registerRange("scaled_linear", Quadratic) }
