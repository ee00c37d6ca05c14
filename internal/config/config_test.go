package config

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/sched"
)

// empty is a configuration file in which nothing is set.
func empty(t *testing.T) string {
	return write(t, "empty.yaml", "")
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, options Options) *Resolved {
	t.Helper()
	r, err := Load(options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if r := load(t, Options{Config: empty(t)}); !reflect.DeepEqual(r.Config, c) {
		t.Errorf("an empty file gives %+v\nwant the defaults %+v", r.Config, c)
	}
	for _, text := range []string{"# nothing\n", "---\n", "train:\ndata:\n  # name: mnist\n"} {
		if r := load(t, Options{Config: write(t, "c.yaml", text)}); !reflect.DeepEqual(r.Config, c) {
			t.Errorf("%q: want the defaults", text)
		}
	}
}

// other is a valid value of each key that is not its default, given the
// configuration otherKeysOf returns.
var other = map[string]string{
	"seed": "18446744073709551615", "device": "cpu", "threads": "3", "precision": "bf16",

	"data.name": "folder", "data.path": "some where/a,b", "data.width": "64", "data.height": "32", "data.channels": "1",
	"data.flip": "true", "data.classes": "true", "data.holdout": "0.25", "data.workers": "7", "data.prefetch": "2",
	"data.max_skipped": "5", "data.strict": "true",

	"model.block": "simple", "model.channels": "128", "model.mult": "1,2.5", "model.blocks": "1", "model.attention": "[16, 8]",
	"model.mid_attention": "false", "model.head_dim": "32", "model.groups": "16", "model.norm_eps": "1e-5",
	"model.dropout": ".1", "model.classes": "10", "model.learn_sigma": "true", "model.init": "ddpm", "model.conv": "direct", "model.downsample_padding": "1", "model.flip_sin_to_cos": "true",
	"model.freq_shift": "0",

	"diffusion.t": "500", "diffusion.schedule": "linear", "diffusion.beta_start": "2e-4", "diffusion.beta_end": "0.03",
	"diffusion.prediction": "eps", "diffusion.zero_terminal_snr": "true", "diffusion.consistency": "true",

	"train.steps": "5e3", "train.batch": "1_6", "train.accumulate": "2", "train.recompute": "true", "train.loss": "hybrid",
	"train.vlb_weight": "0.002", "train.weighting": "min_snr", "train.min_snr_gamma": "3", "train.p2_gamma": "0.5", "train.p2_k": "2",
	"train.timesteps": "importance", "train.lognormal_mean": "-1", "train.lognormal_std": "2", "train.class_dropout": "0.2", "train.lr": "1e-4", "train.warmup": "0",
	"train.decay": "constant", "train.beta1": "0.8", "train.beta2": "0.99", "train.adam_eps": "1E-7", "train.clip": "0",
	"train.ema": "0.9999", "train.log_every": "+7", "train.plot_every": "70", "train.samples": "25",
	"train.checkpoint_every": "70", "train.keep_last": "1", "train.keep_every": "700",

	"sample.sampler": "ddpm", "sample.steps": "250", "sample.spacing": "leading", "sample.eta": "0.5",
	"sample.variance": "fixed_small", "sample.clip": "false", "sample.batch": "16",
	"sample.threshold": "0.995", "sample.guidance": "3", "sample.guidance_from": "0.1", "sample.guidance_to": "0.9",
	"sample.guidance_rescale": "0.7",

	"distill.method": "progressive", "distill.teacher": "runs/my shapes", "distill.guidance": "2", "distill.guidance_from": "0.1", "distill.guidance_to": "0.9", "distill.guidance_rescale": "0.5", "distill.loss": "l2",
	"distill.huber_c": "0.1", "distill.solver": "heun", "distill.solver_steps": "4", "distill.nodes": "4", "distill.skip": "50", "distill.target": "current",
	"distill.start_steps": "16", "distill.stage_steps": "500",
}

// Every key is documented and can be set by --set, by an environment variable of
// its own and in a file, and each of them changes that key and nothing else.
func TestEveryKey(t *testing.T) {
	variables := map[string]string{}
	for _, l := range leaves {
		if l.doc == "" {
			t.Errorf("%s: no doc tag", l.key)
		}
		if l.name == "" || l.name != strings.ToLower(l.name) {
			t.Errorf("%q: the key is not a lower-case word", l.key)
		}
		if twin := variables[l.variable()]; twin != "" {
			t.Errorf("%s and %s share the variable %s", l.key, twin, l.variable())
		}
		variables[l.variable()] = l.key

		value, ok := other[l.key]
		if !ok {
			t.Errorf("%s: add a value to the test", l.key)
			continue
		}
		var c [3]Config
		for i := range c {
			c[i] = Default()
		}
		if err := c[0].Set(l.key, value, "test"); err != nil {
			t.Error(err)
			continue
		}
		if reflect.DeepEqual(l.get(&c[0]), l.get(&c[1])) {
			t.Errorf("%s: %s is the default", l.key, value)
		}

		stack := newLayers()
		if err := stack.addEnvironment([]string{l.variable() + "=" + value}); err != nil {
			t.Error(err)
		} else if got, err := stack.unmarshal(); err != nil || !reflect.DeepEqual(*got, c[0]) {
			t.Errorf("%s=%s: %+v, %v", l.variable(), value, got, err)
		}
		stack = newLayers()
		if err := stack.addSet([]string{l.key + "=" + value}); err != nil {
			t.Error(err)
		} else if got, err := stack.unmarshal(); err != nil || !reflect.DeepEqual(*got, c[0]) {
			t.Errorf("--set %s=%s: %+v, %v", l.key, value, got, err)
		}
		stack = newLayers()
		if err := stack.addFile(Marshal(&c[0]), "test"); err != nil {
			t.Error(err)
		} else if got, err := stack.unmarshal(); err != nil || !reflect.DeepEqual(*got, c[0]) {
			t.Errorf("file with %s: %s: %+v, %v", l.key, value, got, err)
		}

		// Only this field differs from the defaults.
		l.set(&c[1], l.get(&c[0]))
		if !reflect.DeepEqual(c[0], c[1]) {
			t.Errorf("%s: setting it changed another key too", l.key)
		}
	}
	for key := range other {
		if leafOf[key] == nil {
			t.Errorf("the test sets %s, which is no key", key)
		}
	}
}

// Every field of the tree is a leaf: a section cannot hide one.
func TestLeavesCoverTheTree(t *testing.T) {
	count := 0
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for i := range typ.NumField() {
			if field := typ.Field(i).Type; field.Kind() == reflect.Struct {
				walk(field)
			} else {
				count++
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	if count != len(leaves) || count != len(leafOf) {
		t.Errorf("%d fields, %d leaves, %d keys", count, len(leaves), len(leafOf))
	}
}

func TestPrecedenceAndOrigins(t *testing.T) {
	path := write(t, "mine.yaml", "seed: 1\n\ntrain:\n  steps: 10 # few\n  batch: 8\n  lr: 1e-3\n")
	r := load(t, Options{
		Config:  path,
		Environ: []string{"HOME=/", "DDPM_TRAIN_LR=2e-3", "DDPM_TRAIN_BATCH=4", "DDPM_SEED=", "DDPM_CPU=generic", "DDPM_LIBCUDA="},
		Set:     []string{"train.batch=2", "train.clip = 0.5 ", "train.batch=1"},
	})
	if err := r.Set("train.steps", "20", "--steps"); err != nil {
		t.Fatal(err)
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key    string
		value  any
		origin string
	}{
		{"seed", uint64(1), path + ":1"},
		{"train.steps", 20, "--steps"},
		{"train.lr", 2e-3, "env DDPM_TRAIN_LR"},
		{"train.batch", 1, OriginSet},
		{"train.clip", 0.5, OriginSet},
		{"train.warmup", 1000, OriginDefault},
	} {
		if got := leafOf[c.key].get(&r.Config); got != c.value || r.Origins[c.key] != c.origin {
			t.Errorf("%s: %v from %s, want %v from %s", c.key, got, r.Origins[c.key], c.value, c.origin)
		}
	}
	if len(r.Origins) != len(leaves) {
		t.Errorf("%d origins of %d keys", len(r.Origins), len(leaves))
	}
	if r.Name != "mine" || r.Source != path {
		t.Errorf("name %q, source %q", r.Name, r.Source)
	}
	if r := load(t, Options{Config: path}); r.Origins["train.lr"] != path+":6" || r.Origins["train.steps"] != path+":4" {
		t.Errorf("lines: %v", r.Origins)
	}
}

func TestSetKeepsWhatItCannotChange(t *testing.T) {
	r := load(t, Options{Config: empty(t)})
	before := r.Config
	wantError(t, r.Set("train.steps", "many", "--steps"), `train.steps "many": want a whole number (--steps)`)
	if !reflect.DeepEqual(r.Config, before) || r.Origins["train.steps"] != OriginDefault {
		t.Error("a failed Set changed the configuration")
	}
	if err := r.Set("train.steps", "0", "--steps"); err != nil {
		t.Fatal(err)
	}
	wantError(t, r.Validate(), "train.steps 0: want at least 1 (--steps)")
	var c Config
	if err := c.Set("seed", "1e3", ""); err != nil || c.Seed != 1000 {
		t.Errorf("seed %d, %v", c.Seed, err)
	}
	wantError(t, c.Set("sample.eta", "x", ""), `sample.eta "x": want a number`)
}

var (
	topKeys   = "seed, device, threads, precision, data, model, diffusion, train, sample, distill"
	trainKeys = strings.Join(children["train"], ", ")
	schedules = strings.Join(sched.Names(), ", ")
	samplers  = strings.Join(sched.SamplerChoices(), ", ")
	presets   = strings.Join(Presets(), ", ")
)

func TestBadFiles(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		// Wrong types.
		{"train:\n  lr: \"abc\"\n", `train.lr "abc": want a number (FILE:2)`},
		{"train:\n  lr: \"1e-4\"\n", `train.lr "1e-4": want a number (FILE:2)`},
		{"train: {lr: .nan}\n", `train.lr .nan: want a number (FILE:1)`},
		{"train: {lr: .inf}\n", `train.lr .inf: want a number (FILE:1)`},
		{"train: {lr: 1e999}\n", `train.lr "1e999": want a number (FILE:1)`},
		{"train: {lr: true}\n", `train.lr true: want a number (FILE:1)`},
		{"train: {lr: }\n", `train.lr null: want a number (FILE:1)`},
		{"train: {lr: 0x10}\n", `train.lr 0x10: want a number (FILE:1)`},
		{"train: {lr: [1]}\n", `train.lr [1]: want a number (FILE:1)`},
		{"train: {lr: {a: 1}}\n", `train.lr {...}: want a number (FILE:1)`},
		{"train:\n  batch: 1.5\n", `train.batch 1.5: want a whole number (FILE:2)`},
		{"train: {batch: 99999999999999999999}\n", `train.batch 99999999999999999999: want a whole number (FILE:1)`},
		{"train: {batch: 1e300}\n", `train.batch 1e300: want a whole number (FILE:1)`},
		{"seed: -1\n", `seed -1: want a whole number from 0 to 18446744073709551615 (FILE:1)`},
		{"data:\n  flip: 3\n", `data.flip 3: want true or false (FILE:2)`},
		{"data: {flip: yes}\n", `data.flip "yes": want true or false (FILE:1)`},
		{"data: {flip: 'true'}\n", `data.flip "true": want true or false (FILE:1)`},
		{"data: {path: 7}\n", `data.path 7: want text, in quotes if it looks like something else (FILE:1)`},
		{"data: {path: }\n", `data.path null: want text, in quotes if it looks like something else (FILE:1)`},
		{"model: {mult: 2}\n", `model.mult 2: want a list of numbers, such as [1, 2, 2] (FILE:1)`},
		{"model: {mult: [1, two]}\n", `model.mult [1, "two"]: want a list of numbers, such as [1, 2, 2] (FILE:1)`},
		{"model: {mult: [1, [2]]}\n", `model.mult [...]: want a list of numbers, such as [1, 2, 2] (FILE:1)`},
		{"model: {attention: [8.5]}\n", `model.attention [8.5]: want a list of whole numbers, such as [16, 8] (FILE:1)`},
		{"device: " + strings.Repeat("x", 200) + "\n", `device "` + strings.Repeat("x", 200) + `": want one of auto, cpu, cuda (FILE:1)`},
		{"threads: " + strings.Repeat("x", 200) + "\n", `threads "` + strings.Repeat("x", 79) + `...: want a whole number (FILE:1)`},

		// Unknown keys.
		{"train:\n  bacth: 3\n", `train.bacth 3: unknown key, want one of ` + trainKeys + `; did you mean train.batch? (FILE:2)`},
		{"train: {Batch: 3}\n", `train.Batch 3: unknown key, want one of ` + trainKeys + `; did you mean train.batch? (FILE:1)`},
		{"train: {zzzzzz: 3}\n", `train.zzzzzz 3: unknown key, want one of ` + trainKeys + ` (FILE:1)`},
		{"diffusion: {lr: 1}\n", `diffusion.lr 1: unknown key, want one of ` + strings.Join(children["diffusion"], ", ") + `; did you mean train.lr? (FILE:1)`},
		{"lr: 3\n", `lr 3: unknown key, want one of ` + topKeys + `; did you mean train.lr? (FILE:1)`},
		{"trian: {lr: 3}\n", `trian {...}: unknown key, want one of ` + topKeys + `; did you mean train? (FILE:1)`},
		{"1: 2\n", `1 2: unknown key, want one of ` + topKeys + ` (FILE:1)`},
		{"[a, b]: 2\n", `["a", "b"] 2: unknown key, want one of ` + topKeys + ` (FILE:1)`},
		{"\"\": 2\n", `"" 2: unknown key, want one of ` + topKeys + ` (FILE:1)`},
		{"base: &b {lr: 1}\ntrain: {<<: *b}\n", `base {...}: unknown key, want one of ` + topKeys + `; did you mean data.name? (FILE:1)`},
		{"train: {<<: {lr: 1}}\n", `train.<< {...}: unknown key, want one of ` + trainKeys + ` (FILE:1)`},
		{"train.lr: 3\n", `train.lr: want a key inside its section, as in "train: {lr: 3}" (FILE:1)`},
		{"train: {seed: 3}\n", `train.seed 3: unknown key, want one of ` + trainKeys + `; did you mean seed? (FILE:1)`},

		// The shape of the file.
		{"train: 5\n", `train 5: want a section with keys ` + trainKeys + ` (FILE:1)`},
		{"train:\n- lr\n", `train ["lr"]: want a section with keys ` + trainKeys + ` (FILE:1)`},
		{"seed: 1\ndevice: cpu\nseed: 2\n", `seed: set twice, first on line 1 (FILE:3)`},
		{"train:\n  lr: 1\n  lr: 1\n", `train.lr: set twice, first on line 2 (FILE:3)`},
		{"train: {lr: 1}\ntrain: {batch: 1}\n", `train: set twice, first on line 1 (FILE:2)`},
		{"- seed\n", `FILE:1: want keys and values, such as "seed: 1"`},
		{"seed\n", `FILE:1: want keys and values, such as "seed: 1"`},
		{"seed: 1\n---\nseed: 2\n", `FILE: want a single YAML document`},
		{"seed: [1\n", `FILE: not valid YAML: line 1: did not find expected ',' or ']'`},
		{"seed: *x\n", `FILE: not valid YAML: unknown anchor 'x' referenced`},

		// Out of range; the sections' tests have the rest.
		{"train: {batch: 0}\n", `train.batch 0: want at least 1 (FILE:1)`},
		{"threads: -1\n", `threads -1: want at least 1, or 0 for all cores (FILE:1)`},
		{"device: gpu\n", `device "gpu": want one of auto, cpu, cuda; did you mean cpu? (FILE:1)`},
		{"diffusion: {schedule: cosin}\n", `diffusion.schedule "cosin": want one of ` + schedules + `; did you mean cosine? (FILE:1)`},
		{"diffusion: {schedule: laplace}\n", `diffusion.schedule "laplace": want one of ` + schedules + ` (FILE:1)`},
		{"diffusion: {prediction: epsilon}\n", `diffusion.prediction "epsilon": want one of eps, v, x0 (FILE:1)`},
		{"sample: {sampler: DDIM}\n", `sample.sampler "DDIM": want one of ` + samplers + `; did you mean ddim? (FILE:1)`},
		{"data: {channels: 2}\n", `data.channels 2: want 1 (grey) or 3 (RGB) (FILE:1)`},
		{"diffusion: {t: 0}\n", `diffusion.t 0: want 1 to 1000000 (FILE:1)`},
		{"sample: {batch: 0}\n", `sample.batch 0: want 1 to 1048576 (FILE:1)`},
		{"sample: {variance: learned}\n", `sample.variance learned: want a model with model.learn_sigma, which predicts variances, or a fixed variance (sample.variance from FILE:1, model.learn_sigma from default)`},
		{"diffusion: {zero_terminal_snr: true, prediction: eps}\n", `diffusion.zero_terminal_snr true: the noise tells nothing of x_0 where there is no signal: want diffusion.prediction v or x0, not eps (diffusion.zero_terminal_snr from FILE:1, diffusion.prediction from FILE:1)`},
		{"sample: {eta: -1}\n", `sample.eta -1: want 0 (deterministic) to 1 (as much noise as ddpm) (FILE:1)`},
	} {
		path := write(t, "c.yaml", c.text)
		_, err := Load(Options{Config: path})
		wantError(t, err, strings.ReplaceAll(c.want, "FILE", path))
	}
}

func TestBadSettings(t *testing.T) {
	path := empty(t)
	for _, c := range []struct {
		set, environ []string
		want         string
	}{
		{[]string{"train.lr"}, nil, `--set "train.lr": want key=value, such as train.lr=1e-4`},
		{[]string{"=3"}, nil, `--set "=3": want key=value, such as train.lr=1e-4`},
		{[]string{""}, nil, `--set "": want key=value, such as train.lr=1e-4`},
		{[]string{"train=3"}, nil, `train 3: want one key of the section, such as train.steps (--set)`},
		{[]string{"train.lr=abc"}, nil, `train.lr "abc": want a number (--set)`},
		{[]string{"train.lr=1e999"}, nil, `train.lr 1e999: want a number (--set)`},
		{[]string{"seed=-1e3"}, nil, `seed -1e3: want a whole number from 0 to 18446744073709551615 (--set)`},
		{[]string{"train.lr="}, nil, `train.lr "": want a number (--set)`},
		{[]string{"train.batch=1.5"}, nil, `train.batch 1.5: want a whole number (--set)`},
		{[]string{"train.batch=0"}, nil, `train.batch 0: want at least 1 (--set)`},
		{[]string{"data.flip=1"}, nil, `data.flip 1: want true or false (--set)`},
		{[]string{"model.mult=1,,2"}, nil, `model.mult "1,,2": want a list of numbers, such as [1, 2, 2] (--set)`},
		{[]string{"model.mult=[1,2"}, nil, `model.mult "[1,2": want a list of numbers, such as [1, 2, 2] (--set)`},
		{[]string{"model.mult="}, nil, `model.mult []: want one number a level, such as [1, 2, 2] (--set)`},
		{[]string{"model.attention=7"}, nil, `model.attention 7: no feature map has this height, want some of 16, 8, 4 (--set)`},
		{[]string{"data.path=\xff"}, nil, `data.path "\xff": want text in UTF-8 (--set)`},
		{[]string{"train.bacth=3"}, nil, `train.bacth 3: unknown key, want one of ` + trainKeys + `; did you mean train.batch? (--set)`},
		{[]string{"trian.batch=3"}, nil, `trian.batch 3: unknown key, want one of ` + topKeys + `; did you mean train.batch? (--set)`},
		{[]string{"train.batch.x=3"}, nil, `train.batch.x 3: unknown key, want one of ` + trainKeys + `; did you mean train.batch? (--set)`},
		{[]string{"lr=3"}, nil, `lr 3: unknown key, want one of ` + topKeys + `; did you mean train.lr? (--set)`},

		{nil, []string{"DDPM_TRAIN_LR=abc"}, `train.lr "abc": want a number (env DDPM_TRAIN_LR)`},
		{nil, []string{"DDPM_TRAIN_BATCH=0"}, `train.batch 0: want at least 1 (env DDPM_TRAIN_BATCH)`},
		{nil, []string{"DDPM_TRAIN_LRR=1"}, `DDPM_TRAIN_LRR 1: unknown environment variable, want DDPM_ and a key, such as DDPM_TRAIN_LR for train.lr; did you mean DDPM_TRAIN_LR?`},
		{nil, []string{"DDPM_NOTHINGLIKEIT=x y"}, `DDPM_NOTHINGLIKEIT "x y": unknown environment variable, want DDPM_ and a key, such as DDPM_TRAIN_LR for train.lr`},

		// Two keys that do not fit each other, from two places.
		{[]string{"train.accumulate=3"}, []string{"DDPM_TRAIN_BATCH=8"},
			`train.accumulate 3: want a divisor of train.batch 8 (train.accumulate from --set, train.batch from env DDPM_TRAIN_BATCH)`},
		{[]string{"data.height=18", "data.width=18"}, nil,
			`model.mult [1, 2, 2]: 3 levels halve images of 18x18 pixels 2 times, want data.width and data.height to be multiples of 4, or at most 2 levels (model.mult from default, data.width from --set, data.height from --set)`},
		{[]string{"sample.steps=2000"}, nil,
			`sample.steps 2000: the model has only 1000 diffusion steps (diffusion.t): want 1 to 1000 (sample.steps from --set, diffusion.t from default)`},
	} {
		_, err := Load(Options{Config: path, Set: c.set, Environ: c.environ})
		wantError(t, err, c.want)
	}
}

func TestNearestKey(t *testing.T) {
	for key, want := range map[string]string{
		"lr": "train.lr", "train.lrr": "train.lr", "trian.lr": "train.lr", "diffusion.lr": "train.lr", "TRAIN.LR": "train.lr",
		"sampel.batch": "sample.batch", "batch": "train.batch", "diffusion.steps": "train.steps", "modle": "model", "Train": "train",
		"data.hight": "data.height", "model.attentions": "model.attention", "sample.chanels": "data.channels", "sed": "seed",
		"x": "", "train.x": "", "quite.another": "", "": "",
	} {
		if got := nearestKey(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestLookup(t *testing.T) {
	t.Chdir(t.TempDir())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(config, name, source string, seed uint64) {
		t.Helper()
		r := load(t, Options{Config: config})
		if r.Name != name || r.Source != source || r.Seed != seed {
			t.Errorf("%q: name %q, source %q, seed %d; want %q, %q, %d", config, r.Name, r.Source, r.Seed, name, source, seed)
		}
	}
	expect("", "shapes", "preset shapes", 1)
	expect("cifar", "cifar", "preset cifar", 0)
	expect("cifar.yaml", "cifar", "preset cifar", 0)
	if r := load(t, Options{}); r.Origins["train.batch"] != "preset shapes:"+lineOf(t, "shapes", "batch") {
		t.Errorf("origin in a preset: %s", r.Origins["train.batch"])
	}

	must(os.Mkdir("configs", 0o777))
	must(os.Mkdir("cifar", 0o777)) // a folder of the same name is not meant
	for name, text := range map[string]string{
		"configs/cifar.yaml": "seed: 1", "configs/shapes.yaml": "seed: 2", "configs/mine": "seed: 3", "own.yaml": "seed: 4",
		"configs/own.yaml": "seed: 5", "shapes": "not a configuration", "other.yml": "seed: 6",
	} {
		must(os.WriteFile(name, []byte(text), 0o666))
	}
	expect("cifar", "cifar", "configs/cifar.yaml", 1)
	expect("configs/cifar", "cifar", "configs/cifar.yaml", 1)
	expect("", "shapes", "configs/shapes.yaml", 2)
	expect("mine", "mine", "configs/mine", 3)
	expect("own", "own", "own.yaml", 4)
	expect("./own.yaml", "own", "./own.yaml", 4)
	expect("other.yml", "other", "other.yml", 6)

	for config, want := range map[string]string{
		"cifr":              `--config "cifr": no such file or preset, want a path or one of ` + presets + `; did you mean cifar?`,
		"no/such/file.yaml": `--config "no/such/file.yaml": no such file or preset, want a path or one of ` + presets,
		"own.yaml/x":        `--config "own.yaml/x": no such file or preset, want a path or one of ` + presets,
		"./mnist":           `--config "./mnist": no such file or preset, want a path or one of ` + presets + `; did you mean mnist?`,
		"configs":           `--config "configs": no such file or preset, want a path or one of ` + presets,
		"..":                `--config "..": no such file or preset, want a path or one of ` + presets,
		"shapes":            `shapes:1: want keys and values, such as "seed: 1"`,
	} {
		_, err := Load(Options{Config: config})
		wantError(t, err, want)
	}

	must(os.WriteFile("weights.yaml", bytes.Repeat([]byte("#"), maxFileSize+1), 0o666))
	_, err := Load(Options{Config: "weights"})
	wantError(t, err, "config: weights.yaml: larger than 1048576 bytes, want a YAML file of settings")
}

// lineOf is the number of the first line of a preset that sets a key of that
// name.
func lineOf(t *testing.T, preset, name string) string {
	t.Helper()
	file, err := find(preset)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := readYAML(file.text, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range settings {
		if s.leaf.name == name {
			return strings.TrimPrefix(s.origin, ":")
		}
	}
	t.Fatalf("%s does not set %s", preset, name)
	return ""
}

func TestPresets(t *testing.T) {
	names := Presets()
	for _, name := range []string{"cifar", "cifar-cond", "folder", "iddpm-cifar", "mnist", "shapes", "shapes-cond"} {
		if !slices.Contains(names, name) {
			t.Errorf("no preset %s", name)
		}
	}
	t.Chdir(t.TempDir()) // so that no file stands before the preset
	for _, name := range names {
		r := load(t, Options{Config: name})
		roundTrip(t, &r.Config)
		var text bytes.Buffer
		if err := r.Annotated(&text); err != nil {
			t.Fatal(err)
		}
		again := load(t, Options{Config: write(t, name+".yaml", text.String())})
		if !reflect.DeepEqual(again.Config, r.Config) || again.Name != name {
			t.Errorf("%s: its annotated form gives %+v\nwant %+v", name, again.Config, r.Config)
		}
		for _, l := range leaves {
			if again.Origins[l.key] == OriginDefault {
				t.Errorf("%s: the annotated form does not set %s", name, l.key)
			}
		}
	}
}

// The published configurations, to the letter.
func TestPresetValues(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, values := range map[string]map[string]any{
		"shapes": {
			"data.name": "shapes", "data.width": 16, "data.height": 16, "data.channels": 3, "model.block": "resnet",
			"model.channels": 24, "model.mult": []float64{1, 2}, "model.blocks": 1, "model.attention": []int{},
			"model.mid_attention": true, "model.groups": 4, "model.norm_eps": 1e-6, "model.dropout": 0.0, "model.init": "pytorch",
			"model.downsample_padding": 0, "model.flip_sin_to_cos": false, "model.freq_shift": 1.0,
			"diffusion.t": 1000, "diffusion.schedule": "cosine", "diffusion.prediction": "v",
			"train.steps": 7000, "train.batch": 16, "train.accumulate": 1, "train.lr": 4e-3, "train.warmup": 100,
			"train.decay": "cosine", "train.beta1": 0.9, "train.beta2": 0.999, "train.adam_eps": 1e-8, "train.clip": 1.0,
			"train.ema": 0.995, "train.checkpoint_every": 1000, "train.plot_every": 1000, "sample.sampler": "ddim",
			"sample.steps": 50, "sample.spacing": "trailing", "sample.eta": 0.0, "sample.clip": true,
		},
		"cifar": {
			"data.name": "cifar10", "data.path": "data/cifar-10-binary.tar.gz", "data.width": 32, "data.height": 32,
			"data.channels": 3, "data.flip": true, "model.channels": 128, "model.mult": []float64{1, 2, 2, 2}, "model.blocks": 2,
			"model.attention": []int{16}, "model.mid_attention": true, "model.head_dim": 0, "model.groups": 32,
			"model.norm_eps": 1e-6, "model.dropout": 0.1, "model.init": "ddpm", "model.downsample_padding": 0,
			"diffusion.t": 1000, "diffusion.schedule": "linear", "diffusion.beta_start": 1e-4, "diffusion.beta_end": 0.02,
			"diffusion.prediction": "eps", "train.steps": 800_000, "train.batch": 128, "train.lr": 2e-4, "train.warmup": 5000,
			"train.decay": "constant", "train.beta1": 0.9, "train.beta2": 0.999, "train.adam_eps": 1e-8, "train.clip": 1.0,
			"train.ema": 0.9999, "sample.sampler": "ddpm", "sample.steps": 1000, "sample.variance": "fixed_large",
			"sample.clip": true,
		},
		"iddpm-cifar": {
			"data.name": "cifar10", "model.channels": 128, "model.mult": []float64{1, 2, 2, 2}, "model.blocks": 3,
			"model.attention": []int{16, 8}, "model.head_dim": 64, "model.dropout": 0.3, "model.learn_sigma": true,
			"diffusion.t": 4000, "diffusion.schedule": "cosine", "diffusion.prediction": "eps", "train.loss": "hybrid",
			"train.vlb_weight": 0.001, "train.timesteps": "uniform", "train.steps": 500_000, "train.batch": 128, "train.lr": 1e-4,
			"train.decay": "constant", "train.ema": 0.9999, "sample.sampler": "ddpm", "sample.variance": "learned",
		},
	} {
		r := load(t, Options{Config: name})
		for key, want := range values {
			if got := leafOf[key].get(&r.Config); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s is %v, want %v", name, key, got, want)
			}
		}
	}
}

func roundTrip(t *testing.T, c *Config) {
	t.Helper()
	text := Marshal(c)
	got, err := Parse(text)
	if err != nil {
		t.Errorf("%v in\n%s", err, text)
	} else if !reflect.DeepEqual(got, c) {
		t.Errorf("parsed %+v\nwant   %+v", got, c)
	} else if !bytes.Equal(Marshal(got), text) {
		t.Error("a second Marshal differs")
	}
}

func TestMarshal(t *testing.T) {
	c := Default()
	c.Data.Path = "data: a #1"
	c.Train.LR = 1e-7
	text := string(Marshal(&c))
	for _, want := range []string{"seed: 0\ndevice: auto\n", "\ndata:\n  name: shapes\n  path: \"data: a #1\"\n", "\n  lr: 1e-07\n", "\n  mult: [1, 2, 2]\n", "\n  attention: []\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if n := strings.Count(text, ": "); n != len(leaves)+1 { // and one in the path
		t.Errorf("%d keys, want %d", n-1, len(leaves))
	}
}

func TestRoundTrips(t *testing.T) {
	for _, path := range []string{
		"", " ", "a b", "true", "No", "null", "~", "1", "1e5", ".5", "0x1F", "-", "--- ", "...", "a: b", "a#b", "a #b", "*a", "&a", "!a", "'", `"`, `\`,
		"\n", "a\nb\n", "\t", "\r\n", "\x00\x01\x7f", "\u0085\u2028\ufeff", "é日本😀", "\U000e0001", "[1]", "{a: 1}", "@", "`", "%", "2001-01-01", "<<", "=", ".nan", ".INF",
	} {
		c := Default()
		c.Data.Path = path
		roundTrip(t, &c)
	}
	for _, lr := range []float64{math.SmallestNonzeroFloat64, math.MaxFloat64, 1.0 / 3, 1e21, 123456789.123, 0.1} {
		c := Default()
		c.Train.LR = lr
		roundTrip(t, &c)
	}
	c := Default()
	c.Seed = math.MaxUint64
	roundTrip(t, &c)
}

func TestParse(t *testing.T) {
	c := Default()
	text := string(Marshal(&c))
	line := 1 + strings.Count(text[:strings.Index(text, "  batch: 32")], "\n")
	for _, bad := range []struct{ from, to, want string }{
		{"seed: 0", "sede: 0", `sede 0: unknown key, want one of ` + topKeys + `; did you mean seed? (saved config:1): it is damaged or was written by another version of ddpm`},
		{"batch: 32", "batch: x", fmt.Sprintf(`train.batch "x": want a whole number (saved config:%d): it is damaged or was written by another version of ddpm`, line)},
		{"batch: 32", "batch: 0", `train.batch 0: want at least 1 (saved config)`},
	} {
		_, err := Parse([]byte(strings.Replace(text, bad.from, bad.to, 1)))
		wantError(t, err, bad.want)
	}
	older, err := Parse([]byte(strings.Replace(text, "  clip: 1\n", "", 1)))
	if err != nil || !reflect.DeepEqual(*older, c) {
		t.Errorf("a missing key: %v, %v", older, err)
	}
}

func TestAnnotated(t *testing.T) {
	path := write(t, "a\nb.yaml", "seed: 7\n")
	r := load(t, Options{Config: path, Set: []string{"diffusion.schedule=linear"}, Environ: []string{"DDPM_TRAIN_LR=1e-3"}})
	var text bytes.Buffer
	if err := r.Annotated(&text); err != nil {
		t.Fatal(err)
	}
	for _, l := range leaves {
		if !strings.Contains(text.String(), "# "+l.doc) {
			t.Errorf("the meaning of %s is missing", l.key)
		}
	}
	var lines []string // without the columns
	for line := range strings.Lines(text.String()) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	for _, want := range []string{
		"schedule: linear # noise schedule: " + schedules + " [--set]",
		"lr: 0.001 # learning rate of Adam [env DDPM_TRAIN_LR]",
		"batch: 32 # images an optimiser step [default]",
		"seed: 7 # seed of every random number of the run [" + strings.ReplaceAll(path, "\n", `\n`) + ":1]",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in\n%s", want, text.String())
		}
	}
	again := load(t, Options{Config: write(t, "again.yaml", text.String())})
	if !reflect.DeepEqual(again.Config, r.Config) {
		t.Error("the annotated form gives another configuration")
	}
}

// FuzzFile: no file makes the reader panic, and what loads survives a round
// trip.
func FuzzFile(f *testing.F) {
	for _, name := range Presets() {
		file, err := find(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file.text)
	}
	f.Add([]byte("a: &a [*a]\nmodel: {mult: *a}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		roundTrip(t, c)
	})
}
