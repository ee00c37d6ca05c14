package sched

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// WriteSamplers writes the table of the samplers, a line each. Where noise is not always added, eta
// says how much.
func WriteSamplers(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "sampler\torder\tcalls a step\tnoise\tsettings\tmethod")
	for _, name := range SamplerNames() {
		s, _ := SamplerByName(name)
		order, noise, settings := strconv.Itoa(s.Order), "none", strings.Join(s.Uses, ", ")
		if s.Order == 0 {
			order = "-"
		}
		switch {
		case s.Stochastic:
			noise = "always"
		case slices.Contains(s.Uses, "eta"):
			noise = "eta > 0"
		}
		if settings == "" {
			settings = "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", name, order, s.Calls, noise, settings, s.About)
	}
	var choices []string
	for _, c := range autoChoices {
		choice := c.sampler
		if c.upTo < math.MaxInt {
			choice += fmt.Sprintf(" with %s spacing to %d steps", c.spacing, c.upTo)
		}
		choices = append(choices, choice)
	}
	fmt.Fprintf(table, "%s\t-\t-\t-\t-\t%s\n", Auto, strings.Join(choices, ", "))
	return table.Flush()
}
