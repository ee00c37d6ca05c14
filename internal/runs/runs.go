// Package runs knows the folder of a training run: what is where in it, which
// checkpoints it holds, and which of them to keep.
//
//	runs/shapes/config.yaml                          resolved configuration
//	           /metrics.jsonl, metrics.csv           one line every train.log_every steps
//	           /loss.png                             the loss so far
//	           /samples/step_0007000.png             sample grids
//	           /checkpoints/step_0007000.safetensors everything a run needs to go on
package runs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Root is where runs are put and looked for.
const Root = "runs"

// Dir is the folder of one run.
type Dir string

func (d Dir) Config() string       { return filepath.Join(string(d), "config.yaml") }
func (d Dir) MetricsJSONL() string { return filepath.Join(string(d), "metrics.jsonl") }
func (d Dir) MetricsCSV() string   { return filepath.Join(string(d), "metrics.csv") }
func (d Dir) LossPlot() string     { return filepath.Join(string(d), "loss.png") }

// SampleGrid is the picture drawn after a number of steps.
func (d Dir) SampleGrid(step int) string {
	return filepath.Join(string(d), "samples", stepName(step, ".png"))
}

// Checkpoint is the file that holds the run after a number of steps.
func (d Dir) Checkpoint(step int) string {
	return filepath.Join(d.checkpoints(), stepName(step, extension))
}

func (d Dir) checkpoints() string { return filepath.Join(string(d), checkpointFolder) }

const (
	checkpointFolder = "checkpoints"
	extension        = ".safetensors"
)

func stepName(step int, ext string) string { return fmt.Sprintf("step_%07d%s", step, ext) }

// Vacant reports an error if path cannot become the folder of a new run: only
// an empty folder can, or one that is not there yet.
func Vacant(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case err == nil && len(entries) > 0 && IsRun(path):
		if _, err := Dir(path).Latest(); err != nil {
			return fmt.Errorf("%s holds a run without a checkpoint, which is being trained or was cut off: name another folder with --out, or remove it", path)
		}
		return fmt.Errorf("%s already holds a run: add --resume to continue it, or --out another folder", path)
	case err == nil && len(entries) > 0:
		return fmt.Errorf("%s is not empty: name another folder with --out", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot use %s for a run: %w", path, err)
	}
	return nil
}

// Create makes the folder of a new run.
func Create(path string) error {
	if err := Vacant(path); err != nil {
		return err
	}
	d := Dir(path)
	for _, sub := range []string{d.checkpoints(), filepath.Join(path, "samples")} {
		if err := os.MkdirAll(sub, 0o777); err != nil {
			return fmt.Errorf("cannot make the folder of the run: %w", err)
		}
	}
	return nil
}

// WriteConfig replaces the resolved configuration.
func (d Dir) WriteConfig(text []byte) error {
	if err := os.WriteFile(d.Config(), text, 0o666); err != nil {
		return fmt.Errorf("cannot write the configuration of the run: %w", err)
	}
	return nil
}

// IsRun reports whether a folder is one that Create made.
func IsRun(path string) bool {
	info, err := os.Stat(Dir(path).checkpoints())
	return err == nil && info.IsDir()
}

// Of is the run that a checkpoint file belongs to, or "".
func Of(checkpoint string) Dir {
	folder := filepath.Dir(checkpoint)
	d := Dir(filepath.Join(folder, ".."))
	if abs, err := filepath.Abs(folder); err != nil || filepath.Base(abs) != checkpointFolder || !IsRun(string(d)) {
		return ""
	}
	return d
}

// Checkpoints lists the steps that have one, rising.
func (d Dir) Checkpoints() ([]int, error) {
	entries, err := os.ReadDir(d.checkpoints())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a run: it has no folder %s", d, checkpointFolder)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not a run: %w", d, err)
	}
	var steps []int
	for _, e := range entries {
		digits, isStep := strings.CutPrefix(strings.TrimSuffix(e.Name(), extension), "step_")
		step, err := strconv.Atoi(digits)
		if isStep && err == nil && step >= 0 && e.Name() == stepName(step, extension) {
			steps = append(steps, step)
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// Latest is the path of the newest checkpoint.
func (d Dir) Latest() (string, error) {
	steps, err := d.Checkpoints()
	if err != nil {
		return "", err
	}
	if len(steps) == 0 {
		return "", fmt.Errorf("%s holds no checkpoint yet: let it train longer, or start it again after removing the folder", d)
	}
	return d.Checkpoint(steps[len(steps)-1]), nil
}

// Prune removes checkpoints, but for the keepLast newest and those whose step
// is a multiple of keepEvery, unless that is 0. It also removes the half-written
// files of a process that was killed, so nothing may be writing one.
func (d Dir) Prune(keepLast, keepEvery int) error {
	steps, err := d.Checkpoints()
	if err != nil {
		return err
	}
	for _, step := range steps[:max(0, len(steps)-keepLast)] {
		if keepEvery > 0 && step > 0 && step%keepEvery == 0 {
			continue
		}
		if err := os.Remove(d.Checkpoint(step)); err != nil {
			return fmt.Errorf("removing an old checkpoint: %w", err)
		}
	}
	halves, err := filepath.Glob(filepath.Join(d.checkpoints(), ".step_*.tmp"))
	for _, half := range halves {
		err = errors.Join(err, os.Remove(half))
	}
	if err != nil {
		return fmt.Errorf("removing a half-written checkpoint: %w", err)
	}
	return nil
}

// Newest finds the run below root whose newest checkpoint is the latest.
func Newest(root string) (Dir, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("looking for runs: %w", err)
	}
	var newest Dir
	var when time.Time
	for _, e := range entries {
		d := Dir(filepath.Join(root, e.Name()))
		if !IsRun(string(d)) {
			continue
		}
		path, err := d.Latest()
		if err != nil {
			continue
		}
		info, err := os.Stat(path)
		if err == nil && info.ModTime().After(when) {
			newest, when = d, info.ModTime()
		}
	}
	if newest == "" {
		return "", fmt.Errorf("there is no run with a checkpoint in %s: train one with ddpm train, or name one elsewhere", filepath.Join(root, ""))
	}
	return newest, nil
}
