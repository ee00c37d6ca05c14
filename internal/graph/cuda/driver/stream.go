//go:build gpu && !cpu

package driver

/*
#include <cuda.h>

// The copies of cu take memory of the host as a void pointer, which has cgo look for
// Go pointers in all of the object around it: a slice of a struct that has some would
// be refused. These take bytes, which hold none.
static CUresult write_bytes(CUdeviceptr to, unsigned char *from, size_t bytes, CUstream stream) {
  return cuMemcpyHtoDAsync(to, from, bytes, stream);
}
static CUresult read_bytes(unsigned char *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return cuMemcpyDtoHAsync(to, from, bytes, stream);
}
*/
import "C"

import (
	"runtime"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"ddpm/internal/graph/cuda/kernels"
)

// Stream is a queue of work for the device, which does it in order. Streams run
// beside each other; an Event makes one wait for another.
type Stream struct{ handle cu.Stream }

// NewStream makes a stream, which does not wait for the driver's default one. Destroy it.
func (d *Device) NewStream() (*Stream, error) {
	s, err := cu.MakeStream(cu.NonBlocking)
	if err != nil {
		return nil, failure(err, "cuStreamCreate", "making a stream")
	}
	return &Stream{s}, nil
}

// Destroy gives the stream back; work in it is still done.
func (s *Stream) Destroy() error {
	if err := s.handle.Destroy(); err != nil {
		return failure(err, "cuStreamDestroy", "ending a stream")
	}
	return nil
}

// Synchronize waits until the stream is empty. An error may come from anything that
// was in it.
func (s *Stream) Synchronize() error {
	if err := s.handle.Synchronize(); err != nil {
		return failure(err, "cuStreamSynchronize", "waiting for the GPU")
	}
	return nil
}

// Write copies from any memory of the host to the device, and waits for all that
// is in the stream.
func (s *Stream) Write(to kernels.Ptr, from []byte) error {
	if len(from) == 0 {
		return nil
	}
	code := C.write_bytes(C.CUdeviceptr(to), (*C.uchar)(unsafe.SliceData(from)), C.size_t(len(from)), s.c())
	if code != C.CUDA_SUCCESS {
		return coded(code, "cuMemcpyHtoDAsync", "copying %d bytes to the GPU", len(from))
	}
	err := s.Synchronize()
	runtime.KeepAlive(from)
	return err
}

// Read copies from the device to any memory of the host, and waits for all that is
// in the stream.
func (s *Stream) Read(to []byte, from kernels.Ptr) error {
	if len(to) == 0 {
		return nil
	}
	code := C.read_bytes((*C.uchar)(unsafe.SliceData(to)), C.CUdeviceptr(from), C.size_t(len(to)), s.c())
	if code != C.CUDA_SUCCESS {
		return coded(code, "cuMemcpyDtoHAsync", "copying %d bytes from the GPU", len(to))
	}
	err := s.Synchronize()
	runtime.KeepAlive(to)
	return err
}

// Upload queues a copy to the device. The host must leave the memory alone until
// it is done.
func (s *Stream) Upload(to kernels.Ptr, from Pinned) error {
	if len(from) == 0 {
		return nil
	}
	if err := cu.MemcpyHtoDAsync(cu.DevicePtr(to), unsafe.Pointer(&from[0]), int64(len(from)), s.handle); err != nil {
		return failure(err, "cuMemcpyHtoDAsync", "queueing a copy of %d bytes to the GPU", len(from))
	}
	return nil
}

// Download queues a copy from the device.
func (s *Stream) Download(to Pinned, from kernels.Ptr) error {
	if len(to) == 0 {
		return nil
	}
	if err := cu.MemcpyDtoHAsync(unsafe.Pointer(&to[0]), cu.DevicePtr(from), int64(len(to)), s.handle); err != nil {
		return failure(err, "cuMemcpyDtoHAsync", "queueing a copy of %d bytes from the GPU", len(to))
	}
	return nil
}

// Copy queues a copy within the device.
func (s *Stream) Copy(to, from kernels.Ptr, bytes int64) error {
	if bytes == 0 {
		return nil
	}
	if err := cu.MemcpyDtoDAsync(cu.DevicePtr(to), cu.DevicePtr(from), bytes, s.handle); err != nil {
		return failure(err, "cuMemcpyDtoDAsync", "queueing a copy of %d bytes on the GPU", bytes)
	}
	return nil
}

// Zero queues the clearing of device memory.
func (s *Stream) Zero(p kernels.Ptr, bytes int64) error {
	if bytes == 0 {
		return nil
	}
	if err := cu.MemsetD8Async(cu.DevicePtr(p), 0, bytes, s.handle); err != nil {
		return failure(err, "cuMemsetD8Async", "clearing %d bytes on the GPU", bytes)
	}
	return nil
}

// Fill queues the setting of count words of four bytes.
func (s *Stream) Fill(p kernels.Ptr, word uint32, count int64) error {
	if count == 0 {
		return nil
	}
	if err := cu.MemsetD32Async(cu.DevicePtr(p), uint(word), count, s.handle); err != nil {
		return failure(err, "cuMemsetD32Async", "filling %d words on the GPU", count)
	}
	return nil
}

// Event is a point in a stream.
type Event struct{ handle cu.Event }

// NewEvent makes an event; a timed one can be given to Elapsed. Destroy it.
func (d *Device) NewEvent(timed bool) (*Event, error) {
	flags := cu.DisableTiming
	if timed {
		flags = cu.DefaultEvent
	}
	e, err := cu.MakeEvent(flags)
	if err != nil {
		return nil, failure(err, "cuEventCreate", "making an event")
	}
	return &Event{e}, nil
}

// Destroy gives the event back.
func (e *Event) Destroy() error {
	if err := cu.DestroyEvent(&e.handle); err != nil {
		return failure(err, "cuEventDestroy", "ending an event")
	}
	return nil
}

// Record puts the event behind what is in the stream now.
func (s *Stream) Record(e *Event) error {
	if err := e.handle.Record(s.handle); err != nil {
		return failure(err, "cuEventRecord", "recording an event")
	}
	return nil
}

// Wait has what follows in the stream wait for the event, without the host.
func (s *Stream) Wait(e *Event) error {
	if err := s.handle.Wait(e.handle, 0); err != nil {
		return failure(err, "cuStreamWaitEvent", "waiting for an event in a stream")
	}
	return nil
}

// Synchronize has the host wait for the event. One that was never recorded is over.
func (e *Event) Synchronize() error {
	if err := e.handle.Synchronize(); err != nil {
		return failure(err, "cuEventSynchronize", "waiting for the GPU")
	}
	return nil
}

// Elapsed is the time between two timed events that are over, to about half a
// microsecond.
func Elapsed(from, to *Event) (time.Duration, error) {
	ms, err := from.handle.Elapsed(to.handle)
	if err != nil {
		return 0, failure(err, "cuEventElapsedTime", "reading the time between events")
	}
	return time.Duration(ms * float64(time.Millisecond)), nil
}
