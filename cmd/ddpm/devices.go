package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ddpm/internal/graph"
)

func newDevices() *cobra.Command {
	var asJSON, check bool
	var device string
	c := &cobra.Command{
		Use:   "devices",
		Short: "List what networks can run on here",
		Long: `List the processor, with its threads, instruction set and precisions, and the GPUs,
with their memory, compute capability, driver and the set of kernels that would run;
or say why no GPU can be used.

On GPUs of some kinds faster kernels run in place of those that all GPUs run. The first
time such a GPU is used, and again with another driver or another version of this
program, the ones are compared with the others on random data, and what differs is not
used. --check compares them now, whatever was found before, and prints what it finds;
exit status 1 says that a kernel is not used.`,
		Example: `  ddpm devices
  ddpm devices --json
  ddpm devices --check
  ddpm devices --check --device cuda:1 --json`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			if check {
				return checkDevices(c.OutOrStdout(), c.ErrOrStderr(), device, asJSON)
			}
			if device != "" {
				return usage(c, "--device %s: only --check takes a device", device)
			}
			report, err := findDevices()
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(report)
			}
			report.print(c.OutOrStdout())
			return nil
		},
	}
	f := c.Flags()
	f.BoolVar(&check, "check", false, "compare the kernels of each GPU with those that they replace")
	f.StringVar(&device, "device", "", "the GPU to check, such as cuda:1 for the second; all if it is not given")
	f.BoolVar(&asJSON, "json", false, "print one JSON object; bytes are not rounded")
	return c
}

// devicesReport is what devices prints as JSON.
type devicesReport struct {
	CPU         processorReport    `json:"cpu"`
	Devices     []graph.DeviceInfo `json:"devices"`               // but the CPU
	Unavailable map[string]string  `json:"unavailable,omitempty"` // why a kind of device has none
}

type processorReport struct {
	Threads    int               `json:"threads"`
	Precisions []precisionReport `json:"precisions"`
}

// precisionReport is a precision and the instructions that products are computed with.
type precisionReport struct {
	Precision    string `json:"precision"`
	Instructions string `json:"instructions"`
}

func findDevices() (*devicesReport, error) {
	r := &devicesReport{Devices: []graph.DeviceInfo{}, Unavailable: map[string]string{}}
	if err := r.CPU.find(); err != nil {
		return nil, err
	}
	for _, k := range graph.List() {
		switch {
		case k.Err != nil:
			r.Unavailable[k.Kind] = k.Err.Error()
		case len(k.Devices) == 0:
			r.Unavailable[k.Kind] = "the driver shows no device"
		}
		r.Devices = append(r.Devices, k.Devices...)
	}
	return r, nil
}

// find opens the processor in each precision, to see which it has.
func (p *processorReport) find() error {
	var refused error
	for _, precision := range graph.Precisions() {
		b, _, err := graph.Open("cpu", graph.Options{Precision: graph.Precision(precision)})
		if err != nil {
			refused = cmp.Or(refused, err)
			continue
		}
		if cpu, ok := b.(graph.Processor); ok {
			p.Threads = cpu.Threads()
			p.Precisions = append(p.Precisions, precisionReport{precision, cpu.InstructionSet()})
		}
		if err := b.Close(); err != nil {
			return err
		}
	}
	if p.Precisions == nil {
		return refused
	}
	return nil
}

func (r *devicesReport) print(out io.Writer) {
	var precisions []string
	for _, p := range r.CPU.Precisions {
		precisions = append(precisions, p.Precision+" by "+p.Instructions)
	}
	row(out, "cpu", "%s: %s", counted(r.CPU.Threads, "thread"), strings.Join(precisions, ", "))
	for _, d := range r.Devices {
		row(out, d.Device, "%s, %s", d.Name, memoryText(d))
		row(out, "", "compute capability %s, driver %s, kernels %s", d.Capability, d.Driver, d.Kernels)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Unavailable)) {
		row(out, kind, "%s", r.Unavailable[kind])
	}
}

// memoryText is how much memory a device has, as far as that is known.
func memoryText(d graph.DeviceInfo) string {
	if d.Free == 0 {
		return graph.Bytes(d.Memory)
	}
	return fmt.Sprintf("%s free of %s", graph.Bytes(d.Free), graph.Bytes(d.Memory))
}
