package config

import "reflect"

// Change is a key whose value differs between two configurations, with both
// values as YAML writes them.
type Change struct {
	Key, From, To string
}

// Changes lists the keys whose values differ, in the order of Marshal.
func Changes(from, to *Config) []Change {
	var all []Change
	for _, l := range leaves {
		a, b := format(reflect.ValueOf(l.get(from))), format(reflect.ValueOf(l.get(to)))
		if a != b {
			all = append(all, Change{l.key, a, b})
		}
	}
	return all
}

// Portable is the configuration without what belongs to the machine, the device
// and the threads: they change neither what a run computes nor what is in its
// checkpoints.
func (c Config) Portable() Config {
	defaults := Default()
	c.Device, c.Threads = defaults.Device, defaults.Threads
	return c
}
