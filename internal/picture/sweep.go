package picture

import (
	"fmt"
	"image/color"
	"strconv"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// SweepSeries is one line of a Sweep: a value at each number of network calls, rising.
type SweepSeries struct {
	Name  string
	Calls []int
	Value []float64
	// Noisy lines are dashed: of samplers that add noise on the way.
	Noisy bool
}

const (
	sweepWidth  = 8 * vg.Inch
	sweepHeight = 5 * vg.Inch
	legendWidth = 1.6 * vg.Inch
)

// sweepColors are told apart by lightness too; more lines than colours use them again with
// another mark.
var (
	sweepColors = []color.NRGBA{
		{22, 72, 148, 255}, {205, 105, 30, 255}, {40, 140, 90, 255},
		{160, 40, 60, 255}, {120, 90, 170, 255}, {70, 160, 190, 255}, {110, 110, 60, 255},
	}
	sweepMarks = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.TriangleGlyph{}}
)

// Sweep writes a PNG to path: for each series its values against the number of network calls, on a
// logarithmic axis. Values that are not finite are left out; it is an error if none remains.
func Sweep(path, title, valueLabel string, series []SweepSeries) error {
	p := newPlot()
	p.Title.Text = title
	p.Title.Padding = vg.Points(8)
	p.Title.TextStyle.Font = plotFont(13)
	p.Title.TextStyle.Font.Weight = xfont.WeightBold
	p.Title.TextStyle.Color = titleColor
	p.X.Label.Text, p.Y.Label.Text = "network calls an image", valueLabel
	p.X.Scale = plot.LogScale{}
	p.Y.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick { return linearTicks(low, high, 8) })
	p.Add(newGrid())

	// Beside the lines: one legend entry takes one line of text, however many cross.
	legend := plot.NewLegend()
	legend.Top, legend.Left = true, true
	legend.Padding = vg.Points(3)
	legend.TextStyle.Font, legend.TextStyle.Color = plotFont(10), inkColor

	marked := map[int]bool{}
	for i, s := range series {
		xys := drawable(s.Calls, s.Value, -maxDrawn)
		if len(xys) == 0 {
			continue
		}
		c := sweepColors[i%len(sweepColors)]
		line := newLine(xys, c, 1.6)
		if s.Noisy {
			line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		}
		mark := draw.GlyphStyle{Color: c, Radius: vg.Points(2.6), Shape: sweepMarks[i/len(sweepColors)%len(sweepMarks)]}
		points := &plotter.Scatter{XYs: xys, GlyphStyle: mark}
		p.Add(line, points)
		legend.Add(s.Name, line, points)
		for _, xy := range xys {
			marked[int(xy.X)] = true
		}
	}
	if len(marked) == 0 {
		return fmt.Errorf("picture: %s: no finite value to draw", path)
	}
	p.X.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick { return callTicks(marked, low, high) })
	if p.X.Min == p.X.Max {
		p.X.Min, p.X.Max = p.X.Min/2, p.X.Max*2
	}
	room := max(0.04*(p.Y.Max-p.Y.Min), 1e-6)
	p.Y.Min, p.Y.Max = p.Y.Min-room, p.Y.Max+room

	canvas := vgimg.NewWith(vgimg.UseWH(sweepWidth, sweepHeight), vgimg.UseDPI(curveDPI))
	area := draw.Crop(draw.New(canvas), vg.Points(10), -vg.Points(10), vg.Points(8), -vg.Points(10))
	p.Draw(draw.Crop(area, 0, -legendWidth, 0, 0))
	legend.Draw(draw.Crop(area, sweepWidth-legendWidth-vg.Points(10), 0, 0, -vg.Points(30)))
	return WritePNG(path, canvas.Image())
}

// callTicks are at the numbers of calls that were tried.
func callTicks(marked map[int]bool, low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for calls := range marked {
		if v := float64(calls); v >= low && v <= high {
			ticks = append(ticks, plot.Tick{Value: v, Label: strconv.Itoa(calls)})
		}
	}
	return ticks
}
