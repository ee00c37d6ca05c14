package picture

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
)

func TestToBytes(t *testing.T) {
	for b := range 256 { // the inverse of the way in, in float32 as the device computes it
		if got := ToBytes([]float32{float32(b)/127.5 - 1})[0]; int(got) != b {
			t.Errorf("byte %d comes back as %d", b, got)
		}
	}
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	got := ToBytes([]float32{-1, 1, 0, -2, 2, -inf, inf, nan, 0.5/127.5 - 1 - 1e-6, 0.5/127.5 - 1 + 1e-6, math.Nextafter32(1, 0)})
	if want := []byte{0, 255, 128, 0, 255, 0, 255, 0, 0, 1, 255}; !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestImage(t *testing.T) {
	grey := Image([]byte{1, 2, 3, 4, 5, 6}, 3, 2, 1)
	if got := grey.At(2, 1); got != (color.Gray{6}) {
		t.Errorf("grey pixel %v", got)
	}
	rgb := Image([]byte{1, 2, 3, 4, 5, 6}, 1, 2, 3)
	if got := rgb.At(0, 1); got != (color.RGBA{4, 5, 6, 255}) {
		t.Errorf("RGB pixel %v", got)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.png")
	img := image.NewGray(image.Rect(0, 0, 3, 2))
	img.Pix[4] = 77
	for range 2 { // the second replaces the first
		if err := WritePNG(path, img); err != nil {
			t.Fatal(err)
		}
	}
	if got := decode(t, path).At(1, 1); got != (color.Gray{77}) {
		t.Errorf("pixel %v", got)
	}
	missing := filepath.Join(dir, "no", "out.png")
	want := "picture: cannot write " + missing + ": no such file or directory"
	if err := WritePNG(missing, img); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func decode(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// ramp is n images whose every byte is different from its neighbours.
func ramp(n, w, h, c int) []byte {
	b := make([]byte, n*w*h*c)
	for i := range b {
		b[i] = byte(31 * i)
	}
	return b
}

func TestGridPixels(t *testing.T) {
	const w, h, scale, gap = 3, 2, 4, 5
	paper := color.RGBA{9, 8, 7, 255}
	for _, c := range []int{1, 3} {
		images := ramp(5, w, h, c)
		img := Grid(images, 5, w, h, c, GridOptions{Columns: 3, Scale: scale, Gap: gap, Paper: paper})
		if got, want := img.Bounds(), image.Rect(0, 0, gap+3*(w*scale+gap), gap+2*(h*scale+gap)); got != want {
			t.Fatalf("bounds %v, want %v", got, want)
		}
		for y := range img.Bounds().Max.Y {
			for x := range img.Bounds().Max.X {
				want := paper
				column, inX := (x-gap)/(w*scale+gap), (x-gap)%(w*scale+gap)
				row, inY := (y-gap)/(h*scale+gap), (y-gap)%(h*scale+gap)
				if n := row*3 + column; x >= gap && y >= gap && inX < w*scale && inY < h*scale && n < 5 {
					p := images[((n*h+inY/scale)*w+inX/scale)*c:][:c]
					want = color.RGBA{p[0], p[c/2], p[c-1], 255}
				}
				if got := img.At(x, y); got != want {
					t.Fatalf("%d channels: pixel (%d, %d) is %v, want %v", c, x, y, got, want)
				}
			}
		}
	}
}

func TestGridDefaults(t *testing.T) {
	for _, test := range []struct{ n, w, h, columns, scale int }{
		{64, 16, 16, 8, 6},
		{16, 16, 16, 4, 8},
		{1, 16, 16, 1, 8},
		{64, 32, 32, 8, 3},
		{64, 28, 28, 8, 3},
		{1024, 16, 16, 32, 1},
		{4, 256, 256, 2, 1},
		{8, 16, 16, 4, 8},  // 3 columns would leave a hole
		{10, 16, 16, 5, 8}, // 4 likewise
		{7, 16, 16, 3, 8},  // a prime has a hole whatever the columns
		{2, 16, 16, 2, 8},
		{16, 64, 16, 2, 2}, // wide images stand in fewer columns
	} {
		img := Grid(ramp(test.n, test.w, test.h, 1), test.n, test.w, test.h, 1, GridOptions{Gap: -1})
		rows := (test.n + test.columns - 1) / test.columns
		want := image.Pt(test.columns*test.w*test.scale, rows*test.h*test.scale)
		if got := img.Bounds().Max; got != want {
			t.Errorf("%d images of %dx%d: %v, want %v", test.n, test.w, test.h, got, want)
		}
	}
	if img := Grid(nil, 0, 16, 16, 3, GridOptions{}); img.Bounds().Dx() < 1 {
		t.Errorf("a grid of no image has bounds %v", img.Bounds())
	}
}

// inked reports whether a label has marked the rectangle.
func inked(img image.Image, r image.Rectangle) bool {
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if img.At(x, y) == labelInk {
				return true
			}
		}
	}
	return false
}

func TestGridLabels(t *testing.T) {
	white := bytes.Repeat([]byte{255}, 6*8*8)
	img := Grid(white, 6, 8, 8, 1, GridOptions{Columns: 3, Scale: 5, Gap: 2, RowLabels: []string{"first", "second", "no such row"},
		ColumnLabels: []string{"a", "too wide for it", "c", "no such column"}})
	left := textWidth("no such row") + 2*labelMargin
	top := labelFace.Height + 2*labelMargin
	if got, want := img.Bounds().Max, image.Pt(left+3*42, top+2*42); got != want {
		t.Fatalf("size %v, want %v", got, want)
	}
	for i, want := range []bool{true, false, true} { // the second would run into the first
		if got := inked(img, image.Rect(left+42*i, 0, left+42*i+40, top)); got != want {
			t.Errorf("label above column %d: %t, want %t", i, got, want)
		}
	}
	for i := range 2 {
		if !inked(img, image.Rect(0, top+42*i, left, top+42*i+40)) {
			t.Errorf("no label beside row %d", i)
		}
	}
	if inked(img, image.Rect(left, top, left+3*42, top+2*42)) {
		t.Error("a label covers an image")
	}
}

func TestTrajectory(t *testing.T) {
	const n, w, h, c = 2, 4, 4, 3
	moments := [][]byte{ramp(n, w, h, c), make([]byte, n*w*h*c), bytes.Repeat([]byte{200}, n*w*h*c)}
	img := Trajectory(moments, []int{999, 500, 0}, n, w, h, c, GridOptions{Scale: 12, Gap: 3})
	var images []byte
	for i := range n {
		for _, moment := range moments {
			images = append(images, moment[i*w*h*c:(i+1)*w*h*c]...)
		}
	}
	want := Grid(images, 6, w, h, c, GridOptions{Columns: 3, Scale: 12, Gap: 3, ColumnLabels: []string{"t=999", "t=500", "t=0"}})
	if !bytes.Equal(img.(*image.RGBA).Pix, want.(*image.RGBA).Pix) {
		t.Error("rows are not samples, or columns not moments, or labels are missing")
	}
}

// drawn counts the pixels of about the given colour.
func drawn(img image.Image, c color.NRGBA) int {
	count := 0
	for y := range img.Bounds().Max.Y {
		for x := range img.Bounds().Max.X {
			p := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA)
			near := func(a, b uint8) bool { return max(a, b)-min(a, b) < 8 }
			if near(p.R, c.R) && near(p.G, c.G) && near(p.B, c.B) {
				count++
			}
		}
	}
	return count
}

func curve(n int) LossSeries {
	s := LossSeries{Title: "test", Step: make([]int, n), Loss: make([]float64, n), LR: make([]float64, n)}
	for i := range n {
		s.Step[i] = i + 1
		s.Loss[i] = 0.03 + 1/(1+float64(i)/20) + 0.01*math.Sin(float64(i)*1.7)
		s.LR[i] = 2e-4 * min(1, float64(i)/1000)
	}
	return s
}

func TestLossCurve(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loss.png")
	for _, n := range []int{1, 2, 300, 1000000, 20000} {
		if err := LossCurve(path, curve(n)); err != nil {
			t.Fatalf("%d points: %v", n, err)
		}
		img := decode(t, path)
		if got := img.Bounds().Max; got != image.Pt(1200, 960) {
			t.Errorf("%d points: size %v", n, got)
		}
		line, lr := drawn(img, lossColor), drawn(img, lrColor)
		if want := min(2000, 20*n); lr < want || n > 1 && line < want {
			t.Errorf("%d points: %d pixels of the loss and %d of the learning rate, want %d", n, line, lr, want)
		}
	}
	first, _ := os.ReadFile(path)
	if err := LossCurve(path, curve(20000)); err != nil {
		t.Fatal(err)
	}
	if second, _ := os.ReadFile(path); !bytes.Equal(first, second) {
		t.Error("the same series gives another file")
	}
}

func TestLossCurveOddValues(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loss.png")
	nan, inf := math.NaN(), math.Inf(1)
	for name, s := range map[string]LossSeries{
		"no learning rate": {Step: []int{1, 2}, Loss: []float64{0.5, 0.4}},
		"zero rate":        {Step: []int{1, 2}, Loss: []float64{0.5, 0.4}, LR: []float64{0, 0}},
		"constant":         {Step: []int{1, 2}, Loss: []float64{0.5, 0.5}, LR: []float64{1e-4, 1e-4}},
		"gaps":             {Step: []int{1, 2, 3, 4, 5}, Loss: []float64{0.5, nan, inf, 0, -1}, LR: []float64{nan, nan, nan, nan, nan}},
		"extremes":         {Step: []int{1, 2, 3}, Loss: []float64{1e-30, 1, 1e30}},
		"late and narrow":  {Step: []int{2000000, 2000001}, Loss: []float64{0.021300001, 0.0213}},
	} {
		if err := LossCurve(path, s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if want := 750; s.LR == nil || math.IsNaN(s.LR[0]) {
			if got := decode(t, path).Bounds().Max.Y; got != want {
				t.Errorf("%s: height %d, want %d: there is no learning rate to show", name, got, want)
			}
		}
	}
	for _, loss := range [][]float64{nil, {nan}, {-1}, {inf}} {
		err := LossCurve(path, LossSeries{Step: []int{1}, Loss: loss})
		if err == nil || !strings.Contains(err.Error(), "no finite, positive loss") {
			t.Errorf("loss %v: %v", loss, err)
		}
	}
}

// The line must follow the early fall and ignore late noise.
func TestSmoothed(t *testing.T) {
	s := curve(5000)
	got := smoothed(drawable(s.Step, s.Loss, 0))
	for _, i := range []int{0, 10, 100, 1000, 4999} {
		want := 0.03 + 1/(1+float64(i)/20)
		if math.Abs(got[i].Y-want) > 0.2*want {
			t.Errorf("point %d is %.4f, want about %.4f", i, got[i].Y, want)
		}
	}
	low, high := got[4000].Y, got[4000].Y
	for _, p := range got[4000:] {
		low, high = min(low, p.Y), max(high, p.Y)
	}
	if high-low > 0.004 { // the noise is 0.02 from crest to trough
		t.Errorf("the late line moves between %.4f and %.4f", low, high)
	}
}

// A spike of one step in a million must show in the area, drawn or not.
func TestExtent(t *testing.T) {
	s := curve(1000000)
	s.Loss[777777] = 50
	area := extent(drawable(s.Step, s.Loss, 0))
	highest := slices.MaxFunc(area.XYs[0], func(a, b plotter.XY) int { return cmp.Compare(a.Y, b.Y) })
	if highest.Y != 50 || math.Abs(highest.X-777777) > 2500 {
		t.Errorf("the area reaches %v", highest)
	}
	if got := thin(drawable(s.Step, s.Loss, 0)); len(got) > maxBuckets+2 || got[0].X != 1 || got[len(got)-1].X != 1000000 {
		t.Errorf("the line has %d points from %v to %v", len(got), got[0], got[len(got)-1])
	}
}

// labels joins the labels of the ticks that have one.
func labels(ticks []plot.Tick) string {
	var texts []string
	for _, tick := range ticks {
		if tick.Label != "" {
			texts = append(texts, tick.Label)
		}
	}
	return strings.Join(texts, " ")
}

func TestTicks(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{labels(stepTicks(0, 950)), "0 200 400 600 800"},
		{labels(stepTicks(0, 20000)), "0 5k 10k 15k 20k"},
		{labels(stepTicks(0, 800000)), "0 100k 200k 300k 400k 500k 600k 700k 800k"},
		{labels(stepTicks(0, 3e6)), "0 0.5M 1M 1.5M 2M 2.5M 3M"},
		{labels(stepTicks(0, 1)), "0 1"},
		{labels(logTicks(0.015, 1.2)), "0.02 0.05 0.1 0.2 0.5 1"},
		{labels(logTicks(1e-5, 1)), "1e-5 1e-4 0.001 0.01 0.1 1"},
		{labels(logTicks(0.021, 0.034)), "0.025 0.03"},
		{labels(linearTicks(0, 2.3e-4, 4)), "0 1e-4 2e-4"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestSweep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sweep.png")
	nan := math.NaN()
	few := SweepSeries{Name: "few", Calls: []int{5, 10, 1000}, Value: []float64{0, 40, 90}}
	noisy := SweepSeries{Name: "noisy", Calls: []int{5, 10, 1000}, Value: []float64{2, nan, 80}, Noisy: true}
	if err := Sweep(path, "test", "score", []SweepSeries{few, noisy, {Name: "one", Calls: []int{50}, Value: []float64{-1}}}); err != nil {
		t.Fatal(err)
	}
	img := decode(t, path)
	if got := img.Bounds().Max; got != image.Pt(1200, 750) {
		t.Errorf("size %v", got)
	}
	whole, dashed := drawn(img, sweepColors[0]), drawn(img, sweepColors[1])
	if dashed < 500 || whole < dashed*5/4 {
		t.Errorf("%d pixels of a whole line, %d of a dashed one", whole, dashed)
	}
	if err := Sweep(path, "test", "score", []SweepSeries{{Name: "one", Calls: []int{50}, Value: []float64{3}}}); err != nil {
		t.Errorf("a single value: %v", err)
	}
	for _, none := range [][]SweepSeries{nil, {{Name: "none", Calls: []int{5}, Value: []float64{nan}}}} {
		if err := Sweep(path, "test", "score", none); err == nil || !strings.Contains(err.Error(), "no finite value") {
			t.Errorf("%v: error %v", none, err)
		}
	}
}
