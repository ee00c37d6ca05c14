package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"ddpm/internal/graph"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version and what the program was built for",
		Long:    "Print the version, the source revision, the Go release, the system, and the devices that can be used here.",
		Example: "  ddpm version",
		Args:    noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			fmt.Fprintln(out, describeBuild())
			describeDevices(out)
			return nil
		},
	}
}

// describeBuild says in one line what this program was built from.
func describeBuild() string {
	version, revision, modified := "unknown", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = ", modified"
			}
		}
	}
	words := []string{"ddpm", version}
	if revision != "" {
		words = append(words, "("+revision[:min(len(revision), 12)]+modified+")")
	}
	return strings.Join(append(words, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH), " ")
}

func describeDevices(out io.Writer) {
	for _, device := range []string{"cpu", "cuda"} {
		b, _, err := graph.Open(device, graph.Options{})
		if err != nil {
			fmt.Fprintf(out, "%s: %v\n", device, err)
			continue
		}
		fmt.Fprintln(out, b.Name())
		describePrecision(out, device)
		if err := b.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// describePrecision says whether a device multiplies bfloat16, and how.
func describePrecision(out io.Writer, device string) {
	b, _, err := graph.Open(device, graph.Options{Precision: graph.BF16})
	if err != nil {
		fmt.Fprintf(out, "%s: %v\n", device, err)
		return
	}
	fmt.Fprintln(out, b.Name())
	if err := b.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
