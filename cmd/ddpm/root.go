package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ddpm/internal/config"
	"ddpm/internal/graph"
	_ "ddpm/internal/graph/cpu"  // registers its device
	_ "ddpm/internal/graph/cuda" // likewise
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ddpm",
		Short: "Train diffusion models, draw from them, measure them",
		Long: `ddpm trains denoising diffusion models (Ho, Jain & Abbeel, 2020) on your images,
draws new images from them and measures how good they are.

Without any argument, train needs nothing: it draws its own data, a set of
coloured shapes, and leaves everything in runs/shapes.

DDPM_CPU=avx512, avx2 or generic (plain Go) in the environment forces the
instructions of the CPU kernels; otherwise they are the fastest it has.`,
		Example: `  ddpm train
  ddpm sample
  ddpm train --config cifar --set data.path=cifar-10-binary.tar.gz`,
		Args:          known,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		// What strconv says of a number or a bool is for programmers.
		text, _, _ := strings.Cut(err.Error(), ": strconv.")
		return usage(c, "%s", text)
	})
	root.AddCommand(newTrain(), newDistill(), newSample(), newEval(), newSweep(), newConfig(), newPlan(), newBench(), newTune(), newData(), newDevices(), newVersion())
	return root
}

// usage is the error of a command line that makes no sense.
func usage(c *cobra.Command, format string, args ...any) error {
	return fmt.Errorf("%s; see %s --help", fmt.Sprintf(format, args...), c.CommandPath())
}

// known refuses the name of a command that there is not.
func known(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return usage(c, "unknown command %q: perhaps %s", args[0], near[0])
	}
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			names = append(names, sub.Name())
		}
	}
	return usage(c, "unknown command %q, want one of %s", args[0], strings.Join(names, ", "))
}

// noArgument refuses words that are no flags.
func noArgument(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(c, "%q: %s takes flags only", args[0], c.CommandPath())
	}
	return nil
}

// openDevice opens what the network runs on.
func openDevice(out io.Writer, c *config.Config) (graph.Backend, error) {
	options := c.Backend()
	options.Note = func(text string) { fmt.Fprintln(out, text) }
	b, passedOver, err := graph.Open(c.Device, options)
	if err != nil {
		return nil, err
	}
	if passedOver != nil && !isNotBuilt(passedOver) {
		fmt.Fprintf(out, "no GPU is used: %v\n", passedOver)
	}
	return b, nil
}
