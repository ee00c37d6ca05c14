package data_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/data"
)

func check(t *testing.T, cfg data.Config) *data.Report {
	t.Helper()
	report, err := data.Check(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestCheckFolder(t *testing.T) {
	files := pngFiles(t, 10) // five cats, five dogs, 8 x 6
	files[3].body = files[3].body[:30]
	files[4].body = []byte("no image")
	files = append(files,
		file{"dogs/wide.png", encoded(t, "png", plain(30, 2, color.NRGBA{1, 2, 3, 255}))},
		file{"dogs/clear.png", encoded(t, "png", plain(8, 6, color.NRGBA{1, 2, 3, 100}))},
		file{"dogs/grey.jpg", encoded(t, "jpg", plain(5, 5, color.NRGBA{9, 9, 9, 255}))},
		file{"dogs/notes.txt", nil},
	)
	path := writeFolder(t, files...)
	for _, workers := range []int{1, 4} {
		calls, last := 0, 0
		report, err := data.Check(t.Context(), data.Config{Path: path, Holdout: 0.5, Workers: workers}, func(split data.Split, done, total int) {
			calls++
			last = done
			if split != data.Train || total != 13 {
				t.Errorf("progress of %d in %s, want 13 in train", total, split)
			}
		})
		must(t, err)
		if calls != 13 || last != 13 {
			t.Errorf("progress: %d calls, the last of %d, want 13", calls, last)
		}
		if report.Config.Name != "folder" || !slices.Equal(report.Classes, []string{"cats", "dogs"}) || len(report.Splits) != 1 {
			t.Fatalf("report %+v", report)
		}
		if s := report.Splits[0]; s.Images != 13 || s.Bad != 2 || !slices.Equal(s.PerClass, []int{4, 7}) {
			t.Errorf("split %+v, want 13 images, 2 bad, 4 cats, 7 dogs", s)
		}
		if want := []data.Size{{8, 6, 9}, {5, 5, 1}, {30, 2, 1}}; !slices.Equal(report.Sizes, want) || report.OtherSizes != 0 {
			t.Errorf("sizes %v, want %v", report.Sizes, want)
		}
		if report.Grey != 0 || report.Colour != 10 || report.Transparent != 1 {
			t.Errorf("%d grey, %d colour, %d transparent, want 0, 10, 1", report.Grey, report.Colour, report.Transparent)
		}
		if len(report.Bad) != 2 || report.Bad[0].Index != 2 || report.Bad[1].Index != 6 {
			t.Fatalf("bad %v, want images 2 and 6", report.Bad)
		}
		wantError(t, report.Bad[0].Err, filepath.Join(path, "cats/004.png"), "not a PNG")
		wantError(t, report.Bad[1].Err, filepath.Join(path, "dogs/003.png"), "truncated")

		ds := open(t, report.Config, data.Train)
		first, _ := read(t, ds, 0)
		third, _ := read(t, ds, 3) // image 2 is bad
		size := ds.Info().Bytes()
		if report.PreviewCount != 11 || len(report.Preview) != 11*size || !bytes.Equal(report.Preview[:size], first) || !bytes.Equal(report.Preview[2*size:3*size], third) {
			t.Errorf("preview of %d images in %d bytes, want the 11 readable ones in order", report.PreviewCount, len(report.Preview))
		}
		if report.Config.Width != 64 || report.Config.Height != 64 || report.Config.Channels != 3 {
			t.Errorf("preview of size %d x %d x %d", report.Config.Width, report.Config.Height, report.Config.Channels)
		}
		var text strings.Builder
		must(t, report.WriteText(&text))
		for _, want := range []string{"13 images, 2 unreadable", "cats", "7 train", "9 of 8 x 6", "10 colour, 1 transparent", "not a PNG"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("the text does not say %q:\n%s", want, text.String())
			}
		}
	}
}

func TestCheckGuessesAndWalksBothSplits(t *testing.T) {
	for name, want := range map[string]struct {
		train, test, preview   int
		width, height, classes int
	}{
		"cifar10": {35, 7, 35, 32, 32, 10},
		"mnist":   {50, 20, 50, 28, 28, 10},
		"folder":  {40, 0, 40, 8, 6, 2},
		"zip":     {40, 0, 40, 8, 6, 2},
	} {
		t.Run(name, func(t *testing.T) {
			report := check(t, data.Config{Path: fixtures[name](t).Path})
			if report.Config.Name != name || len(report.Classes) != want.classes || report.PreviewCount != want.preview {
				t.Errorf("%s with classes %q, preview of %d", report.Config.Name, report.Classes, report.PreviewCount)
			}
			counts := map[data.Split]int{}
			for _, s := range report.Splits {
				counts[s.Split] = s.Images
				sum := 0
				for _, c := range s.PerClass {
					sum += c
				}
				if sum != s.Images || s.Bad != 0 {
					t.Errorf("%s: %d images in classes, %d bad, want %d, 0", s.Split, sum, s.Bad, s.Images)
				}
			}
			if counts[data.Train] != want.train || counts[data.Test] != want.test {
				t.Errorf("images %v, want %d + %d", counts, want.train, want.test)
			}
			if s := (data.Size{Width: want.width, Height: want.height, Count: want.train + want.test}); !slices.Equal(report.Sizes, []data.Size{s}) {
				t.Errorf("sizes %v, want %v", report.Sizes, s)
			}
			must(t, report.WriteText(&strings.Builder{}))
		})
	}
}

func TestCheckHonoursWhatIsGiven(t *testing.T) {
	cfg := config("folder", writeFolder(t, pngFiles(t, 70)...), 5, 3, 1)
	report := check(t, cfg)
	if report.Classes != nil || report.PreviewCount != 64 || len(report.Preview) != 64*15 {
		t.Errorf("classes %q, preview of %d images in %d bytes, want none, 64, %d", report.Classes, report.PreviewCount, len(report.Preview), 64*15)
	}
	// Folders whose images are in no class are still a set without classes.
	loose := writeFolder(t, append(pngFiles(t, 2), file{"loose.png", encoded(t, "png", nrgba(1, 2, 2))})...)
	if report := check(t, data.Config{Path: loose}); report.Classes != nil || report.Splits[0].Images != 3 {
		t.Errorf("classes %q, %d images", report.Classes, report.Splits[0].Images)
	}
}

func TestCheckListsTheFirstBadImages(t *testing.T) {
	var files []file
	for i := range 1500 {
		files = append(files, file{fmt.Sprintf("%04d.png", i), nil})
	}
	report := check(t, data.Config{Path: writeFolder(t, files...), Workers: 4})
	if report.Splits[0].Bad != 1500 || len(report.Bad) != data.MaxListed || report.PreviewCount != 0 {
		t.Fatalf("%d bad, %d listed, preview of %d", report.Splits[0].Bad, len(report.Bad), report.PreviewCount)
	}
	for i, b := range report.Bad {
		if b.Index != i {
			t.Fatalf("bad image %d listed at %d", b.Index, i)
		}
	}
	var text strings.Builder
	must(t, report.WriteText(&text))
	if !strings.Contains(text.String(), "and 1480 more") {
		t.Errorf("the text does not say how many it leaves out:\n%s", text.String())
	}
}

func TestCheckStopsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := data.Check(ctx, fixtures["folder"](t), nil); !errors.Is(err, stop) {
		t.Errorf("error %v, want %v", err, stop)
	}
}

func TestDetectErrors(t *testing.T) {
	files := writeFolder(t,
		file{"labels", idxLabels(5, 10)}, file{"text", []byte("hello, world")}, file{"short", []byte("a")},
		file{"a.png", encoded(t, "png", nrgba(1, 2, 2))}, file{"no-suffix", encoded(t, "bmp", nrgba(1, 2, 2))},
		file{"other.tar", tarred(t, file{"x.txt", []byte("x")})}, file{"cut.gz", gzipped(t, noise(1, 900))[:15]},
	)
	for name, word := range map[string]string{
		"gone":      "does not exist",
		"labels":    "holds labels",
		"text":      "neither an archive of CIFAR-10",
		"short":     "truncated",
		"a.png":     "a single image",
		"no-suffix": "a single image",
		"other.tar": "neither an archive of CIFAR-10",
		"cut.gz":    "truncated",
	} {
		_, err := data.Detect(filepath.Join(files, name))
		wantError(t, err, "data: ", name, word)
	}
	empty := t.TempDir()
	must(t, os.Mkdir(filepath.Join(empty, "sub"), 0o755))
	_, err := data.Detect(empty)
	wantError(t, err, "data: ", empty, "CIFAR-10", "MNIST", "PNG")
	_, err = data.Check(t.Context(), config("shapes", "", 16, 16, 3), nil)
	wantError(t, err, "data: ", "shapes")
	_, err = data.Check(t.Context(), data.Config{Path: empty}, nil)
	wantError(t, err, empty)
}
