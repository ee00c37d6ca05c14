//go:build gpu && !cpu

package driver

/*
#include <cuda.h>
*/
import "C"

import (
	"unsafe"

	"gorgonia.org/cu"

	"ddpm/internal/graph/cuda/kernels"
)

// MemInfo is the device's memory in bytes: what is free now, and all of it.
func (d *Device) MemInfo() (free, total int64, err error) {
	if free, total, err = cu.MemInfo(); err != nil {
		return 0, 0, failure(err, "cuMemGetInfo", "asking GPU %d for its free memory", d.Info.Ordinal)
	}
	return free, total, nil
}

// Alloc takes device memory, whose contents are arbitrary, at an address that is a
// multiple of 256. Free it.
func (d *Device) Alloc(bytes int64) (kernels.Ptr, error) {
	p, err := cu.MemAlloc(bytes)
	if err != nil {
		return 0, failure(err, "cuMemAlloc", "allocating %d bytes on GPU %d", bytes, d.Info.Ordinal)
	}
	return kernels.Ptr(p), nil
}

// Free gives back what Alloc took. Free of 0 does nothing.
func (d *Device) Free(p kernels.Ptr) error {
	if p == 0 {
		return nil
	}
	if err := cu.MemFree(cu.DevicePtr(p)); err != nil {
		return failure(err, "cuMemFree", "freeing memory on GPU %d", d.Info.Ordinal)
	}
	return nil
}

// Pinned is memory of the host that the device reads and writes by itself, while
// the host goes on. A slice of it is pinned too.
type Pinned []byte

// AllocPinned takes pinned memory; Go's collector knows nothing of it. Free it with
// FreePinned, and only when no copy is under way.
func (d *Device) AllocPinned(bytes int) (Pinned, error) {
	var p unsafe.Pointer
	if code := C.cuMemHostAlloc(&p, C.size_t(bytes), 0); code != C.CUDA_SUCCESS {
		return nil, coded(code, "cuMemHostAlloc", "allocating %d bytes of pinned memory", bytes)
	}
	return unsafe.Slice((*byte)(p), bytes), nil
}

// FreePinned gives back all of what AllocPinned took. FreePinned of nil does nothing.
func (d *Device) FreePinned(p Pinned) error {
	if len(p) == 0 {
		return nil
	}
	if err := cu.MemFreeHost(unsafe.Pointer(&p[0])); err != nil {
		return failure(err, "cuMemFreeHost", "freeing pinned memory")
	}
	return nil
}

// Bytes are the bytes of a slice of numbers, the same memory.
func Bytes[T ~uint8 | ~uint16 | ~uint32 | ~int32 | ~uint64 | ~int64 | ~float32](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(*new(T))))
}
