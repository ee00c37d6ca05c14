package safetensors

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"

	"ddpm/internal/files"
)

// Tensor is a tensor to write. Its elements come from one of Float32 and Stream;
// a tensor without elements needs neither.
type Tensor struct {
	Name    string
	DType   DType
	Shape   []int
	Float32 []float32             // row-major; DType must be F32
	Stream  func(io.Writer) error // writes the elements, row-major and little-endian: exactly as many bytes as DType and Shape say
}

// Write writes a file. The bytes depend on the arguments alone, not on the order
// of the tensors: they are stored by falling size of their elements, which keeps
// all of them aligned, then by name.
func Write(w io.Writer, metadata map[string]string, tensors []Tensor) error {
	if err := write(w, metadata, tensors); err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	return nil
}

// WriteFile writes a file whole or not at all; see files.Write.
func WriteFile(path string, metadata map[string]string, tensors []Tensor) error {
	if err := files.Write(path, func(w io.Writer) error { return write(w, metadata, tensors) }); err != nil {
		return fmt.Errorf("safetensors: cannot write %s, which is left as it was: %w", path, err)
	}
	return nil
}

func write(w io.Writer, metadata map[string]string, tensors []Tensor) error {
	tensors = slices.SortedFunc(slices.Values(tensors), func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(b.DType.Size(), a.DType.Size()), cmp.Compare(a.Name, b.Name))
	})
	header, lengths, err := encodeHeader(metadata, tensors, MaxHeader)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, chunk)
	if _, err := out.Write(header); err != nil {
		return err
	}
	for i, t := range tensors {
		if err := t.data(out, lengths[i]); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	return out.Flush()
}

// encodeHeader returns the first bytes of the file, up to the data, and the
// number of bytes of each tensor. It fails beyond limit bytes.
func encodeHeader(metadata map[string]string, tensors []Tensor, limit int) ([]byte, []int64, error) {
	var b bytes.Buffer
	b.Write(make([]byte, lengthBytes))
	b.WriteByte('{')
	if len(metadata) > 0 {
		for key, value := range metadata {
			if !utf8.ValidString(key) || !utf8.ValidString(value) {
				return nil, nil, fmt.Errorf("metadata %q: the key or the value is not valid UTF-8", key)
			}
		}
		fmt.Fprintf(&b, "%q:", metadataKey)
		appendJSON(&b, metadata) // sorts the keys
	}
	lengths := make([]int64, len(tensors))
	names := map[string]bool{}
	offset := int64(0)
	for i, t := range tensors {
		n, err := t.check()
		if err == nil && names[t.Name] {
			err = errors.New("is there twice")
		}
		if err == nil && n > math.MaxInt64-offset {
			err = errors.New("makes the file longer than a file can be")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		names[t.Name] = true
		lengths[i] = n
		if b.Len() > lengthBytes+1 {
			b.WriteByte(',')
		}
		appendJSON(&b, t.Name)
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		b.WriteByte(':')
		appendJSON(&b, struct {
			DType   DType    `json:"dtype"`
			Shape   []int    `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}{t.DType, shape, [2]int64{offset, offset + n}})
		offset += n
	}
	b.WriteByte('}')
	for b.Len()%alignment != 0 {
		b.WriteByte(' ')
	}
	n := b.Len() - lengthBytes
	if n > limit {
		return nil, nil, fmt.Errorf("the header takes %d bytes, the format allows %d: shorten the metadata", n, limit)
	}
	le.PutUint64(b.Bytes(), uint64(n))
	return b.Bytes(), lengths, nil
}

// appendJSON appends what can always be encoded.
func appendJSON(b *bytes.Buffer, value any) {
	encoder := json.NewEncoder(b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	b.Truncate(b.Len() - 1) // the newline
}

// check returns the number of bytes the tensor takes.
func (t Tensor) check() (int64, error) {
	n, err := elements(t.DType, t.Shape)
	switch {
	case err != nil:
		return 0, err
	case t.Name == metadataKey || !utf8.ValidString(t.Name):
		return 0, errors.New("the name is reserved or not valid UTF-8")
	case t.Float32 != nil && t.Stream != nil:
		return 0, errors.New("has both Float32 and Stream, want one")
	case t.Float32 == nil && t.Stream == nil && n > 0:
		return 0, errors.New("has neither Float32 nor Stream, want one")
	case t.Float32 != nil && t.DType != F32:
		return 0, fmt.Errorf("dtype %s: Float32 is for dtype %s", t.DType, F32)
	case t.Float32 != nil && len(t.Float32) != n:
		return 0, fmt.Errorf("has %d values, but shape %v needs %d", len(t.Float32), t.Shape, n)
	}
	return int64(n) * int64(t.DType.Size()), nil
}

// data writes the elements, n bytes.
func (t Tensor) data(out *bufio.Writer, n int64) error {
	if t.Stream == nil {
		return writeFloat32s(out, t.Float32)
	}
	c := counter{out: out, left: n}
	if err := t.Stream(&c); err != nil {
		return err
	}
	if c.left != 0 {
		return fmt.Errorf("Stream wrote %d bytes, but dtype %s and shape %v need %d", n-c.left, t.DType, t.Shape, n)
	}
	return nil
}

func writeFloat32s(out *bufio.Writer, values []float32) error {
	for len(values) > 0 {
		if out.Available() < 4 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		n := min(out.Available()/4, len(values))
		buffer := out.AvailableBuffer()[:4*n] // the free part of out itself: Write copies nothing
		for i, v := range values[:n] {
			le.PutUint32(buffer[4*i:4*i+4], math.Float32bits(v))
		}
		if _, err := out.Write(buffer); err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}

// counter lets at most left more bytes through.
type counter struct {
	out  io.Writer
	left int64
}

func (c *counter) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		return 0, fmt.Errorf("Stream writes %d bytes too many", int64(len(p))-c.left)
	}
	n, err := c.out.Write(p)
	c.left -= int64(n)
	return n, err
}
