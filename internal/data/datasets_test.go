package data_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/data"
	"ddpm/internal/data/datatest"
	"ddpm/internal/data/shapes"
)

// fixtures make a small set of each registered kind.
var fixtures = map[string]func(t *testing.T) data.Config{
	"shapes": func(*testing.T) data.Config { return config("shapes", "", 16, 16, 3) },
	"cifar10": func(t *testing.T) data.Config {
		body := gzipped(t, tarred(t, cifarFiles("cifar-10-batches-bin", ".bin", cifarBin, 7)...))
		return config("cifar10", writeFile(t, filepath.Join(t.TempDir(), "cifar.tar.gz"), body), 32, 32, 3)
	},
	"mnist": func(t *testing.T) data.Config {
		return config("mnist", writeFolder(t, mnistFiles(t)...), 28, 28, 1)
	},
	"folder": func(t *testing.T) data.Config {
		cfg := config("folder", writeFolder(t, pngFiles(t, 40)...), 6, 6, 3)
		cfg.Classes, cfg.Holdout = true, 0.2
		return cfg
	},
	"zip": func(t *testing.T) data.Config {
		cfg := config("zip", writeZip(t, pngFiles(t, 40)...), 6, 6, 1)
		cfg.Holdout = 0.2
		return cfg
	},
}

func mnistFiles(t *testing.T) []file {
	return []file{
		{"train-images-idx3-ubyte.gz", gzipped(t, idxImages(1, 50, 28, 28))},
		{"train-labels-idx1-ubyte.gz", gzipped(t, idxLabels(50, 10))},
		{"t10k-images-idx3-ubyte", idxImages(2, 20, 28, 28)},
		{"t10k-labels-idx1-ubyte", idxLabels(20, 10)},
	}
}

func TestConformance(t *testing.T) {
	for _, name := range data.Names() {
		fixture, ok := fixtures[name]
		if !ok {
			t.Errorf("data set %s has no fixture in this test", name)
			continue
		}
		for _, split := range []data.Split{data.Train, data.Test} {
			t.Run(name+"/"+split.String(), func(t *testing.T) { datatest.Run(t, open(t, fixture(t), split)) })
		}
		t.Run(name+"/other size", func(t *testing.T) {
			cfg := fixture(t)
			cfg.Width, cfg.Height, cfg.Channels = 20, 20, 4-cfg.Channels
			datatest.Run(t, open(t, cfg, data.Train))
		})
	}
}

func TestShapesSplits(t *testing.T) {
	cfg := config("shapes", "", 16, 16, 3)
	want := make([]byte, shapes.Size*shapes.Size*3)
	for _, c := range []struct {
		split data.Split
		shown uint64
	}{{data.Train, 0}, {data.Test, 1}} {
		ds, err := data.Open(cfg, c.split)
		must(t, err)
		got, label := read(t, ds, 12345)
		if p := shapes.Image(c.shown, 12345, want); !bytes.Equal(got, want) || label != p.Class {
			t.Errorf("%s split does not show the images of seed %d", c.split, c.shown)
		}
	}
}

func TestCIFAR10Versions(t *testing.T) {
	const n = 3
	write := func(name string, body []byte) string { return writeFile(t, filepath.Join(t.TempDir(), name), body) }
	bin := cifarFiles("cifar-10-batches-bin", ".bin", cifarBin, n)
	py := cifarFiles("cifar-10-batches-py", "", cifarPickle, n)
	py4 := cifarFiles("py", "", cifarPickle4, n)
	binFolder, pyFolder := writeFolder(t, bin...), writeFolder(t, py...)
	for name, path := range map[string]string{
		"binary tar.gz":        write("cifar-10-binary.tar.gz", gzipped(t, tarred(t, bin...))),
		"binary tar":           write("cifar-10-binary.tar", tarred(t, bin...)),
		"binary folder":        filepath.Join(binFolder, "cifar-10-batches-bin"),
		"binary folder above":  binFolder,
		"python tar.gz":        write("cifar-10-python.tar.gz", gzipped(t, tarred(t, py...))),
		"python folder":        filepath.Join(pyFolder, "cifar-10-batches-py"),
		"python folder above":  pyFolder,
		"python 3, protocol 4": write("again.tar.gz", gzipped(t, tarred(t, py4...))),
	} {
		t.Run(name, func(t *testing.T) {
			if kind, err := data.Detect(path); kind != "cifar10" {
				t.Errorf("detected as %q, %v", kind, err)
			}
			cfg := config("cifar10", path, 32, 32, 3)
			for split, batches := range map[data.Split][]int{data.Train: {1, 2, 3, 4, 5}, data.Test: {6}} {
				ds := open(t, cfg, split)
				if got := ds.Info().Len; got != n*len(batches) {
					t.Fatalf("%s: %d images, want %d", split, got, n*len(batches))
				}
				for i := range ds.Info().Len {
					got, label := read(t, ds, i)
					record := cifarBin(batches[i/n], n)[i%n*3073:][:3073]
					if label != int(record[0]) {
						t.Errorf("%s image %d: label %d, want %d", split, i, label, record[0])
					}
					for k, v := range got {
						if want := record[1+k%3*1024+k/3]; v != want {
							t.Fatalf("%s image %d, byte %d: %d, want %d", split, i, k, v, want)
						}
					}
				}
			}
		})
	}
}

func TestCIFAR10Errors(t *testing.T) {
	bin := cifarFiles("b", ".bin", cifarBin, 2)
	archive := gzipped(t, tarred(t, bin...))
	damaged := bytes.Clone(archive)
	for i := len(damaged) / 2; i < len(damaged)/2+100; i++ {
		damaged[i] ^= 0x55
	}
	short := slices.Clone(bin)
	short[3].body = short[3].body[:3000]
	badPickle := cifarFiles("b", "", cifarPickle, 2)
	badPickle[2].body = badPickle[2].body[:2000]
	code := cifarFiles("b", "", func(int, int) []byte { return []byte("\x80\x02cposix\nsystem\nU\x02ls\x85R.") }, 2)
	write := func(body []byte) string { return writeFile(t, filepath.Join(t.TempDir(), "cifar.tar.gz"), body) }
	for name, c := range map[string]struct {
		path  string
		words []string
	}{
		"missing":              {filepath.Join(t.TempDir(), "none.tar.gz"), []string{"none.tar.gz", "does not exist", "data.path"}},
		"no path":              {"", []string{"data.path", "cifar-10-binary.tar.gz"}},
		"truncated":            {write(archive[:len(archive)/2]), []string{"cifar.tar.gz", "truncated", "fetch it again"}},
		"empty file":           {write(nil), []string{"cifar.tar.gz", "lacks data_batch_1"}},
		"damaged":              {write(damaged), []string{"cifar.tar.gz", "fetch it again"}},
		"not an archive":       {write([]byte("<html>404 not found</html>")), []string{"cifar.tar.gz", "fetch it again"}},
		"gzip of something":    {write(gzipped(t, noise(1, 5000))), []string{"cifar.tar.gz", "fetch it again"}},
		"batch missing":        {write(tarred(t, bin[:4]...)), []string{"lacks data_batch_2, data_batch_3"}},
		"partial record":       {write(tarred(t, short...)), []string{"data_batch_5.bin", "3000 bytes", "fetch it again"}},
		"folder, partial":      {writeFolder(t, short...) + "/b", []string{"data_batch_5.bin", "3000 bytes"}},
		"folder, missing":      {writeFolder(t, slices.Delete(slices.Clone(bin), 4, 5)...) + "/b", []string{"lacks data_batch_3.bin"}},
		"folder of other":      {writeFolder(t, pngFiles(t, 2)...), []string{"no data_batch_1 of CIFAR-10"}},
		"truncated pickle":     {write(tarred(t, badPickle...)), []string{"data_batch_1", "truncated"}},
		"pickle that runs":     {writeFolder(t, code...) + "/b", []string{"data_batch_1", "posix.system", "refused"}},
		"pickle of other data": {write(tarred(t, cifarFiles("b", "", func(int, int) []byte { return []byte("}.") }, 2)...)), []string{`no array "data"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := data.Open(config("cifar10", c.path, 32, 32, 3), data.Train)
			wantError(t, err, append(c.words, "data: ")...)
		})
	}
}

func TestCIFAR10LabelOutOfRange(t *testing.T) {
	files := cifarFiles("b", ".bin", cifarBin, 2)
	files[1].body[3073] = 10 // second record of data_batch_4
	ds := open(t, config("cifar10", writeFolder(t, files...)+"/b", 32, 32, 3), data.Train)
	_, err := ds.Read(7, make([]byte, 3072))
	wantError(t, err, "data_batch_4.bin, image 1", "label 10")
}

// Whatever is unpacked goes away with its data set.
func TestNoTemporaryFilesStay(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	archive := gzipped(t, tarred(t, cifarFiles("b", ".bin", cifarBin, 2)...))
	for _, body := range [][]byte{archive, archive[:len(archive)-3000]} {
		path := writeFile(t, filepath.Join(t.TempDir(), "c.tar.gz"), body)
		if ds, err := data.Open(config("cifar10", path, 32, 32, 3), data.Train); err == nil {
			must(t, ds.Close())
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestMNISTLayouts(t *testing.T) {
	images, labels := idxImages(1, 5, 9, 7), idxLabels(5, 10)
	test := []file{{"t10k-images-idx3-ubyte", idxImages(2, 3, 9, 7)}, {"t10k-labels-idx1-ubyte", idxLabels(3, 10)}}
	moved := func(folder string) []file {
		files := []file{{folder + "train-images-idx3-ubyte", images}, {folder + "train-labels-idx1-ubyte", labels}}
		for _, f := range test {
			files = append(files, file{folder + f.name, f.body})
		}
		return files
	}
	packed := []file{
		{"train-images-idx3-ubyte.gz", gzipped(t, images)}, {"train-labels-idx1-ubyte.gz", gzipped(t, labels)},
		{"t10k-images-idx3-ubyte.gz", gzipped(t, test[0].body)}, {"t10k-labels-idx1-ubyte", test[1].body},
	}
	for name, path := range map[string]string{
		"plain":       writeFolder(t, moved("")...),
		"packed":      writeFolder(t, packed...),
		"torchvision": writeFolder(t, moved("FashionMNIST/raw/")...),
		"one file":    filepath.Join(writeFolder(t, moved("")...), "train-images-idx3-ubyte"),
		"one packed":  filepath.Join(writeFolder(t, packed...), "train-images-idx3-ubyte.gz"),
	} {
		t.Run(name, func(t *testing.T) {
			if kind, err := data.Detect(path); kind != "mnist" {
				t.Errorf("detected as %q, %v", kind, err)
			}
			ds := open(t, config("mnist", path, 7, 9, 1), data.Train)
			if ds.Info().Len != 5 || len(ds.Info().Classes) != 10 {
				t.Fatalf("info %+v, want 5 images of 10 classes", ds.Info())
			}
			for i := range 5 {
				got, label := read(t, ds, i)
				if !bytes.Equal(got, images[16+i*63:][:63]) || label != i {
					t.Errorf("image %d differs from the file, or label %d", i, label)
				}
			}
			if !strings.HasPrefix(name, "one") {
				if n := open(t, config("mnist", path, 7, 9, 1), data.Test).Info().Len; n != 3 {
					t.Errorf("test split of %d images, want 3", n)
				}
			}
		})
	}
}

func TestMNISTWithoutLabelsOrWithMany(t *testing.T) {
	bare := writeFolder(t, file{"my-images.idx", idxImages(3, 10, 4, 4)}) + "/my-images.idx"
	cfg := config("mnist", bare, 4, 4, 1)
	ds := open(t, cfg, data.Train)
	if _, label := read(t, ds, 0); label != -1 || ds.Info().Classes != nil {
		t.Errorf("label %d, classes %v without a file of labels", label, ds.Info().Classes)
	}
	_, err := data.Open(cfg, data.Test)
	wantError(t, err, "no test split", "data.holdout")
	cfg.Holdout = 0.3
	if train, test := open(t, cfg, data.Train), open(t, cfg, data.Test); train.Info().Len != 7 || test.Info().Len != 3 {
		t.Errorf("split %d + %d, want 7 + 3", train.Info().Len, test.Info().Len)
	}

	letters := writeFolder(t, file{"train-images-idx3-ubyte", idxImages(3, 40, 4, 4)}, file{"train-labels-idx1-ubyte", idxLabels(40, 26)})
	if got := len(open(t, config("mnist", letters, 4, 4, 1), data.Train).Info().Classes); got != 26 {
		t.Errorf("%d classes, want 26", got)
	}
}

func TestMNISTErrors(t *testing.T) {
	images, labels := idxImages(1, 5, 9, 7), idxLabels(5, 10)
	write := func(images, labels []byte) string {
		return writeFolder(t, file{"train-images-idx3-ubyte", images}, file{"train-labels-idx1-ubyte", labels})
	}
	packed := gzipped(t, images)
	for name, c := range map[string]struct {
		path  string
		words []string
	}{
		"missing":          {"/nowhere/mnist", []string{"/nowhere/mnist", "does not exist", "train-images-idx3-ubyte"}},
		"other folder":     {writeFolder(t, pngFiles(t, 1)...), []string{"no train-images-idx3-ubyte or train-images-idx3-ubyte.gz"}},
		"truncated":        {write(images[:200], labels), []string{"train-images", "truncated"}},
		"header only":      {write(images[:9], labels), []string{"train-images", "truncated"}},
		"too long":         {write(append(bytes.Clone(images), 1), labels), []string{"more bytes than its header says"}},
		"packed, cut":      {write(packed[:len(packed)-20], labels), []string{"train-images", "truncated"}},
		"packed, too long": {write(gzipped(t, append(bytes.Clone(images), 1)), labels), []string{"more bytes than its header says"}},
		"labels as images": {write(labels, labels), []string{"1 dimensions"}},
		"wrong type":       {write(append([]byte{0, 0, 13, 3}, images[4:]...), labels), []string{"type 0x0d"}},
		"not IDX":          {write([]byte("<html>404</html>"), labels), []string{"train-images", "not an IDX file"}},
		"label missing":    {write(images, idxLabels(4, 10)), []string{"4 labels for the 5 images"}},
		"labels cut":       {write(images, labels[:10]), []string{"train-labels", "truncated"}},
		"impossible size":  {write(idxFile([]int{1 << 30, 1 << 30, 1 << 30}, nil), labels), []string{"TiB"}},
		"huge images":      {write(idxFile([]int{1, 20000, 20000}, nil), labels), []string{"truncated"}},
		"no images":        {write(idxFile([]int{0, 28, 28}, nil), labels), []string{"dimension 0 is 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := data.Open(config("mnist", c.path, 7, 9, 1), data.Train)
			wantError(t, err, append(c.words, "data: ")...)
		})
	}
}

// A lossless WebP image of one transparent pixel.
const webp1x1 = "UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA=="

func TestFolderFormats(t *testing.T) {
	img := nrgba(1, 8, 6)
	webp, err := base64.StdEncoding.DecodeString(webp1x1)
	must(t, err)
	folder := writeFolder(t,
		file{"a.png", encoded(t, "png", img)},
		file{"b.BMP", encoded(t, "bmp", img)},
		file{"c.gif", encoded(t, "gif", plain(8, 6, color.NRGBA{0, 0, 255, 255}))},
		file{"d.jpeg", encoded(t, "jpg", plain(8, 6, color.NRGBA{200, 100, 50, 255}))},
		file{"e.webp", webp},
		file{"notes.txt", []byte("not an image")},
		file{".hidden.png", []byte("not an image")},
		file{"__MACOSX/a.png", []byte("not an image")},
	)
	must(t, os.Mkdir(filepath.Join(folder, "folder.png"), 0o755))
	ds := open(t, config("folder", folder, 8, 6, 3), data.Train)
	if ds.Info().Len != 5 {
		t.Fatalf("%d images, want 5", ds.Info().Len)
	}
	for i := range 2 {
		if got, _ := read(t, ds, i); !bytes.Equal(got, rgb(img)) {
			t.Errorf("%s is not copied byte for byte", ds.(data.Described).Source(i))
		}
	}
	for i, c := range []struct{ want, tolerance [3]int }{{want: [3]int{0, 0, 255}}, {[3]int{200, 100, 50}, [3]int{2, 2, 2}}, {want: [3]int{255, 255, 255}}} {
		got, _ := read(t, ds, 2+i)
		for k, v := range got {
			if d := int(v) - c.want[k%3]; d > c.tolerance[k%3] || -d > c.tolerance[k%3] {
				t.Errorf("%s, byte %d: %d, want %d", ds.(data.Described).Source(2+i), k, v, c.want[k%3])
				break
			}
		}
	}
}

// The order and the classes are those of the names, in all sub-folders.
func TestFolderOrderAndClasses(t *testing.T) {
	tiny := encoded(t, "png", nrgba(1, 2, 2))
	folder := writeFolder(t, file{"b/2.png", tiny}, file{"b/10.png", tiny}, file{"a/x/1.png", tiny}, file{"a-b/1.png", tiny}, file{"c/1.png", tiny})
	cfg := config("folder", folder, 2, 2, 3)
	cfg.Classes = true
	ds := open(t, cfg, data.Train)
	if want := []string{"a", "a-b", "b", "c"}; !slices.Equal(ds.Info().Classes, want) {
		t.Errorf("classes %q, want %q", ds.Info().Classes, want)
	}
	for i, want := range []struct {
		name  string
		label int
	}{{"a-b/1.png", 1}, {"a/x/1.png", 0}, {"b/10.png", 2}, {"b/2.png", 2}, {"c/1.png", 3}} {
		_, label := read(t, ds, i)
		if got := ds.(data.Described).Source(i); got != filepath.Join(folder, want.name) || label != want.label {
			t.Errorf("image %d: %s, class %d, want %s, %d", i, got, label, want.name, want.label)
		}
	}

	writeFile(t, filepath.Join(folder, "loose.png"), tiny)
	_, err := data.Open(cfg, data.Train)
	wantError(t, err, "loose.png", "sub-folder", "data.classes")
	cfg.Classes = false
	if _, label := read(t, open(t, cfg, data.Train), 0); label != -1 {
		t.Errorf("label %d without data.classes", label)
	}
}

func TestFolderErrors(t *testing.T) {
	one := writeFolder(t, file{"a.png", encoded(t, "png", nrgba(1, 2, 2))})
	for name, c := range map[string]struct {
		path    string
		holdout float64
		split   data.Split
		words   []string
	}{
		"missing":    {path: "/nowhere/pictures", words: []string{"/nowhere/pictures", "does not exist"}},
		"empty":      {path: t.TempDir(), words: []string{"no PNG, JPEG"}},
		"file":       {path: one + "/a.png", words: []string{"a.png", "is a file", "a folder of"}},
		"no test":    {path: one, split: data.Test, words: []string{"no test split", "data.holdout"}},
		"one to cut": {path: one, holdout: 0.5, words: []string{"the only image", "data.holdout"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config("folder", c.path, 2, 2, 3)
			cfg.Holdout = c.holdout
			_, err := data.Open(cfg, c.split)
			wantError(t, err, append(c.words, "data: ")...)
			if got := errors.Is(err, data.ErrNoTest); got != (name == "no test") {
				t.Errorf("errors.Is(%v, ErrNoTest) = %v", err, got)
			}
		})
	}
}

func TestUnreadableImagesAreNamed(t *testing.T) {
	good := encoded(t, "png", nrgba(1, 8, 6))
	for name, c := range map[string]struct {
		body  []byte
		words []string
	}{
		"truncated.png": {good[:len(good)-30], []string{"not enough pixel data"}},
		"header.png":    {good[:20], []string{"truncated file"}},
		"empty.png":     {nil, []string{"empty file"}},
		"text.jpg":      {[]byte("<html>"), []string{"not a PNG, JPEG, GIF, WebP or BMP"}},
		"damaged.png":   {append(bytes.Clone(good[:60]), noise(1, len(good)-60)...), nil},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, path := range map[string]string{
				"folder": writeFolder(t, file{name, c.body}),
				"zip":    writeZip(t, file{name, c.body}),
			} {
				ds := open(t, config(kind, path, 4, 4, 3), data.Train)
				_, err := ds.Read(0, make([]byte, ds.Info().Bytes()))
				wantError(t, err, append(c.words, path, name)...)
			}
		})
	}
}

// A header of 54 bytes may claim any size.
func TestDecodeBombIsRefused(t *testing.T) {
	huge := []byte("BM\x00\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00\xff\xff\x00\x00\xff\xff\x00\x00\x01\x00\x18\x00" + string(make([]byte, 24)))
	ds := open(t, config("folder", writeFolder(t, file{"bomb.bmp", huge}), 4, 4, 3), data.Train)
	_, err := ds.Read(0, make([]byte, ds.Info().Bytes()))
	wantError(t, err, "bomb.bmp", "65535 x 65535 pixels", "100 million")
}

func TestZipLabels(t *testing.T) {
	tiny := encoded(t, "png", nrgba(1, 2, 2))
	images := []file{{"00000/img1.png", tiny}, {"00000/img0.png", tiny}, {"00001/img2.png", tiny}}
	labelled := func(json string) string {
		return writeZip(t, append(images[:3:3], file{"dataset.json", []byte(json)})...)
	}
	classes := func(path string) data.Config {
		cfg := config("zip", path, 2, 2, 3)
		cfg.Classes = true
		return cfg
	}

	path := labelled(`{"labels": [["00001/img2.png", 4], ["00000/img0.png", 0], ["00000/img1.png", 2.0]]}`)
	ds := open(t, classes(path), data.Train)
	if len(ds.Info().Classes) != 5 {
		t.Errorf("classes %q, want 5", ds.Info().Classes)
	}
	for i, want := range []int{0, 2, 4} { // in the order of the names
		if _, label := read(t, ds, i); label != want {
			t.Errorf("image %d: class %d, want %d", i, label, want)
		}
	}
	if _, label := read(t, open(t, config("zip", path, 2, 2, 3), data.Train), 0); label != -1 {
		t.Errorf("label %d without data.classes", label)
	}
	if got := open(t, classes(writeZip(t, images...)), data.Train).Info().Classes; !slices.Equal(got, []string{"00000", "00001"}) {
		t.Errorf("classes %q of an archive without dataset.json, want its folders", got)
	}
	for name, c := range map[string]struct{ json, word string }{
		"null":         {`{"labels": null}`, "no labels"},
		"incomplete":   {`{"labels": [["00000/img0.png", 0]]}`, "no label for 00000/img1.png"},
		"vector":       {`{"labels": [["00000/img0.png", [0, 1]]]}`, `want ["file name", class number]`},
		"null class":   {`{"labels": [["00000/img0.png", null]]}`, `want ["file name", class number]`},
		"three":        {`{"labels": [["00000/img0.png", 1, 2]]}`, `want ["file name", class number]`},
		"negative":     {`{"labels": [["00000/img0.png", -1]]}`, "is -1: want a whole number"},
		"fraction":     {`{"labels": [["00000/img0.png", 1.5]]}`, "is 1.5: want a whole number"},
		"large number": {`{"labels": [["00000/img0.png", 1e30]]}`, "want a whole number"},
		"not JSON":     {`labels`, "dataset.json"},
	} {
		t.Run(name, func(t *testing.T) {
			path := labelled(c.json)
			_, err := data.Open(classes(path), data.Train)
			wantError(t, err, "data: ", path, "dataset.json", c.word)
		})
	}
}

func TestZipErrors(t *testing.T) {
	good, err := os.ReadFile(writeZip(t, pngFiles(t, 4)...))
	must(t, err)
	write := func(body []byte) string { return writeFile(t, filepath.Join(t.TempDir(), "x.zip"), body) }
	for name, c := range map[string]struct {
		path  string
		words []string
	}{
		"missing":   {"/nowhere/x.zip", []string{"/nowhere/x.zip", "does not exist"}},
		"folder":    {t.TempDir(), []string{"is a folder", "data.name"}},
		"truncated": {write(good[:len(good)/2]), []string{"x.zip", "truncated or no zip archive"}},
		"empty":     {writeZip(t, file{"readme.txt", nil}), []string{"no PNG, JPEG"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := data.Open(config("zip", c.path, 2, 2, 3), data.Train)
			wantError(t, err, append(c.words, "data: ")...)
		})
	}
}

func TestHoldout(t *testing.T) {
	for _, n := range []int{2, 3, 10, 101, 5000} {
		for _, share := range []float64{0.0001, 0.05, 0.3, 0.5, 0.77, 0.9999} {
			train, test, err := data.HeldOut(n, share)
			must(t, err)
			seen := make([]int, n)
			for _, i := range append(slices.Clone(train), test...) {
				seen[i]++
			}
			if slices.ContainsFunc(seen, func(c int) bool { return c != 1 }) || len(train) == 0 || len(test) == 0 {
				t.Fatalf("%d images, share %g: train %v, test %v do not divide them", n, share, train, test)
			}
			if want := share * float64(n); float64(len(test)) > want+1 || float64(len(test)) < want-1 {
				t.Errorf("%d images, share %g: %d held out", n, share, len(test))
			}
			if !slices.IsSorted(train) || !slices.IsSorted(test) {
				t.Errorf("%d images, share %g: not in order", n, share)
			}
			for k := 1; k < len(test); k++ { // spread: no gap differs from the mean by a whole image
				if gap, mean := float64(test[k]-test[k-1]), float64(n)/float64(len(test)); gap <= mean-1 || gap >= mean+1 {
					t.Fatalf("%d images, share %g: gap %g, mean %g", n, share, gap, mean)
				}
			}
		}
	}
}

func TestValidate(t *testing.T) {
	good := config("folder", "x", 8, 8, 3)
	must(t, good.Validate())
	for _, c := range []struct {
		change func(*data.Config)
		words  []string
	}{
		{func(c *data.Config) { c.Name = "cifr" }, []string{`data.name "cifr": want one of cifar10, folder, mnist, shapes, zip`}},
		{func(c *data.Config) { c.Width = 0 }, []string{"data.width 0: want 1 to"}},
		{func(c *data.Config) { c.Height = 1 << 20 }, []string{"data.height 1048576"}},
		{func(c *data.Config) { c.Channels = 4 }, []string{"data.channels 4: want 1 (grey) or 3 (RGB)"}},
		{func(c *data.Config) { c.Holdout = 1 }, []string{"data.holdout 1"}},
		{func(c *data.Config) { c.Holdout = -0.1 }, []string{"data.holdout -0.1"}},
		{func(c *data.Config) { c.Workers = 0 }, []string{"data.workers 0"}},
		{func(c *data.Config) { c.Prefetch = 0 }, []string{"data.prefetch 0"}},
		{func(c *data.Config) { c.MaxSkipped = -1 }, []string{"data.max_skipped -1"}},
		{func(c *data.Config) { c.Name, c.Height = "shapes", 9 }, []string{"data.height 9", "data.width"}},
	} {
		cfg := good
		c.change(&cfg)
		wantError(t, cfg.Validate(), c.words...)
		_, err := data.Open(cfg, data.Train)
		wantError(t, err, c.words...)
	}
}

// Image kinds a folder may hold, each of one colour, so that any size shows it.
func TestShaping(t *testing.T) {
	paletted := image.NewPaletted(image.Rect(0, 0, 9, 9), color.Palette{color.NRGBA{10, 20, 30, 255}, color.NRGBA{0, 0, 0, 0}})
	grey16 := image.NewGray16(image.Rect(0, 0, 9, 9))
	for i := range grey16.Pix {
		grey16.Pix[i] = 0x80
	}
	grey := image.NewGray(image.Rect(0, 0, 9, 9))
	for i := range grey.Pix {
		grey.Pix[i] = 77
	}
	for name, c := range map[string]struct {
		img       image.Image
		want      [3]byte
		wantGrey  byte
		tolerance int
	}{
		"colour":           {plain(9, 9, color.NRGBA{200, 100, 50, 255}), [3]byte{200, 100, 50}, 124, 0},
		"grey":             {grey, [3]byte{77, 77, 77}, 77, 0},
		"16-bit":           {grey16, [3]byte{128, 128, 128}, 128, 0},
		"paletted":         {paletted, [3]byte{10, 20, 30}, 18, 0},
		"transparent":      {plain(9, 9, color.NRGBA{200, 100, 50, 0}), [3]byte{255, 255, 255}, 255, 0},
		"half transparent": {plain(9, 9, color.NRGBA{200, 100, 50, 128}), [3]byte{227, 177, 152}, 189, 1},
		"a wide strip":     {plain(300, 1, color.NRGBA{1, 2, 3, 255}), [3]byte{1, 2, 3}, 2, 0},
		"a high strip":     {plain(1, 300, color.NRGBA{1, 2, 3, 255}), [3]byte{1, 2, 3}, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			folder := writeFolder(t, file{"x.png", encoded(t, "png", c.img)})
			for _, size := range [][2]int{{9, 9}, {4, 4}, {20, 20}, {16, 5}, {5, 16}, {1, 1}} {
				for _, channels := range []int{1, 3} {
					got, _ := read(t, open(t, config("folder", folder, size[0], size[1], channels), data.Train), 0)
					for k, v := range got {
						want := c.want[k%3]
						if channels == 1 {
							want = c.wantGrey
						}
						if d := int(v) - int(want); d > c.tolerance || -d > c.tolerance {
							t.Fatalf("%d x %d x %d: byte %d is %d, want %d", size[0], size[1], channels, k, v, want)
						}
					}
				}
			}
		})
	}
}

// Scaling covers, keeps proportions and crops at the centre: of an image with
// four bands, red, green, blue, white, only the inner halves remain.
func TestCropIsCentred(t *testing.T) {
	bands := []color.NRGBA{{255, 0, 0, 255}, {0, 255, 0, 255}, {0, 0, 255, 255}, {255, 255, 255, 255}}
	for _, upright := range []bool{false, true} {
		img := image.NewNRGBA(image.Rect(0, 0, 80, 40))
		if upright {
			img = image.NewNRGBA(image.Rect(0, 0, 40, 80))
		}
		for y := range img.Rect.Dy() {
			for x := range img.Rect.Dx() {
				along := x
				if upright {
					along = y
				}
				img.SetNRGBA(x, y, bands[along/20])
			}
		}
		folder := writeFolder(t, file{"x.png", encoded(t, "png", img)})
		got, _ := read(t, open(t, config("folder", folder, 10, 10, 3), data.Train), 0)
		at := func(x, y int) [3]byte {
			if upright {
				x, y = y, x
			}
			return [3]byte(got[(y*10+x)*3:])
		}
		for y := range 10 {
			for x, want := range map[int][3]byte{0: {0, 255, 0}, 2: {0, 255, 0}, 7: {0, 0, 255}, 9: {0, 0, 255}} {
				if at(x, y) != want {
					t.Errorf("upright %v: pixel %d, %d is %v, want %v", upright, x, y, at(x, y), want)
				}
			}
		}
	}
}

func ExampleNames() {
	fmt.Println(data.Names())
	// Output: [cifar10 folder mnist shapes zip]
}
