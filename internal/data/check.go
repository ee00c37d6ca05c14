package data

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

const (
	maxPreview = 64      // images in Report.Preview
	maxListed  = 100     // bad images a Report names
	maxSizes   = 1 << 16 // different image sizes a Report tells apart

	previewSide = 64 // pixels, where neither the caller nor the format says
)

// Detect guesses from the content of path which data set reads it.
func Detect(path string) (name string, err error) {
	stat, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("data: %q does not exist: give the path of a file or folder", path)
	} else if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	if err := checkMode(path, stat); err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	if stat.IsDir() {
		name, err = detectFolder(path)
	} else {
		name, err = detectFile(path)
	}
	if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	return name, nil
}

func detectFolder(root string) (string, error) {
	for _, split := range []Split{Train, Test} {
		if _, _, ok := cifarFolder(root, split); ok {
			return "cifar10", nil
		}
		if _, ok := idxInFolder(root, split); ok {
			return "mnist", nil
		}
	}
	names, err := imageNames(os.DirFS(root))
	if err != nil {
		return "", fmt.Errorf("%q: %w", root, err)
	}
	if len(names) == 0 {
		return "", fmt.Errorf("folder %q holds none of: the batches of CIFAR-10, the IDX files of MNIST, PNG, JPEG, GIF, WebP or BMP images", root)
	}
	return "folder", nil
}

func detectFile(file string) (string, error) {
	r, _, f, err := openPacked(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head, err := r.Peek(512)
	if len(head) < 4 {
		return "", unpackError(file, err)
	}
	switch {
	case string(head[:4]) == "PK\x03\x04", string(head[:4]) == "PK\x05\x06":
		return "zip", nil
	case head[0] == 0 && head[1] == 0 && head[2] == idxUint8 && head[3] == 3:
		return "mnist", nil
	case head[0] == 0 && head[1] == 0 && head[2] == idxUint8 && head[3] == 1:
		return "", fmt.Errorf("%q holds labels: point to the file of images, or to the folder with both", file)
	}
	if _, _, err := image.DecodeConfig(bytes.NewReader(head)); err == nil || isImageName(filepath.Base(file)) {
		return "", fmt.Errorf("%q is a single image: point to the folder it is in", file)
	}
	entries := tar.NewReader(r)
	for {
		entry, err := entries.Next()
		if err != nil {
			return "", fmt.Errorf("%q is neither an archive of CIFAR-10, nor an IDX file, nor a zip archive of images", file)
		}
		name := strings.TrimSuffix(path.Base(entry.Name), ".bin")
		if slices.Contains(cifarBatches(Train), name) || slices.Contains(cifarBatches(Test), name) {
			return "cifar10", nil
		}
	}
}

// Size is the size of image files in pixels and how many have it.
type Size struct{ Width, Height, Count int }

// BadImage is an image that cannot be read.
type BadImage struct {
	Index int // in its split
	Err   error
}

// SplitReport is what Check found in one split.
type SplitReport struct {
	Split    Split
	Images   int   // readable or not
	Bad      int   // of these, unreadable
	PerClass []int // readable images of each of Report.Classes
}

// Report is what Check found in a data set.
type Report struct {
	Config  Config // as given, with what was guessed
	Classes []string
	Splits  []SplitReport

	// Sizes are the sizes before scaling, the most frequent first. Images of
	// further sizes, should there be so many, are counted in OtherSizes.
	Sizes      []Size
	OtherSizes int

	Grey, Colour, Transparent int        // images by their channels, before conversion
	Bad                       []BadImage // the first hundred

	// Preview holds PreviewCount images in the size of Config, HWC after HWC:
	// the first readable ones of the first split.
	Preview      []byte
	PreviewCount int
}

// Check reads every image of the data set at cfg.Path. An empty name is guessed,
// and so is whether sub-folders name classes; no size means the set's own, or a
// small square for files of all sizes. Every split is read whole, whatever
// cfg.Holdout says. The progress function, which may be nil, is told how many
// images of the current split have been read.
func Check(ctx context.Context, cfg Config, progress func(split Split, done, total int)) (*Report, error) {
	guessed := cfg.Name == ""
	if guessed {
		var err error
		if cfg.Name, err = Detect(cfg.Path); err != nil {
			return nil, err
		}
	}
	if cfg.Name == "shapes" {
		return nil, errors.New("data: shapes is drawn by the program and endless: there are no files to check")
	}
	cfg.Holdout = 0
	cfg.Workers = max(cfg.Workers, 1)
	cfg.Prefetch = max(cfg.Prefetch, 1)
	cfg = withSize(cfg)

	train, err := openGuessing(&cfg, guessed)
	if err != nil {
		return nil, err
	}
	report := &Report{Config: cfg, Classes: train.Info().Classes}
	w := walk{report: report, sizes: map[[2]int]int{}, progress: progress}
	if err := w.split(ctx, train, Train, cfg.Workers); err != nil {
		return nil, err
	}
	test, err := Open(cfg, Test)
	switch {
	case errors.Is(err, ErrNoTest):
	case err != nil:
		return nil, err
	default:
		if err := w.split(ctx, test, Test, cfg.Workers); err != nil {
			return nil, err
		}
	}
	w.finish()
	return report, nil
}

// withSize completes a Config that gives no size or no channels.
func withSize(cfg Config) Config {
	side, channels := previewSide, 3
	switch cfg.Name {
	case "cifar10":
		side = cifarSide
	case "mnist":
		side, channels = 28, 1
	}
	if cfg.Width == 0 {
		cfg.Width = side
	}
	if cfg.Height == 0 {
		cfg.Height = side
	}
	if cfg.Channels == 0 {
		cfg.Channels = channels
	}
	return cfg
}

// openGuessing prefers a set with classes where nothing was said about them.
func openGuessing(cfg *Config, guessed bool) (Dataset, error) {
	if guessed && !cfg.Classes {
		with := *cfg
		with.Classes = true
		if ds, err := Open(with, Train); err == nil {
			*cfg = with
			return ds, nil
		}
	}
	return Open(*cfg, Train)
}

// prober is a Dataset that knows what an image was before it was shaped.
type prober interface {
	probe(index int, dst []byte) (label int, was original, err error)
}

// walk collects a Report from several goroutines.
type walk struct {
	report   *Report
	sizes    map[[2]int]int
	progress func(split Split, done, total int)

	mu   sync.Mutex
	next int
	done int
	bad  []BadImage // of the current split
}

// split reads and closes one split.
func (w *walk) split(ctx context.Context, ds Dataset, split Split, workers int) error {
	info := ds.Info()
	part := SplitReport{Split: split, Images: info.Len, PerClass: make([]int, len(info.Classes))}
	w.next, w.done, w.bad = 0, 0, nil

	var wg sync.WaitGroup
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			pixels := make([]byte, info.Bytes())
			for ctx.Err() == nil {
				index, ok := w.claim(info.Len)
				if !ok {
					return
				}
				var was original
				label, err := 0, error(nil)
				if p, ok := ds.(prober); ok {
					label, was, err = p.probe(index, pixels)
				} else {
					label, err = ds.Read(index, pixels)
					was = original{info.Width, info.Height, info.Channels}
				}
				w.count(&part, index, label, was, err)
			}
		}()
	}
	wg.Wait()
	if split == Train {
		w.preview(ctx, ds)
	}
	closed := ds.Close()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	w.trimBad()
	w.report.Bad = append(w.report.Bad, w.bad...)
	w.report.Splits = append(w.report.Splits, part)
	return closed
}

func (w *walk) preview(ctx context.Context, ds Dataset) {
	info := ds.Info()
	pixels := make([]byte, info.Bytes())
	for i := 0; i < info.Len && w.report.PreviewCount < maxPreview && ctx.Err() == nil; i++ {
		if _, err := ds.Read(i, pixels); err == nil {
			w.report.Preview = append(w.report.Preview, pixels...)
			w.report.PreviewCount++
		}
	}
}

func (w *walk) claim(n int) (index int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	index = w.next
	w.next++
	return index, index < n
}

func (w *walk) count(part *SplitReport, index, label int, was original, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done++
	if w.progress != nil {
		w.progress(part.Split, w.done, part.Images)
	}
	if err != nil {
		part.Bad++
		w.bad = append(w.bad, BadImage{index, err})
		if len(w.bad) >= 10*maxListed {
			w.trimBad()
		}
		return
	}
	if label >= 0 && label < len(part.PerClass) {
		part.PerClass[label]++
	}
	size := [2]int{was.width, was.height}
	if _, known := w.sizes[size]; known || len(w.sizes) < maxSizes {
		w.sizes[size]++
	} else {
		w.report.OtherSizes++
	}
	switch was.channels {
	case 1:
		w.report.Grey++
	case 4:
		w.report.Transparent++
	default:
		w.report.Colour++
	}
}

// trimBad keeps the bad images of the lowest numbers.
func (w *walk) trimBad() {
	slices.SortFunc(w.bad, func(a, b BadImage) int { return cmp.Compare(a.Index, b.Index) })
	w.bad = w.bad[:min(len(w.bad), maxListed)]
}

func (w *walk) finish() {
	r := w.report
	r.Bad = r.Bad[:min(len(r.Bad), maxListed)]
	for size, count := range w.sizes {
		r.Sizes = append(r.Sizes, Size{size[0], size[1], count})
	}
	slices.SortFunc(r.Sizes, func(a, b Size) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Width, b.Width), cmp.Compare(a.Height, b.Height))
	})
}

// WriteText prints the report for people.
func (r *Report) WriteText(out io.Writer) error {
	var b strings.Builder
	row := func(label, format string, values ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", label, fmt.Sprintf(format, values...))
	}
	row("path", "%s", r.Config.Path)
	row("data.name", "%s", r.Config.Name)
	for _, s := range r.Splits {
		row(s.Split.String(), "%d images, %d unreadable", s.Images, s.Bad)
	}
	r.writeClasses(row)
	row("channels", "%d grey, %d colour, %d transparent", r.Grey, r.Colour, r.Transparent)
	r.writeSizes(row)
	r.writeBad(&b)
	_, err := io.WriteString(out, b.String())
	return err
}

// mostRows is how many lines WriteText gives to each list.
const mostRows = 20

func (r *Report) writeClasses(row func(label, format string, values ...any)) {
	if len(r.Classes) == 0 {
		row("classes", "none")
		return
	}
	row("classes", "%d", len(r.Classes))
	for i, class := range r.Classes {
		if i == mostRows {
			row("", "and %d more", len(r.Classes)-i)
			break
		}
		var counts []string
		for _, s := range r.Splits {
			counts = append(counts, fmt.Sprintf("%7d %s", s.PerClass[i], s.Split))
		}
		row("", "%-20s %s", class, strings.Join(counts, " "))
	}
}

func (r *Report) writeSizes(row func(label, format string, values ...any)) {
	more := r.OtherSizes
	for i, s := range r.Sizes {
		if i >= mostRows {
			more += s.Count
			continue
		}
		label := ""
		if i == 0 {
			label = "sizes"
		}
		row(label, "%7d of %d x %d", s.Count, s.Width, s.Height)
	}
	if more > 0 {
		row("", "%7d of other sizes", more)
	}
}

func (r *Report) writeBad(b *strings.Builder) {
	bad := 0
	for _, s := range r.Splits {
		bad += s.Bad
	}
	if bad == 0 {
		return
	}
	fmt.Fprintln(b, "unreadable:")
	listed := r.Bad[:min(len(r.Bad), mostRows)]
	for _, image := range listed {
		fmt.Fprintf(b, "  %v\n", image.Err)
	}
	if bad > len(listed) {
		fmt.Fprintf(b, "  and %d more\n", bad-len(listed))
	}
}
