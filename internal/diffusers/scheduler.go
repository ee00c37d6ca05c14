package diffusers

import (
	"fmt"
	"path/filepath"

	"ddpm/internal/sched"
)

// The schedulers whose every default is known here.
const (
	ddpmScheduler = "DDPMScheduler"
	ddimScheduler = "DDIMScheduler"
)

// The schedulers of other ways of sampling that are here too.
const (
	multistepScheduler      = "DPMSolverMultistepScheduler"
	singlestepScheduler     = "DPMSolverSinglestepScheduler"
	unipcScheduler          = "UniPCMultistepScheduler"
	eulerScheduler          = "EulerDiscreteScheduler"
	eulerAncestralScheduler = "EulerAncestralDiscreteScheduler"
	heunScheduler           = "HeunDiscreteScheduler"
)

// ddimSteps is what DDIMPipeline takes when it is not told. The library has no pipelines of
// unconditional images for other schedulers, so theirs is the same.
const ddimSteps = 50

// schedulerFixed are what would change the betas, the times that the network is told or every step of
// sampling in ways that are not supported. Keys that are not known are left alone: a
// scheduler made from another's configuration keeps all of the other's keys.
var schedulerFixed = []fixed{
	{"trained_betas", []any{nil}},
	{"timestep_values", []any{nil}},
	{"timestep_type", []any{"discrete", nil}},
	{"use_flow_sigmas", []any{false, nil}},
}

var (
	betaSchedules = map[string]string{
		"linear": "linear", "scaled_linear": "scaled_linear", "sigmoid": "sigmoid", "squaredcos_cap_v2": "cosine",
	}
	predictions = map[string]string{"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
	// The _log variants are the same variance by way of its logarithm. A variance_type
	// "learned", whose variance has no bounds, is not here.
	variances = map[string]string{
		"fixed_small": "fixed_small", "fixed_small_log": "fixed_small",
		"fixed_large": "fixed_large", "fixed_large_log": "fixed_large",
		"learned_range": "learned",
	}
	spacings = map[string]string{"leading": "leading", "trailing": "trailing", "linspace": "linspace"}
	// The linspace of the DPM solvers leaves out t = 0, which makes it trailing but for
	// one timestep.
	solverSpacings = map[string]string{"leading": "leading", "trailing": "trailing", "linspace": "trailing"}
)

// multistep and singlestep are samplers by algorithm_type and solver_order. A solver of
// order 1 is ddim.
var (
	multistep = map[string]string{
		"dpmsolver++ 1": "ddim", "dpmsolver++ 2": "dpmpp_2m", "dpmsolver 1": "ddim", "sde-dpmsolver++ 2": "dpmpp_sde_2m",
	}
	singlestep = map[string]string{
		"dpmsolver++ 1": "ddim", "dpmsolver++ 2": "dpmpp_2s", "dpmsolver 1": "ddim", "dpmsolver 2": "dpm_solver_2", "dpmsolver 3": "dpm_solver_3",
	}
	unipc = map[int]string{2: "unipc", 3: "unipc_3"}
)

// schedulerNames are the keys that settings of sched come from.
var schedulerNames = map[string]string{
	"diffusion.t":          "num_train_timesteps",
	"diffusion.schedule":   "beta_schedule",
	"diffusion.beta_start": "beta_start",
	"diffusion.beta_end":   "beta_end",
	"sample.threshold":     "dynamic_thresholding_ratio",

	"diffusion.zero_terminal_snr": "rescale_betas_zero_snr",
}

// readScheduler turns the configuration of a scheduler into Diffusion and
// Sample. Of a way of sampling that is not here only the process
// that the model was trained with is of use. The unet has been read.
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
	if class != ddpmScheduler && class != ddimScheduler {
		o.haveBetas(class)
	}
	o.require(schedulerFixed)
	d := sched.Config{
		T:               o.whole("num_train_timesteps", 1000),
		Schedule:        o.choose("beta_schedule", "linear", betaSchedules),
		BetaStart:       o.number("beta_start", 1e-4),
		BetaEnd:         o.number("beta_end", 0.02),
		Prediction:      o.prediction(),
		ZeroTerminalSNR: o.set("rescale_betas_zero_snr"),
	}
	s, counterpart := o.sampling(class, d.T)
	if !o.null("variance_type") {
		s.Variance = o.choose("variance_type", "fixed_small", variances)
	}
	if s.Variance == sched.Learned.String() && !p.Model.LearnSigma {
		o.fail("variance_type", "a fixed one, as the unet has as many out_channels as in_channels and so predicts no variance")
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
	p.noteSampling(o, class, counterpart)
	return o.err
}

// way is what the keys of a class of schedulers say about sampling, and their defaults.
type way struct {
	spacings   map[string]string // meanings of timestep_spacing
	spacing    string
	sigmas     bool // it has use_karras_sigmas and the like
	clips      bool // it has clip_sample
	clip       bool // which is on where it is absent
	thresholds bool // it has thresholding
	eta        float64
}

// ddimWay is also that of a scheduler whose sampling is not here.
var (
	ddimWay   = way{spacings: spacings, spacing: "leading", clips: true, clip: true, thresholds: true}
	solverWay = way{spacings: solverSpacings, spacing: "linspace", sigmas: true, thresholds: true}
	ways      = map[string]way{
		ddpmScheduler: ddimWay, ddimScheduler: ddimWay,
		multistepScheduler: solverWay, singlestepScheduler: solverWay, unipcScheduler: solverWay,
		eulerScheduler:          {spacings: spacings, spacing: "linspace", sigmas: true},
		eulerAncestralScheduler: {spacings: spacings, spacing: "linspace", eta: 1},
		heunScheduler:           {spacings: spacings, spacing: "linspace", sigmas: true, clips: true},
	}
)

// sampling reads how a scheduler samples, and reports whether that is a way known here; if not, it is
// that of DDIMPipeline.
func (o *object) sampling(class string, T int) (s sched.SamplerConfig, counterpart bool) {
	sampler, counterpart := o.method(class)
	w := ways[class]
	if !counterpart {
		sampler, w = "ddim", ddimWay
	}
	s = sched.SamplerConfig{
		Sampler: sampler, Steps: min(ddimSteps, T), Spacing: o.choose("timestep_spacing", w.spacing, w.spacings),
		Eta: w.eta, Variance: "fixed_small", Guidance: 1, GuidanceTo: 1,
	}
	if class == ddpmScheduler {
		s.Steps = T
	}
	switch {
	case w.sigmas && o.set("use_karras_sigmas"):
		s.Spacing = "karras"
	case w.sigmas && (o.set("use_exponential_sigmas") || o.set("use_lu_lambdas")):
		s.Spacing = "logsnr"
	}
	// Thresholding takes the place of clipping. Its limit is 1 or more, and at most
	// sample_max_value.
	ratio, largest := o.number("dynamic_thresholding_ratio", 0.995), o.number("sample_max_value", 1)
	switch {
	case w.thresholds && o.set("thresholding") && largest > 1:
		s.Threshold = ratio
	case w.thresholds && o.set("thresholding"):
		s.Clip = true
	case w.clip && o.flag("clip_sample", true), w.clips && o.set("clip_sample"):
		s.Clip = true
		if o.number("clip_sample_range", 1) != 1 {
			o.fail("clip_sample_range", "1, other ranges are not supported")
		}
	}
	return s, counterpart
}

// method is the sampler here that does what a scheduler of the library does, if there is one.
func (o *object) method(class string) (sampler string, ok bool) {
	solver := func(of map[string]string) (string, bool) {
		sampler, ok := of[fmt.Sprint(o.text("algorithm_type", "dpmsolver++"), " ", o.whole("solver_order", 2))]
		return sampler, ok
	}
	switch class {
	case ddpmScheduler:
		return "ddpm", true
	case ddimScheduler:
		return "ddim", true
	case multistepScheduler:
		return solver(multistep)
	case singlestepScheduler:
		return solver(singlestep)
	case unipcScheduler:
		sampler, ok = unipc[o.whole("solver_order", 2)]
		return sampler, ok && o.flag("predict_x0", true)
	case eulerScheduler:
		return "euler", true
	case eulerAncestralScheduler:
		return "euler_ancestral", true
	case heunScheduler:
		return "heun", true
	}
	return "", false
}

// set reads a switch that is off where it is absent or null.
func (o *object) set(key string) bool { return !o.null(key) && o.flag(key, false) }

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
func (p *Pipeline) noteSampling(o *object, class string, counterpart bool) {
	if p.Model.LearnSigma && p.Sample.Variance != sched.Learned.String() {
		p.note("%s: variance_type is not \"learned_range\"; what the unet predicts besides its in_channels is taken for variances in that range all the same", o.path)
	}
	if p.Sample.Threshold > 0 {
		p.note("%s: sample_max_value %s is not used: thresholding here divides an image by its limit whatever that is", o.path, show(o.fields["sample_max_value"]))
	}
	if !counterpart {
		which := class
		for _, key := range []string{"algorithm_type", "solver_order", "predict_x0"} {
			if value, ok := o.fields[key]; ok && o.known[key] {
				which += fmt.Sprintf(" with %s %s", key, show(value))
			}
		}
		p.note("%s: only the training schedule of %s is used, not its way of sampling; the default is %s with %d steps",
			o.path, which, p.Sample.Sampler, p.Sample.Steps)
		return
	}
	if offset := o.whole("steps_offset", 0); offset != 0 {
		p.note("%s: steps_offset %d is not used: the last step is at t = 0", o.path, offset)
	}
	switch class {
	case ddimScheduler:
		if !o.flag("set_alpha_to_one", true) {
			p.note("%s: set_alpha_to_one false is not used: the last step ends at a clean image", o.path)
		}
	case multistepScheduler, singlestepScheduler, unipcScheduler, eulerScheduler:
		if end := o.text("final_sigmas_type", "zero"); end != "zero" {
			p.note("%s: final_sigmas_type %q is not used: the last step ends at a clean image", o.path, end)
		}
		if o.set("use_beta_sigmas") {
			p.note("%s: use_beta_sigmas is not used: the spacing is %s", o.path, p.Sample.Spacing)
		}
	}
	if kind := o.text("solver_type", ""); kind == "heun" && (class == multistepScheduler || class == singlestepScheduler) || kind == "bh1" && class == unipcScheduler {
		p.note("%s: solver_type %q is not used: %s is the solver of the default type", o.path, kind, p.Sample.Sampler)
	}
}
