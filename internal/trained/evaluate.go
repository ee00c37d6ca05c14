package trained

import (
	"context"
	"errors"
	"fmt"

	"ddpm/internal/data"
	"ddpm/internal/data/shapes"
	"ddpm/internal/eval"
	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/picture"
	"ddpm/internal/sched"
)

// Evaluation says how thoroughly Evaluate measures; the fields are those of
// eval.Options.
type Evaluation struct {
	Images, Stride int
	Seed           uint64
	OnProgress     func(done, total int)
	OnSkip         func(error) // is told of each unreadable image; may be nil
}

// Evaluate measures the network with the weights graph.Params or graph.EMA on a
// data set. The variance and the clipping of the bound are those of
// Config.Sample, and so is the batch.
func (m *Model) Evaluate(ctx context.Context, weights graph.Arena, ds data.Dataset, e Evaluation) (r *eval.Report, err error) {
	c := m.Config.Sample
	variance, err := sched.ParseVariance(c.Variance)
	if err != nil {
		return nil, err
	}
	network, err := m.Network(weights, c.Batch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	return eval.Evaluate(ctx, network.Predict, readable(ds, m.Config.Data, e.OnSkip), eval.Options{
		Schedule: m.Schedule, Prediction: m.Prediction, Variance: variance, Clip: c.Clip,
		Values: m.Size.Values(), Count: ds.Info().Len, Images: e.Images, Stride: e.Stride,
		Batch: c.Batch, Seed: e.Seed, OnProgress: e.OnProgress,
	})
}

// readable reads images of a data set; in the place of one that cannot be read it
// gives the next that can. As in training, data.strict and data.max_skipped say
// how many may be unreadable.
func readable(ds data.Dataset, c data.Config, onSkip func(error)) eval.Source {
	skipped := map[int]bool{}
	return func(i int, dst []byte) error {
		for {
			_, err := ds.Read(i, dst)
			if err == nil || c.Strict {
				return err
			}
			known := skipped[i]
			skipped[i] = true
			if len(skipped) > min(c.MaxSkipped, ds.Info().Len-1) {
				return fmt.Errorf("%w: more unreadable images than data.max_skipped allows, which is %d", err, c.MaxSkipped)
			}
			if !known && onSkip != nil {
				onSkip(err)
			}
			i = (i + 1) % ds.Info().Len
		}
	}
}

// DrawsShapes reports whether ShapesScore is about this model: whether its data
// are the shapes in the size they are defined in.
func (m *Model) DrawsShapes() bool {
	size := model.Size{Height: shapes.Size, Width: shapes.Size, Channels: 3}
	return m.Config.Data.Name == "shapes" && m.Size == size
}

// ShapesScore draws n images, as Config.Sample says, and scores them.
func (m *Model) ShapesScore(ctx context.Context, weights graph.Arena, n int, onProgress func(generate.Moment) error) (s *eval.ShapesScore, err error) {
	g, err := m.Generator(weights, min(n, m.Config.Sample.Batch))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.Reverse.Close()) }()
	g.OnMoment = onProgress
	images := make([]byte, 0, n*m.Size.Values())
	err = g.Draw(ctx, n, nil, func(_ int, batch []float32) error {
		images = append(images, picture.ToBytes(batch)...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	score, err := eval.Score(images, n)
	return &score, err
}
