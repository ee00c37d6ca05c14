// Command gen makes what package kernels embeds of the CUDA sources in a folder:
//
//	params.go          the parameter structs of the kernels, in Go, and which kernel takes which
//	ptx/SET/NAME.ptx   NAME.cu compiled by clang for the architecture set
//
// Run it by `go generate` in package kernels, or `make kernels`. With -check it
// changes nothing and fails if what is there differs from what it would write.
//
// It needs clang 19; CLANG in the environment names another compiler. The output
// depends on the sources and the compiler alone.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	dir := flag.String("dir", ".", "folder of the CUDA sources")
	check := flag.Bool("check", false, "compare with what is there instead of writing")
	flag.Parse()
	compiler := os.Getenv("CLANG")
	if compiler == "" {
		compiler = "clang-19"
	}
	if err := run(*dir, compiler, *check); err != nil {
		fmt.Fprintf(os.Stderr, "kernels: %v\n", err)
		os.Exit(1)
	}
}

func run(dir, compiler string, check bool) error {
	sources, err := filepath.Glob(filepath.Join(dir, "*.cu"))
	if err != nil {
		return err
	}
	headers, err := filepath.Glob(filepath.Join(dir, "*.h"))
	if err != nil {
		return err
	}
	stale, err := stalePTX(dir, sources)
	if err != nil {
		return err
	}
	unit, err := parseFiles(headers, sources)
	if err != nil {
		return err
	}
	params, err := unit.goSource()
	if err != nil {
		return err
	}
	// A source that does not compile keeps its old PTX and does not hold up the others.
	made, failed := compileAll(dir, compiler, sources, unit)
	made["params.go"] = params
	if check {
		return errors.Join(failed, compare(dir, compiler, made, stale))
	}
	for _, name := range stale {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return errors.Join(failed, write(dir, made))
}

// files are the contents of generated files by their path below the folder of
// the sources.
type files map[string][]byte

// stalePTX lists PTX files that no source stands for any more.
func stalePTX(dir string, sources []string) ([]string, error) {
	wanted := map[string]bool{}
	for _, source := range sources {
		for _, a := range architectures {
			wanted[ptxName(a, source)] = true
		}
	}
	there, err := filepath.Glob(filepath.Join(dir, "ptx", "*", "*.ptx"))
	if err != nil {
		return nil, err
	}
	var stale []string
	for _, path := range there {
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return nil, err
		}
		if name = filepath.ToSlash(name); !wanted[name] {
			stale = append(stale, name)
		}
	}
	return stale, nil
}

// write leaves files alone whose content is right, so that nothing is rebuilt for it.
func write(dir string, made files) error {
	for name, content := range made {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o666); err != nil {
			return err
		}
	}
	return nil
}

func compare(dir, compiler string, made files, stale []string) error {
	var wrong []string
	for name, content := range made {
		old, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			wrong = append(wrong, name+" is missing")
		case err != nil:
			return err
		case !bytes.Equal(old, content):
			wrong = append(wrong, name+" differs")
		}
	}
	for _, name := range stale {
		wrong = append(wrong, name+" has no source")
	}
	if wrong == nil {
		return nil
	}
	slices.Sort(wrong)
	return fmt.Errorf("not what the sources compile to; run make kernels\n\t%s\n\t(compared with %s)",
		strings.Join(wrong, "\n\t"), compilerVersion(compiler))
}
