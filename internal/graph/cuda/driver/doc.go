// Package driver is the door to the NVIDIA driver: what package cuda asks of a GPU,
// in Go, with errors that say what was asked. It needs the driver's library when it
// is used, not when the program is built or started.
//
//	door/          libcuda.a: cuda.h and jump slots, so that neither a toolkit nor a
//	               driver is needed until something is asked of them
//	available.go   opens the door, or says why it stays shut
//	errors.go      an Error for each call that fails; ErrOutOfMemory, ErrDeviceLost
//	device.go      Devices lists GPUs, Open takes one, Device.Do runs functions on it
//	memory.go      device memory, and host memory the GPU can reach
//	stream.go      Stream: work in order; Event: a point in it
//	module.go      Module: PTX, compiled by the driver; Function: a kernel, Launch
//	graph.go       Graph: a captured stream, launched again as one
//	tensormap.go   TensorMap: how Hopper's bulk copies walk a tensor
//
// What gorgonia.org/cu offers goes through cu: devices, contexts, memory, copies,
// streams, events, modules. This package adds, on cu's handles, what it lacks:
// function attributes, a launch of one parameter struct without an allocation,
// capture and launch of graphs, pinned memory, tensor maps, the driver's error
// texts.
//
// The driver keeps the current context by OS thread. So a Device has a thread of its
// own, and everything but Devices and Open belongs inside Device.Do, where calls go
// straight to the driver:
//
//	err := device.Do(func() error {
//		p, err := device.Alloc(n)
//		...
//		return function.Launch(grid, 256, 0, stream, unsafe.Pointer(&params))
//	})
//
// Outside of Do the driver answers that there is no context.
//
// Build it with the flags that make cuda-env prints, and tag gpu. DDPM_LIBCUDA names
// another library than libcuda.so.1; tests run on a stand-in for it.
package driver
