// Package train is the training loop: batches in, checkpoints, metrics and
// sample grids out.
//
// Every random number of step k is a function of the seed, k and the image's
// place in the batch, and every counter is in the checkpoint. So a run that was
// stopped and resumed writes the same checkpoints, byte for byte, as one that
// was not.
package train

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"ddpm/internal/checkpoint"
	"ddpm/internal/data"
	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/picture"
	"ddpm/internal/progress"
	"ddpm/internal/runs"
	"ddpm/internal/sched"
)

// Setup is everything a run is made of.
type Setup struct {
	Seed      uint64
	Data      data.Config
	Model     model.Config
	Size      model.Size
	Diffusion sched.Config
	Train     Config
	Sample    sched.SamplerConfig
	Batch     int // images drawn at a time for sample grids

	// Config is the resolved configuration as text, kept in checkpoints.
	Config  string
	Backend graph.Backend
	Dir     runs.Dir
	// Resume continues from the newest checkpoint in Dir.
	Resume   bool
	Progress *progress.Reporter
}

// Counters are where a run is, next to its weights and optimiser state.
type Counters struct {
	Step   int         `json:"step"` // steps made
	Cursor data.Cursor `json:"cursor"`
	// Loss and Losses are the sum and number of the losses since the last line
	// of metrics.
	Loss   float64 `json:"loss"`
	Losses int     `json:"losses"`
}

// Stopped is returned by Run when its context ended before the run did. The
// run is safe in a checkpoint.
type Stopped struct {
	Step, Steps int
}

func (s *Stopped) Error() string { return fmt.Sprintf("stopped after step %d of %d", s.Step, s.Steps) }

// Run trains until Train.Steps, or until ctx ends: then it finishes the step,
// writes a checkpoint and returns a *Stopped.
func Run(ctx context.Context, s Setup) (err error) {
	t, err := open(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()

	for t.at.Step < s.Train.Steps {
		batch, err := t.loader.Next(ctx)
		if ctx.Err() != nil {
			return errors.Join(&Stopped{t.at.Step, s.Train.Steps}, t.save())
		}
		if err != nil {
			return errors.Join(err, t.save())
		}
		// A step in progress is finished even when ctx ends.
		r, err := t.stepper.step(context.WithoutCancel(ctx), t.at.Step, batch)
		if err != nil {
			return t.diverged(err)
		}
		if err := t.record(r); err != nil {
			return err
		}
		if due(t.at.Step, s.Train.CheckpointEvery, s.Train.Steps) {
			if err := t.save(); err != nil {
				return err
			}
		}
		if due(t.at.Step, s.Train.PlotEvery, s.Train.Steps) {
			// A picture that fails is no reason to end a run.
			if err := t.draw(ctx); err != nil && ctx.Err() == nil {
				s.Progress.Note("no pictures of step " + strconv.Itoa(t.at.Step) + ": " + err.Error())
			}
		}
	}
	return nil
}

// due reports whether something done every so many steps, and at the end, is
// due after a step.
func due(step, every, steps int) bool {
	return step == steps || every > 0 && step%every == 0
}

// trainer is a run in progress.
type trainer struct {
	Setup
	at       Counters
	saved    int // step of the newest checkpoint; -1 is none
	state    graph.State
	stepper  *stepper
	preview  generate.Generator
	dataset  data.Dataset
	loader   *data.Loader
	history  *history
	started  int // step this process began at
	lineTime time.Time
	lineWait time.Duration
	lineStep int
}

// open prepares a run, from its beginning or its newest checkpoint.
func open(s Setup) (t *trainer, err error) {
	t = &trainer{Setup: s, saved: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	schedule, err := sched.New(s.Diffusion)
	if err != nil {
		return t, err
	}
	prediction, err := sched.ParsePrediction(s.Diffusion.Prediction)
	if err != nil {
		return t, err
	}
	if t.dataset, err = data.Open(s.Data, data.Train, s.Seed); err != nil {
		return t, err
	}
	layout, err := model.Layout(s.Model, s.Size)
	if err != nil {
		return t, err
	}
	if t.state, err = s.Backend.NewState(layout, true); err != nil {
		return t, err
	}
	if err := t.begin(layout); err != nil {
		return t, err
	}
	if t.stepper, err = newStepper(s, schedule, prediction, t.state); err != nil {
		return t, err
	}
	if t.loader, err = data.NewLoader(t.dataset, data.LoaderConfig{
		Batch: s.Train.Batch, Seed: s.Seed, Shuffle: true,
		Workers: s.Data.Workers, Prefetch: s.Data.Prefetch,
		MaxSkipped: s.Data.MaxSkipped, Strict: s.Data.Strict,
		Start:  t.at.Cursor,
		OnSkip: func(err error) { s.Progress.Note("skipped: " + err.Error()) },
	}); err != nil {
		return t, err
	}
	if s.Train.Samples > 0 {
		net, err := generate.NewNetwork(s.Backend, t.state, graph.EMA, s.Model, s.Size, min(s.Batch, s.Train.Samples))
		if err != nil {
			return t, err
		}
		t.preview = generate.Generator{
			Network: net, Schedule: schedule, Prediction: prediction, Config: s.Sample, Seed: s.Seed,
		}
	}
	if t.history, err = openHistory(s.Dir, t.at.Step); err != nil {
		return t, err
	}
	t.started, t.lineStep, t.lineTime = t.at.Step, t.at.Step, time.Now()
	return t, nil
}

// begin fills the state with fresh weights or with the newest checkpoint.
func (t *trainer) begin(layout *graph.Layout) error {
	if !t.Resume {
		weights := layout.InitialWeights(t.Seed)
		return errors.Join(t.state.Write(graph.Params, weights), t.state.Write(graph.EMA, weights))
	}
	path, err := t.Dir.Latest()
	if err != nil {
		return err
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Counters(&t.at); err != nil {
		return err
	}
	t.saved = t.at.Step
	return f.Restore(t.state)
}

// record counts a step and reports it.
func (t *trainer) record(r result) error {
	t.at.Step++
	t.at.Cursor = t.loader.Cursor()
	t.at.Loss += r.loss
	t.at.Losses++
	t.Progress.Update(progress.Status{
		Step: t.at.Step, Loss: r.loss,
		Images: (t.at.Step - t.started) * t.Train.Batch, Waiting: t.loader.Waited(),
	})
	if !due(t.at.Step, t.Train.LogEvery, t.Train.Steps) {
		return nil
	}
	now, waited := time.Now(), t.loader.Waited()
	elapsed := now.Sub(t.lineTime).Seconds()
	m := Metrics{
		Step: t.at.Step, Images: t.at.Step * t.Train.Batch,
		Loss: t.at.Loss / float64(t.at.Losses), GradNorm: r.gradNorm, LR: r.lr,
		ImagesPerSecond: float64((t.at.Step-t.lineStep)*t.Train.Batch) / elapsed,
		DataWait:        (waited - t.lineWait).Seconds() / elapsed,
	}
	t.at.Loss, t.at.Losses = 0, 0
	t.lineStep, t.lineTime, t.lineWait = t.at.Step, now, waited
	return t.history.add(m)
}

// save writes a checkpoint of the steps made, unless there is one, and drops
// old ones.
func (t *trainer) save() error {
	if t.saved == t.at.Step {
		return nil
	}
	if err := checkpoint.Write(t.Dir.Checkpoint(t.at.Step), t.Config, t.at, t.state); err != nil {
		return err
	}
	t.saved = t.at.Step
	return t.Dir.Prune(t.Train.KeepLast, t.Train.KeepEvery)
}

// diverged explains an error of a step. No checkpoint is written: the newest
// one is from before the error.
func (t *trainer) diverged(cause error) error {
	if t.saved < 0 {
		return fmt.Errorf("%w; there is no checkpoint yet: start again with a lower train.lr", cause)
	}
	return fmt.Errorf("%w; the last good checkpoint is %s: resume from it with a lower train.lr", cause, t.Dir.Checkpoint(t.saved))
}

// draw writes the loss curve and a grid of samples of the averaged weights.
func (t *trainer) draw(ctx context.Context) error {
	if err := t.history.plot(filepath.Base(string(t.Dir))); err != nil {
		return err
	}
	n := t.Train.Samples
	if n == 0 {
		return nil
	}
	values := t.Size.Values()
	images := make([]float32, n*values)
	t.preview.Prior(images, 0)
	for first := 0; first < n; first += t.preview.Network.Batch() {
		end := min(first+t.preview.Network.Batch(), n)
		if err := t.preview.Sample(ctx, images[first*values:end*values], first); err != nil {
			return err
		}
	}
	grid := picture.Grid(picture.ToBytes(images), n, t.Size.Width, t.Size.Height, t.Size.Channels, picture.GridOptions{})
	// Drawing is not training: it does not count in the speed of the next line.
	t.lineTime, t.lineStep, t.lineWait = time.Now(), t.at.Step, t.loader.Waited()
	return picture.WritePNG(t.Dir.SampleGrid(t.at.Step), grid)
}

func (t *trainer) close() error {
	var errs []error
	if t.loader != nil {
		t.loader.Close()
	}
	if t.dataset != nil {
		errs = append(errs, t.dataset.Close())
	}
	if t.preview.Network != nil {
		errs = append(errs, t.preview.Network.Close())
	}
	if t.stepper != nil {
		errs = append(errs, t.stepper.program.Close())
	}
	if t.state != nil {
		errs = append(errs, t.state.Close())
	}
	if t.history != nil {
		errs = append(errs, t.history.close())
	}
	return errors.Join(errs...)
}
