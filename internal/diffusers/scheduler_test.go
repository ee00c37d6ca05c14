package diffusers

import (
	"strings"
	"testing"

	"ddpm/internal/sched"
)

// What DDPMScheduler() and DDPMPipeline do without arguments.
var (
	ddpmDefaults = sched.Config{T: 1000, Schedule: "linear", BetaStart: 1e-4, BetaEnd: 0.02, Prediction: "eps"}
	ddpmSampling = sched.SamplerConfig{Sampler: "ddpm", Steps: 1000, Spacing: "leading", Variance: "fixed_small", Clip: true}
	ddimSampling = sched.SamplerConfig{Sampler: "ddim", Steps: 50, Spacing: "leading", Variance: "fixed_small", Clip: true}
)

// ddpmConfig is a DDPMScheduler as current versions of the library write it.
var ddpmConfig = map[string]any{
	"_class_name": "DDPMScheduler", "_diffusers_version": "0.32.2", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
	"clip_sample": true, "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995, "num_train_timesteps": 1000,
	"prediction_type": "epsilon", "rescale_betas_zero_snr": false, "sample_max_value": 1.0, "steps_offset": 0,
	"thresholding": false, "timestep_spacing": "leading", "trained_betas": nil, "variance_type": "fixed_small",
}

var ddimConfig = with(ddpmConfig, map[string]any{"_class_name": "DDIMScheduler", "set_alpha_to_one": true, "variance_type": remove})

func readScheduler(t *testing.T, config any) (*Pipeline, error) {
	t.Helper()
	f := newFolder(t)
	f.json("scheduler/scheduler_config.json", config)
	p := &Pipeline{}
	return p, p.readScheduler(f.path + "/scheduler/scheduler_config.json")
}

func TestReadsSchedulers(t *testing.T) {
	process := func(f func(*sched.Config)) sched.Config {
		c := ddpmDefaults
		f(&c)
		return c
	}
	sampling := func(s sched.SamplerConfig, f func(*sched.SamplerConfig)) sched.SamplerConfig {
		f(&s)
		return s
	}
	other := with(ddimConfig, map[string]any{"_class_name": "PNDMScheduler", "clip_sample": remove, "skip_prk_steps": false, "steps_offset": 1})
	for _, test := range []struct {
		name   string
		config map[string]any
		want   sched.Config
		sample sched.SamplerConfig
		note   string // in the only note; none if empty
	}{
		{"DDPM", ddpmConfig, ddpmDefaults, ddpmSampling, ""},
		{"DDPM by default", map[string]any{"_class_name": "DDPMScheduler"}, ddpmDefaults, ddpmSampling, ""},
		{"DDIM", ddimConfig, ddpmDefaults, ddimSampling, ""},
		{"DDIM by default", map[string]any{"_class_name": "DDIMScheduler"}, ddpmDefaults, ddimSampling, ""},
		{"cosine", with(ddpmConfig, map[string]any{"beta_schedule": "squaredcos_cap_v2"}),
			process(func(c *sched.Config) { c.Schedule = "cosine" }), ddpmSampling, ""},
		{"other betas", with(ddpmConfig, map[string]any{"beta_start": 0.001, "beta_end": 0.03}),
			process(func(c *sched.Config) { c.BetaStart, c.BetaEnd = 0.001, 0.03 }), ddpmSampling, ""},
		{"v", with(ddpmConfig, map[string]any{"prediction_type": "v_prediction"}),
			process(func(c *sched.Config) { c.Prediction = "v" }), ddpmSampling, ""},
		{"x0", with(ddpmConfig, map[string]any{"prediction_type": "sample"}),
			process(func(c *sched.Config) { c.Prediction = "x0" }), ddpmSampling, ""},
		{"old flag for eps", with(ddpmConfig, map[string]any{"prediction_type": remove, "predict_epsilon": true}), ddpmDefaults, ddpmSampling, ""},
		{"old flag for x0", with(ddpmConfig, map[string]any{"prediction_type": remove, "predict_epsilon": false}),
			process(func(c *sched.Config) { c.Prediction = "x0" }), ddpmSampling, ""},
		{"old flag and new name", with(ddpmConfig, map[string]any{"predict_epsilon": true}), ddpmDefaults, ddpmSampling, ""},
		{"old flag unset", with(ddpmConfig, map[string]any{"predict_epsilon": nil, "prediction_type": "sample"}),
			process(func(c *sched.Config) { c.Prediction = "x0" }), ddpmSampling, ""},
		{"2000 steps", with(ddpmConfig, map[string]any{"num_train_timesteps": 2000}), process(func(c *sched.Config) { c.T = 2000 }),
			sampling(ddpmSampling, func(s *sched.SamplerConfig) { s.Steps = 2000 }), ""},
		{"DDIM with few steps", with(ddimConfig, map[string]any{"num_train_timesteps": 20}), process(func(c *sched.Config) { c.T = 20 }),
			sampling(ddimSampling, func(s *sched.SamplerConfig) { s.Steps = 20 }), ""},
		{"small by its logarithm", with(ddpmConfig, map[string]any{"variance_type": "fixed_small_log"}), ddpmDefaults, ddpmSampling, ""},
		{"large", with(ddpmConfig, map[string]any{"variance_type": "fixed_large"}), ddpmDefaults,
			sampling(ddpmSampling, func(s *sched.SamplerConfig) { s.Variance = "fixed_large" }), ""},
		{"large by its logarithm", with(ddpmConfig, map[string]any{"variance_type": "fixed_large_log"}), ddpmDefaults,
			sampling(ddpmSampling, func(s *sched.SamplerConfig) { s.Variance = "fixed_large" }), ""},
		{"no clipping", with(ddpmConfig, map[string]any{"clip_sample": false, "clip_sample_range": 2}), ddpmDefaults,
			sampling(ddpmSampling, func(s *sched.SamplerConfig) { s.Clip = false }), ""},
		{"trailing", with(ddimConfig, map[string]any{"timestep_spacing": "trailing"}), ddpmDefaults,
			sampling(ddimSampling, func(s *sched.SamplerConfig) { s.Spacing = "trailing" }), ""},
		{"linspace", with(ddimConfig, map[string]any{"timestep_spacing": "linspace"}), ddpmDefaults,
			sampling(ddimSampling, func(s *sched.SamplerConfig) { s.Spacing = "linspace" }), ""},
		{"keys of another class", with(ddpmConfig, map[string]any{"set_alpha_to_one": false, "skip_prk_steps": true}), ddpmDefaults, ddpmSampling, ""},
		{"offset", with(ddimConfig, map[string]any{"steps_offset": 1}), ddpmDefaults, ddimSampling, "steps_offset 1 is not used"},
		{"last alpha", with(ddimConfig, map[string]any{"set_alpha_to_one": false}), ddpmDefaults, ddimSampling, "set_alpha_to_one false is not used"},
		{"another class", other, ddpmDefaults, ddimSampling, "only the training schedule of PNDMScheduler"},
		{"another class without a variance", with(other, map[string]any{"variance_type": nil}), ddpmDefaults, ddimSampling, "only the training schedule"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := readScheduler(t, test.config)
			if err != nil {
				t.Fatal(err)
			}
			if p.Diffusion != test.want {
				t.Errorf("process %+v, want %+v", p.Diffusion, test.want)
			}
			if p.Sample != test.sample {
				t.Errorf("sampling %+v, want %+v", p.Sample, test.sample)
			}
			switch {
			case test.note == "" && len(p.Notes) > 0:
				t.Errorf("notes %q, want none", p.Notes)
			case test.note != "" && (len(p.Notes) != 1 || !strings.Contains(p.Notes[0], test.note)):
				t.Errorf("notes %q, want one with %q", p.Notes, test.note)
			}
		})
	}
}

func TestSchedulersRefused(t *testing.T) {
	for _, test := range []struct {
		key   string
		value any
		words []string // besides the file and the key
	}{
		{"_class_name", remove, []string{"DDPMScheduler"}},
		{"_class_name", 3, []string{"text"}},
		{"beta_schedule", "scaled_linear", []string{`"scaled_linear"`, `"linear" or "squaredcos_cap_v2"`}},
		{"beta_schedule", "sigmoid", []string{`"linear" or "squaredcos_cap_v2"`}},
		{"beta_schedule", nil, []string{"text"}},
		{"trained_betas", []float64{0.1, 0.2}, []string{"[0.1,0.2]", "want null"}},
		{"timestep_values", []int{1}, []string{"want null"}},
		{"rescale_betas_zero_snr", true, []string{"want false"}},
		{"thresholding", true, []string{"want false"}},
		{"prediction_type", "flow_prediction", []string{`"epsilon" or "sample" or "v_prediction"`}},
		{"predict_epsilon", false, []string{"prediction_type", "agree"}},
		{"predict_epsilon", "no", []string{"true or false"}},
		{"variance_type", "learned_range", []string{`"fixed_large"`, `"fixed_small_log"`}},
		{"clip_sample", nil, []string{"true or false"}},
		{"clip_sample_range", 2, []string{"want 1"}},
		{"timestep_spacing", "karras", []string{`"leading" or "linspace" or "trailing"`}},
		{"num_train_timesteps", 0, []string{"diffusion.t"}},
		{"num_train_timesteps", "1000", []string{"whole number"}},
		{"beta_end", 2, []string{"diffusion.beta_end"}},
		{"beta_start", 0.5, []string{"diffusion.beta_start"}},
		{"beta_start", "x", []string{"a number"}},
		{"steps_offset", "x", []string{"whole number"}},
	} {
		t.Run(test.key, func(t *testing.T) {
			_, err := readScheduler(t, with(ddpmConfig, map[string]any{test.key: test.value}))
			refused(t, err, append(test.words, "scheduler/scheduler_config.json", test.key)...)
		})
	}
	for _, key := range []string{"num_train_timesteps", "beta_schedule", "beta_start", "beta_end"} {
		t.Run("another class without "+key, func(t *testing.T) {
			_, err := readScheduler(t, with(ddpmConfig, map[string]any{"_class_name": "ScoreSdeVeScheduler", key: remove}))
			refused(t, err, "ScoreSdeVeScheduler has no "+key, "DDPMScheduler")
		})
	}
	t.Run("long values are cut", func(t *testing.T) {
		_, err := readScheduler(t, with(ddpmConfig, map[string]any{"trained_betas": make([]float64, 1000)}))
		refused(t, err, "[0,0,", "...: want null")
		if len(err.Error()) > 400 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}
