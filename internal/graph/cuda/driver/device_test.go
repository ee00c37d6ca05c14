//go:build gpu && !cpu

package driver

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"ddpm/internal/graph/cuda/kernels"
)

// openForTest takes the first GPU. These tests say what a driver does, so they have
// no meaning without one.
func openForTest(t *testing.T) *Device {
	t.Helper()
	d, err := Open(0)
	if err != nil {
		t.Fatalf("these tests need a GPU, or the stand-in for its driver (eval \"$(make -s standin-env)\"): %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// steps runs functions on the device until one fails.
func steps(t *testing.T, d *Device, list ...func() error) {
	t.Helper()
	if err := d.Do(func() error {
		for _, f := range list {
			if err := f(); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func ramp(n int, scale float32) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = scale * float32(i)
	}
	return x
}

func TestDevices(t *testing.T) {
	d := openForTest(t)
	all, err := Devices()
	if err != nil || len(all) == 0 {
		t.Fatalf("%v, %v", all, err)
	}
	listed, opened := all[0], d.Info
	if listed.Free <= 0 || listed.Free > listed.Memory || opened.Free <= 0 || opened.Free > opened.Memory {
		t.Errorf("free memory %d and %d of %d", listed.Free, opened.Free, listed.Memory)
	}
	listed.Free, opened.Free = 0, 0
	if listed != opened {
		t.Errorf("listed %+v, opened %+v", listed, opened)
	}
	if listed.Name == "" || listed.Processors < 1 || listed.SharedBytes < 48<<10 || listed.Capability[0] < 1 || !strings.HasPrefix(listed.UUID, "GPU-") {
		t.Errorf("%+v", listed)
	}
	if v, err := DriverVersion(); err != nil || !strings.Contains(v, "CUDA ") {
		t.Errorf("version %q, %v", v, err)
	}
}

// Copies and fills are in the order of their stream.
func TestMemory(t *testing.T) {
	d := openForTest(t)
	const n = 1000
	x, y, filled := ramp(n, 1), make([]float32, n), make([]float32, n)
	var s *Stream
	var a, b kernels.Ptr
	var host Pinned
	steps(t, d,
		func() (err error) { s, err = d.NewStream(); return err },
		func() (err error) { a, err = d.Alloc(4 * n); return err },
		func() (err error) { b, err = d.Alloc(4 * n); return err },
		func() (err error) { host, err = d.AllocPinned(4 * n); return err },
		func() error { return s.Write(a, Bytes(x)) },
		func() error { return s.Fill(b, math.Float32bits(2.5), n) },
		func() error { return s.Copy(b+4*10, a+4*100, 4*50) },
		func() error { return s.Zero(b+4*100, 4*100) },
		func() error { return s.Read(Bytes(y), b) },
		func() error { copy(host, Bytes(x)); return s.Upload(b, host[:4*500]) },
		func() error { return s.Download(host[4*500:], b) },
		func() error { return s.Synchronize() },
		func() error { copy(Bytes(filled), host); return nil },
		// Nothing to do is no error.
		func() error {
			return errors.Join(s.Write(a, nil), s.Read(nil, a), s.Upload(a, nil), s.Download(nil, a), s.Copy(a, b, 0),
				s.Zero(a, 0), s.Fill(a, 1, 0), d.Free(0), d.FreePinned(nil))
		},
		func() error { return errors.Join(d.Free(a), d.Free(b), d.FreePinned(host), s.Destroy()) },
	)
	for i := range y {
		want := float32(2.5)
		switch {
		case i >= 10 && i < 60:
			want = x[i+90]
		case i >= 100 && i < 200:
			want = 0
		}
		if y[i] != want {
			t.Fatalf("element %d is %g, want %g", i, y[i], want)
		}
		if half := x[i%500]; filled[i] != half {
			t.Fatalf("pinned element %d is %g, want %g", i, filled[i], half)
		}
	}
}

func TestMemoryThatIsNotThere(t *testing.T) {
	d := openForTest(t)
	err := d.Do(func() error { _, err := d.Alloc(2 * d.Info.Memory); return err })
	if !errors.Is(err, ErrOutOfMemory) || errors.Is(err, ErrDeviceLost) {
		t.Errorf("error %v", err)
	}
	// The device works on.
	var p kernels.Ptr
	var before, after int64
	steps(t, d,
		func() (err error) { before, _, err = d.MemInfo(); return err },
		func() (err error) { p, err = d.Alloc(64 << 20); return err },
		func() (err error) { after, _, err = d.MemInfo(); return err },
		func() error { return d.Free(p) },
	)
	if p%256 != 0 || after >= before {
		t.Errorf("address %#x, free memory %d then %d", uint64(p), before, after)
	}
	if err := d.Do(func() error { return d.Free(p + 1) }); err == nil {
		t.Error("freed what was not allocated")
	}
}

// A context belongs to the thread of its device.
func TestCallsOutsideOfDo(t *testing.T) {
	d := openForTest(t)
	if p, err := d.Alloc(16); err == nil {
		t.Errorf("allocated %#x outside of Do", uint64(p))
	}
}

func TestDevicesOpenedTwice(t *testing.T) {
	first := openForTest(t)
	second, err := Open(0)
	if err != nil {
		t.Fatal(err)
	}
	steps(t, second, func() error { p, err := second.Alloc(16); return errors.Join(err, second.Free(p)) })
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	steps(t, first, func() error { p, err := first.Alloc(16); return errors.Join(err, first.Free(p)) })
}

// adder is the kernel out = x + y with its operands.
type adder struct {
	module   *Module
	function *Function
	stream   *Stream
	x, y     kernels.Ptr
	out      kernels.Ptr
	n        int
	params   kernels.MapParams
}

func newAdder(t *testing.T, d *Device, n int) *adder {
	t.Helper()
	a := &adder{n: n}
	k, ok := kernels.Find("map_add_f32")
	if !ok {
		t.Fatal("there is no kernel map_add_f32")
	}
	if !slices.Contains(kernels.SetsFor(d.Info.Capability), k.Set) {
		t.Fatalf("no kernels run on %+v", d.Info)
	}
	ptx, err := kernels.PTX(k.Set, k.Module)
	if err != nil {
		t.Fatal(err)
	}
	steps(t, d,
		func() (err error) { a.module, err = d.LoadModule(k.Module, ptx); return err },
		func() (err error) { a.function, err = a.module.Function(k.Name); return err },
		func() (err error) { a.stream, err = d.NewStream(); return err },
		func() (err error) { a.x, err = d.Alloc(int64(4 * n)); return err },
		func() (err error) { a.y, err = d.Alloc(int64(4 * n)); return err },
		func() (err error) { a.out, err = d.Alloc(int64(4 * n)); return err },
		func() error { return a.stream.Write(a.x, Bytes(ramp(n, 1))) },
		func() error { return a.stream.Write(a.y, Bytes(ramp(n, 0.5))) },
	)
	a.params = kernels.MapParams{N: int64(n)}
	a.params.X.Data, a.params.Y.Data, a.params.Out.Data = a.x, a.y, a.out
	return a
}

func (a *adder) launch() error {
	return a.function.Launch([3]int{(a.n + 4095) / 4096, 1, 1}, 256, 0, a.stream, unsafe.Pointer(&a.params))
}

// free gives all back.
func (a *adder) free(d *Device) func() error {
	return func() error {
		return errors.Join(d.Free(a.x), d.Free(a.y), d.Free(a.out), a.stream.Destroy(), a.module.Unload())
	}
}

func TestLaunch(t *testing.T) {
	d := openForTest(t)
	a := newAdder(t, d, 5001)
	got := make([]float32, a.n)
	steps(t, d, a.launch, func() error { return a.stream.Read(Bytes(got), a.out) }, a.free(d))
	for i, v := range got {
		if want := 1.5 * float32(i); v != want {
			t.Fatalf("element %d is %g, want %g", i, v, want)
		}
	}
}

func TestLaunchThatCannotBe(t *testing.T) {
	d := openForTest(t)
	a := newAdder(t, d, 16)
	err := d.Do(func() error {
		return a.function.Launch([3]int{1, 2, 3}, 8192, 0, a.stream, unsafe.Pointer(&a.params))
	})
	if err == nil || !strings.Contains(err.Error(), "launching map_add_f32 on 1x2x3 blocks of 8192 threads with 0 bytes of shared memory: ") ||
		!strings.Contains(err.Error(), "(cuLaunchKernel: CUDA_ERROR_") {
		t.Errorf("error %v", err)
	}
	steps(t, d, a.free(d))
}

func TestFunctions(t *testing.T) {
	d := openForTest(t)
	a := newAdder(t, d, 16)
	var info FunctionInfo
	var blocks int
	steps(t, d,
		func() (err error) { info, err = a.function.Info(); return err },
		func() (err error) { blocks, err = a.function.BlocksPerProcessor(256, 0); return err },
		func() error { return a.function.AllowShared(d.Info.SharedBytes - info.SharedBytes) },
	)
	if info.MaxThreads != 256 || info.Registers < 1 || info.LocalBytes != 0 || blocks < 1 {
		t.Errorf("%+v, %d blocks", info, blocks)
	}
	for _, c := range []struct {
		name string
		f    func() error
		want string
	}{
		{"too much shared memory", func() error { return a.function.AllowShared(d.Info.SharedBytes + 1024) }, "allowing kernel map_add_f32 "},
		{"no such kernel", func() error { _, err := a.module.Function("nothing"); return err }, "finding kernel nothing in elementwise: "},
		{"no PTX", func() error { _, err := d.LoadModule("nonsense", "nonsense\n"); return err }, "compiling the kernels of nonsense: "},
	} {
		if err := d.Do(c.f); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
	steps(t, d, a.free(d))
}

// A graph does what was queued while it was captured, as often as it is launched,
// with the memory's contents of then.
func TestGraph(t *testing.T) {
	d := openForTest(t)
	a := newAdder(t, d, 300)
	var host Pinned
	var g *Graph
	steps(t, d,
		func() (err error) { host, err = d.AllocPinned(4 * a.n); return err },
		func() error { return a.stream.Zero(a.out, int64(4*a.n)) },
		func() (err error) {
			g, err = a.stream.Capture(func() error {
				return errors.Join(a.stream.Upload(a.x, host), a.launch(), a.stream.Download(host, a.out))
			})
			return err
		},
		// Capturing runs nothing.
		func() error {
			out := ramp(a.n, 1)
			if err := a.stream.Read(Bytes(out), a.out); err != nil || out[a.n-1] != 0 {
				return errors.Join(err, errors.New("what was captured ran"))
			}
			return nil
		},
	)
	if g.Nodes != 3 {
		t.Errorf("%d nodes, want 3", g.Nodes)
	}
	x := ramp(a.n, 3)
	copy(host, Bytes(x))
	for range 3 {
		steps(t, d, func() error { return a.stream.Launch(g) }, a.stream.Synchronize)
		got := make([]float32, a.n)
		copy(Bytes(got), host)
		for i := range x {
			if x[i] += 0.5 * float32(i); got[i] != x[i] {
				t.Fatalf("element %d is %g, want %g", i, got[i], x[i])
			}
		}
	}
	steps(t, d, g.Destroy, func() error { return d.FreePinned(host) }, a.free(d))
}

// Events join another stream to what is captured, and both to one graph.
func TestGraphOfTwoStreams(t *testing.T) {
	d := openForTest(t)
	a := newAdder(t, d, 64)
	var side *Stream
	var fork, join *Event
	var g *Graph
	got := make([]float32, a.n)
	steps(t, d,
		func() (err error) { side, err = d.NewStream(); return err },
		func() (err error) { fork, err = d.NewEvent(false); return err },
		func() (err error) { join, err = d.NewEvent(false); return err },
		func() (err error) {
			g, err = a.stream.Capture(func() error {
				return errors.Join(
					a.stream.Record(fork), side.Wait(fork), side.Fill(a.y, math.Float32bits(8), int64(a.n)), side.Record(join),
					a.stream.Fill(a.x, math.Float32bits(2), int64(a.n)), a.stream.Wait(join), a.launch())
			})
			return err
		},
		func() error { return a.stream.Launch(g) },
		func() error { return a.stream.Read(Bytes(got), a.out) },
		func() error { return errors.Join(g.Destroy(), fork.Destroy(), join.Destroy(), side.Destroy()) },
		a.free(d),
	)
	for i, v := range got {
		if v != 10 {
			t.Fatalf("element %d is %g, want 10", i, v)
		}
	}
}

// A function that fails within a capture leaves a stream that works.
func TestCaptureThatFails(t *testing.T) {
	d := openForTest(t)
	a := newAdder(t, d, 64)
	wrong := errors.New("wrong")
	err := d.Do(func() error {
		_, err := a.stream.Capture(func() error { return errors.Join(a.launch(), wrong) })
		return err
	})
	if !errors.Is(err, wrong) {
		t.Errorf("error %v", err)
	}
	got := make([]float32, a.n)
	steps(t, d, a.launch, func() error { return a.stream.Read(Bytes(got), a.out) }, a.free(d))
	if got[63] != 63*1.5 {
		t.Errorf("after it, element 63 is %g", got[63])
	}
}

func TestEvents(t *testing.T) {
	d := openForTest(t)
	a := newAdder(t, d, 100000)
	var from, to, plain *Event
	steps(t, d,
		func() (err error) { from, err = d.NewEvent(true); return err },
		func() (err error) { to, err = d.NewEvent(true); return err },
		func() (err error) { plain, err = d.NewEvent(false); return err },
		func() error {
			return errors.Join(a.stream.Record(from), a.launch(), a.stream.Record(to), a.stream.Record(plain))
		},
		func() error { return to.Synchronize() },
		func() error {
			if took, err := Elapsed(from, to); err != nil || took <= 0 {
				t.Errorf("it took %v, %v", took, err)
			}
			if _, err := Elapsed(from, plain); err == nil {
				t.Error("an event without a time has one")
			}
			return nil
		},
		func() error { return errors.Join(from.Destroy(), to.Destroy(), plain.Destroy()) },
		a.free(d),
	)
}

func TestBytes(t *testing.T) {
	words := []uint16{0x0201, 0x0403}
	b := Bytes(words)
	if len(b) != 4 || b[0] != 1 || b[3] != 4 {
		t.Errorf("%v", b)
	}
	b[0] = 7
	if words[0] != 0x0207 {
		t.Error("they are not the same memory")
	}
	if len(Bytes([]float32(nil))) != 0 {
		t.Error("nothing has bytes")
	}
}

// Memory of the host may lie in a struct that has pointers elsewhere.
func TestCopiesOfPartsOfStructs(t *testing.T) {
	d := openForTest(t)
	type record struct {
		name   *string
		values [4]float32
	}
	name := "outside"
	from, to := &record{&name, [4]float32{1, 2, 3, 4}}, &record{name: &name}
	var s *Stream
	var p kernels.Ptr
	steps(t, d,
		func() (err error) { s, err = d.NewStream(); return err },
		func() (err error) { p, err = d.Alloc(16); return err },
		func() error { return s.Write(p, Bytes(from.values[:])) },
		func() error { return s.Read(Bytes(to.values[:]), p) },
		func() error { return errors.Join(d.Free(p), s.Destroy()) },
	)
	if to.values != from.values {
		t.Errorf("%v came back as %v", from.values, to.values)
	}
}
