// Package configs holds the presets: configurations that are part of the
// binary, found by name where no file of that name exists.
package configs

import "embed"

// Files holds one YAML file a preset.
//
//go:embed *.yaml
var Files embed.FS
