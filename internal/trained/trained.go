// Package trained opens a trained network for use, whatever holds it: a run's
// folder, a checkpoint file, or a pipeline folder of the diffusers library. All
// three say by themselves what the network is and how to draw from it.
package trained

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ddpm/internal/checkpoint"
	"ddpm/internal/config"
	"ddpm/internal/diffusers"
	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/runs"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// Model is a trained network with all it takes to draw from it and to measure it.
type Model struct {
	Path string   // the checkpoint file or the pipeline folder
	Run  runs.Dir // the run that a checkpoint lies in; "" is none
	Step int      // optimiser steps the weights took; 0 for a pipeline, which does not say
	// Classes names the classes that the network knows, nil if they have only numbers.
	Classes []string

	// Averaged says whether there are averaged weights besides the raw ones. If
	// not, graph.EMA holds the same as graph.Params.
	Averaged bool
	// Notes are sentences for the user about what was assumed.
	Notes []string

	Config          config.Config // resolved; of a pipeline, what it does not say has its default
	Size            model.Size
	Schedule        *sched.Schedule
	Parametrization sched.Parametrization
	State           graph.State // weights and averaged weights

	backend graph.Backend
}

// Open reads the network at path onto a device: the newest checkpoint of a run,
// a checkpoint file, or a pipeline folder.
func Open(path string, b graph.Backend) (*Model, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist: name a run's folder, a checkpoint or a diffusers pipeline folder", path)
	case err != nil:
		return nil, fmt.Errorf("cannot open the model: %w", err)
	case !info.IsDir():
		return openCheckpoint(path, b)
	case runs.IsRun(path):
		latest, err := runs.Dir(path).Latest()
		if err != nil {
			return nil, err
		}
		return openCheckpoint(latest, b)
	case diffusers.Is(path):
		return openPipeline(path, b)
	}
	return nil, fmt.Errorf("%s is neither a run's folder, which has checkpoints/, nor a diffusers pipeline folder, which has unet/config.json", path)
}

func openCheckpoint(path string, b graph.Backend) (*Model, error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := config.Parse([]byte(f.Config))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var at train.Counters
	if err := f.Counters(&at); err != nil {
		return nil, err
	}
	m := &Model{
		Path: path, Run: runs.Of(path), Step: at.Step, Classes: at.Classes, Averaged: true, Config: *c, backend: b,
	}
	return m.load(f.Arena)
}

func openPipeline(path string, b graph.Backend) (*Model, error) {
	p, err := diffusers.Open(path)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	c := config.Default()
	c.Model, c.Diffusion, c.Sample.SamplerConfig = p.Model, p.Diffusion, p.Sample
	c.Data.Width, c.Data.Height, c.Data.Channels = p.Width, p.Height, p.Channels
	// The data it was trained on are not in it: eval asks for the path.
	c.Data.Name = "folder"
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m := &Model{Path: path, Notes: p.Notes, Config: c, backend: b}
	return m.load(func(_ graph.Arena, l *graph.Layout) ([]float32, error) { return p.Weights(l) })
}

// load derives what the configuration implies and fills the state.
func (m *Model) load(arena func(graph.Arena, *graph.Layout) ([]float32, error)) (*Model, error) {
	c := &m.Config
	m.Size = c.Size()
	var err error
	if m.Schedule, err = sched.New(c.Diffusion); err != nil {
		return nil, err
	}
	if m.Parametrization, err = c.Diffusion.Parametrization(); err != nil {
		return nil, err
	}
	layout, err := model.Layout(c.Model, m.Size)
	if err != nil {
		return nil, err
	}
	if m.State, err = m.backend.NewState(layout, false); err != nil {
		return nil, err
	}
	for _, a := range []graph.Arena{graph.Params, graph.EMA} {
		values, err := arena(a, layout)
		if err == nil {
			err = m.State.Write(a, values)
		}
		if err != nil {
			return nil, errors.Join(err, m.State.Close())
		}
	}
	return m, nil
}

// Name is short and fit for a file: step_0007000, or the name of a pipeline's
// folder.
func (m *Model) Name() string {
	name := filepath.Base(m.Path)
	if abs, err := filepath.Abs(m.Path); err == nil {
		name = filepath.Base(abs)
	}
	return strings.TrimSuffix(name, ".safetensors")
}

// Network makes the network ready to run on batches of up to batch images, on
// graph.Params or graph.EMA.
func (m *Model) Network(weights graph.Arena, batch int) (*generate.Network, error) {
	return generate.NewNetwork(m.backend, m.State, weights, m.Config.Model, m.Size, batch)
}

// Sampling is Config.Sample with a sampler by name, if it says auto.
func (m *Model) Sampling() sched.SamplerConfig {
	return generate.Resolve(m.Config.Sample.SamplerConfig, m.Config.Diffusion, m.Config.Model)
}

// Generator is one of images as Sampling and Config.Seed say. It is to be compiled before it
// is used.
func (m *Model) Generator() *generate.Generator {
	return &generate.Generator{
		Schedule: m.Schedule, Parametrization: m.Parametrization, Config: m.Sampling(), Seed: m.Config.Seed,
	}
}

// Compile makes a generator ready to draw in batches of up to batch images, with
// graph.Params or graph.EMA. The caller closes it.
func (m *Model) Compile(g *generate.Generator, weights graph.Arena, batch int) error {
	return g.Compile(m.backend, m.State, weights, m.Config.Model, m.Size, batch)
}

// Inverter is one of images of a class, negative for none, as Sampling says, with graph.Params or
// graph.EMA. The caller closes its Network.
func (m *Model) Inverter(weights graph.Arena, batch, class int) (*generate.Inverter, error) {
	v := &generate.Inverter{Schedule: m.Schedule, Parametrization: m.Parametrization, Config: m.Sampling(), Class: class}
	err := v.Check()
	if err == nil {
		v.Network, err = m.Network(weights, batch)
	}
	return v, err
}

// Close frees the weights on the device.
func (m *Model) Close() error { return m.State.Close() }

// Device describes what the network runs on, and in which precision.
func (m *Model) Device() string { return m.backend.Name() }
