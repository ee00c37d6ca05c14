//go:build gpu && !cpu

package driver

/*
#include <cuda.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"reflect"
)

// What an Error may be, for errors.Is.
var (
	// ErrOutOfMemory: the device, or the host for pinned memory, has too little left.
	ErrOutOfMemory = errors.New("out of memory")
	// ErrDeviceLost: the context is broken and every further call fails. What was
	// in device memory is gone; only a new process can use the device again.
	ErrDeviceLost = errors.New("the GPU is lost")
)

// Error is a call of the driver that failed.
type Error struct {
	Action string // what it was for: "launching conv_forward on 4x1x1 blocks of 256 threads"
	Call   string // the function of the driver
	Code   int    // CUresult
	Name   string // of the code: CUDA_ERROR_OUT_OF_MEMORY
	Text   string // the driver's words: "out of memory"
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (%s: %s)", e.Action, e.Text, e.Call, e.Name)
}

// Is reports what kind of failure it was.
func (e *Error) Is(kind error) bool {
	switch kind {
	case ErrOutOfMemory:
		return e.Code == C.CUDA_ERROR_OUT_OF_MEMORY
	case ErrDeviceLost:
		return lost[e.Code]
	}
	return false
}

// lost holds the errors that leave a context unusable: faults of a kernel, of the
// memory or of the hardware. A device that vanished, an Xid 79 in the kernel's log,
// shows as one of them or as an unknown error.
var lost = map[int]bool{
	C.CUDA_ERROR_DEINITIALIZED:         true,
	C.CUDA_ERROR_ECC_UNCORRECTABLE:     true,
	C.CUDA_ERROR_NVLINK_UNCORRECTABLE:  true,
	C.CUDA_ERROR_ILLEGAL_ADDRESS:       true,
	C.CUDA_ERROR_LAUNCH_TIMEOUT:        true,
	C.CUDA_ERROR_CONTEXT_IS_DESTROYED:  true,
	C.CUDA_ERROR_ASSERT:                true,
	C.CUDA_ERROR_HARDWARE_STACK_ERROR:  true,
	C.CUDA_ERROR_ILLEGAL_INSTRUCTION:   true,
	C.CUDA_ERROR_MISALIGNED_ADDRESS:    true,
	C.CUDA_ERROR_INVALID_ADDRESS_SPACE: true,
	C.CUDA_ERROR_INVALID_PC:            true,
	C.CUDA_ERROR_LAUNCH_FAILED:         true,
	C.CUDA_ERROR_UNKNOWN:               true,
}

// failure makes an Error of what cu returned, with what the call was for.
func failure(err error, call, action string, args ...any) error {
	if v := reflect.ValueOf(err); v.CanInt() {
		// cu's own type of errors is the number, and is not exported.
		return coded(C.CUresult(v.Int()), call, action, args...)
	}
	return fmt.Errorf("%s: %w (%s)", fmt.Sprintf(action, args...), err, call)
}

// coded makes an Error of a number from the driver.
func coded(code C.CUresult, call, action string, args ...any) error {
	e := &Error{Action: fmt.Sprintf(action, args...), Call: call, Code: int(code)}
	var name, text *C.char
	if C.cuGetErrorName(code, &name) == C.CUDA_SUCCESS {
		e.Name = C.GoString(name)
	} else {
		e.Name = fmt.Sprintf("error %d", e.Code)
	}
	if C.cuGetErrorString(code, &text) == C.CUDA_SUCCESS {
		e.Text = C.GoString(text)
	} else {
		e.Text = "the driver has no words for it"
	}
	return e
}
