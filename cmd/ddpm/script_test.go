package main

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ddpm/internal/picture"
	"ddpm/internal/rng"
	"ddpm/internal/safetensors"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"ddpm": main}) }

// The scripts type commands as a user does, on the smallest model there can be:
// the configuration tiny, which every script finds.
func TestScripts(t *testing.T) { runScripts(t, "testdata", nil) }

// runScripts runs the scripts of a folder. They see, of the environment, the
// variables that are passed.
func runScripts(t *testing.T, dir string, passed []string) {
	tiny, err := os.ReadFile("testdata/tiny.yaml")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Values[signalled{}] = new(*exec.Cmd)
			env.Setenv("DDPM_CACHE", filepath.Join(env.WorkDir, "cache")) // not the user's
			for _, name := range passed {
				env.Setenv(name, os.Getenv(name))
			}
			if err := os.Mkdir(filepath.Join(env.WorkDir, "configs"), 0o777); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "configs", "tiny.yaml"), tiny, 0o666)
		},
		Condition: func(name string) (bool, error) {
			// What only the driver's stand-in can be made to do.
			if name == "standin" {
				return os.Getenv("DDPM_LIBCUDA") != "", nil
			}
			return false, fmt.Errorf("no condition %q", name)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"same": same, "await": await, "signal": send, "code": code,
			"truncate": truncate, "corrupt": corrupt, "pngs": pngs,
			"noise": noise, "tensor": tensor, "weights": weights, "mask": mask, "samehalf": sameHalf, "near": near,
		},
	})
}

func wantArgs(ts *testscript.TestScript, args []string, usage string) {
	if len(args) != len(strings.Fields(usage))-1 {
		ts.Fatalf("usage: %s", usage)
	}
}

func numbers(ts *testscript.TestScript, words []string) []int {
	ns := make([]int, len(words))
	for i, word := range words {
		var err error
		ns[i], err = strconv.Atoi(word)
		ts.Check(err)
	}
	return ns
}

// same compares files byte for byte, like cmp, but shows nothing of them.
func same(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, args, "same A B")
	if equal := ts.ReadFile(args[0]) == ts.ReadFile(args[1]); equal == neg {
		ts.Fatalf("%s and %s are equal: %t", args[0], args[1], equal)
	}
}

// await waits until a file exists and is not empty.
func await(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "await FILE")
	for range 3000 {
		if info, err := os.Stat(ts.MkAbs(args[0])); err == nil && info.Size() > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s does not come", args[0])
}

// signalled is the key of the program of a script that got a signal.
type signalled struct{}

// send sends a signal to the program in the background.
func send(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "signal NAME")
	s, known := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM}[args[0]]
	running := ts.BackgroundCmds()
	if len(running) != 1 || !known {
		ts.Fatalf("signal %s for %d programs", args[0], len(running))
	}
	*ts.Value(signalled{}).(**exec.Cmd) = running[0]
	ts.Check(running[0].Process.Signal(s))
}

// code checks the exit code of the program that got a signal, after wait.
func code(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "code N")
	program := *ts.Value(signalled{}).(**exec.Cmd)
	if got := program.ProcessState.ExitCode(); got != numbers(ts, args)[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// truncate cuts a file to a number of bytes.
func truncate(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "truncate FILE BYTES")
	ts.Check(os.Truncate(ts.MkAbs(args[0]), int64(numbers(ts, args[1:])[0])))
}

// corrupt overwrites some bytes of a file from an offset on.
func corrupt(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "corrupt FILE OFFSET")
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt([]byte("\xff\xff\xff\xff\xff\xff\xff\xff"), int64(numbers(ts, args[1:])[0]))
	ts.Check(err)
	ts.Check(f.Close())
}

// pngs fills a folder with images of one colour each.
func pngs(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "pngs FOLDER N WIDTH HEIGHT")
	n := numbers(ts, args[1:])
	ts.Check(os.MkdirAll(ts.MkAbs(args[0]), 0o777))
	for i := range n[0] {
		img := image.NewRGBA(image.Rect(0, 0, n[1], n[2]))
		for p := range n[1] * n[2] {
			img.Set(p%n[1], p/n[1], color.RGBA{byte(40 * i), byte(255 - 30*i), 120, 255})
		}
		ts.Check(picture.WritePNG(ts.MkAbs(filepath.Join(args[0], fmt.Sprintf("%03d.png", i))), img))
	}
}

// mask writes an image that is black on the left and white on the right.
func mask(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "mask FILE WIDTH HEIGHT")
	n := numbers(ts, args[1:])
	img := image.NewGray(image.Rect(0, 0, n[0], n[1]))
	for p := range n[0] * n[1] {
		if x := p % n[0]; x >= n[0]/2 {
			img.Set(x, p/n[0], color.White)
		}
	}
	ts.Check(picture.WritePNG(ts.MkAbs(args[0]), img))
}

// sameHalf checks that the left halves of two images are equal, and the right ones are not.
func sameHalf(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "samehalf A B")
	var both [2]image.Image
	for i, name := range args {
		f, err := os.Open(ts.MkAbs(name))
		ts.Check(err)
		both[i], err = png.Decode(f)
		ts.Check(errors.Join(err, f.Close()))
	}
	equal := [2]bool{true, true}
	size := both[0].Bounds().Size()
	for p := range size.X * size.Y {
		x, y := p%size.X, p/size.X
		if both[0].At(x, y) != both[1].At(x, y) {
			equal[x/(size.X/2)] = false
		}
	}
	if equal != [2]bool{true, false} {
		ts.Fatalf("%s and %s: the left halves are equal: %t, the right ones: %t", args[0], args[1], equal[0], equal[1])
	}
}

// noise writes a file for --noise.
func noise(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "noise FILE N CHANNELS HEIGHT WIDTH")
	shape := numbers(ts, args[1:])
	z := make([]float32, shape[0]*shape[1]*shape[2]*shape[3])
	rng.Key{Seed: 99, Stream: rng.Prior}.Normals(z)
	ts.Check(safetensors.WriteFile(ts.MkAbs(args[0]), nil, []safetensors.Tensor{
		{Name: "noise", DType: safetensors.F32, Shape: shape, Float32: z},
	}))
}

// tensor checks the shape of a tensor in a safetensors file.
func tensor(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "tensor FILE NAME SHAPE")
	f, err := safetensors.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	info, ok := f.Tensor(args[1])
	if got := strings.Trim(strings.ReplaceAll(fmt.Sprint(info.Shape), " ", "x"), "[]"); !ok || got != args[2] {
		ts.Fatalf("tensor %s is %s, want %s", args[1], got, args[2])
	}
}

// weights copies the raw weights of a checkpoint and nothing else.
func weights(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "weights CHECKPOINT FILE")
	f, err := safetensors.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	var tensors []safetensors.Tensor
	for _, name := range f.Names() {
		if strings.HasPrefix(name, "ema.") || strings.HasPrefix(name, "adam_") {
			continue
		}
		values, err := f.ReadFloat32(name)
		ts.Check(err)
		info, _ := f.Tensor(name)
		tensors = append(tensors, safetensors.Tensor{Name: name, DType: safetensors.F32, Shape: info.Shape, Float32: values})
	}
	ts.Check(safetensors.WriteFile(ts.MkAbs(args[1]), map[string]string{"format": "pt"}, tensors))
}

// near compares the tensors samples of two files: near A B TOLERANCE.
func near(ts *testscript.TestScript, _ bool, args []string) {
	wantArgs(ts, args, "near A B TOLERANCE")
	tolerance, err := strconv.ParseFloat(args[2], 64)
	ts.Check(err)
	read := func(name string) []float32 {
		f, err := safetensors.Open(ts.MkAbs(name))
		ts.Check(err)
		defer f.Close()
		values, err := f.ReadFloat32("samples")
		ts.Check(err)
		return values
	}
	a, b := read(args[0]), read(args[1])
	if len(a) != len(b) {
		ts.Fatalf("%d values and %d", len(a), len(b))
	}
	for i, v := range a {
		if d := math.Abs(float64(v - b[i])); !(d <= tolerance) {
			ts.Fatalf("value %d is %g and %g", i, v, b[i])
		}
	}
}
