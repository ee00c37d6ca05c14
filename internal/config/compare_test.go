package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestChanges(t *testing.T) {
	from := Default()
	if changes := Changes(&from, &from); changes != nil {
		t.Errorf("equal configurations differ in %v", changes)
	}
	to := load(t, Options{Config: empty(t), Set: []string{"train.lr=1e-3", "data.path=a b", "model.mult=1,2", "threads=2"}}).Config
	want := []Change{
		{"threads", "0", "2"},
		{"data.path", `""`, `"a b"`},
		{"model.mult", "[1, 2, 2]", "[1, 2]"},
		{"train.lr", "0.0002", "0.001"},
	}
	if changes := Changes(&from, &to); !reflect.DeepEqual(changes, want) {
		t.Errorf("got  %v\nwant %v", changes, want)
	}
}

func TestPortable(t *testing.T) {
	c := load(t, Options{Config: empty(t), Set: []string{"seed=3", "threads=2", "device=cpu"}}).Config
	want := []Change{{"device", "cpu", "auto"}, {"threads", "2", "0"}}
	portable := c.Portable()
	if changes := Changes(&c, &portable); !reflect.DeepEqual(changes, want) {
		t.Errorf("dropped %v, want %v", changes, want)
	}
}

// The configuration of a checkpoint is a source like a file.
func TestLoadText(t *testing.T) {
	saved := load(t, Options{Config: empty(t), Set: []string{"train.lr=1e-3", "train.steps=7"}}).Config
	r := load(t, Options{
		Config: "runs/a/step_0000007.safetensors", Text: Marshal(&saved),
		Environ: []string{"DDPM_TRAIN_BATCH=8"}, Set: []string{"train.steps=9"},
	})
	want := []Change{{"train.steps", "7", "9"}, {"train.batch", "32", "8"}}
	if changes := Changes(&saved, &r.Config); !reflect.DeepEqual(changes, want) {
		t.Errorf("changed %v, want %v", changes, want)
	}
	if got := r.Origins["train.lr"]; !strings.HasPrefix(got, "runs/a/step_0000007.safetensors:") {
		t.Errorf("train.lr is from %q, want the checkpoint and a line", got)
	}
	_, err := Load(Options{Config: "a.safetensors", Text: []byte("train: {batch: 0}")})
	wantError(t, err, "train.batch 0: want at least 1 (a.safetensors:1)")
}
