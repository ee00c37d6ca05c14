package data_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ddpm/internal/data"
	"ddpm/internal/rng"

	"golang.org/x/image/bmp"
)

// file is an entry of a folder or an archive.
type file struct {
	name string
	body []byte
}

func config(name, path string, width, height, channels int) data.Config {
	return data.Config{Name: name, Path: path, Width: width, Height: height, Channels: channels, Workers: 1, Prefetch: 1}
}

func open(t *testing.T, cfg data.Config, split data.Split) data.Dataset {
	t.Helper()
	ds, err := data.Open(cfg, split)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ds.Close(); err != nil {
			t.Error(err)
		}
	})
	return ds
}

func read(t *testing.T, ds data.Dataset, index int) (img []byte, label int) {
	t.Helper()
	img = make([]byte, ds.Info().Bytes())
	label, err := ds.Read(index, img)
	if err != nil {
		t.Fatal(err)
	}
	return img, label
}

// wantError tests that err is one line which says all of the words.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one that says %q", words)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
}

func writeFile(t *testing.T, path string, body []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, body, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeFolder(t *testing.T, files ...file) string {
	t.Helper()
	folder := t.TempDir()
	for _, f := range files {
		writeFile(t, filepath.Join(folder, f.name), f.body)
	}
	return folder
}

func writeZip(t *testing.T, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		w, err := z.Create(f.name)
		must(t, err)
		_, err = w.Write(f.body)
		must(t, err)
	}
	must(t, z.Close())
	return writeFile(t, filepath.Join(t.TempDir(), "images.zip"), b.Bytes())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func gzipped(t testing.TB, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(body)
	must(t, err)
	must(t, z.Close())
	return b.Bytes()
}

func tarred(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		must(t, w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.body)), Typeflag: tar.TypeReg}))
		_, err := w.Write(f.body)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// noise is n bytes that depend on seed.
func noise(seed, n int) []byte {
	b := make([]byte, 0, n+16)
	key := rng.Key{Seed: uint64(seed)}
	for block := uint32(0); len(b) < n; block++ {
		for _, word := range key.Block(block) {
			b = binary.LittleEndian.AppendUint32(b, word)
		}
	}
	return b[:n]
}

// Images.

func nrgba(seed, width, height int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	copy(img.Pix, noise(seed, len(img.Pix)))
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = 0xff
	}
	return img
}

func rgb(img *image.NRGBA) []byte {
	var b []byte
	for i := 0; i < len(img.Pix); i += 4 {
		b = append(b, img.Pix[i:i+3]...)
	}
	return b
}

func encoded(t testing.TB, format string, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch format {
	case "png":
		err = png.Encode(&b, img)
	case "jpg":
		err = jpeg.Encode(&b, img, &jpeg.Options{Quality: 100})
	case "gif":
		err = gif.Encode(&b, img, nil)
	case "bmp":
		err = bmp.Encode(&b, img)
	default:
		err = fmt.Errorf("no encoder for %s", format)
	}
	must(t, err)
	return b.Bytes()
}

func plain(width, height int, c color.Color) image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			img.Set(x, y, c)
		}
	}
	return img
}

// pngFiles are n different images of 8 x 6 in two class folders.
func pngFiles(t testing.TB, n int) []file {
	t.Helper()
	var files []file
	for i := range n {
		class := []string{"cats", "dogs"}[i%2]
		files = append(files, file{fmt.Sprintf("%s/%03d.png", class, i), encoded(t, "png", nrgba(i, 8, 6))})
	}
	return files
}

// CIFAR-10.

const cifarPixels = 3072

// cifarBin is a binary batch of n records; image i has label i%10.
func cifarBin(seed, n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, byte(i%10))
		b = append(b, noise(1000*seed+i, cifarPixels)...)
	}
	return b
}

// cifarPickle is the same batch as Python 2 wrote it (protocol 2).
func cifarPickle(seed, n int) []byte {
	bin := cifarBin(seed, n)
	var labels, pixels []byte
	for i := range n {
		record := bin[i*(1+cifarPixels) : (i+1)*(1+cifarPixels)]
		labels = append(labels, 'K', record[0])
		pixels = append(pixels, record[1:]...)
	}
	p := pickle{}
	p.add("\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03")
	p.add("U\x06labelsq\x04]q\x05(", string(labels), "e")
	p.add("U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t")
	p.add("(K\x01M", uint16s(n), "M\x00\x0c\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b")
	p.add("(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
	p.add("\x89T", uint32s(len(pixels)), string(pixels), "tb")
	p.add("U\tfilenamesq\x0c]q\r(")
	for range n {
		p.add("U\x05a.pngr\x00\x01\x00\x00")
	}
	p.add("eu.")
	return p.Bytes()
}

// cifarPickle4 is the same batch as Python 3 writes it with protocol 4.
func cifarPickle4(seed, n int) []byte {
	bin := cifarBin(seed, n)
	p := pickle{}
	p.add("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x06labels\x94]\x94(")
	var pixels []byte
	for i := range n {
		record := bin[i*(1+cifarPixels) : (i+1)*(1+cifarPixels)]
		p.add("K", string(record[:1]))
		pixels = append(pixels, record[1:]...)
	}
	p.add("e\x8c\x04data\x94\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94")
	p.add("\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94")
	p.add("(K\x01M", uint16s(n), "M\x00\x0c\x86\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94")
	p.add("(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b")
	p.add("\x89B", uint32s(len(pixels)), string(pixels), "\x94t\x94bu.")
	return p.Bytes()
}

type pickle struct{ bytes.Buffer }

func (p *pickle) add(parts ...string) {
	for _, part := range parts {
		p.WriteString(part)
	}
}

func uint16s(n int) string { return string(binary.LittleEndian.AppendUint16(nil, uint16(n))) }
func uint32s(n int) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }

// cifarFiles are the six batches, n images each, in the jumbled order of the
// real archives.
func cifarFiles(folder, suffix string, batch func(seed, n int) []byte, n int) []file {
	files := []file{{folder + "/readme.html", []byte("<html>")}}
	for _, i := range []int{4, 1, 5, 3, 2} {
		files = append(files, file{fmt.Sprintf("%s/data_batch_%d%s", folder, i, suffix), batch(i, n)})
	}
	return append(files, file{folder + "/test_batch" + suffix, batch(6, n)})
}

// IDX.

func idxFile(dims []int, body []byte) []byte {
	b := []byte{0, 0, 8, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, uint32(d))
	}
	return append(b, body...)
}

func idxImages(seed, n, height, width int) []byte {
	return idxFile([]int{n, height, width}, noise(seed, n*height*width))
}

func idxLabels(n, classes int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % classes)
	}
	return idxFile([]int{n}, b)
}
