package diffusers

import (
	"strings"
	"testing"

	"ddpm/internal/sched"
)

// What DDPMScheduler() and DDPMPipeline do without arguments.
var (
	ddpmDefaults = sched.Config{T: 1000, Schedule: "linear", BetaStart: 1e-4, BetaEnd: 0.02, Prediction: "eps"}
	ddpmSampling = sched.SamplerConfig{Sampler: "ddpm", Steps: 1000, Spacing: "leading", Variance: "fixed_small", Clip: true, Guidance: 1, GuidanceTo: 1}
	ddimSampling = sched.SamplerConfig{Sampler: "ddim", Steps: 50, Spacing: "leading", Variance: "fixed_small", Clip: true, Guidance: 1, GuidanceTo: 1}
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
		{"scaled betas", with(ddpmConfig, map[string]any{"beta_schedule": "scaled_linear"}),
			process(func(c *sched.Config) { c.Schedule = "scaled_linear" }), ddpmSampling, ""},
		{"sigmoid betas", with(ddpmConfig, map[string]any{"beta_schedule": "sigmoid"}),
			process(func(c *sched.Config) { c.Schedule = "sigmoid" }), ddpmSampling, ""},
		{"zero terminal SNR", with(ddimConfig, map[string]any{"rescale_betas_zero_snr": true, "prediction_type": "v_prediction"}),
			process(func(c *sched.Config) { c.Prediction, c.ZeroTerminalSNR = "v", true }), ddimSampling, ""},
		{"nulls", with(ddpmConfig, map[string]any{"rescale_betas_zero_snr": nil, "thresholding": nil}), ddpmDefaults, ddpmSampling, ""},
		{"thresholding that is clipping", with(ddpmConfig, map[string]any{"thresholding": true, "clip_sample": false}), ddpmDefaults, ddpmSampling, ""},
		{"thresholding", with(ddpmConfig, map[string]any{"thresholding": true, "dynamic_thresholding_ratio": 0.99, "sample_max_value": 1.5}), ddpmDefaults,
			sampling(ddpmSampling, func(s *sched.SamplerConfig) { s.Clip, s.Threshold = false, 0.99 }), "sample_max_value 1.5 is not used"},
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

// What DPMSolverMultistepScheduler and its like write, -Infinity included.
const solverText = `{
  "_class_name": "CLASS", "algorithm_type": "ALGORITHM", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
  "dynamic_thresholding_ratio": 0.995, "euler_at_final": false, "final_sigmas_type": "zero",
  "lambda_min_clipped": -Infinity, "lower_order_final": true, "num_train_timesteps": 1000, "prediction_type": "epsilon",
  "sample_max_value": 1.0, "solver_order": ORDER, "steps_offset": 0, "thresholding": false,
  "timestep_spacing": "linspace", "trained_betas": null, "use_karras_sigmas": false, "variance_type": null, MORE
  "_diffusers_version": "0.32.2"
}`

func TestReadsOtherWaysOfSampling(t *testing.T) {
	const (
		fallback = "ddim leading clip"
		multi    = "DPMSolverMultistepScheduler"
		single   = "DPMSolverSinglestepScheduler"
		uni      = "UniPCMultistepScheduler"
		euler    = "EulerDiscreteScheduler"
		heun     = "HeunDiscreteScheduler"
	)
	for _, test := range []struct {
		class, algorithm, order string
		more                    string // keys that come after the others
		want                    string // sampler, spacing, and what else there is
		note                    string // in the only note; none if empty
	}{
		{multi, "dpmsolver++", "2", "", "dpmpp_2m trailing", ""},
		{multi, "sde-dpmsolver++", "2", "", "dpmpp_sde_2m trailing", ""},
		{multi, "dpmsolver++", "1", "", "ddim trailing", ""},
		{multi, "dpmsolver++", "3", "", "ddim linspace clip", `DPMSolverMultistepScheduler with algorithm_type "dpmsolver++" with solver_order 3`},
		{multi, "dpmsolver", "2", "", "ddim linspace clip", `with algorithm_type "dpmsolver"`},
		{multi, "sde-dpmsolver++", "1", "", "ddim linspace clip", "only the training schedule"},
		{multi, "dpmsolver++", "2", `"timestep_spacing": "leading",`, "dpmpp_2m leading", ""},
		{multi, "dpmsolver++", "2", `"timestep_spacing": "trailing",`, "dpmpp_2m trailing", ""},
		{multi, "dpmsolver++", "2", `"use_karras_sigmas": true,`, "dpmpp_2m karras", ""},
		{multi, "dpmsolver++", "2", `"use_karras_sigmas": null, "use_lu_lambdas": true,`, "dpmpp_2m logsnr", ""},
		{multi, "dpmsolver++", "2", `"use_exponential_sigmas": true,`, "dpmpp_2m logsnr", ""},
		{multi, "dpmsolver++", "2", `"use_beta_sigmas": true,`, "dpmpp_2m trailing", "use_beta_sigmas is not used: the spacing is trailing"},
		{multi, "dpmsolver++", "2", `"solver_type": "heun",`, "dpmpp_2m trailing", `solver_type "heun" is not used`},
		{multi, "dpmsolver++", "2", `"solver_type": "midpoint",`, "dpmpp_2m trailing", ""},
		{multi, "dpmsolver++", "2", `"final_sigmas_type": "sigma_min",`, "dpmpp_2m trailing", "the last step ends at a clean image"},
		{multi, "dpmsolver++", "2", `"steps_offset": 1,`, "dpmpp_2m trailing", "steps_offset 1 is not used"},
		{multi, "dpmsolver++", "2", `"thresholding": true,`, "dpmpp_2m trailing clip", ""},
		{multi, "dpmsolver++", "2", `"thresholding": true, "sample_max_value": 2,`, "dpmpp_2m trailing threshold", "sample_max_value 2 is not used"},
		{multi, "dpmsolver++", "2", `"clip_sample": true,`, "dpmpp_2m trailing", ""}, // of another class
		{single, "dpmsolver++", "2", "", "dpmpp_2s trailing", ""},
		{single, "dpmsolver", "2", "", "dpm_solver_2 trailing", ""},
		{single, "dpmsolver", "3", `"use_karras_sigmas": true,`, "dpm_solver_3 karras", ""},
		{single, "dpmsolver++", "1", "", "ddim trailing", ""},
		{single, "dpmsolver++", "3", "", "ddim linspace clip", "only the training schedule"},
		{uni, "", "2", `"predict_x0": true, "solver_type": "bh2",`, "unipc trailing", ""},
		{uni, "", "3", `"use_karras_sigmas": true,`, "unipc_3 karras", ""},
		{uni, "", "2", `"solver_type": "bh1",`, "unipc trailing", `solver_type "bh1" is not used`},
		{uni, "", "2", `"predict_x0": false,`, "ddim linspace clip", "with predict_x0 false"},
		{uni, "", "4", "", "ddim linspace clip", "with solver_order 4"},
		{euler, "", "0", "", "euler linspace", ""},
		{euler, "", "0", `"use_karras_sigmas": true, "timestep_type": "discrete",`, "euler karras", ""},
		{"EulerAncestralDiscreteScheduler", "", "0", "", "euler_ancestral linspace eta", ""},
		{heun, "", "0", "", "heun linspace", ""},
		{euler, "", "0", `"thresholding": true, "clip_sample": true,`, "euler linspace", ""}, // of another class
		{heun, "", "0", `"clip_sample": null,`, "heun linspace", ""},
		{heun, "", "0", `"clip_sample": true, "use_karras_sigmas": true,`, "heun karras clip", ""},
		{"DEISMultistepScheduler", "deis", "2", `"timestep_spacing": "leading",`, fallback, "only the training schedule of DEISMultistepScheduler is used"},
	} {
		t.Run(test.class+" "+test.algorithm+test.order+test.more, func(t *testing.T) {
			f := newFolder(t)
			f.write("scheduler/scheduler_config.json",
				strings.NewReplacer("CLASS", test.class, "ALGORITHM", test.algorithm, "ORDER", test.order, "MORE", test.more).Replace(solverText))
			p := &Pipeline{}
			if err := p.readScheduler(f.path + "/scheduler/scheduler_config.json"); err != nil {
				t.Fatal(err)
			}
			if p.Diffusion != ddpmDefaults {
				t.Errorf("process %+v, want %+v", p.Diffusion, ddpmDefaults)
			}
			words := strings.Fields(test.want)
			want := sched.SamplerConfig{Sampler: words[0], Steps: 50, Spacing: words[1], Variance: "fixed_small", Guidance: 1, GuidanceTo: 1}
			for _, word := range words[2:] {
				switch word {
				case "clip":
					want.Clip = true
				case "eta":
					want.Eta = 1
				case "threshold":
					want.Threshold = 0.995
				}
			}
			if p.Sample != want {
				t.Errorf("sampling %+v, want %+v", p.Sample, want)
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

// The unet says whether there are variances, the scheduler what they mean.
func TestReadsLearnedVariances(t *testing.T) {
	for _, test := range []struct {
		kind any
		want string
		note string
	}{
		{"learned_range", "learned", ""},
		{"fixed_large", "fixed_large", "variances in that range all the same"},
		{nil, "fixed_small", "variances in that range all the same"},
	} {
		f := newFolder(t)
		f.json("unet/config.json", with(cifar10, map[string]any{"out_channels": 6}))
		f.json("scheduler/scheduler_config.json", with(ddpmConfig, map[string]any{"variance_type": test.kind}))
		p := &Pipeline{}
		for _, err := range []error{p.readUNet(f.path + "/unet/config.json"), p.readScheduler(f.path + "/scheduler/scheduler_config.json")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if !p.Model.LearnSigma || p.Sample.Variance != test.want || p.Sample.Sampler != "ddpm" {
			t.Errorf("%v: learn_sigma %t, sampling %+v", test.kind, p.Model.LearnSigma, p.Sample)
		}
		if (test.note == "") != (len(p.Notes) == 0) || test.note != "" && !strings.Contains(p.Notes[0], test.note) {
			t.Errorf("%v: notes %q, want %q", test.kind, p.Notes, test.note)
		}
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
		{"beta_schedule", "laplace", []string{`"laplace"`, `"linear" or "scaled_linear" or "sigmoid" or "squaredcos_cap_v2"`}},
		{"beta_schedule", nil, []string{"text"}},
		{"trained_betas", []float64{0.1, 0.2}, []string{"[0.1,0.2]", "want null"}},
		{"timestep_values", []int{1}, []string{"want null"}},
		{"timestep_type", "continuous", []string{`want "discrete" or null`}},
		{"use_flow_sigmas", true, []string{"want false"}},
		{"rescale_betas_zero_snr", true, []string{"diffusion.zero_terminal_snr", "diffusion.prediction v or x0"}},
		{"rescale_betas_zero_snr", 1, []string{"true or false"}},
		{"thresholding", "yes", []string{"true or false"}},
		{"prediction_type", "flow_prediction", []string{`"epsilon" or "sample" or "v_prediction"`}},
		{"predict_epsilon", false, []string{"prediction_type", "agree"}},
		{"predict_epsilon", "no", []string{"true or false"}},
		{"variance_type", "learned", []string{`"fixed_large"`, `"fixed_small_log"`, `"learned_range"`}},
		{"variance_type", "learned_range", []string{"out_channels", "no variance"}},
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
