package progress

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// line composes the latest report in at most limit characters, all of them
// ASCII so that each takes one column.
func (r *Reporter) line(limit int) string {
	head := fmt.Sprintf("%s %d", r.opt.Unit, r.now.Step)
	if r.opt.Total > 0 {
		head += fmt.Sprintf("/%d", r.opt.Total)
	}
	fields := []string{head}
	if !math.IsNaN(r.loss) {
		fields = append(fields, "loss "+lossText(r.loss))
	}
	total, done := float64(r.opt.Total), r.now.done()
	units := done - r.base.done()
	seconds := r.now.at.Sub(r.base.at).Seconds()
	measured := !r.base.at.IsZero() && units > 0 && seconds > 0
	if measured {
		images := float64(r.now.Images - r.base.Images)
		if r.opt.Unit == "image" {
			images = units
		}
		if images > 0 {
			fields = append(fields, rateText(images/seconds)+" img/s")
		}
		if r.now.Waiting > 0 {
			share := (r.now.Waiting - r.base.Waiting).Seconds() / seconds
			fields = append(fields, fmt.Sprintf("data %.0f%%", 100*min(1, share)))
		}
	}
	switch {
	case r.finished:
		fields = append(fields, "took "+Duration(r.opt.Now().Sub(r.began)))
	case measured && total > 0:
		left := max(0, total-done) / units * seconds
		fields = append(fields, "eta "+Duration(time.Duration(min(left, 1e9)*float64(time.Second))))
	}
	const gap = "  "
	for len(fields) > 1 && len(strings.Join(fields, gap)) > limit {
		least := max(1, len(fields)-2) // the time left, at the end, is worth more
		fields = slices.Delete(fields, least, least+1)
	}
	line := strings.Join(fields, gap)
	return line[:min(len(line), limit)]
}

// done is the number of units complete, those in the making in part.
func (m moment) done() float64 { return float64(m.Step) + m.Part }

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

// Duration writes the two largest units of a time: 42s, 7m05s, 3h20m, 2d04h.
func Duration(d time.Duration) string {
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
