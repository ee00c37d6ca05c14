//go:build gpu && !cpu

package driver

/*
#include <cuda.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"gorgonia.org/cu"
)

// DeviceInfo describes a GPU.
type DeviceInfo struct {
	Ordinal     int
	Name        string
	UUID        string // GPU-...
	Memory      int64  // bytes
	Free        int64  // of them; 0 if it cannot be told
	Capability  [2]int // compute capability, {8, 0} or higher for the kernels here
	Processors  int    // streaming multiprocessors
	SharedBytes int    // shared memory that a block can have at most
	L2Bytes     int
}

// Devices lists the GPUs that the driver shows. None is no error.
func Devices() ([]DeviceInfo, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, failure(err, "cuDeviceGetCount", "counting GPUs")
	}
	var all []DeviceInfo
	for i := range n {
		handle, info, err := describe(i)
		if err != nil {
			return nil, err
		}
		info.Free = freeMemory(handle)
		all = append(all, info)
	}
	return all, nil
}

// describe asks for all but the free memory.
func describe(ordinal int) (cu.Device, DeviceInfo, error) {
	d, err := cu.GetDevice(ordinal)
	if err != nil {
		return d, DeviceInfo{}, failure(err, "cuDeviceGet", "finding GPU %d", ordinal)
	}
	info := DeviceInfo{Ordinal: ordinal}
	if info.Name, err = d.Name(); err != nil {
		return d, info, failure(err, "cuDeviceGetName", "asking GPU %d for its name", ordinal)
	}
	id, err := d.UUID()
	if err != nil {
		return d, info, failure(err, "cuDeviceGetUuid", "asking GPU %d for its UUID", ordinal)
	}
	info.UUID = "GPU-" + id.String()
	if info.Memory, err = d.TotalMem(); err != nil {
		return d, info, failure(err, "cuDeviceTotalMem", "asking GPU %d for its memory", ordinal)
	}
	for _, a := range []struct {
		attribute cu.DeviceAttribute
		value     *int
	}{
		{cu.ComputeCapabilityMajor, &info.Capability[0]},
		{cu.ComputeCapabilityMinor, &info.Capability[1]},
		{cu.MultiprocessorCount, &info.Processors},
		{C.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &info.SharedBytes},
		{cu.L2CacheSize, &info.L2Bytes},
	} {
		if *a.value, err = d.Attribute(a.attribute); err != nil {
			return d, info, failure(err, "cuDeviceGetAttribute", "asking GPU %d for attribute %d", ordinal, a.attribute)
		}
	}
	return d, info, nil
}

// freeMemory asks in a context, which takes a moment to make. A device that gives
// none, because another process has it for its own, has an unknown amount.
func freeMemory(d cu.Device) int64 {
	answer := make(chan int64)
	go func() {
		// The thread ends with the goroutine, and its current context with it.
		runtime.LockOSThread()
		var free int64
		if context, err := d.RetainPrimaryCtx(); err == nil {
			if err := cu.SetCurrentContext(context); err == nil {
				if f, _, err := cu.MemInfo(); err == nil {
					free = f
				}
			}
			// That it was not released would show where the device is used next.
			_ = d.ReleasePrimaryCtx()
		}
		answer <- free
	}()
	return <-answer
}

// Device is a GPU opened for use, with an OS thread whose current context is the
// GPU's primary one. Devices opened twice share that context.
type Device struct {
	Info   DeviceInfo
	handle cu.Device
	thread atomic.Int64 // id of the OS thread, 0 when closed
	lost   atomic.Bool  // a function reported ErrDeviceLost
	lock   sync.Mutex   // held by who waits for answers
	work   chan func() error
	answer chan outcome
}

// outcome is how a function ended.
type outcome struct {
	err      error
	panicked any
	stack    []byte
}

// Open takes a GPU by its number. Close it.
func Open(ordinal int) (*Device, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	n, err := cu.NumDevices()
	switch {
	case err != nil:
		return nil, failure(err, "cuDeviceGetCount", "counting GPUs")
	case n == 0:
		return nil, fmt.Errorf("the NVIDIA driver shows no GPU")
	case ordinal < 0 || ordinal >= n:
		return nil, fmt.Errorf("there is no GPU %d: the NVIDIA driver shows %d, numbered from 0", ordinal, n)
	}
	handle, info, err := describe(ordinal)
	if err != nil {
		return nil, err
	}
	d := &Device{Info: info, handle: handle, work: make(chan func() error), answer: make(chan outcome)}
	started := make(chan error)
	go d.serve(started)
	if err := <-started; err != nil {
		return nil, err
	}
	if err := d.Do(func() error { d.Info.Free, _, err = d.MemInfo(); return err }); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// serve is the life of the device's thread. The thread is never given back, so it
// ends with this goroutine.
func (d *Device) serve(started chan<- error) {
	runtime.LockOSThread()
	context, err := d.handle.RetainPrimaryCtx()
	if err != nil {
		started <- failure(err, "cuDevicePrimaryCtxRetain", "opening GPU %d, %s", d.Info.Ordinal, d.Info.Name)
		return
	}
	if err := cu.SetCurrentContext(context); err != nil {
		started <- errors.Join(failure(err, "cuCtxSetCurrent", "opening GPU %d", d.Info.Ordinal), d.release())
		return
	}
	d.thread.Store(int64(syscall.Gettid()))
	started <- nil
	for f := range d.work {
		d.answer <- run(f)
	}
}

// run calls f and brings back how it ended, panics too: they belong to who called Do.
func run(f func() error) (o outcome) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if o.panicked = recover(); o.panicked == nil {
			// runtime.Goexit, as in testing.T.FailNow, would end the thread in silence.
			panic("driver: a function left Device.Do by runtime.Goexit")
		}
		o.stack = debug.Stack()
	}()
	o.err = f()
	returned = true
	return o
}

// Do runs f on the thread of the device and returns its error. Functions run one
// after the other; within one, Do runs directly. It costs some microseconds, so f
// is best a whole step. It must not call runtime.Goexit, nor testing's FailNow.
func (d *Device) Do(f func() error) error {
	if d.thread.Load() == int64(syscall.Gettid()) {
		return f()
	}
	d.lock.Lock()
	defer d.lock.Unlock()
	if d.thread.Load() == 0 {
		return errClosed
	}
	d.work <- f
	o := <-d.answer
	if o.panicked != nil {
		panic(fmt.Sprintf("%v\n\nin Device.Do:\n%s", o.panicked, o.stack))
	}
	if errors.Is(o.err, ErrDeviceLost) {
		d.lost.Store(true)
	}
	return o.err
}

// Release runs f, which gives back what lies on the device, and returns its error,
// unless the device is lost and everything on it gone: whoever lost it has the error.
func (d *Device) Release(f func() error) error {
	lost := d.lost.Load()
	if err := d.Do(f); !lost {
		return err
	}
	return nil
}

// Synchronize waits for all that was asked of the device.
func (d *Device) Synchronize() error {
	if err := cu.Synchronize(); err != nil {
		return failure(err, "cuCtxSynchronize", "waiting for GPU %d", d.Info.Ordinal)
	}
	return nil
}

// Close waits for the device and gives it back. Memory, modules and streams of the
// context go with it, unless the device is open elsewhere in the process. A second
// call does nothing.
func (d *Device) Close() error {
	err := d.Release(func() error {
		err := errors.Join(d.Synchronize(), d.release())
		d.thread.Store(0)
		return err
	})
	if err == errClosed {
		return nil
	}
	close(d.work)
	return err
}

func (d *Device) release() error {
	if err := d.handle.ReleasePrimaryCtx(); err != nil {
		return failure(err, "cuDevicePrimaryCtxRelease", "closing GPU %d", d.Info.Ordinal)
	}
	return nil
}
