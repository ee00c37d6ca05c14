package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"ddpm/internal/config"
	"ddpm/internal/distill"
	"ddpm/internal/graph"
)

// settings are the flags that choose and change a configuration.
type settings struct {
	config string
	set    []string
	keyFlags
}

func (s *settings) add(f *pflag.FlagSet) {
	f.StringVar(&s.config, "config", "", "a YAML file, a file in configs/, or a preset (default "+config.DefaultPreset+")")
	f.StringArrayVar(&s.set, "set", nil, "change one key, as in train.lr=1e-4; may be repeated")
}

// load resolves the configuration: defaults, file, environment, --set, flags.
func (s *settings) load(file config.Options) (*config.Resolved, error) {
	file.Set, file.Environ = s.set, os.Environ()
	err := s.apply(func(key, value, origin string) error {
		file.Flags = append(file.Flags, config.Flag{Key: key, Value: value, Origin: origin})
		return nil
	})
	if err != nil {
		return nil, err
	}
	r, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	if origin := r.Origins["distill.teacher"]; origin == config.OriginSet || strings.HasPrefix(origin, "env ") {
		return nil, fmt.Errorf("distill.teacher %s: ddpm distill --from names the teacher (%s)", r.Distill.Teacher, origin)
	}
	return r, nil
}

// loadRun is load, but for students without a teacher, whose network is not known.
func (s *settings) loadRun() (*config.Resolved, error) {
	r, err := s.load(config.Options{Config: s.config})
	if err == nil && r.Distill.Method != distill.None && r.Distill.Teacher == "" {
		return nil, fmt.Errorf("distill.method %s: the network is the teacher's, which %s does not name: use ddpm distill --from RUN --dry-run",
			r.Distill.Method, r.Source)
	}
	return r, err
}

// keyFlags are flags that are short for keys of the configuration.
type keyFlags []*keyFlag

type keyFlag struct {
	flag, key, kind string
	value           string
	given           bool
}

// key adds a flag for a key of the configuration. kind is shown in the help.
func (k *keyFlags) key(f *pflag.FlagSet, flag, key, kind, help string) {
	kf := &keyFlag{flag: flag, key: key, kind: kind}
	*k = append(*k, kf)
	p := f.VarPF(kf, flag, "", help)
	if kind == "bool" { // the flag alone means true
		p.NoOptDefVal = "true"
	}
}

// addMachine adds the flags for the machine.
func (k *keyFlags) addMachine(f *pflag.FlagSet) {
	k.key(f, "device", "device", "NAME", "what the network runs on: auto, cpu, cuda, or cuda:1 for the second GPU")
	k.key(f, "threads", "threads", "N", "CPU threads; 0 uses all cores")
	k.key(f, "precision", "precision", "NAME", "operands of convolutions and linear layers: fp32, tf32, bf16, or auto: bf16 on a GPU, fp32 on a CPU; a resumed run keeps its own")
}

// apply hands the flags that were given to the Set of a configuration.
func (k keyFlags) apply(set func(key, value, origin string) error) error {
	for _, f := range k {
		if !f.given {
			continue
		}
		if err := set(f.key, f.value, "--"+f.flag); err != nil {
			return err
		}
	}
	return nil
}

// Set, String and Type make a keyFlag a pflag.Value. The value is checked where
// all values are: in package config.
func (f *keyFlag) Set(value string) error {
	f.value, f.given = value, true
	return nil
}

func (f *keyFlag) String() string { return f.value }

func (f *keyFlag) Type() string { return f.kind }

// machine is the configuration in which the device, its threads and precision are
// set, for a network whose checkpoint is not open yet. Of the environment only
// these count then: the others are settings of a run, and a checkpoint has its
// own. It may be of another precision: what was trained in bf16 on one machine is
// sampled in fp32 on another.
func (k keyFlags) machine() (*config.Config, error) {
	c := config.Default()
	for _, key := range []string{"device", "threads", "precision"} {
		name := "DDPM_" + strings.ToUpper(key)
		if value := os.Getenv(name); value != "" {
			if err := c.Set(key, value, "env "+name); err != nil {
				return nil, err
			}
		}
		for _, f := range k {
			if f.key == key && f.given {
				if err := c.Set(key, f.value, "--"+f.flag); err != nil {
					return nil, err
				}
			}
		}
	}
	return &c, c.Validate()
}

func isNotBuilt(err error) bool {
	var e *graph.NotBuilt
	return errors.As(err, &e)
}

// row prints a label and what it says.
func row(out io.Writer, label, format string, args ...any) {
	fmt.Fprintf(out, "%-12s%s\n", label, fmt.Sprintf(format, args...))
}

// counted is a number of things: "1 image", "2 images".
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
