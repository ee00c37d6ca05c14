package samples

import (
	"errors"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ddpm/internal/picture"
)

// recorder is a Writer that counts.
type recorder struct {
	taken int
	err   error
}

func (r *recorder) Append(x []float32) error {
	r.taken += len(x)
	return r.err
}

func (r *recorder) Close() error { return r.err }

func TestWithGrid(t *testing.T) {
	const h, w, c = 2, 3, 1
	path := filepath.Join(t.TempDir(), "grid.png")
	inner, options := &recorder{}, picture.GridOptions{Columns: 1}
	out := WithGrid(inner, path, 3, h, w, c, options)
	x := make([]float32, 5*h*w*c)
	for i := range x {
		x[i] = float32(i)/15 - 1
	}
	for _, batch := range [][]float32{x[:12], x[12:24], x[24:]} {
		if err := out.Append(batch); err != nil {
			t.Fatal(err)
		}
	}
	if inner.taken != len(x) {
		t.Errorf("%d values were passed on, want %d", inner.taken, len(x))
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	want := picture.Grid(picture.ToBytes(x[:3*h*w*c]), 3, w, h, c, options)
	if got.Bounds() != want.Bounds() {
		t.Fatalf("a grid of %v, want the first three images: %v", got.Bounds(), want.Bounds())
	}
	for p := got.Bounds().Min; p.Y < got.Bounds().Max.Y; p.Y++ {
		for p.X = 0; p.X < got.Bounds().Max.X; p.X++ {
			r1, g1, b1, _ := got.At(p.X, p.Y).RGBA()
			r2, g2, b2, _ := want.At(p.X, p.Y).RGBA()
			if r1 != r2 || g1 != g2 || b1 != b2 {
				t.Fatalf("pixel %v differs", p)
			}
		}
	}
}

// Without its samples there is no grid.
func TestWithGridPassesErrorsOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grid.png")
	full := errors.New("full")
	out := WithGrid(&recorder{err: full}, path, 3, 1, 1, 1, picture.GridOptions{})
	if err := out.Append([]float32{0}); !errors.Is(err, full) {
		t.Errorf("Append: %v", err)
	}
	if err := out.Close(); !errors.Is(err, full) {
		t.Errorf("Close: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a grid was written")
	}
}

func TestUnusedAndVacant(t *testing.T) {
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "a.npz"), filepath.Join(dir, "b")
	for _, want := range []string{"a.npz", "a-2.npz", "a-3.npz"} {
		path := Unused(file)
		if filepath.Base(path) != want {
			t.Errorf("unused %s, want %s", path, want)
		}
		if err := Vacant(path); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"b", "b-2"} {
		path := Unused(folder)
		if filepath.Base(path) != want {
			t.Errorf("unused %s, want %s", path, want)
		}
		if err := os.Mkdir(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := Vacant(file); err == nil || !strings.Contains(err.Error(), "a.npz exists: choose another name") {
		t.Errorf("a file that exists: %v", err)
	}
}
