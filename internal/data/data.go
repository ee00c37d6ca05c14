// Package data reads image sets: it turns files into batches of uint8 images,
// in a seeded order that can be resumed at any image.
//
// Images are uint8 HWC (a network sees byte/127.5 - 1), 1 or 3 channels, of the
// size the Config asks for. An image of another size is scaled so that it covers
// the wanted size, with a Catmull-Rom filter, and cropped at the centre; one of
// that size is copied byte for byte. Transparent pixels are laid over white.
// Grey is the luma of Rec. 601, 0.299 R + 0.587 G + 0.114 B.
//
// A data set is one file of this package that calls Register from its init.
// Nothing is held in memory but the names of the files: archives that allow
// random access are read in place, others are unpacked once into an unnamed
// temporary file (under $TMPDIR).
//
// CIFAR-10 and MNIST bring a test split. Where there is none, Config.Holdout is
// the share of the images, spread evenly over the sorted names, that only the
// test split contains.
package data

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"sort"
	"strings"
)

// Split says which part of a data set to read.
type Split int

const (
	Train Split = iota
	Test
)

func (s Split) String() string {
	if s == Test {
		return "test"
	}
	return "train"
}

// Info describes a data set.
type Info struct {
	Name                    string
	Len                     int // images; 0 means endless
	Width, Height, Channels int
	Classes                 []string // nil if the images have no labels
}

// Bytes is the size of one image.
func (i Info) Bytes() int { return i.Width * i.Height * i.Channels }

// Dataset gives random access to the images of one split. All methods may be
// called from several goroutines, Close excepted.
type Dataset interface {
	Info() Info

	// Read writes image index into dst, Info().Bytes() bytes HWC, and returns
	// its class, an index into Info().Classes, or -1 if there are no classes.
	// The error names the file; dst is undefined then.
	Read(index int, dst []byte) (label int, err error)

	Close() error
}

// Described is a Dataset that can say where an image comes from.
type Described interface {
	// Source is the file, or the place in a file, of image index.
	Source(index int) string
}

// ErrNoTest is wrapped by the error of Open for the test split of a data set
// that brings none, when Config.Holdout is 0.
var ErrNoTest = errors.New("no test split")

// Opener opens one split of the data set that a valid Config describes.
type Opener func(cfg Config, split Split) (Dataset, error)

var openers = map[string]Opener{}

// Register makes a data set known by its name. It is meant for init functions.
func Register(name string, open Opener) {
	if _, taken := openers[name]; taken {
		panic("data: " + name + " registered twice")
	}
	openers[name] = open
}

// Names lists the registered data sets in alphabetical order.
func Names() []string {
	names := make([]string, 0, len(openers))
	for name := range openers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Open opens one split of the data set cfg.Name.
func Open(cfg Config, split Split) (Dataset, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	ds, err := openers[cfg.Name](cfg, split)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return ds, nil
}

// statPath looks at cfg.Path; what says what data.path should be set to.
func statPath(cfg Config, what string) (fs.FileInfo, error) {
	if cfg.Path == "" {
		return nil, fmt.Errorf("%s has no path: set data.path to %s", cfg.Name, what)
	}
	info, err := os.Stat(cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q does not exist: set data.path to %s", cfg.Path, what)
	}
	if err != nil {
		return nil, err
	}
	return info, checkMode(cfg.Path, info)
}

// checkMode refuses what is neither a file nor a folder: opening a pipe would
// wait for a writer.
func checkMode(path string, info fs.FileInfo) error {
	if !info.IsDir() && !info.Mode().IsRegular() {
		return fmt.Errorf("%q is neither a file nor a folder", path)
	}
	return nil
}

// checkRead tests the arguments of Dataset.Read.
func checkRead(info Info, index int, dst []byte) error {
	if index < 0 || (info.Len > 0 && index >= info.Len) {
		return fmt.Errorf("%s: image %d does not exist: there are %d", info.Name, index, info.Len)
	}
	if len(dst) != info.Bytes() {
		return fmt.Errorf("%s: %d bytes given for an image of %d", info.Name, len(dst), info.Bytes())
	}
	return nil
}

// part is the train or the test share of n images of which held are held out.
// Held-out image k is image floor((2k+1) n / (2 held)): they are as far from
// each other as they can be, so every class of a sorted set gives its share.
type part struct {
	n, held int
	test    bool
}

func newPart(cfg Config, n int, split Split) (part, error) {
	if cfg.Holdout == 0 {
		if split == Test {
			return part{}, fmt.Errorf("%s %q brings %w: set data.holdout to the share of the images to keep for it, such as 0.05", cfg.Name, cfg.Path, ErrNoTest)
		}
		return part{n: n}, nil
	}
	if n < 2 {
		return part{}, fmt.Errorf("the only image of %q cannot be held out: set data.holdout to 0", cfg.Path)
	}
	held := min(max(int(math.Round(float64(n)*cfg.Holdout)), 1), n-1)
	return part{n: n, held: held, test: split == Test}, nil
}

func (p part) len() int {
	if p.test {
		return p.held
	}
	return p.n - p.held
}

// at maps an index of the part to one of the whole set.
func (p part) at(index int) int {
	heldOut := func(k int) int { return int((2*int64(k) + 1) * int64(p.n) / (2 * int64(p.held))) }
	if p.test {
		return heldOut(index)
	}
	// heldOut(k)-k training images come before held-out image k.
	return index + sort.Search(p.held, func(k int) bool { return heldOut(k)-k > index })
}

func list(names []string) string { return strings.Join(names, ", ") }
