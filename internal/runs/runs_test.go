package runs

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// newRun makes a run with checkpoints after some steps.
func newRun(t *testing.T, path string, steps ...int) Dir {
	t.Helper()
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	d := Dir(path)
	for _, step := range steps {
		write(t, d.Checkpoint(step))
	}
	return d
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestCreateTakesNewAndEmptyFoldersOnly(t *testing.T) {
	root := t.TempDir()
	if err := Create(root); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
	wantError(t, Create(root), "holds a run without a checkpoint")
	write(t, Dir(root).Checkpoint(1))
	wantError(t, Create(root), "already holds a run: add --resume")

	other := t.TempDir()
	write(t, filepath.Join(other, "notes.txt"))
	wantError(t, Create(other), "is not empty")
	wantError(t, Create(filepath.Join(other, "notes.txt")), "cannot use")
	wantError(t, Create(filepath.Join(other, "notes.txt", "run")), "cannot ")

	d := newRun(t, filepath.Join(root, "a", "b"))
	for _, path := range []string{d.Config(), d.MetricsJSONL(), d.MetricsCSV(), d.LossPlot(), d.SampleGrid(7), d.Checkpoint(7)} {
		write(t, path) // its folder is there
	}
}

func TestCheckpoints(t *testing.T) {
	d := newRun(t, filepath.Join(t.TempDir(), "run"), 20, 3, 12345678)
	for _, name := range []string{"step_3.safetensors", "step_0000004.safetensors.tmp", "step_0000005.png", "weights.safetensors", "step_-000001.safetensors"} {
		write(t, filepath.Join(string(d), "checkpoints", name))
	}
	steps, err := d.Checkpoints()
	if want := []int{3, 20, 12345678}; err != nil || !reflect.DeepEqual(steps, want) {
		t.Errorf("%v, %v, want %v", steps, err, want)
	}
	if path, err := d.Latest(); err != nil || path != d.Checkpoint(12345678) {
		t.Errorf("latest %s, %v", path, err)
	}
	if got := Of(d.Checkpoint(3)); got != d {
		t.Errorf("the run of its checkpoint is %q, want %q", got, d)
	}
	if got := Of(d.Config()); got != "" {
		t.Errorf("the run of another file is %q", got)
	}
	t.Chdir(string(d))
	if got := Of(filepath.Join("checkpoints", "step_0000003.safetensors")); got != "." {
		t.Errorf("the run of a file below the working directory is %q", got)
	}

	_, err = Dir(t.TempDir()).Latest()
	wantError(t, err, "is not a run: it has no folder checkpoints")
	_, err = newRun(t, filepath.Join(t.TempDir(), "new")).Latest()
	wantError(t, err, "holds no checkpoint yet")
}

func TestPrune(t *testing.T) {
	for _, c := range []struct {
		last, every int
		want        []int
	}{
		{1, 0, []int{60}},
		{2, 0, []int{50, 60}},
		{9, 0, []int{10, 20, 30, 40, 50, 60}},
		{1, 20, []int{20, 40, 60}},
		{2, 30, []int{30, 50, 60}},
	} {
		d := newRun(t, filepath.Join(t.TempDir(), "run"), 10, 20, 30, 40, 50, 60)
		half := filepath.Join(d.checkpoints(), ".step_0000070.safetensors.123.4.tmp")
		write(t, half)
		if err := d.Prune(c.last, c.every); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(half); err == nil {
			t.Error("a half-written checkpoint is still there")
		}
		if steps, err := d.Checkpoints(); err != nil || !reflect.DeepEqual(steps, c.want) {
			t.Errorf("last %d, every %d: %v, %v, want %v", c.last, c.every, steps, err, c.want)
		}
	}
}

func TestNewest(t *testing.T) {
	root := t.TempDir()
	_, err := Newest(filepath.Join(root, "missing"))
	wantError(t, err, "there is no run with a checkpoint")
	newRun(t, filepath.Join(root, "c")) // has none
	_, err = Newest(root)
	wantError(t, err, "there is no run with a checkpoint")

	a := newRun(t, filepath.Join(root, "a"), 9)
	b := newRun(t, filepath.Join(root, "b"), 1)
	write(t, filepath.Join(root, "file"))
	for hours, d := range []Dir{b, a, b} {
		when := time.Now().Add(time.Duration(hours) * time.Hour)
		path, _ := d.Latest()
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		if got, err := Newest(root); err != nil || got != d {
			t.Errorf("newest %s, %v, want %s", got, err, d)
		}
	}
}
