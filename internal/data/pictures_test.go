package data

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadImages(t *testing.T) {
	dir := t.TempDir()
	paint := func(name string, w, h int, c color.Color) string {
		img := image.NewRGBA(image.Rect(0, 0, w, h))
		for i := range w * h {
			img.Set(i%w, i/w, c)
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := png.Encode(f, img); err != nil {
			t.Fatal(err)
		}
		return path
	}
	red := paint("set/z.png", 2, 2, color.RGBA{255, 0, 0, 255})
	paint("set/sub/a.png", 8, 4, color.RGBA{0, 0, 255, 255})
	blue := filepath.Join(dir, "set", "sub", "a.png")
	reds, blues := slices.Repeat([]byte{255, 0, 0}, 4), slices.Repeat([]byte{0, 0, 255}, 4)
	for _, c := range []struct {
		path  string
		skip  []string
		want  []byte
		files []Picture
	}{
		{red, nil, reds, []Picture{{red, 2, 2}}},
		{filepath.Join(dir, "set"), nil, slices.Concat(blues, reds), []Picture{{blue, 8, 4}, {red, 2, 2}}},
		{filepath.Join(dir, "set"), []string{"b.png", "a.png"}, reds, []Picture{{red, 2, 2}}},
		{blue, []string{"a.png"}, blues, []Picture{{blue, 8, 4}}}, // it was named
	} {
		got, files, err := ReadImages(c.path, 2, 2, 3, c.skip...)
		if err != nil || !slices.Equal(got, c.want) || !slices.Equal(files, c.files) {
			t.Errorf("%s without %q: %v, %v, %v, want %v, %v", c.path, c.skip, got, files, err, c.want, c.files)
		}
	}
	if got, _, err := ReadImages(red, 1, 1, 1); err != nil || !slices.Equal(got, []byte{76}) {
		t.Errorf("grey: %v, %v, want the luma of red", got, err)
	}
	text := filepath.Join(dir, "a.txt")
	if err := os.WriteFile(text, []byte("no image"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o777); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		text:                             "a.txt: not a PNG, JPEG",
		filepath.Join(dir, "empty"):      "no PNG, JPEG",
		filepath.Join(dir, "missing"):    `missing" does not exist`,
		filepath.Join(dir, "set", "sub"): "no image in it or its sub-folders but a.png",
	} {
		if _, _, err := ReadImages(path, 2, 2, 3, "a.png"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
}
