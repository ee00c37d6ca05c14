//go:build gpu && !cpu

package driver

/*
#include <cuda.h>

#cgo noescape launch
#cgo nocallback launch
// launch passes one struct by value, which the driver copies. It is of plain bytes
// for cgo, which need not look for Go pointers in it: it has those of the device.
static CUresult launch(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                       unsigned int block, unsigned int shared_bytes, CUstream stream, char *params) {
  void *arguments[1] = {params};
  return cuLaunchKernel(function, grid_x, grid_y, grid_z, block, 1, 1, shared_bytes, stream, arguments, NULL);
}
*/
import "C"

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"gorgonia.org/cu"
)

// Module is PTX that the driver has compiled for the device. The driver keeps what
// it compiled in a cache on disk, so this takes long only the first time.
type Module struct {
	name   string
	handle cu.Module
}

// LoadModule compiles PTX. The error holds what the driver's compiler said.
func (d *Device) LoadModule(name, ptx string) (*Module, error) {
	log := cu.JITErrorLogBuffer{Buffer: make([]byte, 16<<10)}
	m, err := cu.LoadDataEx(ptx, &log)
	runtime.KeepAlive(log.Buffer)
	if err != nil {
		text, _, _ := bytes.Cut(log.Buffer, []byte{0})
		said := strings.TrimSpace(string(text))
		if said != "" {
			said = "\n" + said
		}
		return nil, fmt.Errorf("%w%s", failure(err, "cuModuleLoadDataEx", "compiling the kernels of %s", name), said)
	}
	return &Module{name, m}, nil
}

// Unload gives the module back; its functions must not be used any more.
func (m *Module) Unload() error {
	if err := m.handle.Unload(); err != nil {
		return failure(err, "cuModuleUnload", "unloading the kernels of %s", m.name)
	}
	return nil
}

// Function is a kernel, which takes one struct by value.
type Function struct {
	Name   string
	handle cu.Function
}

// Function finds a kernel by its name in the PTX.
func (m *Module) Function(name string) (*Function, error) {
	f, err := m.handle.Function(name)
	if err != nil {
		return nil, failure(err, "cuModuleGetFunction", "finding kernel %s in %s", name, m.name)
	}
	return &Function{name, f}, nil
}

// FunctionInfo is what the driver's compiler made of a kernel.
type FunctionInfo struct {
	MaxThreads  int // of a block
	Registers   int // of a thread
	LocalBytes  int // of a thread: spilled registers and arrays, which are slow
	SharedBytes int // of a block, without the dynamic ones
}

// Info asks for what the compiler made.
func (f *Function) Info() (FunctionInfo, error) {
	var info FunctionInfo
	for _, a := range []struct {
		attribute cu.FunctionAttribute
		value     *int
	}{
		{cu.FnMaxThreadsPerBlock, &info.MaxThreads},
		{cu.NumRegs, &info.Registers},
		{cu.LocalSizeBytes, &info.LocalBytes},
		{cu.SharedSizeBytes, &info.SharedBytes},
	} {
		var err error
		if *a.value, err = f.handle.Attribute(a.attribute); err != nil {
			return info, failure(err, "cuFuncGetAttribute", "asking for attribute %d of kernel %s", a.attribute, f.Name)
		}
	}
	return info, nil
}

// AllowShared lets launches have up to so many bytes of dynamic shared memory.
// Without it they have 48 KiB at most.
func (f *Function) AllowShared(bytes int) error {
	code := C.cuFuncSetAttribute(f.c(), C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(bytes))
	if code != C.CUDA_SUCCESS {
		return coded(code, "cuFuncSetAttribute", "allowing kernel %s %d bytes of shared memory", f.Name, bytes)
	}
	return nil
}

// BlocksPerProcessor is how many blocks a multiprocessor holds at once.
func (f *Function) BlocksPerProcessor(threads, sharedBytes int) (int, error) {
	n, err := f.handle.MaxActiveBlocksPerMultiProcessor(threads, int64(sharedBytes))
	if err != nil {
		return 0, failure(err, "cuOccupancyMaxActiveBlocksPerMultiprocessor", "asking for the occupancy of kernel %s", f.Name)
	}
	return n, nil
}

// Launch queues the kernel: grid blocks of so many threads, in one dimension, with
// so many bytes of dynamic shared memory. params points to the struct the kernel
// takes, of package kernels; it is copied before Launch returns.
//
// An error that the kernel itself runs into comes later, from whatever waits for it.
func (f *Function) Launch(grid [3]int, block, sharedBytes int, s *Stream, params unsafe.Pointer) error {
	code := C.launch(f.c(), C.uint(grid[0]), C.uint(grid[1]), C.uint(grid[2]), C.uint(block), C.uint(sharedBytes), s.c(), (*C.char)(params))
	if code != C.CUDA_SUCCESS {
		return coded(code, "cuLaunchKernel", "launching %s on %dx%dx%d blocks of %d threads with %d bytes of shared memory",
			f.Name, grid[0], grid[1], grid[2], block, sharedBytes)
	}
	return nil
}

// c is the driver's handle, which cu keeps in a struct of nothing else.
func (f *Function) c() C.CUfunction { return *(*C.CUfunction)(unsafe.Pointer(&f.handle)) }

func (s *Stream) c() C.CUstream { return C.CUstream(unsafe.Pointer(s.handle.C())) }

// Compilation fails where a handle of cu is not the size of the driver's.
var (
	_ [unsafe.Sizeof(C.CUfunction(nil))]byte  = [unsafe.Sizeof(cu.Function{})]byte{}
	_ [unsafe.Sizeof(C.CUgraph(nil))]byte     = [unsafe.Sizeof(cu.Graph{})]byte{}
	_ [unsafe.Sizeof(C.CUgraphExec(nil))]byte = [unsafe.Sizeof(cu.ExecGraph{})]byte{}
)
