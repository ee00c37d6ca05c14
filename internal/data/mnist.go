package data

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

func init() { Register("mnist", openMNIST) }

// An IDX file is a magic number (two zeros, the element type, the number of
// dimensions), the dimensions as big-endian 32-bit numbers, and the elements.
const (
	idxUint8    = 0x08
	maxIDXBytes = 1 << 40
)

// readIDXHeader returns the dimensions of a file of bytes with the given number
// of dimensions, and how many bytes they make.
func readIDXHeader(r io.Reader, dimensions int) (dims []int, size int64, err error) {
	var magic [4]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return nil, 0, err
	}
	if magic[0] != 0 || magic[1] != 0 || magic[3] == 0 {
		return nil, 0, errors.New("not an IDX file: fetch it again, or set data.name to what it is")
	}
	if magic[2] != idxUint8 || int(magic[3]) != dimensions {
		return nil, 0, fmt.Errorf("an IDX file of type %#02x with %d dimensions: want bytes (0x08) with %d", magic[2], magic[3], dimensions)
	}
	dims = make([]int, dimensions)
	size = 1
	for i := range dims {
		var word [4]byte
		if _, err := io.ReadFull(r, word[:]); err != nil {
			return nil, 0, err
		}
		n := int64(binary.BigEndian.Uint32(word[:]))
		if n == 0 || n > math.MaxInt32 || size > maxIDXBytes/n {
			return nil, 0, fmt.Errorf("an IDX file whose dimension %d is %d: want sizes from 1 that make less than 1 TiB", i, n)
		}
		size *= n
		dims[i] = int(n)
	}
	return dims, size, nil
}

// idx is an open IDX file; its elements start at offset.
type idx struct {
	randomFile
	offset int64
	dims   []int
	path   string
}

// openIDX reads a plain file in place and unpacks a compressed one.
func openIDX(path string, dimensions int) (idx, error) {
	r, packed, f, err := openPacked(path)
	if err != nil {
		return idx{}, err
	}
	dims, size, err := readIDXHeader(r, dimensions)
	if err != nil {
		f.Close()
		return idx{}, unpackError(path, err)
	}
	file := idx{dims: dims, path: path}
	if packed {
		file.randomFile, err = spillExactly(r, size)
		f.Close()
	} else {
		file.randomFile, file.offset = f, int64(4+4*dimensions)
		if err = checkSize(f, file.offset+size); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return idx{}, unpackError(path, err)
	}
	return file, nil
}

var errIDXTrailing = errors.New("more bytes than its header says: fetch it again")

func checkSize(f *os.File, want int64) error {
	stat, err := f.Stat()
	switch {
	case err != nil:
		return err
	case stat.Size() < want:
		return io.ErrUnexpectedEOF
	case stat.Size() > want:
		return errIDXTrailing
	}
	return nil
}

// spillExactly reads to the end of r, so that a checksum there is tested.
func spillExactly(r io.Reader, size int64) (*spill, error) {
	s, err := newSpill()
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(s, io.LimitReader(r, size+1))
	switch {
	case err == nil && n < size:
		err = io.ErrUnexpectedEOF
	case err == nil && n > size:
		err = errIDXTrailing
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// mnist is one split of MNIST (LeCun et al., 1998), Fashion-MNIST (Xiao et al.,
// 2017), or any other set in their format: grey images and labels from 0.
type mnist struct {
	info    Info
	part    part
	images  idx
	labels  *idx // nil if there is no such file
	shaper  *shaper
	scratch sync.Pool // *image.Gray
}

// openMNIST reads a folder with the four files of the set, each compressed or
// not, or one file of images, which data.holdout splits. Labels are in the file
// of the same name with "labels-idx1" for "images-idx3", if that exists.
func openMNIST(cfg Config, split Split) (Dataset, error) {
	stat, err := statPath(cfg, "the folder with train-images-idx3-ubyte and its three companions (.gz or not), or one file of images")
	if err != nil {
		return nil, err
	}
	path := cfg.Path
	if stat.IsDir() {
		var ok bool
		if path, ok = idxInFolder(cfg.Path, split); !ok {
			return nil, fmt.Errorf("folder %q has no %s or %[2]s.gz", cfg.Path, idxNames(split)[0])
		}
	}
	m := &mnist{
		info:   Info{Name: "mnist", Width: cfg.Width, Height: cfg.Height, Channels: cfg.Channels},
		shaper: newShaper(cfg),
	}
	if m.images, err = openIDX(path, 3); err != nil {
		return nil, err
	}
	if err := m.open(cfg, split, !stat.IsDir()); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// open goes on from the open file of images.
func (m *mnist) open(cfg Config, split Split, oneFile bool) (err error) {
	n, height, width := m.images.dims[0], m.images.dims[1], m.images.dims[2]
	if width > maxPixels/height {
		return fmt.Errorf("%q: images of %d x %d pixels: want at most %d million", m.images.path, width, height, maxPixels/1_000_000)
	}
	m.part = part{n: n}
	if oneFile {
		if m.part, err = newPart(cfg, n, split); err != nil {
			return err
		}
	}
	m.info.Len = m.part.len()
	m.scratch.New = func() any { return image.NewGray(image.Rect(0, 0, width, height)) }

	path, ok := idxLabels(m.images.path)
	if !ok {
		return nil
	}
	labels, err := openIDX(path, 1)
	if err != nil {
		return err
	}
	m.labels = &labels
	if labels.dims[0] != n {
		return fmt.Errorf("%q has %d labels for the %d images of %q: fetch both again", path, labels.dims[0], n, m.images.path)
	}
	m.info.Classes, err = idxClasses(&labels)
	return err
}

// idxNames are the names in use for the images of a split.
func idxNames(split Split) []string {
	if split == Test {
		return []string{"t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"}
	}
	return []string{"train-images-idx3-ubyte", "train-images.idx3-ubyte"}
}

// idxInFolder finds the images of a split, also where torchvision puts them.
func idxInFolder(root string, split Split) (path string, ok bool) {
	for _, sub := range []string{"", "raw", "MNIST/raw", "FashionMNIST/raw"} {
		for _, name := range idxNames(split) {
			if path, ok := plainOrPacked(filepath.Join(root, sub, name)); ok {
				return path, true
			}
		}
	}
	return "", false
}

func plainOrPacked(path string) (string, bool) {
	for _, suffix := range []string{"", ".gz"} {
		if stat, err := os.Stat(path + suffix); err == nil && stat.Mode().IsRegular() {
			return path + suffix, true
		}
	}
	return "", false
}

// idxLabels finds the labels that belong to a file of images.
func idxLabels(images string) (path string, ok bool) {
	folder, name := filepath.Split(strings.TrimSuffix(images, ".gz"))
	other := strings.NewReplacer("images", "labels", "idx3", "idx1").Replace(name)
	if other == name {
		return "", false
	}
	return plainOrPacked(folder + other)
}

// idxClasses names the classes by their numbers: ten, or more if a label says so.
func idxClasses(labels *idx) ([]string, error) {
	most := byte(9)
	buffer := make([]byte, 1<<16)
	r := io.NewSectionReader(labels, labels.offset, int64(labels.dims[0]))
	for {
		n, err := r.Read(buffer)
		for _, label := range buffer[:n] {
			most = max(most, label)
		}
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, unpackError(labels.path, err)
		}
	}
	classes := make([]string, int(most)+1)
	for i := range classes {
		classes[i] = strconv.Itoa(i)
	}
	return classes, nil
}

func (m *mnist) Info() Info { return m.info }

func (m *mnist) Read(index int, dst []byte) (int, error) {
	label, _, err := m.probe(index, dst)
	return label, err
}

func (m *mnist) probe(index int, dst []byte) (int, original, error) {
	if err := checkRead(m.info, index, dst); err != nil {
		return 0, original{}, err
	}
	at := int64(m.part.at(index))
	grey := m.scratch.Get().(*image.Gray)
	defer m.scratch.Put(grey)
	if _, err := m.images.ReadAt(grey.Pix, m.images.offset+at*int64(len(grey.Pix))); err != nil {
		return 0, original{}, fmt.Errorf("%s: %w", m.Source(index), err)
	}
	label := -1
	if m.labels != nil {
		var b [1]byte
		if _, err := m.labels.ReadAt(b[:], m.labels.offset+at); err != nil {
			return 0, original{}, fmt.Errorf("%s: label: %w", m.Source(index), err)
		}
		label = int(b[0])
	}
	m.shaper.shape(grey, dst)
	return label, original{width: grey.Rect.Dx(), height: grey.Rect.Dy(), channels: 1}, nil
}

func (m *mnist) Source(index int) string {
	return fmt.Sprintf("%s, image %d", m.images.path, m.part.at(index))
}

func (m *mnist) Close() error {
	err := m.images.Close()
	if m.labels != nil {
		err = errors.Join(err, m.labels.Close())
	}
	return err
}
