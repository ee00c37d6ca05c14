//go:build gpu && !cpu

package driver

/*
#cgo CFLAGS: -Wall
#cgo LDFLAGS: -lcuda -ldl
#include <cuda.h>
#ifndef DDPM_CUDA_H
#error "this is the cuda.h of a CUDA toolkit: build with the flags that make cuda-env prints"
#endif
#include <door.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"ddpm/internal/graph/cuda/kernels"
)

// Available says why no GPU can be used: nil if the driver is there and works,
// though it may have no devices.
func Available() error { return available() }

var available = sync.OnceValue(func() error {
	if err := shut(C.door_open()); err != nil {
		return err
	}
	if version := cu.Version(); version < kernels.LeastCUDA {
		return fmt.Errorf("the NVIDIA driver is too old: it is of CUDA %s, and the kernels need %s or newer",
			versionText(version), versionText(kernels.LeastCUDA))
	}
	return nil
})

// shut is why the door did not open.
func shut(door *C.Door) error {
	library, text := C.GoString(door.library), C.GoString(door.text)
	switch door.state {
	case C.DOOR_OPEN:
		return nil
	case C.DOOR_NO_LIBRARY:
		if os.Getenv("DDPM_LIBCUDA") != "" {
			return fmt.Errorf("no NVIDIA driver: DDPM_LIBCUDA names a library that cannot be loaded: %s", text)
		}
		if strings.Contains(text, "No such file") {
			return fmt.Errorf("no NVIDIA driver: %s was not found", library)
		}
		return fmt.Errorf("no NVIDIA driver: %s", text)
	case C.DOOR_NOT_A_DRIVER:
		return fmt.Errorf("no NVIDIA driver: %s has no cuInit", library)
	}
	if text == "" {
		text = fmt.Sprintf("cuInit answers %d", door.code)
	}
	return fmt.Errorf("the NVIDIA driver reports: %s", text)
}

// has says whether the driver exports a function; an older one may lack it.
func has(function string) bool {
	name := C.CString(function)
	defer C.free(unsafe.Pointer(name))
	return C.door_has(name) != 0
}

// DriverVersion tells the driver and the CUDA version it is of, such as
// "550.54.14, CUDA 12.4"; of a driver that tells no version of its own only the
// latter.
func DriverVersion() (string, error) {
	if err := Available(); err != nil {
		return "", err
	}
	text := "CUDA " + versionText(cu.Version())
	module, err := os.ReadFile("/sys/module/nvidia/version")
	if err == nil {
		text = strings.TrimSpace(string(module)) + ", " + text
	}
	return text, nil
}

// versionText is 12.4 for 12040.
func versionText(version int) string { return fmt.Sprintf("%d.%d", version/1000, version%1000/10) }

var errClosed = errors.New("the device is closed")
