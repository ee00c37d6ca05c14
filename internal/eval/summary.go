package eval

import (
	"fmt"
	"io"
	"strings"
)

// Summary is everything that was measured of a trained network.
type Summary struct {
	Model string `json:"model"` // path of the checkpoint or the pipeline
	Step  int    `json:"step"`  // optimiser steps behind the weights
	Data  string `json:"data"`  // name of the data set

	// EMA is of the averaged weights, Raw of the last ones. A model that holds
	// only one set of weights has no EMA.
	EMA *Report `json:"ema,omitempty"`
	Raw *Report `json:"raw"`

	// Shapes is the score of images drawn with the averaged weights; models of
	// other data have none.
	Shapes *ShapesScore `json:"shapes_score,omitempty"`
}

// WriteText prints the summary for people.
func (s *Summary) WriteText(out io.Writer) error {
	var b strings.Builder
	r := s.Raw
	fmt.Fprintf(&b, "%s\n%d held-out images of %s, ", s.Model, r.Images, s.Data)
	if r.Estimate {
		fmt.Fprintf(&b, "every %s of %d timesteps: an estimate (--stride 1 takes all)\n\n", ordinal(r.Stride), r.T)
	} else {
		fmt.Fprintf(&b, "all %d timesteps\n\n", r.T)
	}
	reports, names := []*Report{r}, []string{"weights"}
	if s.EMA != nil {
		reports, names = []*Report{s.EMA, r}, []string{"EMA weights", "raw weights"}
	}
	row := func(label string, value func(*Report) float64) {
		fmt.Fprintf(&b, "%-20s", label)
		for _, r := range reports {
			fmt.Fprintf(&b, "%14.5f", value(r))
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "%20s", "")
	for _, name := range names {
		fmt.Fprintf(&b, "%14s", name)
	}
	fmt.Fprintln(&b)
	row("L_simple", func(r *Report) float64 { return r.LSimple })
	row("  standard error", func(r *Report) float64 { return r.LSimpleSE })
	for i, q := range r.Quartiles {
		if q.Evaluations > 0 {
			row(fmt.Sprintf("  t %d-%d", q.First, q.Last), func(r *Report) float64 { return r.Quartiles[i].LSimple })
		}
	}
	row("bits/dim", func(r *Report) float64 { return r.BitsPerDim })
	row("  standard error", func(r *Report) float64 { return r.BitsPerDimSE })
	row("  decoder, t 0", func(r *Report) float64 { return r.Decoder })
	for i, q := range r.Quartiles {
		if first := max(q.First, 1); first <= q.Last {
			row(fmt.Sprintf("  KL, t %d-%d", first, q.Last), func(r *Report) float64 { return r.Quartiles[i].KL })
		}
	}
	row("  prior", func(r *Report) float64 { return r.Prior })
	fmt.Fprintf(&b, "\nbits/dim with variance %s", r.Variance)
	if r.Clip {
		fmt.Fprint(&b, " and x_0 clipped")
	}
	fmt.Fprintln(&b)
	if s.Shapes != nil {
		fmt.Fprintf(&b, "\n%d samples: %v\n", s.Shapes.Images, s.Shapes)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// ordinal writes 1st, 2nd, 3rd, 11th, 21st.
func ordinal(n int) string {
	suffix := "th"
	if n/10%10 != 1 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprint(n, suffix)
}
