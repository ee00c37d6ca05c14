package config

import (
	"strings"
	"testing"
)

// What does not fit a student is one sentence that names the key.
func TestDistillErrors(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"distill.method=fast", `distill.method "fast": want one of none, consistency, progressive (--set)`},
		{"distill.solver=euler", `distill.solver "euler": want one of ddim, heun (--set)`},
		{"distill.guidance=-1", "distill.guidance -1: want a number from 0, 1 for none (--set)"},
		{"distill.huber_c=0", "distill.huber_c 0: want a number above 0 (--set)"},
		{"distill.nodes=-1", "distill.nodes -1: want a number of steps, or 0 for all t (--set)"},
		{"distill.solver_steps=251", "distill.solver_steps 251: want 1 to 250, distill.skip (distill.solver_steps from --set, distill.skip from default)"},
		{"distill.method=consistency distill.nodes=501", "distill.nodes 501: want at most 500, half of diffusion.t, or 0 for all t"},
		{"distill.skip=0", "distill.skip 0: want at least 1 (--set)"},
		{"distill.start_steps=1", "distill.start_steps 1: want at least 2 (--set)"},
		{"distill.stage_steps=0", "distill.stage_steps 0: want at least 1 (--set)"},
		{"distill.method=consistency distill.skip=1000", "distill.skip 1000: want 1 to 999, below diffusion.t (distill.skip from --set, diffusion.t from "},
		{"distill.method=consistency train.loss=vlb model.learn_sigma=true", "train.loss vlb: want simple with distill.method consistency, which has a loss of its own"},
		{"distill.method=consistency train.weighting=p2", "train.weighting p2: want none with distill.method consistency, which has a loss of its own"},
		{"distill.method=consistency train.timesteps=importance", "train.timesteps importance: want uniform with distill.method consistency, which has a loss of its own"},
		{"distill.method=consistency distill.guidance=3", "distill.guidance 3: want 1: the teacher knows no classes"},
		{"distill.method=progressive diffusion.prediction=eps", "distill.method progressive: want a teacher that predicts v or x0"},
		{"distill.method=progressive distill.start_steps=1001", "distill.start_steps 1001: want at most 1000 (diffusion.t)"},
		{"distill.method=progressive distill.stage_steps=30000", "distill.stage_steps 30000: want a divisor of train.steps 100000"},
		{"distill.method=progressive distill.start_steps=64 distill.stage_steps=10000", "distill.start_steps 64: it can be halved 6 times, and train.steps 100000 make 10 stages of distill.stage_steps 10000: want fewer, longer stages"},
		{"distill.guidance_from=2", "distill.guidance_from 2: want 0 to 1 (--set)"},
		{"distill.guidance_from=0.5 distill.guidance_to=0.4", "distill.guidance_to 0.4: want distill.guidance_from (0.5) to 1"},
		{"distill.guidance_rescale=2", "distill.guidance_rescale 2: want 0 to 1 (--set)"},
		{"distill.method=consistency distill.nodes=7 sample.steps=4", "sample.steps 4: want a divisor of distill.nodes 7, as the student learns at no other t (sample.steps from --set, distill.nodes from --set)"},
		{"distill.method=consistency distill.nodes=8 sample.steps=4 sample.spacing=leading", "sample.spacing leading: want trailing with distill.nodes 8"},
		{"distill.method=consistency diffusion.consistency=false", "diffusion.consistency false: want true with distill.method consistency"},
		{"model.classes=5 train.class_dropout=0 sample.guidance=2", "sample.guidance 2: want 1 with train.class_dropout 0, which trains no network without a class for guidance to lead away from"},
		{"diffusion.consistency=true", "diffusion.consistency true: want distill.method consistency: ddpm distill makes such models"},
		{"sample.sampler=consistency", "sample.sampler consistency: want a consistency model, as ddpm distill makes them"},
	} {
		_, err := Load(Options{Set: strings.Fields(c.set + " train.steps=100000")})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v\nwant %s", c.set, err, c.want)
		}
	}
	for _, set := range []string{
		"distill.method=consistency diffusion.consistency=true sample.sampler=consistency sample.steps=2",
		"distill.method=progressive distill.start_steps=32 distill.stage_steps=20000 train.steps=100000",
		"distill.method=consistency model.classes=5 distill.guidance=3",
	} {
		if _, err := Load(Options{Set: strings.Fields(set)}); err != nil {
			t.Errorf("%s: %v", set, err)
		}
	}
}

// A student has data, model and diffusion of its teacher unless something else sets them, and nothing else.
func TestInheritance(t *testing.T) {
	teacher := Default()
	teacher.Model.Channels, teacher.Diffusion.T, teacher.Data.Path, teacher.Data.Workers = 32, 500, "old", 9
	teacher.Train.LR, teacher.Sample.Steps = 1, 7
	r := load(t, Options{
		Teacher: &teacher, Config: write(t, "c.yaml", "data: {workers: 1}\ndistill: {method: consistency, skip: 400}\n"),
		Set: []string{"data.path=new"},
	})
	if r.Model.Channels != 32 || r.Diffusion.T != 500 || r.Data.Path != "new" || r.Data.Workers != 1 {
		t.Errorf("%+v", r.Config)
	}
	defaults := Default()
	defaults.Sample.Sampler, defaults.Sample.Steps = "consistency", 4
	if r.Train != defaults.Train || r.Sample != defaults.Sample || !r.Diffusion.Consistency {
		t.Errorf("the student has its teacher's %+v, %+v", r.Train, r.Sample)
	}
	for key, want := range map[string]string{
		"model.channels": OriginTeacher, "diffusion.t": OriginTeacher, "data.path": OriginSet, "train.lr": OriginDefault,
	} {
		if r.Origins[key] != want {
			t.Errorf("%s is from %s, want %s", key, r.Origins[key], want)
		}
	}
	_, err := Load(Options{Teacher: &teacher, Config: write(t, "c.yaml", "distill: {method: consistency, skip: 500}\n")})
	if err == nil || !strings.Contains(err.Error(), "want 1 to 499") || !strings.Contains(err.Error(), "diffusion.t from the teacher") {
		t.Errorf("error %v", err)
	}
}

// What nothing sets follows from the method and from what the network predicts.
func TestFollowers(t *testing.T) {
	small := Default()
	small.Diffusion.T, small.Sample.GuidanceFrom, small.Sample.GuidanceTo, small.Sample.GuidanceRescale = 20, 0.2, 0.7, 0.5
	for _, c := range []struct {
		options                    Options
		sampler, spacing, variance string
		steps                      int
	}{
		{Options{Teacher: &small, Config: "shapes-distill", Set: []string{"distill.skip=5"}}, "consistency", "trailing", "fixed_large", 4},
		{Options{Config: "shapes-distill", Set: []string{"distill.nodes=7"}}, "consistency", "trailing", "fixed_large", 7},
		{Options{Config: "shapes-distill", Set: []string{"distill.method=progressive"}}, "ddim", "trailing", "fixed_large", 1},
		{Options{Config: "shapes-distill", Set: []string{"distill.method=progressive", "sample.steps=9"}}, "ddim", "trailing", "fixed_large", 9},
		{Options{
			Config: "shapes-distill", Set: []string{"distill.method=progressive", "distill.stage_steps=10"},
			Flags: []Flag{{"train.steps", "20", "--steps"}},
		}, "ddim", "trailing", "fixed_large", 16},
		{Options{Config: write(t, "c.yaml", "distill: {method: progressive}\n")}, "ddim", "trailing", "fixed_large", 2},
		{Options{Config: write(t, "d.yaml", "diffusion: {consistency: false}\ndistill: {method: consistency}\n")}, "consistency", "trailing", "fixed_large", 4},
		{Options{Set: []string{"model.learn_sigma=true", "train.loss=hybrid"}}, "ddim", "trailing", "learned", 50},
		{Options{Set: []string{"model.learn_sigma=true", "train.loss=hybrid", "sample.variance=fixed_small"}}, "ddim", "trailing", "fixed_small", 50},
	} {
		r := load(t, c.options)
		if s := r.Sample; s.Sampler != c.sampler || s.Spacing != c.spacing || s.Variance != c.variance || s.Steps != c.steps {
			t.Errorf("%+v: %+v", c.options, s)
		}
		if d := r.Distill; c.options.Teacher != nil && (d.GuidanceFrom != 0.2 || d.GuidanceTo != 0.7 || d.GuidanceRescale != 0.5) {
			t.Errorf("guidance %+v", d)
		}
	}

	// What is wrong is what was set, not what would follow from it.
	_, err := Load(Options{Config: write(t, "e.yaml", "diffusion: {t: 40}\ndistill: {method: progressive, start_steps: 24}\n")})
	if err == nil || !strings.Contains(err.Error(), "distill.start_steps 24: it can be halved 3 times, and train.steps 100000 make 5 stages of distill.stage_steps 20000") {
		t.Errorf("error %v", err)
	}

	// A run that goes on for longer has more stages, and so draws in fewer steps, unless it was told otherwise.
	for _, c := range []struct {
		set  []string
		want int
	}{{nil, 8}, {[]string{"sample.steps=9"}, 9}} {
		saved := load(t, Options{Config: "shapes-distill", Set: append(c.set, "distill.method=progressive", "distill.stage_steps=10", "train.steps=20")})
		r := load(t, Options{
			Config: "saved", Text: Marshal(&saved.Config), Saved: &saved.Config, Flags: []Flag{{"train.steps", "30", "--steps"}},
		})
		if r.Sample.Steps != c.want {
			t.Errorf("%v: a run that goes on draws in %d steps, want %d", c.set, r.Sample.Steps, c.want)
		}
	}
}
