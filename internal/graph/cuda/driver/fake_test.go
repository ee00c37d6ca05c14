//go:build gpu && !cpu

package driver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// The driver is opened once in a process. So a test with testdata/fake.c in place
// of it runs this program again, as one of the scenarios, and looks at what it
// prints.
func TestMain(m *testing.M) {
	if name := os.Getenv("DRIVER_SCENARIO"); name != "" {
		if err := scenarios[name](); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("no error")
		}
		return
	}
	os.Exit(m.Run())
}

var scenarios = map[string]func() error{
	"available": Available,
	"version": func() error {
		v, err := DriverVersion()
		return errors.Join(err, errors.New(v))
	},
	"devices": func() error {
		all, err := Devices()
		for _, d := range all {
			err = errors.Join(err, fmt.Errorf("%+v", d))
		}
		return err
	},
	"open 1":  func() error { return open(1, func(*Device) error { return nil }) },
	"open -1": func() error { return open(-1, func(*Device) error { return nil }) },
	"alloc": func() error {
		return open(0, func(d *Device) error { _, err := d.Alloc(5 << 30); return kinds(err) })
	},
	"pinned": func() error {
		return open(0, func(d *Device) error { _, err := d.AllocPinned(4096); return kinds(err) })
	},
	"synchronize": func() error {
		return open(0, func(d *Device) error {
			s, err := d.NewStream()
			if err != nil {
				return err
			}
			return kinds(s.Synchronize())
		})
	},
	"module": func() error {
		return open(0, func(d *Device) error { _, err := d.LoadModule("conv", "nonsense"); return kinds(err) })
	},
	"launch": func() error {
		return open(0, func(d *Device) error {
			f, s, err := someKernel(d)
			if err != nil {
				return err
			}
			params := [2]int32{3, 4}
			return kinds(f.Launch([3]int{512, 4, 1}, 256, 65536, s, unsafe.Pointer(&params)))
		})
	},
	"no attribute": func() error {
		return open(0, func(d *Device) error {
			f, _, err := someKernel(d)
			if err != nil {
				return err
			}
			return f.AllowShared(100000)
		})
	},
	"capture": func() error {
		return open(0, func(d *Device) error {
			s, err := d.NewStream()
			if err != nil {
				return err
			}
			g, err := s.Capture(func() error { return nil })
			if err == nil {
				err = fmt.Errorf("a graph of %d nodes", g.Nodes)
			}
			return err
		})
	},
	"capture fails": func() error {
		return open(0, func(d *Device) error {
			s, err := d.NewStream()
			if err != nil {
				return err
			}
			_, err = s.Capture(func() error { return errors.New("what was to be captured failed") })
			return err
		})
	},
	"tensor map": func() error {
		if err := Available(); err != nil {
			return err
		}
		_, bad := Tiled{Extents: []uint64{64, 2}, Box: []uint32{64}}.Encode()
		_, missing := Tiled{Extents: []uint64{64}, Box: []uint32{64}}.Encode()
		return errors.Join(bad, missing)
	},
	"cheap": func() error {
		return open(0, func(d *Device) error {
			f, s, err := someKernel(d)
			if err != nil {
				return err
			}
			params := [2]int32{3, 4}
			var failed error
			allocations := testing.AllocsPerRun(1000, func() {
				if err := f.Launch([3]int{1, 1, 1}, 32, 0, s, unsafe.Pointer(&params)); err != nil {
					failed = err
				}
			})
			result := testing.Benchmark(func(b *testing.B) {
				for b.Loop() {
					failed = errors.Join(failed, f.Launch([3]int{1, 1, 1}, 32, 0, s, unsafe.Pointer(&params)))
				}
			})
			return errors.Join(failed, fmt.Errorf("%g allocations and %d ns a launch", allocations, result.NsPerOp()))
		})
	},
	"goexit": func() error {
		return open(0, func(*Device) error { runtime.Goexit(); return nil })
	},
	"panic": func() (err error) {
		d, err := Open(0)
		if err != nil {
			return err
		}
		func() {
			defer func() { fmt.Printf("caught %.8v\n", recover()) }()
			err = d.Do(func() error { panic("surprise") })
		}()
		return errors.Join(err, d.Do(func() error { fmt.Println("works on"); return nil }), d.Close())
	},
	"thread": func() error {
		d, err := Open(0)
		if err != nil {
			return err
		}
		threads := map[int]bool{}
		for range 10 {
			errs := make(chan error)
			go func() {
				errs <- d.Do(func() error {
					runtime.Gosched()
					threads[syscall.Gettid()] = true
					return d.Do(func() error { threads[syscall.Gettid()] = true; return nil })
				})
			}()
			err = errors.Join(err, <-errs)
		}
		fmt.Println(len(threads), "thread")
		err = errors.Join(err, d.Close(), d.Close())
		fmt.Println("then", d.Do(func() error { return nil }))
		return err
	},
}

// open runs f on a device.
func open(ordinal int, f func(*Device) error) error {
	d, err := Open(ordinal)
	if err != nil {
		return err
	}
	return errors.Join(d.Do(func() error { return f(d) }), d.Close())
}

func someKernel(d *Device) (*Function, *Stream, error) {
	m, err := d.LoadModule("conv", "")
	if err != nil {
		return nil, nil, err
	}
	f, err := m.Function("conv_forward")
	if err != nil {
		return nil, nil, err
	}
	s, err := d.NewStream()
	return f, s, err
}

// kinds adds what errors.Is says of an error.
func kinds(err error) error {
	if errors.Is(err, ErrOutOfMemory) {
		err = fmt.Errorf("memory! %w", err)
	}
	if errors.Is(err, ErrDeviceLost) {
		err = fmt.Errorf("lost! %w", err)
	}
	return err
}

// fake compiles testdata/fake.c.
func fake(t *testing.T) string {
	t.Helper()
	library := filepath.Join(t.TempDir(), "libcuda.so")
	cc := exec.Command("gcc", "-shared", "-fPIC", "-Idoor/include", "-o", library, "testdata/fake.c")
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cc, err, out)
	}
	return library
}

// play runs a scenario in a process of its own.
func play(t *testing.T, scenario string, env ...string) string {
	t.Helper()
	if scenarios[scenario] == nil {
		t.Fatalf("no scenario %q", scenario)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "DRIVER_SCENARIO="+scenario), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		out = append(out, err.Error()...)
	}
	return strings.TrimSpace(string(out))
}

func TestWithFakeDriver(t *testing.T) {
	library := fake(t)
	for _, c := range []struct {
		scenario string
		env      string
		want     string // all that is printed, as a regular expression
	}{
		{"available", "", "no error"},
		{"available", "DDPM_LIBCUDA=/nowhere/libcuda.so", "no NVIDIA driver: DDPM_LIBCUDA names a library that cannot be loaded: /nowhere/libcuda.so: .*No such file.*"},
		{"available", "DDPM_LIBCUDA=libm.so.6", `no NVIDIA driver: libm\.so\.6 has no cuInit`},
		{"available", "FAKE_ERRORS=cuInit=100", "the NVIDIA driver reports: words of error 100"},
		{"available", "FAKE_ERRORS=cuInit=12345", "the NVIDIA driver reports: cuInit answers 12345"},
		{"available", "FAKE_VERSION=11080", `the NVIDIA driver is too old: it is of CUDA 11\.8, and the kernels need 12\.0 or newer`},
		{"version", "FAKE_VERSION=12060", `(\S+, )?CUDA 12\.6`},
		{"version", "FAKE_ERRORS=cuInit=100", "the NVIDIA driver reports: words of error 100\n"},

		{"devices", "FAKE_DEVICES=0", "no error"},
		{"devices", "FAKE_ERRORS=cuInit=100", "the NVIDIA driver reports: words of error 100"},
		{"devices", "FAKE_DEVICES=2", `\{Ordinal:0 Name:Fake GPU 0 UUID:GPU-00000000-0000-0000-0000-000000000000 Memory:17179869184 Free:16106127360 ` +
			`Capability:\[75 76\] Processors:16 SharedBytes:97 L2Bytes:38\}` + "\n" + `\{Ordinal:1 .* UUID:GPU-01010101-.*\}`},
		{"devices", "FAKE_ERRORS=cuDevicePrimaryCtxRetain=101", `\{Ordinal:0 .* Free:0 .*\}`},
		{"devices", "FAKE_ERRORS=cuDeviceGetAttribute=1", `asking GPU 0 for attribute 75: words of error 1 \(cuDeviceGetAttribute: CUDA_ERROR_1\)`},
		{"open 1", "FAKE_DEVICES=0", "the NVIDIA driver shows no GPU"},
		{"open 1", "FAKE_DEVICES=2", "no error"},
		{"open 1", "", "there is no GPU 1: the NVIDIA driver shows 1, numbered from 0"},
		{"open -1", "", "there is no GPU -1: the NVIDIA driver shows 1, numbered from 0"},
		{"open 1", "FAKE_DEVICES=2 FAKE_ERRORS=cuDevicePrimaryCtxRetain=46", `opening GPU 1, Fake GPU 1: words of error 46 .*`},
		{"open 1", "FAKE_DEVICES=2 FAKE_ERRORS=cuCtxSetCurrent=201", `opening GPU 1: words of error 201 .*`},

		{"alloc", "FAKE_ERRORS=cuMemAlloc_v2=2", `memory! allocating 5368709120 bytes on GPU 0: words of error 2 \(cuMemAlloc: CUDA_ERROR_2\)`},
		{"alloc", "FAKE_ERRORS=cuMemAlloc_v2=12345", `allocating .*: the driver has no words for it \(cuMemAlloc: error 12345\)`},
		{"pinned", "FAKE_ERRORS=cuMemHostAlloc=2", `memory! allocating 4096 bytes of pinned memory: words of error 2 \(.*\)`},
		{"synchronize", "FAKE_ERRORS=cuStreamSynchronize=700", `lost! waiting for the GPU: words of error 700 \(cuStreamSynchronize: CUDA_ERROR_700\)`},
		{"synchronize", "FAKE_ERRORS=cuStreamSynchronize=719", `lost! .*`},
		{"synchronize", "FAKE_ERRORS=cuStreamSynchronize=214", `lost! .*`},
		{"synchronize", "FAKE_ERRORS=cuStreamSynchronize=1", `waiting .*`},
		{"synchronize", "FAKE_ERRORS=cuStreamSynchronize=700 cuCtxSynchronize=700",
			"lost! waiting for the GPU: words of error 700 .*"}, // and no second time by Close
		{"module", "FAKE_ERRORS=cuModuleLoadDataEx=218",
			`compiling the kernels of conv: words of error 218 \(cuModuleLoadDataEx: CUDA_ERROR_218\)` + "\nline 7: no such instruction"},
		{"launch", "", "no error"},
		{"launch", "FAKE_ERRORS=cuLaunchKernel=701",
			`launching conv_forward on 512x4x1 blocks of 256 threads with 65536 bytes of shared memory: words of error 701 \(cuLaunchKernel: CUDA_ERROR_701\)`},
		{"launch", "FAKE_ERRORS=cuModuleGetFunction=500", `finding kernel conv_forward in conv: words of error 500 .*`},
		{"capture", "", "a graph of 3 nodes"},
		{"capture", "FAKE_ERRORS=cuStreamBeginCapture_v2=906", "capturing a stream: words of error 906 .*"},
		{"capture", "FAKE_ERRORS=cuStreamEndCapture=901", "capturing a stream: words of error 901 .*"},
		{"capture", "FAKE_ERRORS=cuGraphInstantiateWithFlags=2", "making a graph of 3 nodes: words of error 2 .*"},
		{"capture fails", "", "what was to be captured failed"},
		{"capture fails", "FAKE_ERRORS=cuStreamEndCapture=901", "what was to be captured failed"},

		// What a driver lacks.
		{"no attribute", "", `allowing kernel conv_forward 100000 bytes of shared memory: words of error 500 \(cuFuncSetAttribute: CUDA_ERROR_500\)`},
		{"tensor map", "", "no tensor map can be of .*Extents:\\[64 2\\] .*\nthe NVIDIA driver is too old: it has no cuTensorMapEncodeTiled, which CUDA 12.0 brought"},

		{"panic", "", "caught surprise\nworks on\nno error"},
		{"thread", "", "1 thread\nthen the device is closed\nno error"},
		{"goexit", "", `(?s)panic: driver: a function left Device\.Do by runtime\.Goexit.*exit status 2`},
	} {
		t.Run(c.scenario+" "+c.env, func(t *testing.T) {
			env := []string{"DDPM_LIBCUDA=" + library}
			for _, variable := range regexp.MustCompile(`[A-Z_]+=\S+( cu\S+)*`).FindAllString(c.env, -1) {
				env = append(env, variable)
			}
			if got := play(t, c.scenario, env...); !regexp.MustCompile(`^(` + strings.TrimSpace(c.want) + `)$`).MatchString(got) {
				t.Errorf("printed %q, want %q", got, c.want)
			}
		})
	}
}

// Without DDPM_LIBCUDA the driver's own library is taken, wherever it is.
func TestWithoutFakeDriver(t *testing.T) {
	got := play(t, "available", "DDPM_LIBCUDA=")
	want := `^(no error|no NVIDIA driver: libcuda\.so\.1 was not found|the NVIDIA driver (reports|is too old): .+)$`
	if !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("printed %q", got)
	}
}

// A launch costs a call into C and no memory.
func TestLaunchIsCheap(t *testing.T) {
	got := play(t, "cheap", "DDPM_LIBCUDA="+fake(t))
	var allocations, ns int
	if _, err := fmt.Sscanf(got, "%d allocations and %d ns a launch", &allocations, &ns); err != nil || allocations != 0 || ns > 5000 {
		t.Errorf("printed %q", got)
	}
	t.Log(got)
}
