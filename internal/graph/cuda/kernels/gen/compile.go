package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// architecture is one set of PTX files: what runs on a range of devices.
type architecture struct {
	set    string // folder in ptx/
	folder string // of its sources and headers, below that of all
	gpu    string // what the compiler calls it
	ptx    string // version of the language: an older driver refuses a newer one
}

var architectures = []architecture{
	{set: "sm_80", folder: "", gpu: "sm_80", ptx: "ptx80"},
	{set: "sm_90a", folder: "sm_90a", gpu: "sm_90a", ptx: "ptx80"},
}

// flags compile CUDA C++ for the device alone, without a CUDA toolkit: neither
// its headers nor its libraries. Sums and products are rounded as they are written:
// merged ones would undo code that computes a rounding error, and would not be what
// tests on the CPU run. Where one rounding is wanted kernels say fma.
func (a architecture) flags() []string {
	return []string{
		"-x", "cuda", "--cuda-device-only", "-nocudainc", "-nocudalib", "-std=c++17", "-O3", "-ffp-contract=off",
		"-Wall", "-Werror",
		"--cuda-gpu-arch=" + a.gpu, "--cuda-feature=+" + a.ptx,
	}
}

// compileAll compiles every source, a few at a time, and holds the structs of
// params.go to the compiler's layout of them.
func compileAll(dir, compiler string, sources []source, unit *unit) (files, error) {
	made := files{}
	var failed []error
	var lock sync.Mutex
	var running sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for _, s := range sources {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ptx, err := s.compile(dir, compiler, unit)
			lock.Lock()
			defer lock.Unlock()
			if err != nil {
				failed = append(failed, err)
				return
			}
			made[s.ptx()] = ptx
		})
	}
	running.Wait()
	slices.SortFunc(failed, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return made, errors.Join(failed...)
}

// compile makes the PTX of one source.
func (s source) compile(dir, compiler string, unit *unit) ([]byte, error) {
	args := append(s.flags(), "-S", "-I.", s.file, "-o", "-")
	ptx, err := clang(dir, compiler, nil, args)
	if err != nil {
		return nil, err
	}
	if err := unit.checkEntries(s, ptx); err != nil {
		return nil, err
	}
	args = append(s.flags(), "-fsyntax-only", "-I.", "-")
	if _, err := clang(dir, compiler, unit.layoutAssertions(s), args); err != nil {
		return nil, fmt.Errorf("the Go structs of %s would not have the compiler's layout: %w", s.file, err)
	}
	return normalise(s.file, ptx), nil
}

// clang runs the compiler in the folder of the sources, so that no path gets
// into what it writes. Its messages are the error.
func clang(dir, compiler string, stdin []byte, args []string) ([]byte, error) {
	cmd := exec.Command(compiler, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(stdin)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	err := cmd.Run()
	var status *exec.ExitError
	switch {
	case err == nil:
		return out.Bytes(), nil
	case errors.As(err, &status) && messages.Len() > 0:
		return nil, fmt.Errorf("%s failed:\n%s", compiler, bytes.TrimSpace(messages.Bytes()))
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("%w; Debian's package is clang-19, and CLANG=NAME names another compiler", err)
	}
	return nil, fmt.Errorf("%s: %w", compiler, err)
}

func compilerVersion(compiler string) string {
	out, err := exec.Command(compiler, "--version").Output()
	if err != nil {
		return compiler
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}

// normalise drops the compiler's comments, which tell of its version and inner
// names, and blanks.
func normalise(file string, ptx []byte) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "// Code generated from %s by gen; DO NOT EDIT.\n", file)
	for line := range strings.Lines(string(ptx)) {
		line, _, _ = strings.Cut(line, "//")
		if line = strings.TrimRight(line, " \t\r\n"); line != "" {
			out.WriteString(line + "\n")
		}
	}
	return out.Bytes()
}

var entryLine = regexp.MustCompile(`(?m)^\.visible \.entry (\w+)\(`)

// checkEntries compares the kernels found in the source with those compiled.
func (u *unit) checkEntries(s source, ptx []byte) error {
	var compiled, declared []string
	for _, m := range entryLine.FindAllSubmatch(ptx, -1) {
		compiled = append(compiled, string(m[1]))
	}
	for _, k := range u.kernels {
		if k.module == s.module {
			declared = append(declared, k.name)
		}
	}
	for _, name := range compiled {
		if !slices.Contains(declared, name) {
			return fmt.Errorf("%s: kernel %s is not written as `KERNEL BOUNDS(...) %s(NameParams p)`", s.file, name, name)
		}
	}
	for _, name := range declared {
		if !slices.Contains(compiled, name) {
			return fmt.Errorf("%s: kernel %s is in the source but not in what was compiled", s.file, name)
		}
	}
	return nil
}

// layoutAssertions is a program that compiles only if the sizes and offsets
// computed here are the compiler's.
func (u *unit) layoutAssertions(of source) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "#include \"%s\"\n", of.file)
	for _, s := range u.usedBy(of.module) {
		fmt.Fprintf(&out, "static_assert(sizeof(%s) == %d, \"size of %s\");\n", s.name, s.size, s.name)
		for _, f := range s.fields {
			fmt.Fprintf(&out, "static_assert(__builtin_offsetof(%s, %s) == %d, \"offset of %s.%s\");\n",
				s.name, f.name, f.offset, s.name, f.name)
		}
	}
	return out.Bytes()
}
