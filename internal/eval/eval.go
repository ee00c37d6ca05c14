// Package eval measures models: the loss and the variational bound on held-out
// images, and the quality of samples of the synthetic shapes set.
package eval
