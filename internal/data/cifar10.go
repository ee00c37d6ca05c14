package data

import (
	"archive/tar"
	"bufio"
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

func init() { Register("cifar10", openCIFAR10) }

// A record of the binary version is a label and the red, green and blue planes.
const (
	cifarSide   = 32
	cifarPlane  = cifarSide * cifarSide
	cifarPixels = 3 * cifarPlane
	cifarRecord = 1 + cifarPixels

	maxCIFARBatch = 1 << 30 // bytes of one batch file; the real ones have 30 million
)

var cifar10Classes = []string{"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}

// cifarBatches are the files of a split, without the ".bin" of the binary version.
func cifarBatches(split Split) []string {
	if split == Test {
		return []string{"test_batch"}
	}
	return []string{"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"}
}

// cifar10 is one split of CIFAR-10 (Krizhevsky, 2009), in the order of the
// batch files' numbers.
type cifar10 struct {
	info    Info
	batches []cifarBatch
	shaper  *shaper
	scratch sync.Pool // *cifarScratch
}

// cifarBatch is a file of records, back to back.
type cifarBatch struct {
	file  randomFile
	count int
	name  string
}

func (b cifarBatch) Close() error {
	if b.file == nil {
		return nil
	}
	return b.file.Close()
}

type cifarScratch struct {
	record [cifarRecord]byte
	rgb    *image.RGBA
}

// openCIFAR10 reads the binary or the Python version, from the archive or from
// the folder that was unpacked from it. Binary batches in a folder are read in
// place; all others are copied to temporary files.
func openCIFAR10(cfg Config, split Split) (Dataset, error) {
	stat, err := statPath(cfg, "cifar-10-binary.tar.gz, cifar-10-python.tar.gz, or the folder unpacked from one of them")
	if err != nil {
		return nil, err
	}
	var batches []cifarBatch
	if stat.IsDir() {
		batches, err = openCIFARFolder(cfg.Path, split)
	} else {
		batches, err = openCIFARArchive(cfg.Path, split)
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(batches))
	}
	c := &cifar10{
		info:    Info{Name: "cifar10", Width: cfg.Width, Height: cfg.Height, Channels: cfg.Channels, Classes: cifar10Classes},
		batches: batches,
		shaper:  newShaper(cfg),
	}
	for _, b := range batches {
		c.info.Len += b.count
	}
	c.scratch.New = func() any {
		return &cifarScratch{rgb: image.NewRGBA(image.Rect(0, 0, cifarSide, cifarSide))}
	}
	return c, nil
}

// cifarFolder finds the folder with the batches of a split, and whether they
// are of the binary version.
func cifarFolder(root string, split Split) (folder string, binary, ok bool) {
	first := cifarBatches(split)[0]
	for _, sub := range []string{"", "cifar-10-batches-bin", "cifar-10-batches-py"} {
		folder = filepath.Join(root, sub)
		for _, suffix := range []string{".bin", ""} {
			if stat, err := os.Stat(filepath.Join(folder, first+suffix)); err == nil && stat.Mode().IsRegular() {
				return folder, suffix == ".bin", true
			}
		}
	}
	return "", false, false
}

// openCIFARFolder returns what it opened even if it fails later.
func openCIFARFolder(root string, split Split) (batches []cifarBatch, err error) {
	folder, binary, ok := cifarFolder(root, split)
	if !ok {
		return nil, fmt.Errorf("folder %q has no %s of CIFAR-10: point data.path at the archive, or at cifar-10-batches-bin or cifar-10-batches-py", root, cifarBatches(split)[0])
	}
	for _, name := range cifarBatches(split) {
		if binary {
			name += ".bin"
		}
		file := filepath.Join(folder, name)
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			return batches, fmt.Errorf("folder %q lacks %s: unpack the archive again", folder, name)
		} else if err != nil {
			return batches, err
		}
		var batch cifarBatch
		if binary {
			batch, err = cifarInPlace(f)
		} else {
			batch, err = spillCIFAR(f, false)
			f.Close()
		}
		if err != nil {
			return batches, unpackError(file, err)
		}
		batch.name = file
		batches = append(batches, batch)
	}
	return batches, nil
}

func cifarInPlace(f *os.File) (cifarBatch, error) {
	stat, err := f.Stat()
	if err == nil {
		err = checkCIFARSize(stat.Size())
	}
	if err != nil {
		f.Close()
		return cifarBatch{}, err
	}
	return cifarBatch{file: f, count: int(stat.Size() / cifarRecord)}, nil
}

func checkCIFARSize(size int64) error {
	if size == 0 || size%cifarRecord != 0 {
		return fmt.Errorf("%d bytes are not a whole number of records of %d: the file is truncated or not of CIFAR-10, fetch it again", size, cifarRecord)
	}
	return nil
}

// openCIFARArchive returns what it unpacked even if it fails later. Archives
// hold the batches in any order.
func openCIFARArchive(archive string, split Split) ([]cifarBatch, error) {
	r, _, f, err := openPacked(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	wanted := cifarBatches(split)
	found := make([]cifarBatch, len(wanted))
	entries := tar.NewReader(r)
	for {
		missing := absent(wanted, found)
		if len(missing) == 0 {
			return found, nil
		}
		entry, err := entries.Next()
		if err == io.EOF {
			return found, fmt.Errorf("%q lacks %s of CIFAR-10: fetch cifar-10-binary.tar.gz or cifar-10-python.tar.gz again", archive, list(missing))
		} else if err != nil {
			return found, unpackError(archive, err)
		}
		base := path.Base(entry.Name)
		name, binary := strings.CutSuffix(base, ".bin")
		i := slices.Index(wanted, name)
		if i < 0 || entry.Typeflag != tar.TypeReg || found[i].file != nil {
			continue
		}
		if found[i], err = spillCIFAR(entries, binary); err != nil {
			return found, unpackError(archive, fmt.Errorf("%s: %w", base, err))
		}
		found[i].name = archive + ":" + base
	}
}

func absent(wanted []string, found []cifarBatch) (names []string) {
	for i, b := range found {
		if b.file == nil {
			names = append(names, wanted[i])
		}
	}
	return names
}

// spillCIFAR copies a batch of either version to a temporary file of records.
func spillCIFAR(r io.Reader, binary bool) (_ cifarBatch, err error) {
	s, err := newSpill()
	if err != nil {
		return cifarBatch{}, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	limited := &io.LimitedReader{R: r, N: maxCIFARBatch}
	var size int64
	if binary {
		size, err = io.Copy(s, limited)
	} else {
		size, err = spillPickle(s, limited)
	}
	switch {
	case err != nil:
		return cifarBatch{}, err
	case limited.N == 0:
		return cifarBatch{}, fmt.Errorf("larger than %d MiB, so not of CIFAR-10", maxCIFARBatch>>20)
	}
	if err := checkCIFARSize(size); err != nil {
		return cifarBatch{}, err
	}
	return cifarBatch{file: s, count: int(size / cifarRecord)}, nil
}

func spillPickle(w io.Writer, r io.Reader) (size int64, err error) {
	file, err := io.ReadAll(r)
	if err != nil {
		return 0, err
	}
	rows, labels, err := unpickleBatch(file, cifarPixels)
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(w, 1<<16)
	for i, label := range labels {
		out.WriteByte(label) // bufio keeps the first error for Flush
		out.Write(rows[i*cifarPixels : (i+1)*cifarPixels])
	}
	return int64(len(labels)) * cifarRecord, out.Flush()
}

func (c *cifar10) Info() Info { return c.info }

func (c *cifar10) locate(index int) (batch *cifarBatch, record int) {
	for i := range c.batches {
		if index < c.batches[i].count {
			return &c.batches[i], index
		}
		index -= c.batches[i].count
	}
	return nil, 0
}

func (c *cifar10) Read(index int, dst []byte) (int, error) {
	label, _, err := c.probe(index, dst)
	return label, err
}

func (c *cifar10) probe(index int, dst []byte) (int, original, error) {
	native := original{width: cifarSide, height: cifarSide, channels: 3}
	if err := checkRead(c.info, index, dst); err != nil {
		return 0, native, err
	}
	batch, at := c.locate(index)
	scratch := c.scratch.Get().(*cifarScratch)
	defer c.scratch.Put(scratch)
	record := scratch.record[:]
	if _, err := batch.file.ReadAt(record, int64(at)*cifarRecord); err != nil {
		return 0, native, fmt.Errorf("%s: %w", c.Source(index), err)
	}
	label := int(record[0])
	if label >= len(cifar10Classes) {
		return 0, native, fmt.Errorf("%s: label %d: want 0 to %d", c.Source(index), label, len(cifar10Classes)-1)
	}
	r, g, b := record[1:1+cifarPlane], record[1+cifarPlane:1+2*cifarPlane], record[1+2*cifarPlane:]
	if c.info.Width == cifarSide && c.info.Height == cifarSide && c.info.Channels == 3 {
		for i := range r {
			dst[3*i], dst[3*i+1], dst[3*i+2] = r[i], g[i], b[i]
		}
		return label, native, nil
	}
	pix := scratch.rgb.Pix
	for i := range r {
		pix[4*i], pix[4*i+1], pix[4*i+2], pix[4*i+3] = r[i], g[i], b[i], 0xff
	}
	c.shaper.shape(scratch.rgb, dst)
	return label, native, nil
}

func (c *cifar10) Source(index int) string {
	batch, at := c.locate(index)
	if batch == nil {
		return "no image"
	}
	return fmt.Sprintf("%s, image %d", batch.name, at)
}

func (c *cifar10) Close() error { return closeAll(c.batches) }
