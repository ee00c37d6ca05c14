// Package safetensors reads and writes the safetensors file format, the one
// checkpoints and weights of other programs are stored in:
//
//	8 bytes   N, the length of the header, unsigned little-endian
//	N bytes   header: one JSON object, first byte '{', padded with spaces
//	the rest  data: little-endian, row-major tensors, end to end
//
// The header maps each tensor's name to its dtype, its shape and the half-open
// range data_offsets of its bytes in the data; the key __metadata__ maps strings
// to strings. The ranges must cover the data exactly, without overlaps or holes.
//
// A file is checked as a whole when it is opened, so that a File only ever
// describes tensors that are there. Reading takes memory for the header alone;
// tensors are read on demand.
package safetensors

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// DType is the type of a tensor's elements, spelled as in the header.
type DType string

const (
	Bool    DType = "BOOL"
	U8      DType = "U8"
	I8      DType = "I8"
	F8E5M2  DType = "F8_E5M2"
	F8E4M3  DType = "F8_E4M3"
	F8E8M0  DType = "F8_E8M0"
	U16     DType = "U16"
	I16     DType = "I16"
	F16     DType = "F16"
	BF16    DType = "BF16"
	U32     DType = "U32"
	I32     DType = "I32"
	F32     DType = "F32"
	U64     DType = "U64"
	I64     DType = "I64"
	F64     DType = "F64"
	Complex DType = "C64" // two F32
)

var sizes = map[DType]int{
	Bool: 1, U8: 1, I8: 1, F8E5M2: 1, F8E4M3: 1, F8E8M0: 1,
	U16: 2, I16: 2, F16: 2, BF16: 2,
	U32: 4, I32: 4, F32: 4,
	U64: 8, I64: 8, F64: 8, Complex: 8,
}

// Size is the number of bytes of an element, 0 for an unknown type.
func (d DType) Size() int { return sizes[d] }

// MaxHeader is the largest header in bytes that the format allows.
const MaxHeader = 100_000_000

const (
	lengthBytes = 8 // of the header's length
	alignment   = 8 // of the data, which the header's padding provides
	metadataKey = "__metadata__"
)

// elements is the product of a shape, refused where its bytes would not fit an
// int. The empty shape is a scalar.
func elements(d DType, shape []int) (int, error) {
	if d.Size() == 0 {
		known := slices.Sorted(maps.Keys(sizes))
		return 0, fmt.Errorf("dtype %q is not known: want one of %s", d, join(known))
	}
	for _, dim := range shape {
		if dim < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
	}
	if slices.Contains(shape, 0) {
		return 0, nil
	}
	product := uint64(1)
	for _, dim := range shape {
		hi, lo := bits.Mul64(product, uint64(dim))
		if hi != 0 || lo > uint64(math.MaxInt/d.Size()) {
			return 0, fmt.Errorf("shape %v of dtype %s has more elements than memory can hold", shape, d)
		}
		product = lo
	}
	return int(product), nil
}

func join(types []DType) string {
	var b strings.Builder
	for i, t := range types {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(t))
	}
	return b.String()
}
