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
		{"distill.method=progressive distill.start_steps=64 distill.stage_steps=10000", "distill.start_steps 64: want a multiple of 2^10, as it is halved train.steps / distill.stage_steps = 10 times"},
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
	if defaults := Default(); r.Train != defaults.Train || r.Sample != defaults.Sample {
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
