package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"ddpm/internal/data"
	"ddpm/internal/generate"
	"ddpm/internal/progress"
	"ddpm/internal/samples"
	"ddpm/internal/sched"
	"ddpm/internal/trained"
)

// editing are the flags for images that are made from others.
type editing struct {
	init, mask, invert string
	interpolate        []string
	strength           float64
	jump, times        int

	ends []float32 // what interpolate names
	trip roundTrip // of them
	next []string  // flags that decode what invert finds, but for those that were given
}

// written are the names of what a folder of samples has besides them, which are not read as images.
var written = []string{gridName, trajectoryName}

func (e *editing) add(f *pflag.FlagSet) {
	f.StringVar(&e.init, "init", "", "image, or folder of images, to draw over")
	f.Float64Var(&e.strength, "strength", 0.5, "share of the steps that draw over --init: 1 leaves next to nothing of it (default 0.5, or with --mask 1)")
	f.Lookup("strength").DefValue = "0" // the help names both
	f.StringVar(&e.mask, "mask", "", "image that is white where --init is to be drawn anew; the rest stays as it is")
	f.IntVar(&e.jump, "repaint-jump", 10, "with --mask: go back after so many steps")
	f.IntVar(&e.times, "repaint-times", 10, "with --mask: go so often through them; 1 is never to go back")
	f.StringVar(&e.invert, "invert", "", "image, or folder of images, to find the noise of")
	f.StringSliceVar(&e.interpolate, "interpolate", nil, "two images, as in a.png,b.png, to lead from one to the other")
}

// String is the images in the name of a file.
func (e editing) String() string {
	base := func(path string) string {
		return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	switch {
	case e.mask != "":
		return "-around-" + base(e.init)
	case e.init != "":
		return fmt.Sprintf("-over-%s-%g", base(e.init), e.strength)
	case e.invert != "":
		return "-noise-of-" + base(e.invert)
	case len(e.interpolate) > 0:
		return "-from-" + base(e.interpolate[0]) + "-to-" + base(e.interpolate[1])
	}
	return ""
}

// checkEditing refuses flags that make no sense together.
func (s *sampleCommand) checkEditing() error {
	for _, text := range []struct{ flag, value string }{
		{"run", s.path}, {"class", s.className}, {"out", s.out}, {"noise", s.noise},
		{"init", s.init}, {"mask", s.mask}, {"invert", s.invert},
	} {
		if s.given(text.flag) && text.value == "" {
			return fmt.Errorf("--%s \"\": it is empty: give it a value, or leave it out", text.flag)
		}
	}
	var starts []string
	for _, flag := range []string{"noise", "init", "invert", "interpolate"} {
		if s.given(flag) {
			starts = append(starts, "--"+flag)
		}
	}
	if len(starts) > 1 {
		return fmt.Errorf("%s: images start from one of them", strings.Join(starts, " and "))
	}
	for _, pair := range [][2]string{{"strength", "init"}, {"mask", "init"}, {"repaint-jump", "mask"}, {"repaint-times", "mask"}} {
		if flag, needed := pair[0], pair[1]; s.given(flag) && !s.given(needed) {
			return fmt.Errorf("--%s: want --%s too", flag, needed)
		}
	}
	switch {
	case !(s.strength > 0 && s.strength <= 1):
		return fmt.Errorf("--strength %g: want above 0, to 1", s.strength)
	case s.jump < 1:
		return fmt.Errorf("--repaint-jump %d: want at least 1", s.jump)
	case s.times < 1:
		return fmt.Errorf("--repaint-times %d: want at least 1", s.times)
	case s.given("interpolate") && len(s.interpolate) != 2:
		return fmt.Errorf("--interpolate %s: want two images, as in a.png,b.png", strings.Join(s.interpolate, ","))
	case s.given("interpolate") && s.n < 2:
		return fmt.Errorf("-n %d: want at least 2 with --interpolate: the two images are the first and the last", s.n)
	}
	if s.given("interpolate") && !s.given("n") {
		s.n = 8
	}
	if s.given("invert") {
		for _, flag := range []string{"n", "grid", "trajectory"} {
			if s.given(flag) {
				return fmt.Errorf("--%s: --invert writes the noise of the images that it is given, and no images", flag)
			}
		}
		switch {
		case s.given("seed"):
			return fmt.Errorf("--seed: --invert finds the noise, and draws none: leave it out")
		case s.given("out") && filepath.Ext(s.out) != ".safetensors":
			return fmt.Errorf("--out %s: --invert writes safetensors: want a name ending in .safetensors", s.out)
		case s.given("format") && s.format != "safetensors":
			return fmt.Errorf("--format %s: --invert writes safetensors: leave it out", s.format)
		}
		s.format = "safetensors"
	}
	return nil
}

// readImages reads what a flag names as the network sees it, [n,H,W,C] in [-1, 1].
func readImages(flag, path string, m *trained.Model) ([]float32, []data.Picture, error) {
	bytes, files, err := data.ReadImages(path, m.Size.Width, m.Size.Height, m.Size.Channels, written...)
	if err != nil {
		return nil, nil, fmt.Errorf("--%s: %w", flag, err)
	}
	x := make([]float32, len(bytes))
	for i, b := range bytes {
		x[i] = float32(b)/127.5 - 1
	}
	return x, files, nil
}

// drawOver has g start from the images of --init, or keep to them outside --mask.
func (s *sampleCommand) drawOver(m *trained.Model, g *generate.Generator) error {
	x, files, err := readImages("init", s.init, m)
	if err != nil {
		return err
	}
	if !s.given("n") {
		s.n = len(x) / m.Size.Values()
	}
	if s.mask == "" || s.given("strength") {
		g.Init, g.Strength = x, s.strength
	}
	if s.mask == "" {
		return nil
	}
	grey, masks, err := data.ReadImages(s.mask, m.Size.Width, m.Size.Height, 1)
	if err != nil {
		return fmt.Errorf("--mask: %w", err)
	}
	if len(masks) != 1 {
		return fmt.Errorf("--mask %s: want one image", s.mask)
	}
	for _, f := range files { // else the two are cropped to different parts
		if mask := masks[0]; mask.Width != f.Width || mask.Height != f.Height {
			return fmt.Errorf("--mask %s: it has %dx%d pixels, and %s has %dx%d: want a mask of the size of the image",
				s.mask, mask.Width, mask.Height, f.Path, f.Width, f.Height)
		}
	}
	g.Known = &generate.Known{Images: x, Paint: make([]bool, len(grey)), Jump: s.jump, Times: s.times}
	for i, v := range grey {
		g.Known.Paint[i] = v >= 128
	}
	if !slices.Contains(g.Known.Paint, true) {
		return fmt.Errorf("--mask %s: nothing is white, so nothing would be drawn", s.mask)
	}
	return nil
}

// fitAuto has the sampler auto stand for one that the editing can go with: a known part is put
// back between calls of the network, where no others may keep anything, and only a step without
// noise can be taken back.
func (s *sampleCommand) fitAuto(m *trained.Model) {
	c := &m.Config.Sample
	if c.Sampler != sched.Auto {
		return
	}
	switch {
	case s.mask != "":
		c.Sampler, c.Spacing = "euler_ancestral", "trailing"
	case s.invert != "" || len(s.interpolate) > 0:
		c.Sampler, c.Spacing = "euler", "trailing"
		s.next = append(s.next, "--spacing", c.Spacing)
	}
}

// fitInversion has the model draw as images are inverted: without what clips or guides x_0.
func (s *sampleCommand) fitInversion(m *trained.Model) error {
	flag, c := "invert", &m.Config.Sample
	if len(s.interpolate) > 0 {
		flag = "interpolate"
	}
	_, single := s.class.single()
	switch {
	case !single:
		return fmt.Errorf("--%s: want the class of the images in --class, or none", flag)
	case generate.Guided(m.Sampling(), m.Config.Model):
		return fmt.Errorf("sample.guidance %g: --%s goes without: want --guidance 1", c.Guidance, flag)
	case s.given("clip") && c.Clip:
		return fmt.Errorf("--clip: --%s takes x0 as it is predicted: leave it out", flag)
	case s.given("threshold") && c.Threshold > 0:
		return fmt.Errorf("--threshold: --%s takes x0 as it is predicted: leave it out", flag)
	case s.given("eta") && c.Eta > 0:
		return fmt.Errorf("--eta %g: --%s wants a sampler without noise: want --eta 0", c.Eta, flag)
	}
	if c.Threshold > 0 {
		s.next = append(s.next, "--threshold", "0")
	}
	c.Clip, c.Threshold = false, 0
	return nil
}

// inverse finds the noise that images are drawn from.
func (s *sampleCommand) inverse(ctx context.Context, errs io.Writer, m *trained.Model, x []float32) (noise []float32, err error) {
	class, _ := s.class.single()
	v, err := m.Inverter(s.weights(), min(len(x)/m.Size.Values(), m.Config.Sample.Batch), class)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.Network.Close()) }()
	fmt.Fprintln(errs, "looking for the noise of the images")
	n := len(x) / m.Size.Values()
	bar := progress.New(errs, progress.Options{Total: n, Unit: "image"})
	defer bar.Finish()
	v.OnProgress = func(done, total int) { // all of them go along together
		status := images(0)
		status.Part = float64(n) * float64(done) / float64(total)
		if done == total {
			status = images(n)
		}
		bar.Update(status)
	}
	return v.Invert(ctx, x)
}

// encode writes the noise of the images of --invert, and draws them again to see how near they come.
func (s *sampleCommand) encode(ctx context.Context, out, errs io.Writer, m *trained.Model) (err error) {
	path := s.out
	if path == "" {
		path = samples.Unused(s.defaultOut(m))
	}
	if err := samples.Vacant(path); err != nil {
		return err
	}
	x, _, err := readImages("invert", s.invert, m)
	if err != nil {
		return err
	}
	noise, err := s.inverse(ctx, errs, m, x)
	if err != nil {
		return err
	}
	if err := samples.WriteNoise(path, noise, m.Size.Height, m.Size.Width, m.Size.Channels); err != nil {
		return err
	}
	n := len(x) / m.Size.Values()
	g := m.Generator()
	g.Class = s.class.of
	if err := m.Compile(g, s.weights(), min(n, m.Config.Sample.Batch)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	var trip roundTrip
	err = g.Draw(ctx, n, noise, func(first int, images []float32) error {
		trip.add(images, x[first*m.Size.Values():])
		return nil
	})
	if err != nil {
		return err
	}
	s.rows(out, m)
	row(out, "noise", "%s", path)
	row(out, "round trip", "%v", trip)
	row(out, "next", "%s", s.decoding(m, path))
	return nil
}

// decoding is the command that draws the images of --invert again, in the same way.
func (s *sampleCommand) decoding(m *trained.Model, noise string) string {
	c := m.Sampling()
	words := []string{
		"ddpm", "sample", "--run", m.Path, "--noise", noise,
		"--sampler", c.Sampler, "--steps", strconv.Itoa(c.Steps), "--clip=false",
	}
	words = append(words, s.next...)
	if s.class.asked != "" {
		words = append(words, "--class", s.class.asked)
	}
	for _, f := range s.keyFlags {
		if f.given && !slices.Contains([]string{"sampler", "steps", "clip"}, f.flag) {
			words = append(words, "--"+f.flag, f.value)
		}
	}
	if !s.ema {
		words = append(words, "--ema=false")
	}
	for i, word := range words {
		words[i] = quoted(word)
	}
	return strings.Join(words, " ")
}

// quoted is a word as a shell reads it.
func quoted(word string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("-_=+./:,@%", r)
	}
	if strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}

// roundTrip is how far images are from those whose noise they were drawn from.
type roundTrip struct {
	values       int
	square, most float64 // sum and largest, of differences
}

// add compares all of got.
func (r *roundTrip) add(got, want []float32) {
	for k, v := range got {
		d := math.Abs(float64(v) - float64(want[k]))
		r.square, r.most = r.square+d*d, max(r.most, d)
	}
	r.values += len(got)
}

func (r roundTrip) String() string {
	return fmt.Sprintf("RMSE %.2g, at most %.2g, of values in [-1, 1]", math.Sqrt(r.square/float64(r.values)), r.most)
}

// between gives the noises from that of the first image of --interpolate to that of the second.
func (s *sampleCommand) between(ctx context.Context, errs io.Writer, m *trained.Model) ([]float32, error) {
	values := m.Size.Values()
	for _, path := range s.interpolate {
		one, _, err := readImages("interpolate", path, m)
		if err != nil {
			return nil, err
		}
		if len(one) != values {
			return nil, fmt.Errorf("--interpolate %s: want two images, and this is a folder of several", path)
		}
		s.ends = append(s.ends, one...)
	}
	ends, err := s.inverse(ctx, errs, m, s.ends)
	if err != nil {
		return nil, err
	}
	var noise []float32
	for i := range s.n {
		noise = append(noise, generate.Between(ends[:values], ends[values:], float64(i)/float64(s.n-1))...)
	}
	return noise, nil
}

// compare compares images first, first+1, ... with those at the ends of the way between.
func (s *sampleCommand) compare(first int, images []float32) {
	values := len(s.ends) / 2
	for i := 0; i < len(images) && values > 0; i += values {
		switch first + i/values {
		case 0:
			s.trip.add(images[i:i+values], s.ends)
		case s.n - 1:
			s.trip.add(images[i:i+values], s.ends[values:])
		}
	}
}
