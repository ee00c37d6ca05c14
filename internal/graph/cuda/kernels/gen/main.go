// Command gen makes what package kernels embeds of the CUDA sources in a folder:
//
//	params.go          the parameter structs of the kernels, in Go, and which kernel takes which
//	ptx/SET/NAME.ptx   NAME.cu compiled by clang for the architecture set
//
// NAME.cu is for the set sm_80, SET/NAME.cu for the set of its folder; names are
// unique over all of them. Headers lie beside the sources of sm_80, or of their set.
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
	"path"
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
	headers, sources, err := findFiles(dir)
	if err != nil {
		return err
	}
	stale, err := stalePTX(dir, sources)
	if err != nil {
		return err
	}
	unit, err := parseFiles(dir, headers, sources)
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

// source is a file of kernels.
type source struct {
	architecture
	file   string // path below the folder of the sources, with slashes
	module string // its name without .cu
}

// ptx is where what it is compiled to lies, below the folder of the sources.
func (s source) ptx() string { return "ptx/" + s.set + "/" + s.module + ".ptx" }

// findFiles lists the headers in a folder, by their paths below it, and the sources.
func findFiles(dir string) (headers []string, sources []source, err error) {
	modules := map[string]string{}
	for _, a := range architectures {
		found, err := filepath.Glob(filepath.Join(dir, a.folder, "*"))
		if err != nil {
			return nil, nil, err
		}
		for _, name := range found {
			file := path.Join(a.folder, filepath.Base(name))
			switch filepath.Ext(file) {
			case ".h":
				headers = append(headers, file)
			case ".cu":
				module := strings.TrimSuffix(path.Base(file), ".cu")
				if other, taken := modules[module]; taken {
					return nil, nil, fmt.Errorf("%s and %s are both module %s", other, file, module)
				}
				modules[module] = file
				sources = append(sources, source{architecture: a, file: file, module: module})
			}
		}
	}
	return headers, sources, nil
}

// stalePTX lists PTX files that no source stands for any more.
func stalePTX(dir string, sources []source) ([]string, error) {
	wanted := map[string]bool{}
	for _, s := range sources {
		wanted[s.ptx()] = true
	}
	there, err := filepath.Glob(filepath.Join(dir, "ptx", "*", "*.ptx"))
	if err != nil {
		return nil, err
	}
	var stale []string
	for _, file := range there {
		name, err := filepath.Rel(dir, file)
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
		file := filepath.Join(dir, filepath.FromSlash(name))
		if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, content) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(file, content, 0o666); err != nil {
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
