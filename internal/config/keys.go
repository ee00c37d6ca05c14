package config

import (
	"math"
	"reflect"
	"strings"

	"github.com/agnivade/levenshtein"

	"ddpm/internal/data"
	"ddpm/internal/distill"
	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// leaf is one key of the tree that holds a value.
type leaf struct {
	key     string // train.lr
	section string // train; "" at the top
	name    string // lr
	doc     string
	typ     reflect.Type
	index   []int // of the field, as reflect counts
}

var (
	leaves   = collect(reflect.TypeFor[Config](), "", nil)
	leafOf   = byKey(leaves)
	children = byParent(leaves)
)

func collect(typ reflect.Type, section string, index []int) []leaf {
	var all []leaf
	for i := range typ.NumField() {
		field := typ.Field(i)
		name := field.Tag.Get("mapstructure")
		at := append(append([]int{}, index...), i)
		switch {
		case name == ",squash":
			all = append(all, collect(field.Type, section, at)...)
		case field.Type.Kind() == reflect.Struct:
			all = append(all, collect(field.Type, name, at)...)
		default:
			key := name
			if section != "" {
				key = section + "." + name
			}
			all = append(all, leaf{key, section, name, field.Tag.Get("doc"), field.Type, at})
		}
	}
	return all
}

func byKey(leaves []leaf) map[string]*leaf {
	all := make(map[string]*leaf, len(leaves))
	for i := range leaves {
		all[leaves[i].key] = &leaves[i]
	}
	return all
}

// byParent lists the names in each section, and under "" the names at the top.
func byParent(leaves []leaf) map[string][]string {
	all := map[string][]string{}
	for _, l := range leaves {
		if _, seen := all[l.section]; !seen && l.section != "" {
			all[""] = append(all[""], l.section)
		}
		all[l.section] = append(all[l.section], l.name)
	}
	return all
}

func (l *leaf) get(c *Config) any {
	return reflect.ValueOf(c).Elem().FieldByIndex(l.index).Interface()
}

// set takes a value of the leaf's own type, as decode returns it.
func (l *leaf) set(c *Config, value any) {
	reflect.ValueOf(c).Elem().FieldByIndex(l.index).Set(reflect.ValueOf(value))
}

// variable is the environment variable of the key.
func (l *leaf) variable() string {
	return "DDPM_" + strings.ToUpper(strings.ReplaceAll(l.key, ".", "_"))
}

// choices are the words the key may hold, nil for any other kind of key.
func (l *leaf) choices() []string {
	switch l.key {
	case "device":
		return []string{"auto", "cpu", "cuda"}
	case "data.name":
		return data.Names()
	case "model.block":
		return model.BlockKinds()
	case "precision":
		return append([]string{autoPrecision}, graph.Precisions()...)
	case "model.conv":
		return graph.ConvAlgorithms()
	case "model.init":
		return model.InitKinds()
	case "diffusion.schedule":
		return sched.Names()
	case "diffusion.prediction":
		return sched.PredictionNames()
	case "train.loss":
		return train.LossKinds()
	case "train.weighting":
		return train.WeightingKinds()
	case "train.timesteps":
		return train.TimestepKinds()
	case "train.decay":
		return train.DecayKinds()
	case "distill.method":
		return distill.Methods()
	case "distill.solver":
		return distill.Solvers()
	case "distill.loss":
		return distill.Losses()
	case "distill.target":
		return distill.Targets()
	case "sample.sampler":
		return sched.SamplerChoices()
	case "sample.spacing":
		return sched.SpacingNames()
	case "sample.variance":
		return sched.VarianceNames()
	}
	return nil
}

// nearestKey is the key or section that was probably meant by an unknown one,
// or "". A misspelt name counts for more than a wrong section, so lr and
// diffusion.lr are train.lr.
func nearestKey(key string) string {
	const otherSection = 3
	section, name, found := strings.Cut(key, ".")
	if !found {
		section, name = "", key
	}
	best, cost := "", math.MaxInt
	consider := func(candidate, itsSection, itsName string) {
		d, near := misspelt(name, itsName)
		c := 2*d + min(levenshtein.ComputeDistance(section, itsSection), otherSection)
		if near && c < cost {
			best, cost = candidate, c
		}
	}
	for _, child := range children[""] {
		consider(child, "", child)
	}
	for _, l := range leaves {
		consider(l.key, l.section, l.name)
	}
	return best
}

// nearest is the known word closest to one that is unknown, or "" if none is
// close.
func nearest(word string, known []string) string {
	best, distance := "", math.MaxInt
	for _, candidate := range known {
		if d, near := misspelt(word, candidate); near && d < distance {
			best, distance = candidate, d
		}
	}
	return best
}

// misspelt counts the letters that differ and says whether those are few enough
// for one word to be a misspelling of the other.
func misspelt(word, known string) (distance int, near bool) {
	d := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(known))
	return d, d <= min(3, len(word)/2)
}

// didYouMean ends a sentence with the nearest spelling, if there is one.
func didYouMean(word string) string {
	if word == "" {
		return ""
	}
	return "; did you mean " + word + "?"
}
