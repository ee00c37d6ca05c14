package kernels

import (
	"embed"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
)

//go:generate go run ./gen

//go:embed ptx
var ptx embed.FS

// LeastCUDA is the lowest version a driver may be of, as it tells it: 1000 times the
// major version and 10 times the minor. Version 8.0 of PTX came with CUDA 12.0.
const LeastCUDA = 12000

// Ptr is an address in device memory, as wide on the host as on the device.
type Ptr uint64

// Kernel is an entry point of the compiled sources.
type Kernel struct {
	Name   string       // in the PTX, unique over all modules of all sets
	Set    string       // the one that has it
	Module string       // the source it comes from, without folder and .cu
	Params reflect.Type // the struct it takes, the one argument of a launch
}

// set is the PTX of one architecture. Each kernel is in one set; the more demanding
// ones have faster ways to do what kernels of the first do too.
type set struct {
	name       string
	capability [2]int // the least that runs it
	only       bool   // and no other major version
}

// sets are ordered from the least to the most demanding.
var sets = []set{
	{name: "sm_80", capability: [2]int{8, 0}},
	{name: "sm_90a", capability: [2]int{9, 0}, only: true},
}

// Sets lists the architecture sets, from the least to the most demanding.
func Sets() []string {
	var names []string
	for _, s := range sets {
		names = append(names, s.name)
	}
	return names
}

// SetsFor lists the sets that a device of a compute capability, such as {9, 0}, runs,
// from the least to the most demanding.
func SetsFor(capability [2]int) []string {
	var names []string
	for _, s := range sets {
		enough := slices.Compare(capability[:], s.capability[:]) >= 0
		if enough && (!s.only || capability[0] == s.capability[0]) {
			names = append(names, s.name)
		}
	}
	return names
}

// Least is the lowest compute capability that any set runs on.
func Least() [2]int { return sets[0].capability }

// Modules lists the modules of a set by name, each the PTX of one source.
func Modules(set string) ([]string, error) {
	if !slices.Contains(Sets(), set) {
		return nil, fmt.Errorf("no kernels for %q, only for %s", set, strings.Join(Sets(), ", "))
	}
	entries, err := ptx.ReadDir(path.Join("ptx", set))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".ptx"); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// PTX is the text of a module, for the driver to compile.
func PTX(set, module string) (string, error) {
	text, err := ptx.ReadFile(path.Join("ptx", set, module+".ptx"))
	if err != nil {
		return "", fmt.Errorf("no module %q for %q", module, set)
	}
	return string(text), nil
}

// All lists every kernel by name.
func All() []Kernel { return slices.Clone(table) }

// Find looks a kernel up by its name.
func Find(name string) (Kernel, bool) {
	i, ok := slices.BinarySearchFunc(table, name, func(k Kernel, name string) int { return strings.Compare(k.Name, name) })
	if !ok {
		return Kernel{}, false
	}
	return table[i], true
}
