package data

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

func init() { Register("zip", openZip) }

// Limits on dataset.json.
const (
	maxZipLabels  = 1 << 30 // bytes
	maxZipClasses = 1 << 16
)

// openZip reads the images of a zip archive in place. Labels are those of a file
// dataset.json at the root, {"labels": [["folder/file.png", 3], ...]}, the
// format of StyleGAN and EDM; an archive without one takes the first sub-folder
// for the class.
func openZip(cfg Config, split Split) (Dataset, error) {
	const what = "a zip archive of PNG, JPEG, GIF, WebP or BMP images"
	stat, err := statPath(cfg, what)
	if err != nil {
		return nil, err
	}
	if stat.IsDir() {
		return nil, fmt.Errorf("%q is a folder: set data.path to %s, or data.name to folder", cfg.Path, what)
	}
	archive, err := zip.OpenReader(cfg.Path)
	if errors.Is(err, zip.ErrFormat) {
		return nil, fmt.Errorf("%q is truncated or no zip archive: fetch it again", cfg.Path)
	} else if err != nil {
		return nil, fmt.Errorf("%q: %w", cfg.Path, err)
	}
	f, err := newZip(archive, cfg, split)
	if err != nil {
		return nil, errors.Join(err, archive.Close())
	}
	return f, nil
}

func newZip(archive *zip.ReadCloser, cfg Config, split Split) (*imageFiles, error) {
	var files []*zip.File
	var labels *zip.File
	for _, file := range archive.File {
		if file.Name == "dataset.json" {
			labels = file
		} else if isImageName(file.Name) && file.Mode().IsRegular() {
			files = append(files, file)
		}
	}
	archive.File = nil // the archive's own list is not needed any more
	if len(files) == 0 {
		return nil, fmt.Errorf("%q: no PNG, JPEG, GIF, WebP or BMP image in the archive", cfg.Path)
	}
	slices.SortStableFunc(files, func(a, b *zip.File) int { return strings.Compare(a.Name, b.Name) })
	names := make([]string, len(files))
	for i, file := range files {
		names[i] = file.Name
	}
	f := &imageFiles{
		names:   names,
		source:  func(i int) string { return cfg.Path + ":" + names[i] },
		open:    func(i int) (io.ReadCloser, error) { return files[i].Open() },
		closing: archive.Close,
	}
	if cfg.Classes {
		var err error
		if labels == nil {
			f.info.Classes, f.labels, err = folderClasses(names)
		} else {
			f.info.Classes, f.labels, err = zipClasses(labels, names)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", cfg.Path, err)
		}
	}
	return f, f.finish(cfg, split)
}

// zipClasses reads dataset.json; classes have numbers only.
func zipClasses(file *zip.File, names []string) (classes []string, labels []int32, err error) {
	r, err := file.Open()
	if err != nil {
		return nil, nil, fmt.Errorf("dataset.json: %w", err)
	}
	defer r.Close()
	var content struct{ Labels []zipLabel }
	if err := json.NewDecoder(io.LimitReader(r, maxZipLabels)).Decode(&content); err != nil {
		return nil, nil, fmt.Errorf("dataset.json: %w", err)
	}
	if len(content.Labels) == 0 {
		return nil, nil, errors.New("dataset.json has no labels: set data.classes to false")
	}
	classOf := make(map[string]int32, len(content.Labels))
	for _, l := range content.Labels {
		classOf[l.name] = l.class
	}
	labels = make([]int32, len(names))
	most := int32(0)
	for i, name := range names {
		class, ok := classOf[name]
		if !ok {
			return nil, nil, fmt.Errorf("dataset.json has no label for %s: add one, or set data.classes to false", name)
		}
		labels[i] = class
		most = max(most, class)
	}
	classes = make([]string, most+1)
	for i := range classes {
		classes[i] = strconv.Itoa(i)
	}
	return classes, labels, nil
}

// zipLabel is one entry ["name", class] of dataset.json.
type zipLabel struct {
	name  string
	class int32
}

func (l *zipLabel) UnmarshalJSON(text []byte) error {
	var class float64 // some writers give whole numbers as 3.0
	pair := []any{&l.name, &class}
	if err := json.Unmarshal(text, &pair); err != nil || len(pair) != 2 || pair[0] == nil || pair[1] == nil {
		return fmt.Errorf(`label %.80s: want ["file name", class number]`, text)
	}
	if !(class >= 0 && class < maxZipClasses) || class != math.Trunc(class) {
		return fmt.Errorf("label of %s is %g: want a whole number from 0 to %d", l.name, class, maxZipClasses-1)
	}
	l.class = int32(class)
	return nil
}
