// Package diffusers reads a model of the Python library of that name: a folder
// with the configuration and the weights of a UNet2DModel and the scheduler it
// was trained with, as DDPMPipeline.save_pretrained writes it:
//
//	model_index.json                              the classes of the parts
//	unet/config.json                              architecture
//	unet/diffusion_pytorch_model.safetensors      weights
//	scheduler/scheduler_config.json               diffusion process
//
// Older folders hold the same files without the sub-folders.
//
// The configuration of a U-Net is understood whole or refused: a key whose value
// cannot be honoured, or an unknown one that may matter, is an error that names
// it. So is anything about the diffusion process that this program's schedules
// lack. An absent key has the default of the library, which is not always this
// program's. The library's defaults for sampling are taken over where there is
// such a thing here; Pipeline.Notes says where there is not.
package diffusers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/sched"
)

const (
	modelClass      = "UNet2DModel"
	configFile      = "config.json"
	schedulerConfig = "scheduler_config.json"
)

// Pipeline is an open pipeline folder.
type Pipeline struct {
	Model     model.Config
	Diffusion sched.Config
	Sample    sched.SamplerConfig // the scheduler's own way of sampling, or near it

	Width, Height, Channels int // of the images

	// Notes are sentences for the user: what was assumed, and what the folder asks
	// for that sampling here does not do.
	Notes []string

	config  string // the file that Model comes from
	weights *weights
}

// Is reports whether dir looks like a folder for Open.
func Is(dir string) bool {
	if exists(filepath.Join(dir, indexFile)) || exists(filepath.Join(dir, "unet", configFile)) {
		return true
	}
	o, err := readObject(filepath.Join(dir, configFile))
	return err == nil && o.text("_class_name", "") == modelClass
}

// Open reads the configurations of a pipeline, or of its unet alone, and finds
// its weights; Close it after use. An error is a sentence that names the file
// and the key at fault.
func Open(dir string) (*Pipeline, error) {
	index, err := readIndex(dir)
	if err != nil {
		return nil, err
	}
	p := &Pipeline{}
	unet, ok := find(dir, "unet", configFile)
	if !ok {
		return nil, fmt.Errorf("diffusers: %s has neither %s nor %s: want a folder that save_pretrained wrote",
			dir, filepath.Join("unet", configFile), configFile)
	}
	if err := p.readUNet(unet); err != nil {
		return nil, err
	}
	scheduler, ok := find(dir, "scheduler", schedulerConfig)
	if !ok && index.scheduler {
		return nil, fmt.Errorf("diffusers: %s lists a scheduler, but %s is missing: download or save the pipeline again",
			filepath.Join(dir, indexFile), filepath.Join(dir, "scheduler", schedulerConfig))
	}
	if ok {
		err = p.readScheduler(scheduler)
	} else {
		err = p.assumeScheduler(dir)
	}
	if err != nil {
		return nil, err
	}
	if p.weights, err = openWeights(filepath.Dir(unet)); err != nil {
		return nil, err
	}
	return p, nil
}

// Weights reads the weights into an arena of layout l, the layout of Model for
// images of the pipeline's size.
func (p *Pipeline) Weights(l *graph.Layout) ([]float32, error) {
	return p.weights.arena(l, p.config)
}

// Close closes the files of the weights.
func (p *Pipeline) Close() error { return p.weights.close() }

func (p *Pipeline) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// find looks for a part's file in its sub-folder, then in the folder itself.
func find(dir, part, name string) (path string, ok bool) {
	for _, path := range []string{filepath.Join(dir, part, name), filepath.Join(dir, name)} {
		if exists(path) {
			return path, true
		}
	}
	return "", false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

const indexFile = "model_index.json"

// index is what matters of model_index.json.
type index struct {
	scheduler bool // the pipeline has one
}

// readIndex checks that a pipeline consists of nothing but a U-Net and a
// scheduler. A pipeline with an autoencoder denoises something else than
// pictures; one with a text encoder needs a prompt. The file is not required.
func readIndex(dir string) (index, error) {
	o, err := readObject(filepath.Join(dir, indexFile))
	if errors.Is(err, os.ErrNotExist) {
		return index{}, nil
	}
	if err != nil {
		return index{}, err
	}
	classes := map[string]string{}
	for part := range o.fields {
		// A part is [library, class], or [null, null] when it is left out.
		// Anything else is an option of the pipeline.
		class, err := decode[[]*string](o.fields[part])
		if err == nil && len(class) == 2 && class[1] != nil {
			classes[part] = *class[1]
		}
	}
	_, scheduler := classes["scheduler"]
	delete(classes, "scheduler")
	delete(classes, "unet")
	if len(classes) == 0 {
		return index{scheduler: scheduler}, nil
	}
	var others []string
	for part, class := range classes {
		others = append(others, fmt.Sprintf("%s (%s)", part, class))
	}
	slices.Sort(others)
	return index{}, fmt.Errorf("diffusers: %s lists %s: only pipelines of a unet and a scheduler alone, which denoise pixels, can be read",
		o.path, strings.Join(others, ", "))
}
