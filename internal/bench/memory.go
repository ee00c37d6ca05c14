package bench

import "ddpm/internal/graph"

// memoryOf is what a plan takes on its device in bytes, with the state it runs on:
// the arenas, activations and scratch memory, and the inputs, which a device apart
// from the host has once more for each of two steps.
func memoryOf(plan *graph.Plan, b graph.Backend, parts int) int64 {
	arenas := 2 // weights and their average
	inputs := 1
	if plan.Graph.Trains() {
		arenas = 5
		if parts > 1 {
			arenas++ // the sum of gradients
		}
		if _, ok := b.(graph.Stepping); ok {
			inputs += 2 * parts
		}
	}
	if keepsRounded(b) {
		arenas++ // both in half as many bytes
	}
	var fed int64
	for _, in := range plan.Graph.Inputs {
		fed += int64(in.DType.Size()) * int64(in.Shape.TotalSize())
	}
	words := int64(arenas)*int64(plan.Graph.Layout.Size) + int64(plan.Arena) + int64(plan.Kept)
	return 4*words + int64(inputs)*fed
}
