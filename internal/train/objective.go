package train

import (
	"context"

	"ddpm/internal/graph"
)

// Objective is what a run minimises: the graph of a loss, and what it is fed.
type Objective interface {
	// Graph is the forward and backward pass on n images, whose loss is the scalar output
	// "loss". If it has an output "losses" [n], the Feeder observes it.
	Graph(s Setup, n int) (*graph.Graph, error)
	// Memory lists what a Feeder allocates on the device besides.
	Memory(s Setup) ([]Memory, error)
	// Open gets ready to feed the steps of a run, or of a measurement, to a network that is
	// trained on a state.
	Open(s Setup, state graph.State) (Feeder, error)
}

// Feeder turns images into the feeds of training steps. Everything random about it is a function of
// the seed, the step and the image's place in the batch, and everything it remembers is in
// Tensors.
type Feeder interface {
	// Ahead reports whether a step may be fed while the one before it runs: whether nothing
	// it is fed depends on weights.
	Ahead() bool
	// Begin is told that step k is next, before it is fed. That is after the checkpoints of the
	// steps before it, but if Ahead: then before the step before it ends.
	Begin(ctx context.Context, k int) error
	// Feed returns the feeds of images first, first+1, ... of step k, which stay as they are
	// until the next call. labels are -1 where there are no classes.
	Feed(ctx context.Context, k, first int, images []byte, labels []int32) (graph.Feeds, error)
	// Timesteps lists the t of those images, for an error.
	Timesteps(k, first, n int) []int
	// Observe is told the loss of each image of step k, once it is made. Where a step is fed ahead, step
	// k+1 has been fed by then.
	Observe(k int, losses []float32)
	// Tensors are what a checkpoint keeps, under names of their own: read when one is
	// written, and filled when a run is resumed, before Begin, if the checkpoint has all of
	// them in their lengths.
	Tensors() map[string][]float32
	Close() error
}

// Starting is an Objective whose run starts from weights that there are already.
type Starting interface {
	Initial(l *graph.Layout) ([]float32, error)
}

// Remembering is an Objective whose Feeder has so many values in Tensors, where they are many, as
// weights are.
type Remembering interface {
	Remembers(l *graph.Layout) int
}

// Teaching is an Objective whose Feeder runs the network, too: so many forward passes for each image.
type Teaching interface {
	Forwards(s Setup) int
}

// Staged is an Objective whose run is a row of stages of so many steps: learning rate, average of
// the weights and Adam's correction of its moments begin anew with each. 0 is a single stage.
type Staged interface {
	StageSteps() int
}

// objective is the one of the run: by default Denoising.
func (s *Setup) objective() Objective {
	if s.Objective != nil {
		return s.Objective
	}
	return Denoising{}
}
