//go:build gpu && !cpu

// Package cuda runs plans on an NVIDIA GPU. Weights, optimiser state and
// activations never leave it; what a step needs of the host is bytes of images and
// a few numbers.
//
// kernels/ holds the kernels, driver/ the door to the driver, standin/ a driver that
// runs the same kernels on the CPU, for tests. Here each file of operations chooses
// kernels and says how they are launched; program.go binds the launches of a plan to
// memory and has the driver capture them as one graph, step.go does the same with a
// whole optimiser step. docs/cuda.md is the map.
package cuda

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"
	"unsafe"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

func init() {
	graph.RegisterBackend("cuda", func(o graph.Options) (graph.Backend, error) { return open(o) })
	graph.RegisterLister("cuda", list)
}

// device is a GPU with what the choice of kernels depends on.
type device struct {
	*driver.Device
	set       string // of kernels
	precision graph.Precision
	stream    *driver.Stream // of all work
	uploads   *driver.Stream // of inputs that are staged
	functions map[string]*driver.Function
	// blocking says that kernels run one by one, each waited for, so that an error
	// names its kernel.
	blocking bool
}

// blockingVariable is the name that CUDA programmers know.
const blockingVariable = "CUDA_LAUNCH_BLOCKING"

// Do runs f on the device's thread.
func (d *device) Do(f func() error) error {
	err := d.Device.Do(f)
	if errors.Is(err, driver.ErrDeviceLost) && !d.blocking {
		err = fmt.Errorf("%w; with %s=1 in the environment the error names the kernel", err, blockingVariable)
	}
	return err
}

// Backend is a GPU. It implements graph.Backend.
type Backend struct{ device *device }

func list() ([]graph.DeviceInfo, error) {
	found, err := driver.Devices()
	if err != nil {
		return nil, err
	}
	version, err := driver.DriverVersion()
	if err != nil {
		return nil, err
	}
	var all []graph.DeviceInfo
	for _, d := range found {
		info := graph.DeviceInfo{
			Device: fmt.Sprintf("cuda:%d", d.Ordinal), Name: d.Name, Memory: d.Memory, Free: d.Free,
			Capability: capability(d.Capability), Driver: version,
		}
		if info.Kernels, err = setFor(d); err != nil {
			info.Kernels = "none: " + err.Error()
		}
		all = append(all, info)
	}
	return all, nil
}

func capability(c [2]int) string { return fmt.Sprintf("%d.%d", c[0], c[1]) }

// setFor is the set of kernels that a device runs.
func setFor(d driver.DeviceInfo) (string, error) {
	set, ok := kernels.SetFor(d.Capability)
	if !ok {
		return "", fmt.Errorf("%s has compute capability %s, and the kernels need %s or newer",
			d.Name, capability(d.Capability), capability(kernels.Least()))
	}
	return set, nil
}

// slowStart is the time after which opening a GPU asks for an explanation.
const slowStart = 2 * time.Second

// open takes the GPU of o.Ordinal and compiles the kernels for it.
func open(o graph.Options) (b *Backend, err error) {
	gpu, err := driver.Open(o.Ordinal)
	if err != nil {
		return nil, err
	}
	d := &device{
		Device: gpu, precision: o.Precision, functions: map[string]*driver.Function{},
		blocking: os.Getenv(blockingVariable) == "1",
	}
	if d.precision == "" {
		d.precision = graph.BF16
	}
	b = &Backend{d}
	if d.set, err = setFor(gpu.Info); err == nil {
		if o.Note != nil {
			notice := time.AfterFunc(slowStart, func() {
				o.Note("compiling the kernels for " + gpu.Info.Name + ", which the driver keeps for the next start")
			})
			defer notice.Stop()
		}
		err = gpu.Do(d.load)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// load compiles the kernels and makes the streams.
func (d *device) load() (err error) {
	if d.stream, err = d.NewStream(); err != nil {
		return err
	}
	if d.uploads, err = d.NewStream(); err != nil {
		return err
	}
	names, err := kernels.Modules(d.set)
	if err != nil {
		return err
	}
	modules := map[string]*driver.Module{}
	for _, name := range names {
		ptx, err := kernels.PTX(d.set, name)
		if err != nil {
			return err
		}
		if modules[name], err = d.LoadModule(name, ptx); err != nil {
			return err
		}
	}
	for _, k := range kernels.All() {
		module, ok := modules[k.Module]
		if !ok {
			continue // of another set
		}
		if d.functions[k.Name], err = module.Function(k.Name); err != nil {
			return err
		}
	}
	// Kernels take memory too.
	d.Info.Free, _, err = d.MemInfo()
	return err
}

// run launches a kernel, which was prepared, on the stream.
func (d *device) run(l launch) error {
	err := d.functions[l.kernel].Launch(l.grid, l.block, l.shared, d.stream, l.pointer())
	if err == nil && d.blocking {
		if err = d.stream.Synchronize(); err != nil {
			err = fmt.Errorf("in %v: %w", l, err)
		}
	}
	return err
}

// capture makes a graph of what f queues, or where kernels run one by one none.
func (d *device) capture(f func() error) (*driver.Graph, error) {
	if d.blocking {
		return nil, nil
	}
	return d.stream.Capture(f)
}

// launch queues a graph that was captured from f, or f itself if there is none.
func (d *device) launch(g *driver.Graph, f func() error) error {
	if g == nil {
		return f()
	}
	return d.stream.Launch(g)
}

// plainShared is the dynamic shared memory, in bytes, that every kernel may have
// without asking.
const plainShared = 48 << 10

// prepare makes a launch ready to be repeated: it finds the kernel and lets it have
// its shared memory.
func (d *device) prepare(l launch) error {
	f, k := d.functions[l.kernel], kernels.Kernel{}
	if f != nil {
		k, _ = kernels.Find(l.kernel)
	}
	if f == nil || reflect.TypeOf(l.params) != reflect.PointerTo(k.Params) {
		return fmt.Errorf("cuda: there is no kernel %v that takes %T", l, l.params)
	}
	for axis, blocks := range l.grid {
		if most := [3]int{1<<31 - 1, 1<<16 - 1, 1<<16 - 1}[axis]; blocks < 1 || blocks > most {
			return fmt.Errorf("cuda: %s: a grid has 1 to %d blocks in dimension %d: the batch is too large for one launch", l, most, axis)
		}
	}
	if l.shared > plainShared {
		return f.AllowShared(l.shared)
	}
	return nil
}

// pointer is the address of the launch's parameters.
func (l launch) pointer() unsafe.Pointer { return (*[2]unsafe.Pointer)(unsafe.Pointer(&l.params))[1] }

func (b *Backend) Name() string {
	return fmt.Sprintf("cuda:%d: %s, %s", b.device.Info.Ordinal, b.device.Info.Name, b.device.precision)
}

func (b *Backend) Precision() graph.Precision { return b.device.precision }

// Memory is what a plan may take of what was free when the device was opened, in
// bytes. A part is left for what plans do not count: the driver's graphs, and the
// rounding of every allocation.
func (b *Backend) Memory() int64 { return b.device.Info.Free - b.device.Info.Memory/reserve }

// reserve is the part of a device's memory that is left: 1/reserve.
const reserve = 50

// Close gives the device back.
func (b *Backend) Close() error { return b.device.Close() }
