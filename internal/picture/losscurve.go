package picture

import (
	"fmt"
	"image/color"
	"math"
	"strconv"
	"strings"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// LossSeries is what LossCurve draws. Step, Loss and, unless it is nil, LR are
// equally long, in rising order of Step.
type LossSeries struct {
	Title string
	Step  []int
	Loss  []float64
	LR    []float64 // learning rate; nil leaves its panel out
}

const (
	curveWidth  = 8 * vg.Inch
	curveHeight = 5 * vg.Inch
	lrHeight    = 1.4 * vg.Inch // added for the panel of the learning rate
	curveDPI    = 150
	maxDrawn    = 1e30
	maxPoints   = 4000 // drawn one by one; of more, the extent is drawn too
	maxBuckets  = 1200 // points of a line: about one a pixel column

	extentBuckets = 400
)

var (
	rawColor    = color.NRGBA{70, 120, 190, 70}
	fewColor    = color.NRGBA{70, 120, 190, 170}
	extentColor = color.NRGBA{70, 120, 190, 28}
	lossColor   = color.NRGBA{22, 72, 148, 255}
	lrColor     = color.NRGBA{205, 105, 30, 255}
	inkColor    = color.Gray{70}
	titleColor  = color.Gray{30}
	gridColor   = color.Gray{232}
)

// LossCurve writes a PNG to path: the loss against the step on a logarithmic
// axis, each logged value as a faint point under a smoothed line, and below it
// the learning rate. Values outside 1e-30 .. 1e30, NaN among them, are left
// out; it is an error if none remains.
func LossCurve(path string, series LossSeries) error {
	raw := drawable(series.Step, series.Loss, 1/maxDrawn)
	if len(raw) == 0 {
		return fmt.Errorf("picture: %s: no finite, positive loss to draw", path)
	}
	smooth := smoothed(raw)
	last := smooth[len(smooth)-1]

	loss := newPlot()
	loss.Title.Text = series.Title
	loss.Title.Padding = vg.Points(8)
	loss.Title.TextStyle.Font = plotFont(13)
	loss.Title.TextStyle.Font.Weight = xfont.WeightBold
	loss.Title.TextStyle.Color = titleColor
	loss.Y.Label.Text = "loss"
	loss.Y.Scale = plot.LogScale{}
	loss.Y.Tick.Marker = plot.TickerFunc(logTicks)
	shown := every(raw, maxPoints)
	points := &plotter.Scatter{XYs: shown, GlyphStyle: pointStyle(len(shown))}
	line := newLine(thin(smooth), lossColor, 1.6)
	loss.Add(newGrid())
	if len(shown) < len(raw) {
		loss.Add(extent(raw))
	}
	loss.Add(points, line)
	pad := max(math.Pow(loss.Y.Max/loss.Y.Min, 0.04), 1.06)
	loss.Y.Min, loss.Y.Max = loss.Y.Min/pad, loss.Y.Max*pad
	loss.Legend.Top = true
	loss.Legend.Padding = vg.Points(3)
	loss.Legend.XOffs, loss.Legend.YOffs = -vg.Points(8), -vg.Points(6)
	loss.Legend.TextStyle.Font = plotFont(10)
	loss.Legend.TextStyle.Color = inkColor
	loss.Legend.Add(fmt.Sprintf("smoothed, now %s", compact(last.Y)), line)
	loss.Legend.Add("logged", &plotter.Scatter{GlyphStyle: pointStyle(1)})

	height := curveHeight
	panels := [][]*plot.Plot{{loss}}
	if rate := drawable(series.Step, series.LR, 0); len(rate) > 0 {
		lr := newPlot()
		lr.Y.Label.Text = "learning rate"
		lr.Y.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick { return linearTicks(low, high, 4) })
		lr.Add(newGrid(), newLine(thin(rate), lrColor, 1.6))
		if len(rate) == 1 { // no line
			lr.Add(&plotter.Scatter{XYs: rate, GlyphStyle: draw.GlyphStyle{Color: lrColor, Radius: vg.Points(2.2), Shape: draw.CircleGlyph{}}})
		}
		lr.Y.Min, lr.Y.Max = 0, lr.Y.Max*1.15
		if lr.Y.Max <= 0 {
			lr.Y.Max = 1
		}
		panels = append(panels, []*plot.Plot{lr})
		height += lrHeight
	}
	panels[len(panels)-1][0].X.Label.Text = "step"
	first, end := raw[0].X, last.X
	for _, row := range panels { // one range for both, from 0 unless that leaves much of it empty
		first, end = min(first, row[0].X.Min), max(end, row[0].X.Max)
	}
	if first < end/10 {
		first = min(first, 0)
	}
	for _, row := range panels {
		row[0].X.Min, row[0].X.Max = first, max(end, first+1)
	}

	canvas := vgimg.NewWith(vgimg.UseWH(curveWidth, height), vgimg.UseDPI(curveDPI))
	area := draw.Crop(draw.New(canvas), vg.Points(10), -vg.Points(16), vg.Points(8), -vg.Points(10))
	if len(panels) == 1 {
		loss.Draw(area)
	} else {
		// Align gives both the same left and right edge; the heights are ours.
		tiles := plot.Align(panels, draw.Tiles{Rows: 2, Cols: 1}, area)
		top, bottom := tiles[0][0], tiles[1][0]
		bottom.Min.Y, bottom.Max.Y = area.Min.Y, area.Min.Y+lrHeight
		top.Min.Y, top.Max.Y = bottom.Max.Y+vg.Points(10), area.Max.Y
		loss.Draw(top)
		panels[1][0].Draw(bottom)
	}
	return WritePNG(path, canvas.Image())
}

// drawable pairs steps with the values from low to maxDrawn.
func drawable(step []int, value []float64, low float64) plotter.XYs {
	var xys plotter.XYs
	for i, v := range value {
		if v >= low && v <= maxDrawn {
			xys = append(xys, plotter.XY{X: float64(step[i]), Y: v})
		}
	}
	return xys
}

// smoothed is a running mean whose memory grows with the number of points seen,
// up to a share of them all: it follows the steep start and is calm later.
func smoothed(raw plotter.XYs) plotter.XYs {
	out := make(plotter.XYs, len(raw))
	mean := raw[0].Y
	for i, p := range raw {
		memory := 1 + min(float64(i)/8, max(10, float64(len(raw))/64))
		mean += (p.Y - mean) / memory
		out[i] = plotter.XY{X: p.X, Y: mean}
	}
	return out
}

// every picks at most limit points, evenly.
func every(xys plotter.XYs, limit int) plotter.XYs {
	n := len(xys)
	if n <= limit {
		return xys
	}
	out := make(plotter.XYs, limit)
	for i := range out {
		out[i] = xys[i*n/limit]
	}
	return out
}

// thin shortens a line to at most maxBuckets points, the mean of each run.
func thin(xys plotter.XYs) plotter.XYs {
	n := len(xys)
	if n <= maxBuckets {
		return xys
	}
	out := make(plotter.XYs, 0, maxBuckets+2)
	out = append(out, xys[0])
	for b := range maxBuckets {
		var mean plotter.XY
		run := xys[b*n/maxBuckets : (b+1)*n/maxBuckets]
		for _, p := range run {
			mean.X += p.X / float64(len(run))
			mean.Y += p.Y / float64(len(run))
		}
		out = append(out, mean)
	}
	return append(out, xys[n-1])
}

// extent is the area between the lowest and the highest value of each of
// extentBuckets runs, so that a spike shows even where its point is not drawn.
func extent(xys plotter.XYs) *plotter.Polygon {
	n := len(xys)
	outline := make(plotter.XYs, 2*extentBuckets)
	for b := range extentBuckets {
		run := xys[b*n/extentBuckets : (b+1)*n/extentBuckets]
		low, high := run[0].Y, run[0].Y
		for _, p := range run {
			low, high = min(low, p.Y), max(high, p.Y)
		}
		x := run[len(run)/2].X
		outline[b] = plotter.XY{X: x, Y: low}
		outline[2*extentBuckets-1-b] = plotter.XY{X: x, Y: high}
	}
	return &plotter.Polygon{XYs: []plotter.XYs{outline}, Color: extentColor}
}

// pointStyle draws few points large and clear, many small and faint.
func pointStyle(n int) draw.GlyphStyle {
	style := draw.GlyphStyle{Color: rawColor, Radius: vg.Points(1), Shape: draw.CircleGlyph{}}
	if n <= 500 {
		style.Radius = vg.Points(1.6)
	}
	if n <= 50 {
		style.Color, style.Radius = fewColor, vg.Points(2.2)
	}
	return style
}

func plotFont(size float64) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Points(size)}
}

func newPlot() *plot.Plot {
	p := plot.New()
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color, axis.Tick.Color = inkColor, inkColor
		axis.LineStyle.Width, axis.Tick.Width = vg.Points(0.7), vg.Points(0.7)
		axis.Tick.Length = vg.Points(4)
		axis.Padding = 0
		axis.Label.Padding = vg.Points(5)
		axis.Label.TextStyle.Font, axis.Tick.Label.Font = plotFont(11), plotFont(9.5)
		axis.Label.TextStyle.Color, axis.Tick.Label.Color = inkColor, inkColor
	}
	p.X.Tick.Marker = plot.TickerFunc(stepTicks)
	return p
}

func newGrid() *plotter.Grid {
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = gridColor, gridColor
	return grid
}

func newLine(xys plotter.XYs, c color.Color, width float64) *plotter.Line {
	return &plotter.Line{XYs: xys, LineStyle: draw.LineStyle{Color: c, Width: vg.Points(width)}}
}

// stepTicks labels whole steps: 500, 20k, 1.5M.
func stepTicks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for _, v := range nice(low, high, 8) {
		if v != math.Trunc(v) {
			continue
		}
		label := strconv.FormatFloat(v, 'f', -1, 64)
		switch {
		case high >= 2e6:
			label = strconv.FormatFloat(v/1e6, 'f', -1, 64) + "M"
		case high >= 2e4:
			label = strconv.FormatFloat(v/1e3, 'f', -1, 64) + "k"
		}
		if v == 0 {
			label = "0"
		}
		ticks = append(ticks, plot.Tick{Value: v, Label: label})
	}
	return ticks
}

func linearTicks(low, high float64, count int) []plot.Tick {
	var ticks []plot.Tick
	for _, v := range nice(low, high, count) {
		ticks = append(ticks, plot.Tick{Value: v, Label: compact(v)})
	}
	return ticks
}

// logTicks labels 1, 2 and 5 of each decade while they are few, then decades;
// on less than a decade it spaces the ticks evenly.
func logTicks(low, high float64) []plot.Tick {
	decades := math.Log10(high / low)
	if decades < 0.8 {
		return linearTicks(low, high, 6)
	}
	var ticks []plot.Tick
	apart := max(1, int(decades/10)) // decades between labels
	for e := int(math.Floor(math.Log10(low))); e <= int(math.Ceil(math.Log10(high))); e++ {
		for digit := 1; digit <= 9; digit++ {
			if digit > 1 && decades > 8 {
				break // minor ticks would touch
			}
			v, err := strconv.ParseFloat(fmt.Sprintf("%de%d", digit, e), 64)
			if err != nil || v < low || v > high {
				continue
			}
			label := ""
			if digit == 1 && e%apart == 0 || decades < 3.5 && (digit == 2 || digit == 5) {
				label = compact(v)
			}
			ticks = append(ticks, plot.Tick{Value: v, Label: label})
		}
	}
	return ticks
}

// nice returns about count multiples of 1, 2 or 5 times a power of ten in
// [low, high].
func nice(low, high float64, count int) []float64 {
	rough := (high - low) / float64(count)
	if !(rough > 0) || math.IsInf(rough, 0) {
		return []float64{low}
	}
	power := math.Pow(10, math.Floor(math.Log10(rough)))
	width := 10 * power
	for _, m := range []float64{5, 2, 1} {
		if m*power >= rough {
			width = m * power
		}
	}
	var values []float64
	for k := math.Ceil(low / width); k*width <= high && len(values) <= 2*count; k++ {
		values = append(values, k*width+0) // not -0
	}
	return values
}

// compact prints at most four significant digits: 0.0213, 2e-4.
func compact(v float64) string {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64)
	if v != 0 && (math.Abs(v) < 1e-3 || math.Abs(v) >= 1e5) {
		mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(v, 'e', -1, 64), "e")
		e, _ := strconv.Atoi(exponent)
		return mantissa + "e" + strconv.Itoa(e)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}
