package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"

	"ddpm/configs"
	"ddpm/internal/distill"
	"ddpm/internal/sched"
)

// Where a value came from, in Resolved.Origins and at the end of errors. Files
// give "path:line", the environment "env DDPM_TRAIN_LR", flags their name.
const (
	OriginDefault = "default"
	OriginSet     = "--set"
	OriginTeacher = "the teacher"
)

// DefaultPreset is the configuration of a run that names none.
const DefaultPreset = "shapes"

const (
	presetFolder = "configs"
	maxFileSize  = 1 << 20
)

// otherVariables are read elsewhere in the program.
var otherVariables = []string{"DDPM_CACHE", "DDPM_CPU", "DDPM_KERNELS", "DDPM_LIBCUDA"}

// Options says where settings come from, besides the defaults.
type Options struct {
	Config  string   // path, or name of a file in configs/ or of a preset, with or without .yaml; "" is DefaultPreset
	Text    []byte   // the YAML itself, where it is not in a file of its own: Config is then only its name
	Set     []string // key=value, the later one wins
	Flags   []Flag   // that are short for keys; they win
	Environ []string // as os.Environ returns it; empty values do not count

	// Teacher, if not nil, says what data, model and diffusion are by default: those that a
	// student has of its teacher, and with them how far the teacher is guided.
	Teacher *Config
	// Saved, if not nil, is the configuration in Text, of a run that goes on. What follows in it from
	// other keys follows anew.
	Saved *Config
}

// Flag is a value that a flag of the command line gives a key; Origin is the flag, such as "--steps".
type Flag struct{ Key, Value, Origin string }

// Resolved is a valid configuration and where each value came from.
type Resolved struct {
	Config
	Origins map[string]string // by key: OriginDefault, "path:line", "env NAME", OriginSet or a flag
	Name    string            // base name of the file or preset, without .yaml
	Source  string            // path of the file, or "preset NAME"
}

// Load resolves and validates the configuration of a run. Later sources win:
// defaults, file, environment, --set, flags.
func Load(options Options) (*Resolved, error) {
	file := &file{baseName(options.Config), options.Config, options.Text}
	if options.Text == nil {
		var err error
		if file, err = find(options.Config); err != nil {
			return nil, err
		}
	}
	stack := newLayers()
	stack.inherit(options.Teacher)
	if err := stack.addFile(file.text, file.source); err != nil {
		return nil, err
	}
	if err := stack.addEnvironment(options.Environ); err != nil {
		return nil, err
	}
	if err := stack.addSet(options.Set); err != nil {
		return nil, err
	}
	for _, f := range options.Flags {
		if err := stack.override(f.Key, f.Value, f.Origin); err != nil {
			return nil, err
		}
	}
	config, err := stack.unmarshal()
	if err != nil {
		return nil, err
	}
	r := &Resolved{Config: *config, Origins: stack.origins, Name: file.name, Source: file.source}
	if options.Saved != nil {
		for _, f := range followers(options.Saved) {
			if f.Value == format(reflect.ValueOf(leafOf[f.Key].get(options.Saved))) && strings.HasPrefix(r.Origins[f.Key], file.source+":") {
				r.Origins[f.Key] = OriginDefault
			}
		}
	}
	for _, f := range followers(&r.Config) {
		origin := r.Origins[f.Key]
		// A whole configuration, such as that of the teacher's run, says what its network is.
		whole := f.Key == "diffusion.consistency" && origin != OriginSet
		if origin == OriginDefault || origin == OriginTeacher || whole {
			if err := r.Set(f.Key, f.Value, f.Origin); err != nil {
				return nil, err
			}
		}
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return r, nil
}

// followers are keys whose default follows from others, with that default.
func followers(c *Config) []Flag {
	if c.Distill.Method == distill.None {
		if c.Model.LearnSigma {
			return []Flag{{"sample.variance", sched.Learned.String(), "model.learn_sigma"}}
		}
		return nil
	}
	method := "distill.method " + c.Distill.Method
	all := []Flag{{"diffusion.consistency", strconv.FormatBool(c.Distill.Method == distill.Consistency), method}}
	if sampler, spacing, steps, ok := c.Distill.Sampling(c.Diffusion.T, c.Train.Steps); ok {
		all = append(all,
			Flag{"sample.sampler", sampler, method}, Flag{"sample.spacing", spacing, method}, Flag{"sample.steps", strconv.Itoa(steps), method})
	}
	return all
}

// Parse reads the YAML that Marshal wrote. Keys that are missing, because an
// older version wrote it, have their defaults; a key that is unknown here is an
// error.
func Parse(text []byte) (*Config, error) {
	stack := newLayers()
	if err := stack.addFile(text, "saved config"); err != nil {
		return nil, fmt.Errorf("%w: it is damaged or was written by another version of ddpm", err)
	}
	config, err := stack.unmarshal()
	if err != nil {
		return nil, err
	}
	if err := config.Validate(); err != nil {
		return nil, from(err, "saved config")
	}
	return config, nil
}

// Set overrides one key, as a flag of the command line does; origin is the
// flag, such as "--steps". Call Validate after the last one.
func (r *Resolved) Set(key, value, origin string) error {
	if err := r.Config.Set(key, value, origin); err != nil {
		return err
	}
	r.Origins[key] = origin
	return nil
}

// dotted is a key with its section.
var dotted = regexp.MustCompile(`[a-z]+\.[a-z0-9_]+`)

// Validate is Config.Validate; its errors say where the values came from.
func (r *Resolved) Validate() error {
	err := r.Config.Validate()
	if err == nil {
		return nil
	}
	first, _, _ := strings.Cut(err.Error(), " ")
	var keys, origins []string
	for _, key := range append([]string{first}, dotted.FindAllString(err.Error(), -1)...) {
		if leafOf[key] != nil && !slices.Contains(keys, key) {
			keys = append(keys, key)
			origins = append(origins, key+" from "+r.Origins[key])
		}
	}
	if len(keys) == 1 {
		return from(err, r.Origins[keys[0]])
	}
	return from(err, strings.Join(origins, ", "))
}

// layers stacks the sources in viper, which knows what goes over what. Every
// value has its final type before viper sees it.
type layers struct {
	viper   *viper.Viper
	origins map[string]string
}

func newLayers() *layers {
	s := &layers{viper.New(), make(map[string]string, len(leaves))}
	defaults := Default()
	for _, l := range leaves {
		s.viper.SetDefault(l.key, l.get(&defaults))
		s.origins[l.key] = OriginDefault
	}
	return s
}

// inherit makes values of a teacher defaults.
func (s *layers) inherit(teacher *Config) {
	for _, l := range leaves {
		if teacher != nil && slices.Contains([]string{"data", "model", "diffusion"}, l.section) {
			s.viper.SetDefault(l.key, l.get(teacher))
			s.origins[l.key] = OriginTeacher
		}
		if name, guides := strings.CutPrefix(l.key, "distill.guidance_"); guides && teacher != nil {
			s.viper.SetDefault(l.key, leafOf["sample.guidance_"+name].get(teacher))
			s.origins[l.key] = OriginTeacher
		}
	}
}

func (s *layers) addFile(text []byte, source string) error {
	settings, err := readYAML(text, source)
	if err != nil {
		return err
	}
	tree := map[string]any{}
	for _, f := range settings {
		s.origins[f.leaf.key] = f.origin
		branch := tree
		if f.leaf.section != "" {
			if tree[f.leaf.section] == nil {
				tree[f.leaf.section] = map[string]any{}
			}
			branch = tree[f.leaf.section].(map[string]any)
		}
		branch[f.leaf.name] = f.value
	}
	return s.viper.MergeConfigMap(tree)
}

func (s *layers) addEnvironment(environ []string) error {
	names := make([]string, 0, len(leaves))
	keys := make(map[string]string, len(leaves))
	for _, l := range leaves {
		names = append(names, l.variable())
		keys[l.variable()] = l.key
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "DDPM_") || slices.Contains(otherVariables, name) {
			continue
		}
		key, known := keys[name]
		if !known {
			return fmt.Errorf("%s %s: unknown environment variable, want DDPM_ and a key, such as DDPM_TRAIN_LR for train.lr%s",
				name, showText(value), didYouMean(nearest(name, names)))
		}
		if value == "" {
			continue
		}
		if err := s.override(key, value, "env "+name); err != nil {
			return err
		}
	}
	return nil
}

func (s *layers) addSet(set []string) error {
	for _, entry := range set {
		key, value, found := strings.Cut(entry, "=")
		if key = strings.TrimSpace(key); !found || key == "" {
			return fmt.Errorf("--set %q: want key=value, such as train.lr=1e-4", entry)
		}
		if err := s.override(key, strings.TrimSpace(value), OriginSet); err != nil {
			return err
		}
	}
	return nil
}

func (s *layers) override(key, value, origin string) error {
	_, v, err := parseSetting(key, value)
	if err != nil {
		return from(err, origin)
	}
	s.viper.Set(key, v)
	s.origins[key] = origin
	return nil
}

func (s *layers) unmarshal() (*Config, error) {
	config := new(Config)
	err := s.viper.UnmarshalExact(config, func(d *mapstructure.DecoderConfig) {
		d.WeaklyTypedInput = false
		d.DecodeHook = nil
	})
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return config, nil
}

// file is the text of a configuration, found.
type file struct {
	name, source string
	text         []byte
}

// find looks a configuration up: as a path, in configs/ of the working
// directory, among the presets.
func find(config string) (*file, error) {
	var paths []string
	name := config
	if config == "" {
		name = DefaultPreset
	} else {
		paths = append(paths, config, config+".yaml")
	}
	bare := filepath.Base(name) == name && name != "." && name != ".."
	if bare {
		paths = append(paths, filepath.Join(presetFolder, name), filepath.Join(presetFolder, name+".yaml"))
	}
	for _, path := range paths {
		text, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, errFolder) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		return &file{baseName(path), path, text}, nil
	}
	if bare {
		preset := strings.TrimSuffix(name, ".yaml")
		if text, err := configs.Files.ReadFile(preset + ".yaml"); err == nil {
			return &file{preset, "preset " + preset, text}, nil
		}
	}
	presets := Presets()
	return nil, fmt.Errorf("--config %q: no such file or preset, want a path or one of %s%s",
		config, strings.Join(presets, ", "), didYouMean(nearest(baseName(name), presets)))
}

// Presets lists the configurations in the binary.
func Presets() []string {
	entries, err := configs.Files.ReadDir(".")
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = strings.TrimSuffix(entry.Name(), ".yaml")
	}
	slices.Sort(names)
	return names
}

var errFolder = errors.New("is a folder")

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errFolder
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFileSize {
		return nil, fmt.Errorf("%s: larger than %d bytes, want a YAML file of settings", path, maxFileSize)
	}
	return text, nil
}

// baseName is the file's name without folder and .yaml or .yml.
func baseName(path string) string {
	base := filepath.Base(path)
	for _, suffix := range []string{".yaml", ".yml"} {
		if short := strings.TrimSuffix(base, suffix); short != base && short != "" {
			return short
		}
	}
	return base
}
