package data

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func init() { Register("folder", openFolder) }

// imageFiles is a set of image files that are decoded when they are read. Their
// order is that of their names, byte by byte, whatever the file system's is.
type imageFiles struct {
	info    Info
	part    part
	names   []string // slash-separated, sorted
	labels  []int32  // of names; nil without classes
	open    func(i int) (io.ReadCloser, error)
	source  func(i int) string
	shaper  *shaper
	closing func() error
}

// openFolder finds the images below cfg.Path, in all sub-folders; symbolic links
// to files are followed, links to sub-folders are not.
func openFolder(cfg Config, split Split) (Dataset, error) {
	const what = "a folder of PNG, JPEG, GIF, WebP or BMP images"
	stat, err := statPath(cfg, what)
	if err != nil {
		return nil, err
	}
	if !stat.IsDir() {
		return nil, fmt.Errorf("%q is a file: set data.path to %s", cfg.Path, what)
	}
	names, err := imageNames(os.DirFS(cfg.Path))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", cfg.Path, err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%q: no PNG, JPEG, GIF, WebP or BMP image in it or its sub-folders", cfg.Path)
	}
	source := func(i int) string { return filepath.Join(cfg.Path, filepath.FromSlash(names[i])) }
	f := &imageFiles{
		names:   names,
		source:  source,
		open:    func(i int) (io.ReadCloser, error) { return os.Open(source(i)) },
		closing: func() error { return nil },
	}
	if cfg.Classes {
		if f.info.Classes, f.labels, err = folderClasses(names); err != nil {
			return nil, fmt.Errorf("%q: %w", cfg.Path, err)
		}
	}
	if err := f.finish(cfg, split); err != nil {
		return nil, err
	}
	return f, nil
}

func imageNames(files fs.FS) ([]string, error) {
	var names []string
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !isImageName(name) || entry.IsDir() {
			return nil
		}
		mode := entry.Type()
		if mode&fs.ModeSymlink != 0 {
			stat, err := fs.Stat(files, name)
			if err != nil { // a broken link is an unreadable image
				names = append(names, name)
				return nil
			}
			mode = stat.Mode()
		}
		if mode.IsRegular() { // opening a pipe would wait for ever
			names = append(names, name)
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// folderClasses labels each file by the first element of its name; the classes
// are numbered in alphabetical order.
func folderClasses(names []string) (classes []string, labels []int32, err error) {
	numbers := map[string]int32{}
	for _, name := range names {
		class, _, ok := strings.Cut(name, "/")
		if !ok {
			return nil, nil, fmt.Errorf("image %s is in no sub-folder that names its class: move it to one, or set data.classes to false", name)
		}
		if _, seen := numbers[class]; !seen {
			numbers[class] = 0
			classes = append(classes, class)
		}
	}
	slices.Sort(classes)
	for i, class := range classes {
		numbers[class] = int32(i)
	}
	labels = make([]int32, len(names))
	for i, name := range names {
		class, _, _ := strings.Cut(name, "/")
		labels[i] = numbers[class]
	}
	return classes, labels, nil
}

// finish sets what folders and archives have in common.
func (f *imageFiles) finish(cfg Config, split Split) (err error) {
	if f.part, err = newPart(cfg, len(f.names), split); err != nil {
		return err
	}
	f.shaper = newShaper(cfg)
	f.info = Info{
		Name: cfg.Name, Len: f.part.len(),
		Width: cfg.Width, Height: cfg.Height, Channels: cfg.Channels,
		Classes: f.info.Classes,
	}
	return nil
}

func (f *imageFiles) Info() Info { return f.info }

func (f *imageFiles) Read(index int, dst []byte) (int, error) {
	label, _, err := f.probe(index, dst)
	return label, err
}

func (f *imageFiles) probe(index int, dst []byte) (int, original, error) {
	if err := checkRead(f.info, index, dst); err != nil {
		return 0, original{}, err
	}
	i := f.part.at(index)
	file, err := f.open(i)
	if err != nil {
		return 0, original{}, fmt.Errorf("%s: %w", f.source(i), err)
	}
	defer file.Close()
	was, err := f.shaper.read(file, dst)
	if err != nil {
		return 0, was, fmt.Errorf("%s: %w", f.source(i), err)
	}
	if f.labels == nil {
		return -1, was, nil
	}
	return int(f.labels[i]), was, nil
}

func (f *imageFiles) Source(index int) string { return f.source(f.part.at(index)) }

func (f *imageFiles) Close() error { return f.closing() }
