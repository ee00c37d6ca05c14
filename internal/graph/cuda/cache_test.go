//go:build gpu && !cpu

package cuda

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
)

// Tests leave the user's cache alone.
func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "ddpm-cache-")
	if err == nil {
		err = os.Setenv(cacheVariable, folder)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

// cacheIn is a cache of some GPU in a folder.
func cacheIn(t *testing.T, folder string) *cache {
	t.Helper()
	t.Setenv(cacheVariable, folder)
	c, err := cacheOf(driver.DeviceInfo{Name: "NVIDIA H200 / 7"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func remember(t *testing.T, c *cache, key, way string) {
	t.Helper()
	if err := c.update(func(f *findings) { f.Tuned[key] = way }); err != nil {
		t.Fatal(err)
	}
}

func TestCacheKeeps(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "not", "yet")
	c := cacheIn(t, folder)
	if f := c.read(); len(f.Checks) != 0 || len(f.Tuned) != 0 {
		t.Errorf("without a file there is %+v", f)
	}
	remember(t, c, "a", "64x64")
	wrong := graph.KernelCheck{Kernel: "k", Cases: 2, Worst: 0.5, Bound: 0.01, Wrong: "it differs"}
	if err := c.update(func(f *findings) { f.keep(map[string]graph.KernelCheck{"k": wrong}) }); err != nil {
		t.Fatal(err)
	}
	f := cacheIn(t, folder).read()
	if f.Tuned["a"] != "64x64" || f.Checks["k"] != wrong {
		t.Errorf("read back: %+v", f)
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 1 || !strings.HasPrefix(files[0].Name(), "NVIDIA-H200-7-") {
		t.Errorf("the folder has %v (%v), want one file", files, err)
	}
}

// A file that is not what this program wrote for this GPU counts for nothing, and the
// next one takes its place.
func TestCacheIgnores(t *testing.T) {
	folder := t.TempDir()
	c := cacheIn(t, folder)
	remember(t, c, "a", "64x64")
	good, err := os.ReadFile(c.path())
	if err != nil {
		t.Fatal(err)
	}
	change := func(from, to string) string {
		text := strings.Replace(string(good), from, to, 1)
		if text == string(good) {
			t.Fatalf("no %q in %s", from, good)
		}
		return text
	}
	for name, text := range map[string]string{
		"empty":         "",
		"cut short":     string(good[:len(good)/2]),
		"another text":  "hello",
		"another json":  `["a"]`,
		"another type":  change(`"64x64"`, `{"b": 1}`),
		"of other GPUs": change("NVIDIA H200", "NVIDIA H100"),
		"older kernels": change(c.Kernels, "0123"),
		"older driver":  change(`"driver": "`, `"driver": "1`),
	} {
		if err := os.WriteFile(c.path(), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if f := c.read(); len(f.Tuned) != 0 || f.identity != c.identity {
			t.Errorf("%s: read %+v", name, f)
		}
		remember(t, c, "b", "128x64")
		if f := c.read(); len(f.Tuned) != 1 || f.Tuned["b"] != "128x64" {
			t.Errorf("%s: then %+v", name, f)
		}
	}
}

// Two identities have two files.
func TestCacheIsOfOneGPU(t *testing.T) {
	c := cacheIn(t, t.TempDir())
	paths := map[string]bool{c.path(): true}
	for _, other := range []identity{
		{"B", c.Driver, c.Kernels, c.Revision}, {c.GPU, "B", c.Kernels, c.Revision},
		{c.GPU, c.Driver, "B", c.Revision}, {c.GPU, c.Driver, c.Kernels, "B"},
	} {
		paths[(&cache{identity: other, folder: c.folder}).path()] = true
	}
	if len(paths) != 5 {
		t.Errorf("five identities share files: %v", paths)
	}
}

func TestCacheThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	for _, folder := range []string{file, filepath.Join(file, "in"), ""} {
		c := cacheIn(t, folder)
		err := c.update(func(*findings) {})
		if err == nil || !strings.Contains(err.Error(), "cannot be kept for the next start") || !strings.Contains(err.Error(), cacheVariable) {
			t.Errorf("folder %q: %v", folder, err)
		}
		if f := c.read(); f.Tuned == nil || f.Checks == nil {
			t.Errorf("folder %q: read %+v", folder, f)
		}
	}
}

// Many writers at once lose nothing, and a reader finds a whole file at any time.
func TestCacheIsShared(t *testing.T) {
	const writers, times = 4, 25
	folder := t.TempDir()
	c := cacheIn(t, folder)
	remember(t, c, "first", "way")
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range times {
				if err := c.update(func(f *findings) { f.Tuned[fmt.Sprint(w, i)] = "way" }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		var f findings
		text, err := os.ReadFile(c.path())
		if err == nil {
			err = json.Unmarshal(text, &f)
		}
		if err != nil || f.Tuned["first"] != "way" {
			t.Fatalf("%v in %s", err, text)
		}
	}
	if f := c.read(); len(f.Tuned) != 1+writers*times {
		t.Errorf("%d of %d entries are left", len(f.Tuned), 1+writers*times)
	}
	if files, err := os.ReadDir(folder); err != nil || len(files) != 1 {
		t.Errorf("the folder has %v (%v), want one file", files, err)
	}
}
