package isa

import (
	"sync"
	"syscall"
)

// Linux makes room for the tile registers of a process only when it asks.
const (
	sysArchPrctl     = 158
	archReqXcompPerm = 0x1023
	xfeatureTileData = 18
)

// permitTiles asks once, for all threads.
var permitTiles = sync.OnceValue(func() bool {
	_, _, failure := syscall.RawSyscall(sysArchPrctl, archReqXcompPerm, xfeatureTileData, 0)
	return failure == 0
})
