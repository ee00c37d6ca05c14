package eval

import (
	"encoding/json"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"ddpm/internal/data/shapes"
	"ddpm/internal/rng"
)

const imageBytes = pixels * 3

// heldOut is the data of seed 1 with a defect: alter sees the bytes of image i.
func heldOut(n int, alter func(i int, image []byte)) []byte {
	images := make([]byte, n*imageBytes)
	for i := range n {
		image := images[i*imageBytes : (i+1)*imageBytes]
		shapes.Image(1, uint64(i), image)
		if alter != nil {
			alter(i, image)
		}
	}
	return images
}

// noisy adds Gaussian noise, std in units of the whole range.
func noisy(std float64) func(int, []byte) {
	return func(i int, image []byte) {
		var z [imageBytes]float32
		rng.Key{Seed: 5, Stream: rng.Noise, Sample: uint32(i)}.Normals(z[:])
		for k, v := range image {
			image[k] = byte(min(max(float64(v)+255*std*float64(z[k]), 0), 255) + 0.5)
		}
	}
}

// averaged mixes an image with another one.
func averaged(i int, image []byte) {
	var other [imageBytes]byte
	shapes.Image(1, uint64(i)+1_000_000, other[:])
	for k, v := range image {
		image[k] = byte((int(v) + int(other[k]) + 1) / 2)
	}
}

func swapped(_ int, image []byte) {
	for k := 0; k < len(image); k += 3 {
		image[k], image[k+2] = image[k+2], image[k]
	}
}

func flipped(_ int, image []byte) {
	for row := range side / 2 {
		for k := range 3 * side {
			a, b := 3*side*row+k, 3*side*(side-1-row)+k
			image[a], image[b] = image[b], image[a]
		}
	}
}

// What the independent NumPy implementation of the score says of the same bytes.
// The two agree to 1e-11; the tolerance is the rounding of the table.
func TestScoreAgreesWithNumPy(t *testing.T) {
	const n, tolerance = 200, 6e-6
	for _, c := range []struct {
		name  string
		alter func(int, []byte)
		want  ShapesScore
		rmse  []float64 // of the first images
	}{
		{"held-out data", nil, ShapesScore{n, 99.57415, 1, 0.00105, 0.00110, 0.99574, 0.99740, 0.06316, 0.09105, 0.03500, 0.05883, [5]int{40, 47, 36, 43, 34}, nil, 0},
			[]float64{0.00098, 0.00101, 0.00113, 0.00106, 0.00108, 0.00125, 0.00106, 0.00101}},
		{"noise 0.02", noisy(0.02), ShapesScore{n, 99.57415, 1, 0.01979, 0.02047, 0.99574, 0.99740, 0.06435, 0.09131, 0.03414, 0.04722, [5]int{40, 47, 36, 43, 34}, nil, 0},
			[]float64{0.02044, 0.01961, 0.02025, 0.01951, 0.02046, 0.01917, 0.01972, 0.01972}},
		{"noise 0.1", noisy(0.1), ShapesScore{n, 0, 0, 0.09079, 0.09365, 0, 0, 1, 1, 1, 1, [5]int{}, nil, 0},
			[]float64{0.09332, 0.09141, 0.09346, 0.08900, 0.09364, 0.08752, 0.09060, 0.09144}},
		{"averages of two", averaged, ShapesScore{n, 2.42150, 0.04, 0.30641, 0.33158, 0.60538, 1, 0.25, 0.28879, 0.47035, 0.15203, [5]int{1, 3, 0, 4, 0}, nil, 0},
			[]float64{0.32561, 0.10876, 0.33161, 0.32664, 0.33205, 0.33231, 0.05131, 0.34571}},
		{"red and blue swapped", swapped, ShapesScore{n, 0, 0, 0.15412, 0.19383, 0, 0, 1, 1, 1, 1, [5]int{}, nil, 0},
			[]float64{0.11058, 0.18626, 0.09539, 0.15435, 0.09795, 0.10549, 0.16142, 0.18127}},
		{"upside down", flipped, ShapesScore{n, 67.23327, 0.785, 0.00105, 0.11992, 0.85647, 0.99997, 0.07340, 0.08811, 0.04674, 0.08045, [5]int{40, 47, 36, 0, 34}, nil, 0},
			[]float64{0.00098, 0.00101, 0.00113, 0.00106, 0.09041, 0.00125, 0.00106, 0.00101}},
	} {
		t.Run(c.name, func(t *testing.T) {
			images := heldOut(n, c.alter)
			got, err := Score(images, n, nil)
			if err != nil {
				t.Fatal(err)
			}
			g, w := reflect.ValueOf(got), reflect.ValueOf(c.want)
			for i := range g.NumField() {
				field := g.Type().Field(i)
				if field.Type.Kind() != reflect.Float64 {
					if !reflect.DeepEqual(g.Field(i).Interface(), w.Field(i).Interface()) {
						t.Errorf("%s %v, want %v", field.Name, g.Field(i), w.Field(i))
					}
				} else if x, y := g.Field(i).Float(), w.Field(i).Float(); !(math.Abs(x-y) <= tolerance) {
					t.Errorf("%s %.6f, want %.5f", field.Name, x, y)
				}
			}
			var f fitter
			for i, want := range c.rmse {
				if got := f.fit(images[i*imageBytes : (i+1)*imageBytes]).rmse; !(math.Abs(got-want) <= tolerance) {
					t.Errorf("image %d: rmse %.6f, want %.5f", i, got, want)
				}
			}
		})
	}
}

// Held-out images are the generator's own: the fit finds how they were drawn.
func TestFitRecoversParameters(t *testing.T) {
	var f fitter
	var image [imageBytes]byte
	for i := range uint64(20) {
		p := shapes.Image(1, i, image[:])
		got := f.fit(image[:]).params
		phi := math.Abs(got.Phi - p.Phi)
		if got.Class != p.Class || got.Background != p.Background || min(phi, 2*math.Pi-phi) > 0.02 ||
			math.Abs(got.CX-p.CX) > 5e-4 || math.Abs(got.CY-p.CY) > 5e-4 || math.Abs(got.Radius-p.Radius) > 5e-4 {
			t.Errorf("image %d: fit %+v, drawn with %+v", i, got, p)
		}
		if p.Class != shapes.Disc && p.Class != shapes.Ring && math.Abs(got.Tilt-p.Tilt) > 0.01 {
			t.Errorf("image %d: tilt %.4f, drawn with %.4f", i, got.Tilt, p.Tilt)
		}
	}
}

func TestScoreDoesNotDependOnTheNumberOfCores(t *testing.T) {
	const n = 20
	images := heldOut(n, noisy(0.05))
	var scores []ShapesScore
	for _, cores := range []int{1, 3} {
		old := runtime.GOMAXPROCS(cores)
		s, err := Score(images, n, nil)
		runtime.GOMAXPROCS(old)
		if err != nil {
			t.Fatal(err)
		}
		scores = append(scores, s)
	}
	if scores[0] != scores[1] {
		t.Errorf("one core: %v\nthree:    %v", scores[0], scores[1])
	}
}

// Images without any structure, where sums and matrices could degenerate.
func TestScoreOfFlatImages(t *testing.T) {
	images := make([]byte, 3*imageBytes) // black, white, and one background
	for i := range imageBytes {
		images[imageBytes+i] = 255
		images[2*imageBytes+i] = byte(255*shapes.Backgrounds[0][i%3] + 0.5)
	}
	s, err := Score(images, 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Valid != 0 || s.Score != 0 || !(s.RMSEMedian > Valid) || math.IsInf(s.RMSEP90, 0) {
		t.Errorf("%v, want finite errors and no valid image", s)
	}
}

func TestScoreRefuses(t *testing.T) {
	for _, c := range []struct{ bytes, n int }{{0, 0}, {imageBytes, 2}, {28 * 28, 1}, {0, -1}} {
		if _, err := Score(make([]byte, c.bytes), c.n, nil); err == nil || !strings.Contains(err.Error(), "16 x 16 RGB") {
			t.Errorf("%d bytes, %d images: error %v, want the size of an image", c.bytes, c.n, err)
		}
	}
}

func TestStatistics(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"median of two", quantile([]float64{1, 3}, 0.5), 2},
		{"quantile of one", quantile([]float64{7}, 0.9), 7},
		{"quantile interpolates", quantile([]float64{0, 1, 2, 3}, 0.9), 2.7},
		{"largest", quantile([]float64{1, 2}, 1), 2},
		{"uniform histogram", entropy([]int{4, 4, 4, 4}), 1},
		{"one class of two", entropy([]int{9, 0}), 0},
		{"empty histogram", entropy([]int{0, 0}), 0},
		{"half the classes", entropy([]int{3, 3, 0, 0}), 0.5},
		{"evenly spaced", ks([]float64{0.125, 0.375, 0.625, 0.875}), 0.125},
		{"all at 0", ks([]float64{0, 0}), 1},
		{"all beyond 1", ks([]float64{5, 6}), 1},
		{"none", ks(nil), 1},
	} {
		if !(math.Abs(c.got-c.want) < 1e-12) {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
}

// The classes that images were drawn of are asked for, but of two images others: one is
// valid, one is not.
func TestScoreOfAskedClasses(t *testing.T) {
	const n = 20
	images := heldOut(n, nil)
	copy(images[:imageBytes], make([]byte, imageBytes)) // black
	asked := make([]int, n)
	var f fitter
	for i := range asked {
		asked[i] = f.fit(images[i*imageBytes : (i+1)*imageBytes]).params.Class
	}
	asked[0]++
	asked[1]++
	s, err := Score(images, n, asked)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Asked{18. / 20, 18. / 19}); s.Asked == nil || *s.Asked != want {
		t.Errorf("%v, want %v", s.Asked, want)
	}
	if text := s.String(); !strings.HasSuffix(text, ", of the asked class 90.0%, of the valid 94.7%") {
		t.Error(text)
	}
	bytes, err := json.Marshal(s)
	if err != nil || !strings.Contains(string(bytes), `"class_accuracy":0.9,"class_accuracy_valid":0.947`) {
		t.Errorf("%s, %v", bytes, err)
	}
	if _, err := Score(images, n, asked[1:]); err == nil {
		t.Error("a class is missing: want an error")
	}
}

func BenchmarkScore(b *testing.B) {
	const n = 100
	images := heldOut(n, nil)
	for b.Loop() {
		if _, err := Score(images, n, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "images/s")
}
