package progress

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// field is one piece of a line; rank orders what a narrow terminal keeps.
type field struct {
	text string
	rank int
}

// line composes the latest report in at most limit characters, all of them
// ASCII so that each takes one column. A log line has no limit, and no bar.
func (r *Reporter) line(limit int) string {
	head := fmt.Sprintf("%s %d", r.opt.Unit, r.now.Step)
	if r.opt.Total > 0 {
		head = fmt.Sprintf("%s %d/%d", r.opt.Unit, r.now.Step, r.opt.Total)
		if *r.opt.Terminal { // digits must not push the bar about
			head = fmt.Sprintf("%s %*d/%d", r.opt.Unit, len(fmt.Sprint(r.opt.Total)), r.now.Step, r.opt.Total)
		}
	}
	fields := r.fields()
	for width(head, fields) > limit && len(fields) > 0 {
		least := slices.MaxFunc(fields, func(a, b field) int { return a.rank - b.rank })
		fields = slices.DeleteFunc(fields, func(f field) bool { return f == least })
	}
	line := head[:min(len(head), limit)]
	if room := min(maxBar, limit-width(head, fields)-len(gap)); *r.opt.Terminal && r.opt.Total > 0 && room >= minBar {
		line += gap + bar(r.now.done()/float64(r.opt.Total), room)
	}
	for _, f := range fields {
		line += gap + f.text
	}
	return line
}

// gap stands between the fields of a line.
const gap = "  "

func width(head string, fields []field) int {
	n := len(head)
	for _, f := range fields {
		n += len(gap) + len(f.text)
	}
	return n
}

// fields returns what is known, in the order it is printed.
func (r *Reporter) fields() []field {
	var fields []field
	total, done := float64(r.opt.Total), r.now.done()
	if *r.opt.Terminal && r.opt.Total > 0 {
		fields = append(fields, field{fmt.Sprintf("%3.0f%%", math.Floor(100*min(1, done/total))), 3})
	}
	if !math.IsNaN(r.loss) {
		fields = append(fields, field{"loss " + lossText(r.loss), 2})
	}
	units := done - r.base.done()
	seconds := r.now.at.Sub(r.base.at).Seconds()
	measured := !r.base.at.IsZero() && units > 0 && seconds > 0
	if measured {
		images := float64(r.now.Images - r.base.Images)
		if r.opt.Unit == "image" {
			images = units
		}
		if images > 0 {
			fields = append(fields, field{rateText(images/seconds) + " img/s", 4})
		}
		if r.now.Waiting > 0 {
			share := (r.now.Waiting - r.base.Waiting).Seconds() / seconds
			fields = append(fields, field{fmt.Sprintf("data %.0f%%", 100*min(1, share)), 5})
		}
	}
	switch {
	case r.finished:
		fields = append(fields, field{"took " + durationText(r.opt.Now().Sub(r.began)), 1})
	case measured && total > 0:
		left := max(0, total-done) / units * seconds
		fields = append(fields, field{"eta " + durationText(time.Duration(min(left, 1e9)*float64(time.Second))), 1})
	}
	return fields
}

// done is the number of units complete, those in the making in part.
func (m moment) done() float64 { return float64(m.Step) + m.Part }

// bar draws a share of 1 in n characters.
func bar(share float64, n int) string {
	inner := n - 2
	full := int(max(0, min(1, share)) * float64(inner))
	head := ""
	if full < inner {
		head = ">"
	}
	return "[" + strings.Repeat("=", full) + head + strings.Repeat(" ", inner-full-len(head)) + "]"
}

func lossText(loss float64) string {
	if size := math.Abs(loss); size != 0 && size < 1e-3 || size >= 1e4 {
		return fmt.Sprintf("%.2e", loss)
	}
	return fmt.Sprintf("%.4f", loss)
}

func rateText(rate float64) string {
	switch {
	case rate >= 100:
		return fmt.Sprintf("%.0f", rate)
	case rate >= 10:
		return fmt.Sprintf("%.1f", rate)
	case rate >= 0.1:
		return fmt.Sprintf("%.2f", rate)
	}
	return fmt.Sprintf("%.2g", rate)
}

// durationText prints the two largest units: 42s, 7m05s, 3h20m, 2d04h.
func durationText(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
}
