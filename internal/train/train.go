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
	"slices"
	"strconv"
	"strings"
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

	// Objective is what the run minimises; nil is Denoising.
	Objective Objective

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
	// Classes names the classes of a network that is told them.
	Classes []string `json:"classes,omitempty"`
}

// Stopped is returned by Run when its context ended before the run did. The
// run is safe in a checkpoint.
type Stopped struct {
	Step, Steps int
}

func (s *Stopped) Error() string { return fmt.Sprintf("stopped after step %d of %d", s.Step, s.Steps) }

// Job is a run that is ready to start: its data set is open and its networks are
// planned, but the memory is not allocated and nothing is written.
type Job struct {
	*Plan
	// At is where the run is: at its beginning, or at the checkpoint it resumes.
	At Counters

	dataset data.Dataset
	resumed *checkpoint.File // nil for a new run
}

// Prepare checks everything about a run that can be checked beforehand.
func Prepare(s Setup) (j *Job, err error) {
	j = new(Job)
	defer func() {
		if err != nil {
			err = errors.Join(err, j.Close())
		}
	}()
	if j.dataset, err = data.Open(s.Data, data.Train); err != nil {
		return j, err
	}
	if err := checkClasses(s, j.Info()); err != nil {
		return j, err
	}
	if j.Plan, err = NewPlan(s); err != nil {
		return j, err
	}
	if err := j.CheckMemory(); err != nil {
		return j, err
	}
	if !s.Resume {
		if s.Model.Classes > 0 {
			j.At.Classes = j.Info().Classes
		}
		return j, nil
	}
	path, err := s.Dir.Latest()
	if err != nil {
		return j, err
	}
	if j.resumed, err = checkpoint.Open(path); err != nil {
		return j, err
	}
	if err := j.resumed.Counters(&j.At); err != nil {
		return j, err
	}
	if err := j.resumed.Check(j.Layout); err != nil {
		return j, err
	}
	return j, checkLearned(s, j.At.Classes, j.Info())
}

// checkClasses says what to change if the data set does not have the classes that the network
// is told.
func checkClasses(s Setup, info data.Info) error {
	has := len(info.Classes)
	switch {
	case s.Model.Classes == 0 || s.Model.Classes == has:
		return nil
	case has == 0:
		return fmt.Errorf("model.classes %d: %s has no classes: set data.classes to true if its folders name them, or model.classes to 0 to train without",
			s.Model.Classes, info.Name)
	}
	return fmt.Errorf("model.classes %d: %s has %d classes: set it to %d, or to 0 to train without", s.Model.Classes, info.Name, has, has)
}

// checkLearned reports an error if a run goes on with other classes than it has learned.
func checkLearned(s Setup, classes []string, info data.Info) error {
	if s.Model.Classes == 0 || slices.Equal(classes, info.Classes) {
		return nil
	}
	return fmt.Errorf("data.path %q: the run learned the classes %s, this data set has %s: resume it with its own",
		s.Data.Path, strings.Join(classes, ", "), strings.Join(info.Classes, ", "))
}

// Info describes the training images.
func (j *Job) Info() data.Info { return j.dataset.Info() }

// Close closes the data set and the checkpoint.
func (j *Job) Close() error {
	var errs []error
	if j.dataset != nil {
		errs = append(errs, j.dataset.Close())
	}
	if j.resumed != nil {
		errs = append(errs, j.resumed.Close())
	}
	return errors.Join(errs...)
}

// Run prepares a run and runs it in the folder Dir, which must exist.
func Run(ctx context.Context, s Setup) error {
	j, err := Prepare(s)
	if err != nil {
		return err
	}
	return errors.Join(j.Run(ctx), j.Close())
}

// Run trains in the folder Dir, which must exist, until Train.Steps, or until
// ctx ends: then it finishes the step, writes a checkpoint and returns a
// *Stopped.
func (j *Job) Run(ctx context.Context) (err error) {
	t, err := j.start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()

	var next *staged // nil until it is staged
	for t.at.Step < j.Train.Steps {
		if ctx.Err() != nil {
			if err := t.save(); err != nil {
				return fmt.Errorf("stopping after step %d: %w", t.at.Step, err)
			}
			return &Stopped{t.at.Step, j.Train.Steps}
		}
		if next == nil {
			next = t.stage(ctx, t.at.Step)
		}
		if next.lost {
			return t.failed(next.err)
		}
		if next.err != nil {
			if ctx.Err() != nil && errors.Is(next.err, context.Cause(ctx)) {
				continue // to stop
			}
			return errors.Join(next.err, t.save())
		}
		k, cursor := t.at.Step, next.cursor
		// A step in progress is finished even when ctx ends.
		if err := t.stepper.start(context.WithoutCancel(ctx), k); err != nil {
			return t.failed(err)
		}
		next = nil
		if k+1 < j.Train.Steps && t.stepper.feeder.Ahead() {
			next = t.stage(ctx, k+1)
		}
		r, err := t.stepper.wait(k)
		if err != nil {
			return t.failed(err)
		}
		if err := t.record(r, cursor); err != nil {
			return errors.Join(err, t.save())
		}
		if due(t.at.Step, j.Train.CheckpointEvery, j.Train.Steps) {
			if err := t.save(); err != nil {
				return err
			}
		}
		if due(t.at.Step, j.Train.PlotEvery, j.Train.Steps) {
			// A picture that fails is no reason to end a run.
			if err := t.draw(ctx); err != nil {
				j.Progress.Note("no samples of step " + strconv.Itoa(t.at.Step) + ": " + err.Error())
			}
		}
	}
	return nil
}

// staged is a batch that the device has for the next step, or why there is none.
type staged struct {
	cursor data.Cursor // behind the batch
	err    error
	lost   bool // the error is the device's, not the data's
}

// stage reads the batch of step k and hands it to the device. Only reading ends with ctx: what a batch is
// turned into may take the device.
func (t *trainer) stage(ctx context.Context, k int) *staged {
	batch, err := t.loader.Next(ctx)
	if err != nil {
		return &staged{err: err}
	}
	err = t.stepper.stage(context.WithoutCancel(ctx), k, batch)
	return &staged{cursor: t.loader.Cursor(), err: err, lost: err != nil}
}

// due reports whether something done every so many steps, and at the end, is
// due after a step.
func due(step, every, steps int) bool {
	return step == steps || every > 0 && step%every == 0
}

// trainer is a run in progress.
type trainer struct {
	*Job
	at       Counters
	saved    int // step of the newest checkpoint; -1 is none
	state    graph.State
	stepper  *stepper
	preview  generate.Generator
	loader   *data.Loader
	history  *history
	lineTime time.Time
	lineWait time.Duration
	lineStep int
}

// start allocates what the plan says and fills it.
func (j *Job) start() (t *trainer, err error) {
	t = &trainer{Job: j, at: j.At, saved: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	if t.state, err = j.Backend.NewState(j.Layout, true); err != nil {
		return t, err
	}
	if err := t.fill(); err != nil {
		return t, err
	}
	if t.stepper, err = newStepper(j.Setup, j.Step, t.state); err != nil {
		return t, err
	}
	if err := t.recall(); err != nil {
		return t, err
	}
	reverse, err := generate.LoadReverse(j.Backend, j.Preview, t.state, graph.EMA, j.Model)
	if err != nil {
		return t, err
	}
	t.preview = generate.Generator{
		Reverse: reverse, Schedule: j.schedule, Parametrization: j.parametrization, Config: j.Sample, Seed: j.Seed,
	}
	if t.loader, err = data.NewLoader(j.dataset, data.LoaderConfig{
		Batch: j.Train.Batch, Seed: j.Seed, Shuffle: true,
		Workers: j.Data.Workers, Prefetch: j.Data.Prefetch,
		MaxSkipped: j.Data.MaxSkipped, Strict: j.Data.Strict,
		Start:  t.at.Cursor,
		OnSkip: func(err error) { j.Progress.Note("skipped: " + err.Error()) },
	}); err != nil {
		return t, err
	}
	if t.history, err = openHistory(j.Dir, t.at.Step); err != nil {
		return t, err
	}
	t.lineStep, t.lineTime = t.at.Step, time.Now()
	return t, nil
}

// fill writes fresh weights, or those of the checkpoint, to the state.
func (t *trainer) fill() error {
	if t.resumed == nil {
		weights, err := t.initial()
		if err != nil {
			return err
		}
		return errors.Join(t.state.Write(graph.Params, weights), t.state.Write(graph.EMA, weights))
	}
	t.saved = t.at.Step
	return t.resumed.Restore(t.state)
}

// recall hands the objective what it remembered when the checkpoint was written, and
// closes it: once pruned, an open file would keep its place on the disk.
func (t *trainer) recall() error {
	if t.resumed == nil {
		return nil
	}
	ok, err := t.resumed.Objective(t.stepper.feeder.Tensors())
	if err == nil && !ok {
		t.Progress.Note(t.resumed.Path + " does not hold what the objective remembers of earlier steps: it starts anew")
	}
	err = errors.Join(err, t.resumed.Close())
	t.resumed = nil
	return err
}

// initial are the weights a new run starts from.
func (j *Job) initial() ([]float32, error) {
	if o, ok := j.objective().(Starting); ok {
		return o.Initial(j.Layout)
	}
	return j.Layout.InitialWeights(j.Seed), nil
}

// record counts a step, which ended at a place in the data, and reports it.
func (t *trainer) record(r result, cursor data.Cursor) error {
	t.at.Step++
	t.at.Cursor = cursor
	t.at.Loss += r.loss
	t.at.Losses++
	t.Progress.Update(progress.Status{
		Step: t.at.Step, Loss: r.loss,
		Images: (t.at.Step - t.At.Step) * t.Train.Batch, Waiting: t.loader.Waited(),
	})
	if !due(t.at.Step, t.Train.LogEvery, t.Train.Steps) {
		return nil
	}
	now, waited := time.Now(), t.loader.Waited()
	elapsed := max(now.Sub(t.lineTime), time.Microsecond).Seconds() // a coarse clock may not have moved
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
	if err := checkpoint.Write(t.Dir.Checkpoint(t.at.Step), t.Config, t.at, t.state, t.stepper.feeder.Tensors()); err != nil {
		return t.failed(err)
	}
	t.saved = t.at.Step
	if err := t.Dir.Prune(t.Train.KeepLast, t.Train.KeepEvery); err != nil {
		t.Progress.Note(err.Error())
	}
	return nil
}

// failed explains an error of a step or a checkpoint: the newest checkpoint is from
// before it.
func (t *trainer) failed(cause error) error {
	advice := ""
	if errors.Is(cause, errDiverged) {
		advice = " with a lower train.lr"
	}
	if t.saved < 0 {
		return fmt.Errorf("%w; there is no checkpoint yet: start again%s", cause, advice)
	}
	return fmt.Errorf("%w; the last good checkpoint is %s: resume from it%s", cause, t.Dir.Checkpoint(t.saved), advice)
}

// draw writes the loss curve and a grid of samples of the averaged weights.
func (t *trainer) draw(ctx context.Context) error {
	if err := t.history.plot(filepath.Base(string(t.Dir))); err != nil {
		return err
	}
	n := t.Train.Samples
	images := make([]float32, 0, n*t.Size.Values())
	err := t.preview.Draw(ctx, n, nil, func(_ int, batch []float32) error {
		images = append(images, batch...)
		return nil
	})
	if err != nil {
		return err
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
	if t.preview.Reverse != nil {
		errs = append(errs, t.preview.Reverse.Close())
	}
	if t.stepper != nil {
		errs = append(errs, t.stepper.close())
	}
	if t.state != nil {
		errs = append(errs, t.state.Close())
	}
	if t.history != nil {
		errs = append(errs, t.history.close())
	}
	return errors.Join(errs...)
}
