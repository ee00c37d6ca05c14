// Package datatest is the test every data set has to pass.
package datatest

import (
	"bytes"
	"sync"
	"testing"

	"ddpm/internal/data"
)

// most bounds the images read, so that the test of a large set stays quick.
const most = 64

// Run reads ds and reports where it breaks the contract of data.Dataset. All
// images it looks at must be readable.
func Run(t *testing.T, ds data.Dataset) {
	t.Helper()
	info := ds.Info()
	checkInfo(t, info)
	n := most
	if info.Len > 0 {
		n = min(n, info.Len)
	}
	// The last images of a set are read too.
	index := func(k int) int {
		if info.Len > n && k >= n/2 {
			return info.Len - n + k
		}
		return k
	}

	images, labels := make([][]byte, n), make([]int, n)
	for k := range images {
		images[k] = make([]byte, info.Bytes())
		var err error
		if labels[k], err = ds.Read(index(k), images[k]); err != nil {
			t.Fatalf("image %d: %v", index(k), err)
		}
		checkLabel(t, info, index(k), labels[k])
	}
	checkVariety(t, images)
	checkRereading(t, ds, index, images, labels)
	checkArguments(t, ds)
	if described, ok := ds.(data.Described); ok && described.Source(0) == "" {
		t.Error("image 0 has an empty source")
	}
}

func checkInfo(t *testing.T, info data.Info) {
	t.Helper()
	if info.Name == "" || info.Len < 0 || info.Width < 1 || info.Height < 1 || (info.Channels != 1 && info.Channels != 3) {
		t.Fatalf("impossible info: %+v", info)
	}
	if info.Classes != nil && len(info.Classes) == 0 {
		t.Error("no classes: want nil, not an empty slice")
	}
}

func checkLabel(t *testing.T, info data.Info, index, label int) {
	t.Helper()
	if info.Classes == nil && label != -1 {
		t.Errorf("image %d: label %d, want -1 as there are no classes", index, label)
	}
	if info.Classes != nil && (label < 0 || label >= len(info.Classes)) {
		t.Errorf("image %d: label %d of %d classes", index, label, len(info.Classes))
	}
}

// checkVariety finds sets that leave dst as it is or show one image only.
func checkVariety(t *testing.T, images [][]byte) {
	t.Helper()
	for _, img := range images[1:] {
		if !bytes.Equal(img, images[0]) {
			return
		}
	}
	if len(images) > 1 {
		t.Errorf("the %d images are all the same", len(images))
	}
}

// checkRereading reads all again, backwards, into dirty buffers, from several
// goroutines at once.
func checkRereading(t *testing.T, ds data.Dataset, index func(int) int, images [][]byte, labels []int) {
	t.Helper()
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			dst := bytes.Repeat([]byte{0xa5}, ds.Info().Bytes())
			for k := len(images) - 1; k >= 0; k-- {
				label, err := ds.Read(index(k), dst)
				if err != nil {
					t.Errorf("image %d, read again: %v", index(k), err)
				} else if label != labels[k] || !bytes.Equal(dst, images[k]) {
					t.Errorf("image %d differs when it is read again", index(k))
				}
			}
		}()
	}
	wg.Wait()
}

func checkArguments(t *testing.T, ds data.Dataset) {
	t.Helper()
	info := ds.Info()
	dst := make([]byte, info.Bytes())
	if _, err := ds.Read(-1, dst); err == nil {
		t.Error("image -1: no error")
	}
	if info.Len > 0 {
		if _, err := ds.Read(info.Len, dst); err == nil {
			t.Errorf("image %d of %d: no error", info.Len, info.Len)
		}
	}
	if _, err := ds.Read(0, dst[1:]); err == nil {
		t.Error("destination too short: no error")
	}
}
