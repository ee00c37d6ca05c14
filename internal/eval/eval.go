// Package eval measures models: the training loss and the variational bound of a
// network on held-out images (Ho, Jain & Abbeel, "Denoising Diffusion
// Probabilistic Models", 2020, eqs. 5 and 14), and the quality of samples of the
// synthetic shapes set.
package eval
