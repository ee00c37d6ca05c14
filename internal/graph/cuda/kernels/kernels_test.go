package kernels

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// entry is a kernel as the compiled PTX declares it: the parameter list, then the
// directives up to the body.
var entry = regexp.MustCompile(`(?s)\.visible \.entry (\w+)\(([^)]*)\)(.*?)\{`)

// param is a struct passed by value.
var param = regexp.MustCompile(`^\s*\.param \.align (\d+) \.b8 \w+_param_0\[(\d+)\]\s*$`)

// Each kernel of the table is in its module of its set, and takes one struct of the
// size of its twin here.
func TestKernelsMatchPTX(t *testing.T) {
	if len(All()) == 0 {
		t.Fatal("there are no kernels")
	}
	for _, set := range Sets() {
		modules, err := Modules(set)
		if err != nil {
			t.Fatal(err)
		}
		compiled := map[string]bool{}
		for _, module := range modules {
			text, err := PTX(set, module)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range entry.FindAllStringSubmatch(text, -1) {
				name := m[1]
				compiled[name] = true
				k, ok := Find(name)
				if !ok || k.Set != set || k.Module != module {
					t.Errorf("%s/%s has kernel %s; the table has it in module %q of %q", set, module, name, k.Module, k.Set)
					continue
				}
				p := param.FindStringSubmatch(m[2])
				if p == nil {
					t.Errorf("%s/%s: kernel %s takes %q, not one struct", set, module, name, strings.TrimSpace(m[2]))
					continue
				}
				if align, size := number(t, p[1]), number(t, p[2]); size != int(k.Params.Size()) || align != k.Params.Align() {
					t.Errorf("%s/%s: kernel %s takes %d bytes aligned to %d, and %v has %d aligned to %d",
						set, module, name, size, align, k.Params, k.Params.Size(), k.Params.Align())
				}
				if !strings.Contains(m[3], ".maxntid ") {
					t.Errorf("%s/%s: kernel %s has no BOUNDS", set, module, name)
				}
			}
		}
		for _, k := range All() {
			if k.Set == set && !compiled[k.Name] {
				t.Errorf("%s: kernel %s of the table was not compiled; run make kernels", set, k.Name)
			}
		}
	}
}

func number(t *testing.T, text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Every byte of a parameter struct belongs to a field: padding is explicit, so
// that it does not depend on the machine Go compiles for.
func TestParamsHaveNoHiddenPadding(t *testing.T) {
	var check func(reflect.Type)
	check = func(s reflect.Type) {
		at := uintptr(0)
		for i := range s.NumField() {
			f := s.Field(i)
			if f.Offset != at {
				t.Errorf("%v.%s lies at %d, want %d", s, f.Name, f.Offset, at)
			}
			at = f.Offset + f.Type.Size()
			inner := f.Type
			for inner.Kind() == reflect.Array {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				check(inner)
			}
		}
		if s.Size() != at {
			t.Errorf("%v has %d bytes, its fields %d", s, s.Size(), at)
		}
	}
	for _, k := range All() {
		check(k.Params)
	}
}

// eachModule calls f with the PTX of every module.
func eachModule(t *testing.T, f func(set, module, text string)) {
	t.Helper()
	for _, set := range Sets() {
		modules, err := Modules(set)
		if err != nil {
			t.Fatal(err)
		}
		for _, module := range modules {
			text, err := PTX(set, module)
			if err != nil {
				t.Fatal(err)
			}
			f(set, module, text)
		}
	}
}

// A driver of the least version compiles the PTX, and the device it is for is the
// one of its set.
func TestPTXVersions(t *testing.T) {
	version := regexp.MustCompile(`(?m)^\.version (\S+)\n\.target (\S+)\n\.address_size 64\n`)
	eachModule(t, func(set, module, text string) {
		m := version.FindStringSubmatch(text)
		if m == nil {
			t.Errorf("%s/%s does not say what it is", set, module)
			return
		}
		// CUDA 12.n brought version 8.n of PTX.
		if want := "8." + strconv.Itoa(LeastCUDA%1000/10); LeastCUDA/1000 != 12 || m[1] != want || m[2] != set {
			t.Errorf("%s/%s is PTX %s for %s", set, module, m[1], m[2])
		}
	})
}

// Arithmetic without a stated rounding may be merged by the driver's compiler, and
// would differ from what runs on the CPU.
func TestArithmeticIsRoundedAsWritten(t *testing.T) {
	loose := regexp.MustCompile(`\b(add|sub|mul|fma|div|sqrt)\.f(32|64)\b`)
	eachModule(t, func(set, module, text string) {
		if found := loose.FindString(text); found != "" {
			t.Errorf("%s/%s has %s", set, module, found)
		}
	})
}

func TestSetsFor(t *testing.T) {
	for _, c := range []struct {
		capability [2]int
		sets       []string
	}{
		{[2]int{7, 5}, nil},
		{[2]int{8, 0}, []string{"sm_80"}},
		{[2]int{8, 9}, []string{"sm_80"}},
		{[2]int{9, 0}, []string{"sm_80", "sm_90a"}},
		{[2]int{10, 0}, []string{"sm_80"}},
		{[2]int{12, 0}, []string{"sm_80"}},
	} {
		if sets := SetsFor(c.capability); !slices.Equal(sets, c.sets) {
			t.Errorf("SetsFor(%v) = %q, want %q", c.capability, sets, c.sets)
		}
	}
	if Least() != [2]int{8, 0} {
		t.Errorf("Least() = %v", Least())
	}
}

func TestLookupsThatFail(t *testing.T) {
	if k, ok := Find("no_such_kernel"); ok {
		t.Errorf("found %v", k)
	}
	if _, err := Modules("sm_20"); err == nil || !strings.Contains(err.Error(), "only for sm_80, sm_90a") {
		t.Errorf("Modules: %v", err)
	}
	if _, err := PTX("sm_80", "no_such_module"); err == nil || !strings.Contains(err.Error(), "no_such_module") {
		t.Errorf("PTX: %v", err)
	}
}
