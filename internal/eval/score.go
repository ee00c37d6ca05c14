package eval

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"ddpm/internal/data/shapes"
)

// The score of samples of the shapes data set needs no network: every sample is
// explained as well as possible by one image of the generator. What is left of
// it says how well it is drawn; the parameters that were found, mapped back to
// the generator's uniform draws, say whether the samples cover the distribution.
//
// The fit reads background and gradient off the border, which shapes hardly
// ever touch. For each class it then projects every pixel onto the line from
// background to the class's colour, which gives a coverage map, and fits
// position, radius and tilt to that map by Levenberg-Marquardt. The class whose
// image is nearest wins.

// Valid is the root-mean-square error, of values in [0, 1], below which a sample
// counts as an image of the generator.
const Valid = 0.06

// ShapesScore is the score of a set of samples and what it is made of. The
// entropies are of the valid samples, 1 for a uniform histogram; the
// Kolmogorov-Smirnov distances are between the valid samples' parameters and the
// uniform distribution they should have, 1 when there are none.
type ShapesScore struct {
	Images            int                      `json:"images"`
	Score             float64                  `json:"score"` // 100 Valid min(ClassEntropy, BackgroundEntropy)
	Valid             float64                  `json:"valid"` // share of the samples
	RMSEMedian        float64                  `json:"rmse_median"`
	RMSEP90           float64                  `json:"rmse_p90"` // 90th percentile
	ClassEntropy      float64                  `json:"class_entropy"`
	BackgroundEntropy float64                  `json:"background_entropy"`
	KSRadius          float64                  `json:"ks_radius"`
	KSX               float64                  `json:"ks_x"`
	KSY               float64                  `json:"ks_y"`
	KSPhi             float64                  `json:"ks_phi"`
	Classes           [len(shapes.Classes)]int `json:"classes"` // valid samples of each class

	// Asked is nil if the samples were not asked to be of a class.
	*Asked
	// Seconds is how long it took to draw a thousand samples, 0 if they were not drawn.
	Seconds float64 `json:"seconds,omitempty"`
}

// Asked says how many samples are of the class they were asked to be: whose nearest image of
// the generator is of that class.
type Asked struct {
	ClassAccuracy float64 `json:"class_accuracy"`       // share of all samples
	ValidAccuracy float64 `json:"class_accuracy_valid"` // share of the valid ones
}

// String is the score in one line.
func (s ShapesScore) String() string {
	text := fmt.Sprintf("score %.1f, valid %.1f%%, rmse median %.4f p90 %.4f, entropy class %.3f background %.3f, KS radius %.3f x %.3f y %.3f phi %.3f",
		s.Score, 100*s.Valid, s.RMSEMedian, s.RMSEP90, s.ClassEntropy, s.BackgroundEntropy, s.KSRadius, s.KSX, s.KSY, s.KSPhi)
	if s.Asked != nil {
		text += fmt.Sprintf(", of the asked class %.1f%%, of the valid %.1f%%", 100*s.ClassAccuracy, 100*s.ValidAccuracy)
	}
	if s.Seconds > 0 {
		text += fmt.Sprintf(", %.3g s to draw 1000", s.Seconds)
	}
	return text
}

const (
	side   = shapes.Size
	pixels = side * side
)

// Score rates n images of the shapes data set, 16 x 16 x 3 bytes each, HWC. It
// uses every core; the result does not depend on how many there are. asked are the classes
// that the images were asked to be of, nil if they were not.
func Score(images []byte, n int, asked []int) (ShapesScore, error) {
	if n < 1 || len(images) != n*pixels*3 {
		return ShapesScore{}, fmt.Errorf("eval: the shapes score of %d images got %d bytes: want at least one image of %d x %d RGB, %d bytes each",
			n, len(images), side, side, pixels*3)
	}
	if asked != nil && len(asked) != n {
		return ShapesScore{}, fmt.Errorf("eval: the shapes score of %d images got %d classes", n, len(asked))
	}
	fits := make([]fit, n)
	var next atomic.Int64
	var done sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		done.Go(func() {
			var f fitter
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fits[i] = f.fit(images[i*pixels*3 : (i+1)*pixels*3])
			}
		})
	}
	done.Wait()
	s := summarise(fits)
	if asked != nil {
		s.Asked = accuracy(fits, asked)
	}
	return s, nil
}

// fit is the generator's image nearest to a sample.
type fit struct {
	params shapes.Params
	rmse   float64
}

func summarise(fits []fit) ShapesScore {
	var backgrounds [len(shapes.Backgrounds)]int
	var rmse, radius, x, y, phi []float64
	s := ShapesScore{Images: len(fits)}
	for _, f := range fits {
		rmse = append(rmse, f.rmse)
		if f.rmse >= Valid {
			continue
		}
		p := f.params
		free := 1 - 2*(p.Radius+shapes.Margin)
		s.Classes[p.Class]++
		backgrounds[p.Background]++
		radius = append(radius, (p.Radius-shapes.RadiusMin)/(shapes.RadiusMax-shapes.RadiusMin))
		x = append(x, (p.CX-0.5)/free+0.5)
		y = append(y, (p.CY-0.5)/free+0.5)
		phi = append(phi, p.Phi/(2*math.Pi))
	}
	slices.Sort(rmse)
	s.Valid = float64(len(radius)) / float64(len(fits))
	s.RMSEMedian, s.RMSEP90 = quantile(rmse, 0.5), quantile(rmse, 0.9)
	s.ClassEntropy, s.BackgroundEntropy = entropy(s.Classes[:]), entropy(backgrounds[:])
	s.KSRadius, s.KSX, s.KSY, s.KSPhi = ks(radius), ks(x), ks(y), ks(phi)
	s.Score = 100 * s.Valid * min(s.ClassEntropy, s.BackgroundEntropy)
	return s
}

// accuracy compares the classes that were found with those asked for.
func accuracy(fits []fit, asked []int) *Asked {
	var right, valid, validRight float64
	for i, f := range fits {
		if f.rmse < Valid {
			valid++
		}
		if f.params.Class != asked[i] {
			continue
		}
		right++
		if f.rmse < Valid {
			validRight++
		}
	}
	return &Asked{ClassAccuracy: right / float64(len(fits)), ValidAccuracy: validRight / max(valid, 1)}
}

// quantile interpolates between the values of a sorted list.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// entropy of a histogram, 1 when it is uniform and 0 when it is empty.
func entropy(counts []int) float64 {
	total, sum := 0, 0.0
	for _, c := range counts {
		total += c
	}
	for _, c := range counts {
		if c > 0 {
			p := float64(c) / float64(total)
			sum -= p * math.Log(p)
		}
	}
	return sum / math.Log(float64(len(counts)))
}

// ks is the Kolmogorov-Smirnov distance of values from the uniform distribution
// on [0, 1]: the largest gap between the two distribution functions.
func ks(values []float64) float64 {
	if len(values) == 0 {
		return 1
	}
	for i, v := range values {
		values[i] = min(max(v, 0), 1)
	}
	slices.Sort(values)
	n, gap := float64(len(values)), 0.0
	for i, v := range values {
		gap = max(gap, float64(i+1)/n-v, v-float64(i)/n)
	}
	return gap
}

// solid is a class's shape of radius 1 without tilt.
type solid struct{ area, x, y float64 } // x, y: centroid

var solids = sync.OnceValue(func() (s [len(shapes.Classes)]solid) {
	const n = 400 // points a side of [-1, 1]^2
	at := func(i int) float64 { return (float64(i)+0.5)/(n/2) - 1 }
	for class := range s {
		inside := 0.0
		for i := range n {
			for j := range n {
				if x, y := at(j), at(i); shapes.Distance(class, x, y) < 0 {
					inside++
					s[class].x += x
					s[class].y += y
				}
			}
		}
		s[class] = solid{area: 4 * inside / (n * n), x: s[class].x / inside, y: s[class].y / inside}
	}
	return s
})

// tilts are where the fit of each class starts. A disc and a ring have none.
var tilts = [len(shapes.Classes)][]float64{
	shapes.Disc: {0}, shapes.Ring: {0}, shapes.Square: {-0.2, 0, 0.2}, shapes.Triangle: {-0.2, 0, 0.2}, shapes.Cross: {-0.2, 0, 0.2},
}

// fitter holds the memory of one fit.
type fitter struct {
	image, back, drawn [pixels * 3]float64 // values in [0, 1]
	target             [pixels]float64     // coverage map to be explained
	error, trial       [pixels]float64
	slope              [4][pixels]float64
}

func (f *fitter) fit(image []byte) fit {
	for i, v := range image {
		f.image[i] = float64(v) / 255
	}
	p := shapes.Params{}
	p.Background, p.Phi = f.background()
	shapes.Background(p, side, f.back[:])
	best := fit{rmse: math.Inf(1)}
	for class := range shapes.Classes {
		p.Class = class
		f.project(class)
		q := f.shape(class)
		p.CX, p.CY, p.Radius, p.Tilt = q[0], q[1], q[2], q[3]
		shapes.Render(p, side, f.drawn[:])
		sum := 0.0
		for i, v := range f.drawn {
			sum += (v - f.image[i]) * (v - f.image[i])
		}
		if rmse := math.Sqrt(sum / float64(len(f.drawn))); rmse < best.rmse {
			best = fit{p, rmse}
		}
	}
	return best
}

// background finds the nearest background colour and the direction in which the
// border brightens.
func (f *fitter) background() (index int, phi float64) {
	var distances [len(shapes.Backgrounds)]float64
	f.border(func(_, _ float64, colour []float64) {
		for k, base := range shapes.Backgrounds {
			for c, v := range colour {
				distances[k] += (v - base[c]) * (v - base[c])
			}
		}
	})
	for k, d := range distances {
		if d < distances[index] {
			index = k
		}
	}
	base := shapes.Backgrounds[index]
	var right, down float64
	f.border(func(x, y float64, colour []float64) {
		lift := (colour[0] - base[0] + colour[1] - base[1] + colour[2] - base[2]) / 3
		right += lift * x
		down += lift * y
	})
	phi = math.Atan2(down, right)
	if phi < 0 {
		phi += 2 * math.Pi
	}
	return index, phi
}

// border visits the outermost pixels; their centres x, y lie in [-1, 1].
func (f *fitter) border(visit func(x, y float64, colour []float64)) {
	at := func(i int) float64 { return (float64(i)+0.5)/side*2 - 1 }
	for i := range side {
		for j := range side {
			if i == 0 || j == 0 || i == side-1 || j == side-1 {
				k := 3 * (i*side + j)
				visit(at(j), at(i), f.image[k:k+3])
			}
		}
	}
}

// project fills target with the share of the class's colour in each pixel.
func (f *fitter) project(class int) {
	for k := range f.target {
		var dot, square float64
		for c, colour := range shapes.Colours[class] {
			back := f.back[3*k+c]
			v := colour - back
			dot += (f.image[3*k+c] - back) * v
			square += v * v
		}
		f.target[k] = min(max(dot/square, 0), 1)
	}
}

// step is the difference quotients' step in centre x, centre y, radius and tilt.
var step = [4]float64{2e-3, 2e-3, 2e-3, 2e-2}

// shape returns centre x, centre y, radius and tilt of the class's shape that is
// nearest to target.
func (f *fitter) shape(class int) [4]float64 {
	const iterations = 8
	mass, mx, my := 1e-9, 0.0, 0.0
	for k, a := range f.target {
		mass += a
		mx += a * (float64(k%side) + 0.5) / side
		my += a * (float64(k/side) + 0.5) / side
	}
	mx, my = mx/mass, my/mass
	s := solids()[class]
	r := min(max(math.Sqrt(mass/pixels/s.area), shapes.RadiusMin), shapes.RadiusMax)

	best, bestError := [4]float64{}, math.Inf(1)
	for _, tilt := range tilts[class] {
		sin, cos := math.Sincos(tilt)
		q := confine([4]float64{mx - r*(cos*s.x-sin*s.y), my - r*(sin*s.x+cos*s.y), r, tilt})
		squared, damping := f.residual(class, q, &f.error), 1e-2
		for range iterations {
			trial := confine(f.newton(class, q, damping))
			if e := f.residual(class, trial, &f.trial); e < squared {
				q, squared, f.error = trial, e, f.trial
				damping /= 4
			} else {
				damping *= 6
			}
		}
		if squared < bestError {
			best, bestError = q, squared
		}
	}
	return best
}

// residual fills dst with coverage minus target and returns the sum of squares.
func (f *fitter) residual(class int, q [4]float64, dst *[pixels]float64) float64 {
	shapes.Coverage(shapes.Params{Class: class, CX: q[0], CY: q[1], Radius: q[2], Tilt: q[3]}, side, dst[:])
	sum := 0.0
	for k := range dst {
		dst[k] -= f.target[k]
		sum += dst[k] * dst[k]
	}
	return sum
}

// newton is one damped Gauss-Newton step from q, whose residual is in error:
// (J J^T + damping diag(J J^T) + 1e-6) d = J error.
func (f *fitter) newton(class int, q [4]float64, damping float64) [4]float64 {
	for i := range f.slope {
		moved := q
		moved[i] += step[i]
		f.residual(class, moved, &f.slope[i])
		for k := range f.slope[i] {
			f.slope[i][k] = (f.slope[i][k] - f.error[k]) / step[i]
		}
	}
	var m [4][5]float64
	for i := range m {
		for j := range 4 {
			m[i][j] = dot(&f.slope[i], &f.slope[j])
		}
		m[i][i] += damping*m[i][i] + 1e-6
		m[i][4] = dot(&f.slope[i], &f.error)
	}
	d := solve(m)
	for i := range q {
		q[i] -= d[i]
	}
	return q
}

func dot(a, b *[pixels]float64) float64 {
	sum := 0.0
	for k := range a {
		sum += a[k] * b[k]
	}
	return sum
}

// solve returns d of A d = b, m = [A b], by elimination. A is symmetric and, by
// its damping, positive definite: no pivot is 0.
func solve(m [4][5]float64) (d [4]float64) {
	for i := range m {
		for below := i + 1; below < 4; below++ {
			factor := m[below][i] / m[i][i]
			for j := i; j < 5; j++ {
				m[below][j] -= factor * m[i][j]
			}
		}
	}
	for i := 3; i >= 0; i-- {
		d[i] = m[i][4]
		for j := i + 1; j < 4; j++ {
			d[i] -= m[i][j] * d[j]
		}
		d[i] /= m[i][i]
	}
	return d
}

// confine moves a shape to the nearest the generator can draw.
func confine(q [4]float64) [4]float64 {
	q[2] = min(max(q[2], shapes.RadiusMin), shapes.RadiusMax)
	q[3] = min(max(q[3], -shapes.MaxTilt), shapes.MaxTilt)
	free := 0.5 - (q[2] + shapes.Margin)
	for i := range 2 {
		q[i] = min(max(q[i], 0.5-free), 0.5+free)
	}
	return q
}
