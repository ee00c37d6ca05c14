//go:build !linux

package isa

// permitTiles is whether this process may use the tile registers: how to ask
// other systems than Linux is not known here.
func permitTiles() bool { return false }
