package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"ddpm/internal/bench"
	"ddpm/internal/graph"
)

// roofPrinter prints rows of operations beside ceilings.
type roofPrinter struct {
	out      io.Writer
	ceilings *graph.Ceilings // or nil
	unit     float64         // of operations and bytes a second
	prefix   string
}

// tera is the speed from which rates are in trillions.
const tera = 5e12

func newRoofPrinter(out io.Writer, c *graph.Ceilings) *roofPrinter {
	if c != nil && c.Flops >= tera {
		return &roofPrinter{out, c, 1e12, "T"}
	}
	return &roofPrinter{out, c, 1e9, "G"}
}

// rate is a speed with its unit.
func (t *roofPrinter) rate(speed float64, unit string) string {
	return fmt.Sprintf("%.4g %s%s", speed/t.unit, t.prefix, unit)
}

const roofColumns = "%7s %10s %6s %8s %7s %8s %7s %7s %7s %6s"

func (t *roofPrinter) heading() {
	fmt.Fprintf(t.out, roofColumns+"\n", "share", "time", "calls", t.prefix+"FLOP/s", "of peak", "bytes", t.prefix+"B/s", "of copy", "bound", "of it")
}

// line prints a row; what does not apply or is unknown is blank.
func (t *roofPrinter) line(r bench.Row, name string) {
	speed := func(v float64) string {
		if v == 0 {
			return ""
		}
		return fmt.Sprintf("%.3g", v/t.unit)
	}
	share := func(v float64) string {
		if v == 0 || math.IsNaN(v) {
			return ""
		}
		return fmt.Sprintf("%.0f %%", 100*v)
	}
	var calls, bytes, ofPeak, ofCopy string
	if r.Calls > 0 {
		calls = strconv.Itoa(r.Calls)
	}
	if r.Bytes > 0 {
		bytes = graph.Bytes(r.Bytes)
	}
	if c := t.ceilings; c != nil {
		ofPeak, ofCopy = share(r.FlopsPerSecond()/c.Flops), share(r.BytesPerSecond()/c.Bytes)
	}
	fmt.Fprintf(t.out, roofColumns+"  %s\n", fmt.Sprintf("%.1f %%", 100*r.Share), short(r.Time), calls,
		speed(r.FlopsPerSecond()), ofPeak, bytes, speed(r.BytesPerSecond()), ofCopy, bound(r), share(r.OfFloor()), name)
}

// seconds is a time of so many.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// parseCeilings reads "790,4.3": TFLOP/s and TB/s.
func parseCeilings(text string) (c graph.Ceilings, ok bool) {
	compute, memory, ok := strings.Cut(text, ",")
	number := func(text string) float64 {
		v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || !graph.Plausible(v) {
			ok = false
		}
		return 1e12 * v
	}
	c.Flops, c.Bytes = number(compute), number(memory)
	return c, ok
}

// predictionReport is what plan --roofline prints as JSON.
type predictionReport struct {
	Config     string  `json:"config"`
	Precision  string  `json:"dtype"`
	PeakGFlops float64 `json:"peak_gflop_per_s"`
	CopyGBytes float64 `json:"copy_gb_per_s"`

	Steps []stepPrediction `json:"steps"`
}

type stepPrediction struct {
	Mode   string        `json:"mode"`
	Batch  int           `json:"batch"`
	Floor  float64       `json:"floor_s"`
	Flops  int64         `json:"flop"`
	Bytes  int64         `json:"bytes"`
	Groups []groupReport `json:"groups"`
}

// predict prints the least time of the steps on a device of such ceilings.
func (p *planCommand) predict(out io.Writer, c graph.Ceilings) error {
	r, err := p.loadRun()
	if err != nil {
		return err
	}
	precision := r.Config.Backend().Precision
	if precision == "" {
		precision = graph.BF16
	}
	s := setupOf(&r.Config, bench.Paper(precision))
	report := predictionReport{Config: r.Source, Precision: string(precision), PeakGFlops: c.Flops / 1e9, CopyGBytes: c.Bytes / 1e9}
	printer := newRoofPrinter(out, &c)
	if !p.json {
		row(out, "config", "%s", r.Source)
		row(out, "precision", "%s", precision)
		row(out, "ceilings", "%s, %s (as given)", printer.rate(c.Flops, "FLOP/s"), printer.rate(c.Bytes, "B/s"))
	}
	for _, step := range []stepPrediction{{Mode: "train", Batch: s.Train.Batch}, {Mode: "sample", Batch: s.Batch}} {
		ops, err := bench.Work(step.Mode, s)
		if err != nil {
			return err
		}
		table := bench.Roofline(ops, &c)
		step.Floor, step.Flops, step.Bytes = table.Total.Floor, table.Total.Flops, table.Total.Bytes
		for _, g := range table.Groups {
			step.Groups = append(step.Groups, groupReport{g.Group, workOf(g.Row, &c)})
		}
		report.Steps = append(report.Steps, step)
		if !p.json {
			fmt.Fprintln(out)
			row(out, step.Mode, "%s a step of %s at the ceilings, %.4g images/s", short(seconds(step.Floor)),
				counted(step.Batch, "image"), float64(step.Batch)/step.Floor)
			printFloors(out, table)
		}
	}
	if p.json {
		return json.NewEncoder(out).Encode(report)
	}
	return nil
}

// printFloors prints groups by their floors.
func printFloors(out io.Writer, t *bench.Table) {
	const columns = "%7s %10s %6s %11s %8s %7s"
	fmt.Fprintf(out, columns+"\n", "share", "floor", "calls", "FLOP", "bytes", "bound")
	line := func(r bench.Row) {
		work := ""
		if r.Flops > 0 {
			work = flops(r.Flops)
		}
		fmt.Fprintf(out, columns+"  %s\n", fmt.Sprintf("%.1f %%", 100*r.Floor/t.Total.Floor), short(seconds(r.Floor)),
			strconv.Itoa(r.Calls), work, graph.Bytes(r.Bytes), bound(r), r.Group)
	}
	for _, g := range t.Groups {
		line(g.Row)
	}
	line(t.Total)
}
