package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"ddpm/internal/graph"
)

// checkReport is what devices --check prints of a device as JSON.
type checkReport struct {
	Device  string              `json:"device"`
	Kernels []graph.KernelCheck `json:"kernels"` // none if there is nothing to compare
}

// checkDevices compares the kernels of one device, or of each that has some. It is an
// error if one disagrees, or if there is no device.
func checkDevices(out, errs io.Writer, device string, asJSON bool) error {
	names := []string{device}
	if device == "" {
		var err error
		if names, err = checkable(); err != nil {
			return err
		}
	}
	reports := []checkReport{}
	options := graph.Options{Note: func(text string) { fmt.Fprintln(errs, text) }}
	for _, name := range names {
		kernels, err := graph.Check(name, options)
		if err != nil {
			return err
		}
		r := checkReport{name, append([]graph.KernelCheck{}, kernels...)}
		reports = append(reports, r)
		if !asJSON {
			r.print(out)
		}
	}
	if asJSON {
		if err := json.NewEncoder(out).Encode(map[string]any{"devices": reports}); err != nil {
			return err
		}
	}
	var rejected []error
	for _, r := range reports {
		if wrong := r.wrong(); wrong > 0 {
			rejected = append(rejected, fmt.Errorf("%s: %d of %s not used there", r.Device, wrong, counted(len(r.Kernels), "kernel")))
		}
	}
	return errors.Join(rejected...)
}

// checkable lists the devices but the processor, or says why there is none.
func checkable() ([]string, error) {
	var names []string
	var why error
	for _, k := range graph.List() {
		switch {
		case k.Err != nil:
			why = cmp.Or(why, k.Err)
		case len(k.Devices) == 0:
			why = cmp.Or(why, errors.New("the driver shows no device"))
		}
		for _, d := range k.Devices {
			names = append(names, d.Device)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("there is no GPU to check: %w", why)
	}
	return names, nil
}

func (r checkReport) wrong() int {
	n := 0
	for _, k := range r.Kernels {
		if k.Wrong != "" {
			n++
		}
	}
	return n
}

func (r checkReport) print(out io.Writer) {
	if len(r.Kernels) == 0 {
		row(out, r.Device, "nothing to compare: it runs the kernels that all GPUs run, and no others")
		return
	}
	fmt.Fprintf(out, "%-32s %5s %9s %7s  %s\n", "kernel", "cases", "worst", "bound", "verdict")
	for _, k := range r.Kernels {
		worst, bound := "", ""
		if k.Bound > 0 {
			worst, bound = fmt.Sprintf("%.2g", k.Worst), fmt.Sprintf("%g", k.Bound)
		}
		fmt.Fprintf(out, "%-32s %5d %9s %7s  %s\n", k.Kernel, k.Cases, worst, bound, cmp.Or(k.Wrong, "ok"))
	}
	row(out, r.Device, "%d of %s agree with those that they replace", len(r.Kernels)-r.wrong(), counted(len(r.Kernels), "kernel"))
}
