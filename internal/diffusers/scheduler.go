package diffusers

import (
	"path/filepath"

	"ddpm/internal/sched"
)

// The schedulers whose defaults, and way of sampling, are known here.
const (
	ddpmScheduler = "DDPMScheduler"
	ddimScheduler = "DDIMScheduler"
)

// ddimSteps is what DDIMPipeline takes when it is not told.
const ddimSteps = 50

// schedulerFixed are what would change the betas or every step of sampling in
// ways that are not supported. Keys that are not known are left alone: a
// scheduler made from another's configuration keeps all of the other's keys.
var schedulerFixed = []fixed{
	{"trained_betas", []any{nil}},
	{"timestep_values", []any{nil}},
	{"rescale_betas_zero_snr", []any{false, nil}},
	{"thresholding", []any{false, nil}},
}

var (
	betaSchedules = map[string]string{"linear": "linear", "squaredcos_cap_v2": "cosine"}
	predictions   = map[string]string{"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
	// The _log variants are the same variance by way of its logarithm.
	variances = map[string]string{
		"fixed_small": "fixed_small", "fixed_small_log": "fixed_small",
		"fixed_large": "fixed_large", "fixed_large_log": "fixed_large",
	}
	spacings = map[string]string{"leading": "leading", "trailing": "trailing", "linspace": "linspace"}
)

// schedulerNames are the keys that settings of sched come from.
var schedulerNames = map[string]string{
	"diffusion.t":          "num_train_timesteps",
	"diffusion.schedule":   "beta_schedule",
	"diffusion.beta_start": "beta_start",
	"diffusion.beta_end":   "beta_end",
}

// readScheduler turns the configuration of a scheduler into Diffusion and
// Sample. Of other classes than DDPMScheduler and DDIMScheduler only the process
// that the model was trained with is of use.
func (p *Pipeline) readScheduler(path string) error {
	o, err := readObject(path)
	if err != nil {
		return err
	}
	class := o.text("_class_name", "")
	if class == "" {
		o.failf("it has no _class_name: want the class of the scheduler, such as %q", ddpmScheduler)
	}
	return p.scheduler(o, class)
}

// assumeScheduler is for a folder without one.
func (p *Pipeline) assumeScheduler(dir string) error {
	o := newObject(filepath.Join(dir, schedulerConfig))
	p.note("%s is missing: the model is taken to predict eps for a linear schedule of 1000 steps, the defaults of %s; where the folder is part of a pipeline, name the pipeline's folder",
		o.path, ddpmScheduler)
	return p.scheduler(o, ddpmScheduler)
}

func (p *Pipeline) scheduler(o *object, class string) error {
	native := class == ddpmScheduler || class == ddimScheduler
	if !native {
		o.haveBetas(class)
	}
	o.require(schedulerFixed)
	d := sched.Config{
		T:          o.whole("num_train_timesteps", 1000),
		Schedule:   o.choose("beta_schedule", "linear", betaSchedules),
		BetaStart:  o.number("beta_start", 1e-4),
		BetaEnd:    o.number("beta_end", 0.02),
		Prediction: o.prediction(),
	}
	s := sched.SamplerConfig{
		Sampler:  "ddim",
		Steps:    min(ddimSteps, d.T),
		Spacing:  o.choose("timestep_spacing", "leading", spacings),
		Variance: "fixed_small",
		Clip:     o.flag("clip_sample", true),
	}
	if class == ddpmScheduler {
		s.Sampler, s.Steps = "ddpm", d.T
	}
	if !o.null("variance_type") {
		s.Variance = o.choose("variance_type", "fixed_small", variances)
	}
	if limit := o.number("clip_sample_range", 1); s.Clip && limit != 1 {
		o.fail("clip_sample_range", "1, other ranges are not supported")
	}
	if o.err != nil {
		return o.err
	}
	if err := o.explain(d.Validate(), schedulerNames); err != nil {
		return err
	}
	if err := o.explain(s.Validate(d.T), schedulerNames); err != nil {
		return err
	}
	p.Diffusion, p.Sample = d, s
	p.noteSampling(o, class, native)
	return o.err
}

// haveBetas checks that a scheduler without known defaults says what its betas
// are.
func (o *object) haveBetas(class string) {
	for _, key := range []string{"num_train_timesteps", "beta_schedule", "beta_start", "beta_end"} {
		if !o.has(key) {
			o.failf("%s has no %s: want a scheduler with a table of betas, such as %s or %s", class, key, ddpmScheduler, ddimScheduler)
		}
	}
}

// prediction reads what the network predicts. Early versions told two cases by
// a flag.
func (o *object) prediction() string {
	const key, old = "prediction_type", "predict_epsilon"
	if !o.has(old) || o.null(old) {
		return o.choose(key, "epsilon", predictions)
	}
	absent := "epsilon"
	if !o.flag(old, true) {
		absent = "sample"
	}
	value := o.choose(key, absent, predictions)
	if (absent == "epsilon") != (value == "eps") {
		o.failf("%s is %s and %s is %s: want them to agree", key, show(o.fields[key]), old, show(o.fields[old]))
	}
	return value
}

// noteSampling tells where sampling here departs from the scheduler's.
func (p *Pipeline) noteSampling(o *object, class string, native bool) {
	if !native {
		p.note("%s: only the training schedule of %s is used, not its way of sampling; the default is %s with %d steps",
			o.path, class, p.Sample.Sampler, p.Sample.Steps)
		return
	}
	if offset := o.whole("steps_offset", 0); offset != 0 {
		p.note("%s: steps_offset %d is not used: the last step is at t = 0", o.path, offset)
	}
	if class == ddimScheduler && !o.flag("set_alpha_to_one", true) {
		p.note("%s: set_alpha_to_one false is not used: the last step ends at a clean image", o.path)
	}
}
