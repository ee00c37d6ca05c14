package safetensors

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// chunk is how many bytes are read or written at a time: a multiple of every
// element's size.
const chunk = 1 << 18

// decoder converts len(dst) little-endian elements.
type decoder[T any] func(dst []T, src []byte)

// each makes a decoder of a conversion of one element of size bytes.
func each[T any](size int, convert func([]byte) T) decoder[T] {
	return func(dst []T, src []byte) {
		for i := range dst {
			dst[i] = convert(src[i*size : i*size+size])
		}
	}
}

var (
	le = binary.LittleEndian

	toFloat32 = map[DType]decoder[float32]{
		F64:  each(8, func(b []byte) float32 { return float32(math.Float64frombits(le.Uint64(b))) }),
		F32:  float32s, // the common one
		F16:  each(2, func(b []byte) float32 { return float16(le.Uint16(b)) }),
		BF16: each(2, func(b []byte) float32 { return bfloat16(le.Uint16(b)) }),
	}
	toFloat64 = map[DType]decoder[float64]{
		F64:  each(8, func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) }),
		F32:  each(4, func(b []byte) float64 { return float64(math.Float32frombits(le.Uint32(b))) }),
		F16:  each(2, func(b []byte) float64 { return float64(float16(le.Uint16(b))) }),
		BF16: each(2, func(b []byte) float64 { return float64(bfloat16(le.Uint16(b))) }),
	}
	toInt64 = map[DType]decoder[int64]{
		I64: each(8, func(b []byte) int64 { return int64(le.Uint64(b)) }),
		I32: each(4, func(b []byte) int64 { return int64(int32(le.Uint32(b))) }),
		I16: each(2, func(b []byte) int64 { return int64(int16(le.Uint16(b))) }),
		I8:  each(1, func(b []byte) int64 { return int64(int8(b[0])) }),
		U32: each(4, func(b []byte) int64 { return int64(le.Uint32(b)) }),
		U16: each(2, func(b []byte) int64 { return int64(le.Uint16(b)) }),
		U8:  each(1, func(b []byte) int64 { return int64(b[0]) }),
	}
)

func float32s(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(le.Uint32(src[4*i : 4*i+4]))
	}
}

// Float32s fills dst, which must have as many elements as the tensor, from a
// tensor of type F64, F32, F16 or BF16. F64 is rounded to nearest, and to
// infinity beyond float32's range.
func (f *File) Float32s(name string, dst []float32) error {
	info, err := f.lookup(name)
	if err != nil {
		return err
	}
	if n := info.Elements(); n != len(dst) {
		return f.fail(name, fmt.Errorf("has %d elements (shape %v), want %d", n, info.Shape, len(dst)))
	}
	return decode(f, name, info, toFloat32, dst)
}

// ReadFloat32 is Float32s into a new slice.
func (f *File) ReadFloat32(name string) ([]float32, error) { return read(f, name, toFloat32) }

// ReadFloat64 returns a tensor of type F64, F32, F16 or BF16.
func (f *File) ReadFloat64(name string) ([]float64, error) { return read(f, name, toFloat64) }

// ReadInt64 returns a tensor of a signed or unsigned integer type, U64 excepted.
func (f *File) ReadInt64(name string) ([]int64, error) { return read(f, name, toInt64) }

func read[T any](f *File, name string, decoders map[DType]decoder[T]) ([]T, error) {
	info, err := f.lookup(name)
	if err != nil {
		return nil, err
	}
	if decoders[info.DType] == nil { // before memory is taken
		return nil, f.wrongType(name, info.DType, slices.Sorted(maps.Keys(decoders)))
	}
	dst := make([]T, info.Elements())
	return dst, decode(f, name, info, decoders, dst)
}

func decode[T any](f *File, name string, info Info, decoders map[DType]decoder[T], dst []T) error {
	convert := decoders[info.DType]
	if convert == nil {
		return f.wrongType(name, info.DType, slices.Sorted(maps.Keys(decoders)))
	}
	buffer := make([]byte, min(chunk, info.Size))
	for offset := info.Offset; len(dst) > 0; offset += int64(len(buffer)) {
		n := min(len(buffer)/info.DType.Size(), len(dst))
		buffer = buffer[:n*info.DType.Size()]
		if err := readFull(f.r, buffer, offset); err != nil {
			return f.fail(name, err)
		}
		convert(dst[:n], buffer)
		dst = dst[n:]
	}
	return nil
}

func (f *File) lookup(name string) (Info, error) {
	info, ok := f.tensors[name]
	if !ok {
		return info, fmt.Errorf("safetensors: %sthere is no tensor %q among the %d", f.prefix(), name, len(f.names))
	}
	return info, nil
}

func (f *File) wrongType(name string, d DType, want []DType) error {
	return f.fail(name, fmt.Errorf("dtype %s: want one of %s", d, join(want)))
}

func (f *File) fail(name string, err error) error {
	return fmt.Errorf("safetensors: %stensor %q: %w", f.prefix(), name, err)
}

// prefix names the file in an error message.
func (f *File) prefix() string {
	if f.path == "" {
		return ""
	}
	return f.path + ": "
}

// bfloat16 is the upper half of a float32.
func bfloat16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// float16 widens an IEEE 754 half: 1 sign, 5 exponent and 10 fraction bits. It
// is exact.
func float16(h uint16) float32 {
	sign, exponent, fraction := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch exponent {
	case 0: // zero and the subnormals, multiples of 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*(1.0/(1<<24))))
	case 31: // infinity and NaN
		return math.Float32frombits(sign | 255<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}
