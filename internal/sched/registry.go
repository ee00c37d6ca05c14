package sched

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// registry holds the named choices of one config key. Files add to it from
// init, so it is complete, and read only, before the program starts.
type registry[T any] struct {
	key     string
	entries map[string]T
}

func newRegistry[T any](key string) *registry[T] {
	return &registry[T]{key, map[string]T{}}
}

// register panics on a name taken twice: two files of this program disagree.
func (r *registry[T]) register(name string, entry T) {
	if _, taken := r.entries[name]; taken {
		panic(fmt.Sprintf("sched: %s %q is registered twice", r.key, name))
	}
	r.entries[name] = entry
}

func (r *registry[T]) names() []string { return slices.Sorted(maps.Keys(r.entries)) }

func (r *registry[T]) find(name string) (T, error) {
	entry, ok := r.entries[name]
	if !ok {
		return entry, unknown(r.key, name, r.names())
	}
	return entry, nil
}

func unknown(key, name string, choices []string) error {
	return fmt.Errorf("%s %q: want one of %s", key, name, strings.Join(choices, ", "))
}
