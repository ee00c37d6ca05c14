package driver

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// Each function that cuda.h declares has a slot under the name the library exports,
// but for cuInit, which the door defines; and each slot is of a function declared.
func TestSlotsAreWhatTheHeaderDeclares(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	header := read("door/include/cuda.h")
	exported := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#define (cu\w+) (cu\w+_v\d)$`).FindAllStringSubmatch(header, -1) {
		exported[m[1]] = m[2]
	}
	var declared []string
	for _, m := range regexp.MustCompile(`(?m)^CUresult (cu\w+)\(`).FindAllStringSubmatch(header, -1) {
		name := m[1]
		if as, ok := exported[name]; ok {
			name = as
			delete(exported, m[1])
		}
		if name != "cuInit" {
			declared = append(declared, name)
		}
	}
	for name, as := range exported {
		t.Errorf("%s is defined as %s and not declared", name, as)
	}
	var slots []string
	for _, m := range regexp.MustCompile(`(?m)^SLOT\((\w+)\)$`).FindAllStringSubmatch(read("door/symbols.h"), -1) {
		slots = append(slots, m[1])
	}
	if len(slots) == 0 || !slices.IsSorted(slots) {
		t.Errorf("%d slots, not in order", len(slots))
	}
	slices.Sort(declared)
	if !slices.Equal(declared, slots) {
		for _, name := range declared {
			if !slices.Contains(slots, name) {
				t.Errorf("%s has no slot", name)
			}
		}
		for _, name := range slots {
			if !slices.Contains(declared, name) {
				t.Errorf("slot %s is of no function", name)
			}
		}
		t.Errorf("%d functions, %d slots", len(declared), len(slots))
	}
}
