package safetensors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"

	"ddpm/internal/files"
)

// Info is where a tensor lies and what it is.
type Info struct {
	DType  DType
	Shape  []int // must not be changed
	Offset int64 // of the first byte, from the beginning of the file
	Size   int64 // bytes
}

// Elements is the number of elements.
func (i Info) Elements() int { return int(i.Size / int64(i.DType.Size())) }

// File is an open file. Its methods may be called from several goroutines.
type File struct {
	path     string // empty when the file came from Parse
	r        io.ReaderAt
	file     *os.File // nil likewise
	names    []string // sorted
	tensors  map[string]Info
	metadata map[string]string
}

// Open reads and checks the header of a file; Close it after use.
func Open(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: cannot open %s: %w", path, files.Cause(err))
	}
	stat, err := file.Stat()
	switch {
	case err != nil:
	case !stat.Mode().IsRegular():
		err = fmt.Errorf("not a regular file, but %s", kind(stat.Mode()))
	default:
		f := &File{path: path, r: file, file: file}
		if err = f.parse(stat.Size()); err == nil {
			return f, nil
		}
	}
	file.Close()
	return nil, fmt.Errorf("safetensors: %s: %w", path, files.Cause(err))
}

func kind(mode fs.FileMode) string {
	if mode.IsDir() {
		return "a folder"
	}
	return "a device, pipe or socket"
}

// Parse reads and checks the header of a file of size bytes.
func Parse(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r}
	if err := f.parse(size); err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	return f, nil
}

// Close closes what Open opened.
func (f *File) Close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}

// Names returns the names of the tensors, sorted.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Tensor describes a tensor; false when there is none of that name.
func (f *File) Tensor(name string) (Info, bool) {
	info, ok := f.tensors[name]
	return info, ok
}

// Metadata returns a copy of the header's __metadata__, never nil.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }

// entry is a tensor as the header has it: begin and end count from the end of
// the header.
type entry struct {
	name       string
	dtype      DType
	shape      []int
	begin, end int64
}

func (f *File) parse(size int64) error {
	text, err := readHeader(f.r, size)
	if err != nil {
		return err
	}
	f.metadata = map[string]string{}
	entries, err := parseHeader(text, f.metadata)
	if err != nil {
		return err
	}
	base := lengthBytes + int64(len(text))
	if err := checkRanges(entries, base, size); err != nil {
		return err
	}
	f.tensors = make(map[string]Info, len(entries))
	for _, e := range entries {
		f.names = append(f.names, e.name)
		f.tensors[e.name] = Info{DType: e.dtype, Shape: e.shape, Offset: base + e.begin, Size: e.end - e.begin}
	}
	slices.Sort(f.names)
	return nil
}

func readHeader(r io.ReaderAt, size int64) ([]byte, error) {
	var head [lengthBytes + 1]byte
	if size < int64(len(head)) {
		return nil, fmt.Errorf("%s: too short for a safetensors file: download or write it again", count(size))
	}
	if err := readFull(r, head[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(head[:])
	if n > MaxHeader || head[lengthBytes] != '{' {
		return nil, fmt.Errorf("not a safetensors file: it begins with %q, want the length of a header, at most %d, and '{'",
			head[:], MaxHeader)
	}
	if int64(n) > size-lengthBytes {
		return nil, fmt.Errorf("has %s, its header alone promises %d: download or write it again", count(size), lengthBytes+n)
	}
	text := make([]byte, n)
	return text, readFull(r, text, lengthBytes)
}

// count writes a number of bytes.
func count(n int64) string {
	if n == 1 {
		return "1 byte"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

// readFull fills dst. A file may shrink after it was opened: its end is then an
// error like any other.
func readFull(r io.ReaderAt, dst []byte, offset int64) error {
	n, err := r.ReadAt(dst, offset)
	if n == len(dst) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return files.Cause(err)
}

// checkRanges sorts the entries by their place in the file and checks that they
// cover the data exactly.
func checkRanges(entries []entry, base, size int64) error {
	slices.SortFunc(entries, func(a, b entry) int { // empty tensors before the one that begins where they do
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.name, b.name))
	})
	end := int64(0)
	for _, e := range entries {
		if e.begin < end {
			return fmt.Errorf("tensor %q begins at byte %d of the data, inside the tensor that ends at %d", e.name, e.begin, end)
		}
		if e.begin > end {
			return fmt.Errorf("tensor %q begins at byte %d of the data, but nothing covers bytes %d to %d", e.name, e.begin, end, e.begin)
		}
		end = e.end
	}
	if promised := uint64(base) + uint64(end); promised != uint64(size) {
		return fmt.Errorf("has %s, its header promises %d: download or write it again", count(size), promised)
	}
	return nil
}
