package samples

import (
	"archive/zip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/rng"
	"ddpm/internal/safetensors"
)

const n, h, w, c = 7, 3, 5, 2

// noise is [n,H,W,C], every number different, some outside [-1, 1].
func noise(count int) []float32 {
	x := make([]float32, count)
	rng.Key{Stream: rng.Prior}.Normals(x)
	return x
}

// element reads [n,H,W,C].
func element(x []float32, channels, i, y, column, channel int) float32 {
	return x[((i*h+y)*w+column)*channels+channel]
}

// write passes x on in batches of 3, 1 and the rest.
func write(t *testing.T, path, format string, x []float32, channels int) {
	t.Helper()
	out, err := New(path, format, n, h, w, channels)
	if err != nil {
		t.Fatal(err)
	}
	sample := h * w * channels
	for _, batch := range [][]float32{x[:3*sample], x[3*sample : 4*sample], nil, x[4*sample:]} {
		if err := out.Append(batch); err != nil {
			t.Fatal(err)
		}
		if format != "png" {
			if _, err := os.Stat(path); err == nil {
				t.Fatal("the file exists before Close")
			}
		}
	}
	for range 2 {
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The parsers below know the formats only from their specifications.

func parseNPY(t *testing.T, b []byte) (shape string, data []byte) {
	t.Helper()
	if len(b) < 10 || string(b[:8]) != "\x93NUMPY\x01\x00" {
		t.Fatalf("not an npy file: %q", b[:min(len(b), 10)])
	}
	end := 10 + int(binary.LittleEndian.Uint16(b[8:]))
	header := string(b[10:end])
	if end%64 != 0 || !strings.HasSuffix(header, "\n") {
		t.Errorf("the header ends at byte %d with %q, want a multiple of 64 and a newline", end, header[len(header)-1])
	}
	if !strings.Contains(header, "'descr': '<f4'") || !strings.Contains(header, "'fortran_order': False") {
		t.Errorf("header %q", header)
	}
	_, shape, _ = strings.Cut(header, "'shape': ")
	return strings.TrimRight(shape, ", }\n"), b[end:]
}

func TestOneFileFormats(t *testing.T) {
	read := map[string]func(*testing.T, string) []byte{
		"npy": func(t *testing.T, path string) []byte {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			shape, data := parseNPY(t, b)
			if shape != "(7, 2, 3, 5)" {
				t.Errorf("shape %q", shape)
			}
			return data
		},
		"npz": func(t *testing.T, path string) []byte {
			archive, err := zip.OpenReader(path)
			if err != nil {
				t.Fatal(err)
			}
			defer archive.Close()
			if len(archive.File) != 1 || archive.File[0].Name != "samples.npy" || archive.File[0].Method != zip.Store {
				t.Fatalf("archive has %+v", archive.File)
			}
			member, err := archive.File[0].Open()
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(member)
			if err != nil {
				t.Fatal(err)
			}
			shape, data := parseNPY(t, b)
			if shape != "(7, 2, 3, 5)" {
				t.Errorf("shape %q", shape)
			}
			return data
		},
		"safetensors": func(t *testing.T, path string) []byte {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			begin := 8 + binary.LittleEndian.Uint64(b)
			var header map[string]struct {
				DType   string `json:"dtype"`
				Shape   []int  `json:"shape"`
				Offsets [2]int `json:"data_offsets"`
			}
			if err := json.Unmarshal(b[8:begin], &header); err != nil {
				t.Fatal(err)
			}
			got := header["samples"]
			if len(header) != 1 || got.DType != "F32" || !slices.Equal(got.Shape, []int{n, c, h, w}) || got.Offsets != [2]int{0, 4 * n * c * h * w} {
				t.Errorf("header %+v", header)
			}
			return b[begin:]
		},
	}
	x := noise(n * h * w * c)
	for _, format := range Formats() {
		if format == "png" {
			continue
		}
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "new", "out."+format)
			write(t, path, format, x, c)
			data := read[format](t, path)
			if len(data) != 4*n*c*h*w {
				t.Fatalf("%d bytes of data, want %d", len(data), 4*n*c*h*w)
			}
			for i := range n {
				for channel := range c {
					for y := range h {
						for column := range w {
							got := math.Float32frombits(binary.LittleEndian.Uint32(data))
							data = data[4:]
							if want := element(x, c, i, y, column, channel); got != want {
								t.Fatalf("[%d,%d,%d,%d] = %v, want %v, bit for bit", i, channel, y, column, got, want)
							}
						}
					}
				}
			}
			if names := list(t, filepath.Join(dir, "new")); !slices.Equal(names, []string{"out." + format}) {
				t.Errorf("the folder has %q, want the file alone", names)
			}
			if _, err := New(path, format, n, h, w, c); err == nil || !strings.Contains(err.Error(), "exists") {
				t.Errorf("a second writer on the same path: %v", err)
			}
		})
	}
}

func TestPNG(t *testing.T) {
	for _, channels := range []int{1, 3} {
		path := filepath.Join(t.TempDir(), "a", "b")
		x := noise(n * h * w * channels)
		write(t, path, "png", x, channels)
		if names := list(t, path); len(names) != n || names[0] != "sample_00000.png" || names[n-1] != "sample_00006.png" {
			t.Errorf("the folder has %q", names)
		}
		for i := range n {
			f, err := os.Open(filepath.Join(path, fmt.Sprintf("sample_%05d.png", i)))
			if err != nil {
				t.Fatal(err)
			}
			img, err := png.Decode(f)
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			if b := img.Bounds(); b.Dx() != w || b.Dy() != h {
				t.Fatalf("size %v", b)
			}
			for y := range h {
				for column := range w {
					pixel := color.NRGBAModel.Convert(img.At(column, y)).(color.NRGBA)
					for channel, got := range []byte{pixel.R, pixel.G, pixel.B} {
						v := float64(element(x, channels, i, y, column, min(channel, channels-1)))
						want := byte(math.Floor((max(-1, min(1, v))+1)*127.5 + 0.5))
						if got != want {
							t.Fatalf("sample %d, row %d, column %d, channel %d is %d, want %d", i, y, column, channel, got, want)
						}
					}
				}
			}
		}
		if _, err := New(path, "png", n, h, w, channels); err == nil || !strings.Contains(err.Error(), "is not empty (it has sample_00000.png)") {
			t.Errorf("a second writer on the same folder: %v", err)
		}
	}
}

// A run that stops early must not leave a file that looks whole.
func TestIncomplete(t *testing.T) {
	for _, format := range []string{"npy", "npz", "safetensors"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "out")
		out, err := New(path, format, n, h, w, c)
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Append(noise(2 * h * w * c)); err != nil {
			t.Fatal(err)
		}
		err = out.Close()
		want := "samples: " + path + " is not written: only 2 of 7 samples were made"
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", format, err, want)
		}
		if names := list(t, dir); len(names) > 0 {
			t.Errorf("%s: left %q behind", format, names)
		}
		if err := out.Append(noise(h * w * c)); err == nil {
			t.Errorf("%s: took samples after Close", format)
		}
	}
	path := t.TempDir()
	out, err := New(path, "png", n, h, w, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Append(noise(2 * h * w)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err == nil || !strings.Contains(err.Error(), "has 2 of 7 samples") {
		t.Errorf("png: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	occupied := filepath.Join(dir, "file")
	if err := os.WriteFile(occupied, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path, format string
		n, c         int
		want         string
	}{
		{"x", "jpeg", 1, 1, `format "jpeg": want one of png, npy, npz, safetensors`},
		{"x", "npy", 0, 1, "0 samples of height 3, width 5 and 1 channels: want at least 1 of each"},
		{"x", "npy", math.MaxInt / 8, 3, "more than a file can hold"},
		{"x", "png", 1, 4, "for 1 or 3 channels, not 4"},
		{"file", "npy", 1, 1, "exists: choose another name, or remove it first"},
		{"file", "png", 1, 1, "cannot make the folder"},
		{"file/x", "npz", 1, 1, "cannot make the folder"},
		{".", "npy", 1, 1, "is a folder: name a file"},
	} {
		_, err := New(filepath.Join(dir, test.path), test.format, test.n, h, w, test.c)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s as %s: got %v, want ...%s...", test.path, test.format, err, test.want)
		}
	}
	if names := list(t, dir); !slices.Equal(names, []string{"file"}) {
		t.Errorf("refused writers left %q", names)
	}

	for _, format := range []string{"npy", "png"} {
		out, err := New(filepath.Join(dir, format), format, 1, h, w, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Append(noise(h*w - 1)); err == nil || !strings.Contains(err.Error(), "not a whole number of samples [3,5,1]") {
			t.Errorf("%s, part of a sample: %v", format, err)
		}
		if err := out.Append(noise(2 * h * w)); err == nil || !strings.Contains(err.Error(), "sample 2, but only 1 were announced") {
			t.Errorf("%s, too many samples: %v", format, err)
		}
		if err := out.Append(noise(h * w)); err != nil {
			t.Errorf("%s, a good batch after refused ones: %v", format, err)
		}
		if err := out.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A disk that fails must surface in Append or Close, and not hang.
func TestWriteError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	out, err := New(filepath.Join(dir, "out.npy"), "npy", n, h, w, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Append(noise(h * w * c)); err != nil { // now the temporary file is there
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := out.Append(noise((n - 1) * h * w * c)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err == nil || !strings.HasPrefix(err.Error(), "samples: cannot write "+dir) {
		t.Errorf("got %v", err)
	}
}

func TestLayoutsUndoEachOther(t *testing.T) {
	x := noise(n * h * w * c)
	nchw, back := make([]float32, len(x)), make([]float32, len(x))
	ToNCHW(nchw, x, n, h, w, c)
	for i := range n {
		for channel := range c {
			for y := range h {
				for column := range w {
					if got, want := nchw[((i*c+channel)*h+y)*w+column], element(x, c, i, y, column, channel); got != want {
						t.Fatalf("[%d,%d,%d,%d] = %v, want %v", i, channel, y, column, got, want)
					}
				}
			}
		}
	}
	ToNHWC(back, nchw, n, h, w, c)
	if !slices.Equal(back, x) {
		t.Error("ToNHWC does not undo ToNCHW")
	}
}

func TestReadNoise(t *testing.T) {
	dir := t.TempDir()
	save := func(name string, tensors ...safetensors.Tensor) string {
		path := filepath.Join(dir, name)
		if err := safetensors.WriteFile(path, nil, tensors); err != nil {
			t.Fatal(err)
		}
		return path
	}
	x := noise(n * h * w * c)
	nchw := make([]float32, len(x))
	ToNCHW(nchw, x, n, h, w, c)
	shape := []int{n, c, h, w}
	good := save("good", safetensors.Tensor{Name: "noise", DType: safetensors.F32, Shape: shape, Float32: nchw})
	got, err := ReadNoise(good, n, h, w, c)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, x) {
		t.Error("the noise differs from what was written")
	}
	if got, err := ReadNoise(good, 0, h, w, c); err != nil || !slices.Equal(got, x) {
		t.Errorf("all the file has: %d numbers, %v, want %d", len(got), err, len(x))
	}

	if _, err := ReadNoise(good, n+1, h, w, c); err == nil || !strings.Contains(err.Error(), "has the noise of 7 images, and 8 are asked for: leave -n out") {
		t.Errorf("more than the file has: got %v, want an error", err)
	}

	written := filepath.Join(dir, "new", "written")
	if err := WriteNoise(written, x, h, w, c); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadNoise(written, n, h, w, c); err != nil || !slices.Equal(got, x) {
		t.Errorf("read what WriteNoise wrote: %v", err)
	}
	if err := WriteNoise(written, x, h, w, c); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("written again: got %v, want an error", err)
	}

	infinite := slices.Clone(nchw)
	infinite[3] = float32(math.Inf(1))
	for _, test := range []struct{ path, want string }{
		{filepath.Join(dir, "missing"), "missing"},
		{save("names", safetensors.Tensor{Name: "x", DType: safetensors.F32, Shape: shape, Float32: nchw}),
			`has no tensor "noise" of shape [7 2 3 5] (n, channels, height, width); it has ["x"]`},
		{save("empty"), "it has none"},
		{save("shape", safetensors.Tensor{Name: "noise", DType: safetensors.F32, Shape: []int{n, h, w, c}, Float32: x}),
			`tensor "noise" has shape [7 3 5 2], want [7 2 3 5] (n, channels, height, width)`},
		{save("dtype", safetensors.Tensor{Name: "noise", DType: safetensors.I32, Shape: shape, Stream: func(w io.Writer) error {
			_, err := w.Write(make([]byte, 4*len(x)))
			return err
		}}), "dtype I32"},
		{save("infinite", safetensors.Tensor{Name: "noise", DType: safetensors.F32, Shape: shape, Float32: infinite}),
			"has +Inf at position 3, want finite numbers"},
	} {
		if _, err := ReadNoise(test.path, n, h, w, c); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want ...%s...", err, test.want)
		}
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
