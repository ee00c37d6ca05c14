package trained

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	// Variance is that of the bound, by its name in sample.variance; "" is what the network
	// learned, or sample.variance where it learned none.
	Variance   string
	OnProgress func(done, total int)
	OnSkip     func(error) // is told of each unreadable image; may be nil
}

// Evaluate measures the network with the weights graph.Params or graph.EMA on a
// data set. The clipping of the bound is that of Config.Sample, and so is the batch. A network
// with classes is told those of the images.
func (m *Model) Evaluate(ctx context.Context, weights graph.Arena, ds data.Dataset, e Evaluation) (r *eval.Report, err error) {
	c := m.Config.Sample
	if err := m.Measurable(ds.Info(), e.Variance); err != nil {
		return nil, err
	}
	variance, err := m.variance(e.Variance)
	if err != nil {
		return nil, err
	}
	network, err := m.Network(weights, c.Batch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	return eval.Evaluate(ctx, network.Predict, readable(ds, m.Config.Data, e.OnSkip), eval.Options{
		Schedule: m.Schedule, Parametrization: m.Parametrization, LearnSigma: m.Config.Model.LearnSigma,
		Variance: variance, Clip: c.Clip,
		Values: m.Size.Values(), Channels: m.Size.Channels, Count: ds.Info().Len, Images: e.Images, Stride: e.Stride,
		Batch: c.Batch, Seed: e.Seed, OnProgress: e.OnProgress,
	})
}

// Measurable says what keeps Evaluate from measuring on a data set with the variance of that name,
// see Evaluation.
func (m *Model) Measurable(info data.Info, variance string) error {
	if _, err := m.variance(variance); err != nil {
		return err
	}
	return m.checkClasses(info)
}

// checkClasses says what to change if labels of a data set would be told to the network as other
// classes than it has learned. A pipeline does not say which those were, only how many.
func (m *Model) checkClasses(info data.Info) error {
	known, has := m.Config.Model.Classes, len(info.Classes)
	switch {
	case known == 0 || has == 0:
		return nil
	case m.Classes != nil && !slices.Equal(m.Classes, info.Classes):
		return fmt.Errorf("data.name %q: its images are of the classes %s and the model knows %s: want data with the model's classes, or without labels",
			info.Name, strings.Join(info.Classes, ", "), strings.Join(m.Classes, ", "))
	case has > known:
		return fmt.Errorf("data.name %q: its images are of %d classes and the model knows %d: want data with the model's classes, or without labels",
			info.Name, has, known)
	}
	return nil
}

// variance is the one that is called name, see Evaluation.
func (m *Model) variance(name string) (sched.Variance, error) {
	learned := m.Config.Model.LearnSigma
	switch {
	case name == "" && learned:
		return sched.Learned, nil
	case name == "":
		name = m.Config.Sample.Variance
	}
	v, err := sched.ParseVariance(name)
	if err == nil && v == sched.Learned && !learned {
		err = fmt.Errorf("sample.variance %s: want a model with model.learn_sigma, which predicts variances, or a fixed variance", name)
	}
	return v, err
}

// readable reads images of a data set; in the place of one that cannot be read it
// gives the next that can. As in training, data.strict and data.max_skipped say
// how many may be unreadable.
func readable(ds data.Dataset, c data.Config, onSkip func(error)) eval.Source {
	skipped := map[int]bool{}
	return func(i int, dst []byte) (class int, err error) {
		for {
			class, err := ds.Read(i, dst)
			if err == nil || c.Strict {
				return class, err
			}
			known := skipped[i]
			skipped[i] = true
			if len(skipped) > min(c.MaxSkipped, ds.Info().Len-1) {
				return 0, fmt.Errorf("%w: more unreadable images than data.max_skipped allows, which is %d", err, c.MaxSkipped)
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

// ShapesScore draws n images, as Sampling says, and scores them. Those of a model that knows
// the classes of shapes are of all in turn.
func (m *Model) ShapesScore(ctx context.Context, weights graph.Arena, n int, onProgress func(generate.Moment) error) (s *eval.ShapesScore, err error) {
	g := m.Generator()
	g.OnMoment = onProgress
	if err := m.Compile(g, weights, min(n, m.Config.Sample.Batch)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	var asked []int
	if k := m.Config.Model.Classes; k == len(shapes.Classes) {
		for i := range n {
			asked = append(asked, i%k)
		}
	}
	images := make([]byte, 0, n*m.Size.Values())
	began := time.Now()
	err = g.Draw(ctx, n, nil, func(_ int, batch []float32) error {
		images = append(images, picture.ToBytes(batch)...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	score, err := eval.Score(images, n, asked)
	score.Seconds = took.Seconds() * 1000 / float64(n)
	return &score, err
}
