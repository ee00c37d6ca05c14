package main

import (
	"errors"
	"fmt"
	"io"
	"math"

	"ddpm/internal/generate"
	"ddpm/internal/progress"
	"ddpm/internal/runs"
	"ddpm/internal/trained"
)

// openModel opens the network at path, or of the newest run, with the flags that
// were given on top of its configuration.
func openModel(errs io.Writer, path string, flags keyFlags) (m *trained.Model, closeAll func() error, err error) {
	if path == "" {
		newest, err := runs.Newest(runs.Root)
		if err != nil {
			return nil, nil, err
		}
		path = string(newest)
	}
	machine, err := flags.machine()
	if err != nil {
		return nil, nil, err
	}
	b, err := openDevice(errs, machine)
	if err != nil {
		return nil, nil, err
	}
	if m, err = trained.Open(path, b); err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	closeAll = func() error { return errors.Join(m.Close(), b.Close()) }
	for _, note := range m.Notes {
		fmt.Fprintln(errs, "note:", note)
	}
	if err = flags.apply(m.Config.Set); err == nil {
		err = m.Config.Validate()
	}
	if err != nil {
		return nil, nil, errors.Join(err, closeAll())
	}
	return m, closeAll, nil
}

// drawn is the progress of images in the making.
func drawn(m generate.Moment) progress.Status {
	if m.Step == m.Steps {
		return images(m.First + m.Count)
	}
	s := images(m.First)
	s.Part = float64(m.Count) * float64(m.Step) / float64(m.Steps)
	return s
}

// images is the progress of something that has no loss.
func images(done int) progress.Status { return progress.Status{Step: done, Loss: math.NaN()} }
