//go:build gpu && !cpu

package driver

/*
#include <cuda.h>
#include <string.h>

#cgo noescape encode
#cgo nocallback encode
// encode fills a map where it is aligned as the driver wants it, and copies it out.
static CUresult encode(void *to, CUtensorMapDataType type, cuuint32_t rank, CUdeviceptr address,
                       const cuuint64_t *extents, const cuuint64_t *strides, const cuuint32_t *box,
                       const cuuint32_t *steps, CUtensorMapSwizzle swizzle) {
  CUtensorMap map;
  CUresult code = cuTensorMapEncodeTiled(&map, type, rank, (void *)(uintptr_t)address, extents, strides, box, steps,
                                         CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                         CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code == CUDA_SUCCESS) {
    memcpy(to, &map, sizeof map);
  }
  return code;
}
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"ddpm/internal/graph/cuda/kernels"
)

// TensorMap is the driver's encoding of a Tiled, for a kernel that copies boxes of
// it. The kernel wants it at a multiple of 64 bytes.
type TensorMap [128]byte

// Words are the map as kernels declare it.
func (m TensorMap) Words() (words [16]uint64) {
	for i := range words {
		words[i] = binary.NativeEndian.Uint64(m[8*i:])
	}
	return words
}

// Tiled describes a tensor in device memory and the box that one bulk copy takes
// of it. Dimensions go from the innermost, which is dense, to the outermost. What a
// box has outside of the tensor is zero.
type Tiled struct {
	Address kernels.Ptr // a multiple of 16
	BF16    bool        // else float32
	Extents []uint64    // elements, of 1 to 5 dimensions
	Strides []uint64    // bytes from one to the next, of all dimensions but the first; multiples of 16
	Box     []uint32    // elements, at most 256 each
	Steps   []uint32    // take each n-th element; nil is each
	Swizzle int         // bytes of the pattern rows are permuted in: 0, 32, 64 or 128
}

var swizzles = map[int]C.CUtensorMapSwizzle{
	0:   C.CU_TENSOR_MAP_SWIZZLE_NONE,
	32:  C.CU_TENSOR_MAP_SWIZZLE_32B,
	64:  C.CU_TENSOR_MAP_SWIZZLE_64B,
	128: C.CU_TENSOR_MAP_SWIZZLE_128B,
}

// Encode makes the map. It needs a driver of CUDA 12 and is of use on a device of
// compute capability 9.0 or higher.
func (t Tiled) Encode() (TensorMap, error) {
	var m TensorMap
	rank := len(t.Extents)
	steps := t.Steps
	if steps == nil {
		steps = []uint32{1, 1, 1, 1, 1}[:min(rank, 5)]
	}
	swizzle, known := swizzles[t.Swizzle]
	if rank < 1 || rank > 5 || len(t.Strides) != rank-1 || len(t.Box) != rank || len(steps) != rank || !known {
		return m, fmt.Errorf("no tensor map can be of %+v", t)
	}
	if !has("cuTensorMapEncodeTiled") {
		return m, errors.New("the NVIDIA driver is too old: it has no cuTensorMapEncodeTiled, which CUDA 12.0 brought")
	}
	kind := C.CUtensorMapDataType(C.CU_TENSOR_MAP_DATA_TYPE_FLOAT32)
	if t.BF16 {
		kind = C.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
	}
	code := C.encode(unsafe.Pointer(&m), kind, C.cuuint32_t(rank), C.CUdeviceptr(t.Address),
		(*C.cuuint64_t)(unsafe.SliceData(t.Extents)), (*C.cuuint64_t)(unsafe.SliceData(t.Strides)),
		(*C.cuuint32_t)(unsafe.SliceData(t.Box)), (*C.cuuint32_t)(unsafe.SliceData(steps)), swizzle)
	if code != C.CUDA_SUCCESS {
		return m, coded(code, "cuTensorMapEncodeTiled", "encoding a tensor map of %+v", t)
	}
	return m, nil
}
