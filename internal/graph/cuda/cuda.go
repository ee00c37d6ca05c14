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
	"slices"
	"strings"
	"sync"
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
	sets      []string // of kernels, see kernels.SetsFor
	precision graph.Precision
	stream    *driver.Stream              // of all work
	uploads   *driver.Stream              // of inputs that are staged
	modules   map[string]*driver.Module   // compiled so far
	functions map[string]*driver.Function // found so far
	allowed   map[string]int              // bytes of shared memory, by kernel
	// compiled is the time spent on modules. Once it is long noteSlowStart is told.
	compiled      time.Duration
	noteSlowStart func()
	residence     *residence
	// single has kernels of the set sm_90a run in as few blocks as they can, each of which
	// then does all there is to do.
	single bool
	// blocking says that kernels run one by one, each waited for, so that an error
	// names its kernel.
	blocking bool
	learned
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
		sets, err := setsFor(d)
		info.Kernels = strings.Join(sets, " + ")
		if err != nil {
			info.Kernels = "none: " + err.Error()
		}
		all = append(all, info)
	}
	return all, nil
}

func capability(c [2]int) string { return fmt.Sprintf("%d.%d", c[0], c[1]) }

// kernelsVariable names in the environment the most demanding set of kernels to use.
const kernelsVariable = "DDPM_KERNELS"

// setsFor lists the sets of kernels that a device runs and the environment allows.
func setsFor(d driver.DeviceInfo) ([]string, error) {
	sets := kernels.SetsFor(d.Capability)
	if most := os.Getenv(kernelsVariable); most != "" {
		all := kernels.Sets()
		if !slices.Contains(all, most) {
			return nil, fmt.Errorf("%s %q: want one of %s", kernelsVariable, most, strings.Join(all, ", "))
		}
		sets = slices.DeleteFunc(sets, func(set string) bool { return slices.Index(all, set) > slices.Index(all, most) })
	}
	if sets == nil {
		return nil, fmt.Errorf("%s has compute capability %s, and the kernels need %s or newer",
			d.Name, capability(d.Capability), capability(kernels.Least()))
	}
	return sets, nil
}

// slowStart is the time of compiling after which the user wants an explanation.
const slowStart = 2 * time.Second

// start takes the GPU of o.Ordinal.
func start(o graph.Options) (b *Backend, err error) {
	gpu, err := driver.Open(o.Ordinal)
	if err != nil {
		return nil, err
	}
	d := &device{
		Device: gpu, precision: o.Precision, blocking: os.Getenv(blockingVariable) == "1",
		modules: map[string]*driver.Module{}, functions: map[string]*driver.Function{}, allowed: map[string]int{}, residence: &residence{}, noteSlowStart: func() {},
	}
	if d.precision == "" {
		d.precision = graph.BF16
	}
	b = &Backend{d}
	if o.Note != nil {
		d.noteSlowStart = sync.OnceFunc(func() {
			o.Note("compiling the kernels for " + gpu.Info.Name + ", which the driver keeps for the next start")
		})
	}
	if d.sets, err = setsFor(gpu.Info); err == nil {
		err = gpu.Do(d.load)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// load makes the streams.
func (d *device) load() (err error) {
	if d.stream, err = d.NewStream(); err != nil {
		return err
	}
	d.uploads, err = d.NewStream()
	return err
}

// function finds a kernel. Its module is compiled when the first of its kernels is
// asked for: a run needs less than half of them.
func (d *device) function(name string) (*driver.Function, error) {
	if f := d.functions[name]; f != nil {
		return f, nil
	}
	k, ok := kernels.Find(name)
	if !ok || !d.has(k) {
		return nil, fmt.Errorf("cuda: there is no kernel %s", name)
	}
	module, err := d.module(k)
	if err != nil {
		return nil, err
	}
	f, err := module.Function(name)
	if err == nil {
		d.functions[name] = f
	}
	return f, err
}

func (d *device) module(k kernels.Kernel) (*driver.Module, error) {
	if m := d.modules[k.Module]; m != nil {
		return m, nil
	}
	ptx, err := kernels.PTX(k.Set, k.Module)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	notice := time.AfterFunc(slowStart-d.compiled, d.noteSlowStart)
	m, err := d.LoadModule(k.Module, ptx)
	notice.Stop()
	d.compiled += time.Since(began)
	if err == nil {
		d.modules[k.Module] = m
	}
	return m, err
}

// has reports whether a kernel is of a set that runs here.
func (d *device) has(k kernels.Kernel) bool { return slices.Contains(d.sets, k.Set) }

// run launches a kernel on the stream. One that is captured was prepared before.
func (d *device) run(l launch) error {
	f, err := d.function(l.kernel)
	if err != nil {
		return err
	}
	err = f.Launch(l.grid, l.block, l.shared, d.stream, l.pointer())
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
	f, err := d.function(l.kernel)
	if err != nil {
		return err
	}
	if k, _ := kernels.Find(l.kernel); reflect.TypeOf(l.params) != reflect.PointerTo(k.Params) {
		return fmt.Errorf("cuda: kernel %v does not take %T", l, l.params)
	}
	for axis, blocks := range l.grid {
		if most := [3]int{1<<31 - 1, 1<<16 - 1, 1<<16 - 1}[axis]; blocks < 1 || blocks > most {
			return fmt.Errorf("cuda: %s: a grid has 1 to %d blocks in dimension %d: the batch is too large for one launch", l, most, axis)
		}
	}
	// Launches of one kernel may differ in what they take.
	if l.shared <= max(plainShared, d.allowed[l.kernel]) {
		return nil
	}
	if err := f.AllowShared(l.shared); err != nil {
		return err
	}
	d.allowed[l.kernel] = l.shared
	return nil
}

// residence is device memory for resident structs. No place in it is given twice: the
// hardware keeps tensor maps that it has read by their address, and another map at the
// same address would take a fence that PTX 8.0 does not have. It goes with the device.
type residence struct{ free, end kernels.Ptr }

// residenceBytes are allocated at a time.
const residenceBytes = 1 << 20

// settle gives the resident structs of launches their place in device memory.
func (d *device) settle(launches []launch) error {
	for _, l := range launches {
		if l.resident == nil {
			continue
		}
		for _, m := range l.maps {
			encoded, err := m.tiled.Encode()
			if err != nil {
				return fmt.Errorf("%s: %w", l, err)
			}
			*m.into = encoded.Words()
		}
		v := reflect.ValueOf(l.resident)
		bytes := unsafe.Slice((*byte)(v.UnsafePointer()), v.Type().Elem().Size())
		r := d.residence
		if r.free+kernels.Ptr(len(bytes)) > r.end {
			size := max(residenceBytes, align(len(bytes)))
			memory, err := d.Alloc(int64(size))
			if err != nil {
				return err
			}
			r.free, r.end = memory, memory+kernels.Ptr(size)
		}
		*l.at = r.free
		r.free += kernels.Ptr(align(len(bytes)))
		if err := d.stream.Write(*l.at, bytes); err != nil {
			return err
		}
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
// bytes. A part is left for what plans do not count: kernels, the driver's graphs, and the
// rounding of every allocation.
func (b *Backend) Memory() int64 { return b.device.Info.Free - b.device.Info.Memory/reserve }

// reserve is the part of a device's memory that is left: 1/reserve.
const reserve = 50

// Close gives the device back.
func (b *Backend) Close() error { return b.device.Close() }

// Wait waits for all that was asked of the GPU. It implements graph.Ahead.
func (b *Backend) Wait() error { return b.device.Do(b.device.stream.Synchronize) }
