package safetensors

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const golden = "../../testdata/unet_tiny.safetensors"

// file builds a file of a header and data, whatever they say.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func parse(b []byte) (*File, error) { return Parse(bytes.NewReader(b), int64(len(b))) }

func TestGoldenFile(t *testing.T) {
	f, err := Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names := f.Names()
	if !slices.IsSorted(names) || !slices.Contains(names, "golden.x") {
		t.Errorf("Names() = %q, want them sorted and golden.x among them", names)
	}
	if got := f.Metadata(); !maps.Equal(got, map[string]string{"format": "pt"}) {
		t.Errorf("Metadata() = %v", got)
	}
	info, ok := f.Tensor("conv_in.weight")
	if want := []int{8, 3, 3, 3}; !ok || info.DType != F32 || !slices.Equal(info.Shape, want) || info.Size != 4*216 || info.Elements() != 216 {
		t.Errorf("conv_in.weight: %+v, want F32 %v", info, want)
	}
	// Values as the NumPy reader sees them.
	w, err := f.ReadFloat32("conv_in.weight")
	if err != nil {
		t.Fatal(err)
	}
	eps64, err := f.ReadFloat64("golden.eps_f64")
	if err != nil {
		t.Fatal(err)
	}
	eps, err := f.ReadFloat32("golden.eps")
	if err != nil {
		t.Fatal(err)
	}
	if len(eps) != len(eps64) || len(eps) != 2*3*16*16 {
		t.Fatalf("%d and %d values of eps, want 1536", len(eps), len(eps64))
	}
	narrowed := make([]float32, len(eps))
	if err := f.Float32s("golden.eps_f64", narrowed); err != nil {
		t.Fatal(err)
	}
	for i := range eps {
		if math.Abs(float64(eps[i])-eps64[i]) > 3e-6 || narrowed[i] != float32(eps64[i]) {
			t.Fatalf("eps[%d] = %v, eps_f64 = %v, as float32 %v", i, eps[i], eps64[i], narrowed[i])
		}
	}
	ts, err := f.ReadInt64("golden.t")
	if err != nil {
		t.Fatal(err)
	}
	loss, err := f.ReadFloat32("golden.loss")
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := f.Tensor("golden.loss"); len(info.Shape) != 0 || loss[0] != 1.2314845323562622 {
		t.Errorf("golden.loss: shape %v, value %v, want 1.2314845", info.Shape, loss)
	}
	if w[0] != -0.3206479251384735 || w[215] != 0.052509602159261703 || !slices.Equal(ts, []int64{7, 941}) {
		t.Errorf("conv_in.weight %v .. %v, t %v, want -0.32064793 .. 0.0525096, [7 941]", w[0], w[215], ts)
	}
}

func TestMalformedFiles(t *testing.T) {
	const ok = `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`
	if _, err := parse(file(ok, 8)); err != nil {
		t.Fatalf("the well-formed file: %v", err)
	}
	entry := func(dtype, shape, offsets string) string {
		return `{"a":{"dtype":` + dtype + `,"shape":` + shape + `,"data_offsets":` + offsets + `}}`
	}
	long := binary.LittleEndian.AppendUint64(nil, MaxHeader+1)
	for _, c := range []struct {
		name string
		file []byte
		want string // part of the error
	}{
		{"empty", nil, "0 bytes: too short"},
		{"only a length", make([]byte, 8), "8 bytes: too short"},
		{"header above the limit", append(long, ok...), "not a safetensors file"},
		{"a web page", []byte("<!DOCTYPE html><html>"), `not a safetensors file: it begins with "<!DOCTYPE"`},
		{"header cut short", file(ok, 0)[:30], "has 30 bytes, its header alone promises 62: download or write it again"},
		{"no header", file("", 8), "not a safetensors file"},
		{"padding in front", file(" "+ok, 8), "not a safetensors file"},
		{"data cut short", file(ok, 7), "has 69 bytes, its header promises 70: download or write it again"},
		{"no data", file(ok, 0), "has 62 bytes, its header promises 70"},
		{"data left over", file(ok, 9), "has 71 bytes, its header promises 70"},
		{"not UTF-8", file("{\"\xff\":1}", 0), "not valid UTF-8"},
		{"not JSON", file(`{"a":}`, 0), "not valid JSON"},
		{"two objects", file(ok+ok, 8), "not valid JSON"},
		{"tensor is no object", file(`{"a":[1]}`, 0), `tensor "a": its description is an array, want an object`},
		{"two tensors of a name", file(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, 0), `the header has the key "a" twice`},
		{"name twice, once escaped", file(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"\u0061":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, 0), `the header has the key "a" twice`},
		{"key twice", file(`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8), `has the key "dtype" twice`},
		{"unknown key", file(`{"a":{"type":"F32","shape":[2],"data_offsets":[0,8]}}`, 8), `unknown key "type"`},
		{"missing key", file(`{"a":{"dtype":"F32","shape":[2]}}`, 8), "want all of dtype, shape and data_offsets"},
		{"metadata is no object", file(`{"__metadata__":"x"}`, 0), `__metadata__ is "x", want an object`},
		{"metadata of numbers", file(`{"__metadata__":{"step":1}}`, 0), `__metadata__: the value of "step" is 1, want a string`},
		{"metadata key twice", file(`{"__metadata__":{"a":"1","a":"2"}}`, 0), `__metadata__ has the key "a" twice`},
		{"metadata twice", file(`{"__metadata__":{},"__metadata__":{}}`, 0), `has the key "__metadata__" twice`},
		{"dtype is no string", file(entry(`4`, `[2]`, `[0,8]`), 8), "dtype is 4, want a string"},
		{"dtype unknown", file(entry(`"F31"`, `[2]`, `[0,8]`), 8), `dtype "F31" is not known: want one of BF16, BOOL,`},
		{"dtype in small letters", file(entry(`"f32"`, `[2]`, `[0,8]`), 8), `dtype "f32" is not known`},
		{"shape is no array", file(entry(`"F32"`, `2`, `[0,8]`), 8), "shape is 2, want an array of integers"},
		{"shape null", file(entry(`"F32"`, `null`, `[0,8]`), 8), "shape is null, want an array of integers"},
		{"shape negative", file(entry(`"F32"`, `[-1]`, `[0,8]`), 8), "shape holds -1, want integers from 0"},
		{"shape fractional", file(entry(`"F32"`, `[2.0]`, `[0,8]`), 8), "shape holds 2.0, want integers from 0"},
		{"shape of strings", file(entry(`"F32"`, `["2"]`, `[0,8]`), 8), `shape holds "2", want integers from 0`},
		{"shape nested", file(entry(`"F32"`, `[[2]]`, `[0,8]`), 8), "shape holds an array, want integers from 0"},
		{"dimension overflows", file(entry(`"F32"`, `[9223372036854775808]`, `[0,8]`), 8), "shape holds 9223372036854775808"},
		{"product overflows", file(entry(`"F32"`, `[4294967296,4294967296]`, `[0,0]`), 0), "more elements than memory can hold"},
		{"bytes overflow", file(entry(`"F32"`, `[4611686018427387904]`, `[0,0]`), 0), "more elements than memory can hold"},
		{"offsets do not fit", file(entry(`"F32"`, `[3]`, `[0,8]`), 8), "data_offsets [0 8] span 8 bytes, but dtype F32 and shape [3] need 12"},
		{"offsets reversed", file(entry(`"F32"`, `[2]`, `[8,0]`), 8), "data_offsets [8 0]: want [begin, end]"},
		{"one offset", file(entry(`"F32"`, `[2]`, `[8]`), 8), "data_offsets [8]: want [begin, end]"},
		{"three offsets", file(entry(`"F32"`, `[2]`, `[0,8,16]`), 8), "data_offsets [0 8 16]: want [begin, end]"},
		{"offsets beyond everything", file(`{"a":{"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]}}`, 8), "download or write it again"},
		{"hole in front", file(entry(`"F32"`, `[2]`, `[4,12]`), 12), `tensor "a" begins at byte 4 of the data, but nothing covers bytes 0 to 4`},
		{"hole between", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3), `tensor "b" begins at byte 2`},
		{"overlap", file(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}`, 5), `tensor "b" begins at byte 3 of the data, inside the tensor that ends at 4`},
		{"same bytes twice", file(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, 4), `tensor "b" begins at byte 0 of the data, inside`},
		{"empty tensor inside another", file(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}}`, 4), `tensor "b" begins at byte 2 of the data, inside`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := parse(c.file)
			if err == nil {
				t.Fatalf("accepted, tensors %q; want an error with %q", f.Names(), c.want)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q in it", err, c.want)
			}
			path := filepath.Join(t.TempDir(), "a.safetensors")
			if err := os.WriteFile(path, c.file, 0o666); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Open: error %v, want the path and %q in it", err, c.want)
			}
		})
	}
}

func TestUnusualButValidFiles(t *testing.T) {
	for _, c := range []struct {
		name string
		file []byte
		want []string
	}{
		{"nothing", file(`{}`, 0), nil},
		{"only padding", file("{}      \n\t", 0), nil},
		{"empty metadata", file(`{"__metadata__":{}}`, 0), nil},
		{"scalar", file(`{"a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}`, 8), []string{"a"}},
		{"empty tensors on both sides of another", file(`{"z":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]},`+
			`"b":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"C64","shape":[3,0],"data_offsets":[1,1]}}`, 1), []string{"a", "b", "z"}},
		{"data not in the order of the header", file(`{"a":{"data_offsets":[2,3],"shape":[1],"dtype":"I8"},"b":{"dtype":"I16","shape":[1],"data_offsets":[0,2]}}`, 3), []string{"a", "b"}},
	} {
		f, err := parse(c.file)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := f.Names(); !slices.Equal(got, c.want) {
			t.Errorf("%s: Names() = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	folder := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(folder, "none"): "no such file",
		folder:                        "not a regular file, but a folder",
	} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), path) != 1 {
			t.Errorf("Open(%q): error %v, want %q and the path once", path, err, want)
		}
	}
}

func TestReadErrors(t *testing.T) {
	f, err := parse(file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U64","shape":[1],"data_offsets":[8,16]}}`, 16))
	if err != nil {
		t.Fatal(err)
	}
	float := func(name string) error { _, err := f.ReadFloat32(name); return err }
	integer := func(name string) error { _, err := f.ReadInt64(name); return err }
	for _, c := range []struct {
		err  error
		want string
	}{
		{float("c"), `no tensor "c" among the 2`},
		{f.Float32s("c", nil), `no tensor "c" among the 2`},
		{float("b"), `tensor "b": dtype U64: want one of BF16, F16, F32, F64`},
		{f.Float32s("b", make([]float32, 1)), `tensor "b": dtype U64: want one of`},
		{integer("a"), `tensor "a": dtype F32: want one of I16, I32`},
		{integer("b"), `tensor "b": dtype U64: want one of I16, I32`},
		{f.Float32s("a", make([]float32, 3)), `tensor "a": has 2 elements (shape [2]), want 3`},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("error %v, want %q in it", c.err, c.want)
		}
	}
}

// A file may be cut after it was opened.
func TestFileShrinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.safetensors")
	b := file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8)
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, int64(len(b)-1)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFloat32("a"); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("error %v, want the path and 'unexpected EOF'", err)
	}
}

// Every half against its definition: (-1)^sign 2^(exponent-15) 1.fraction.
func TestFloat16(t *testing.T) {
	for h := range 1 << 16 {
		exponent, fraction := h>>10&31, float64(h&1023)
		want := math.Ldexp(1+fraction/1024, exponent-15)
		switch {
		case exponent == 0:
			want = math.Ldexp(fraction/1024, -14)
		case exponent == 31 && fraction == 0:
			want = math.Inf(1)
		case exponent == 31:
			want = math.NaN()
		}
		if h>>15 == 1 {
			want = -want
		}
		got := float64(float16(uint16(h)))
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) || math.Signbit(got) != (h>>15 == 1) {
			t.Fatalf("float16(%#04x) = %v, want %v", h, got, want)
		}
	}
}

// Little-endian bytes of each type and what they read as.
func TestConversions(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		dtype DType
		bytes string
		want  []float64 // of ReadFloat32, ReadFloat64, or ReadInt64
	}{
		{F64, "\x00\x00\x00\x00\x00\x00\xf8\xbf" + "\x00\x00\x00\x00\x00\x00\xf0\x7f", []float64{-1.5, math.Inf(1)}},
		{F32, "\x00\x00\xc0\xbf" + "\x01\x00\x00\x00" + "\x00\x00\xc0\x7f", []float64{-1.5, math.Ldexp(1, -149), nan}},
		{F16, "\x00\xbe" + "\x01\x00" + "\xff\x7b", []float64{-1.5, math.Ldexp(1, -24), 65504}},
		{BF16, "\xc0\xbf" + "\x01\x00" + "\x80\x7f", []float64{-1.5, math.Ldexp(1, -133), math.Inf(1)}},
		{I64, "\xfe\xff\xff\xff\xff\xff\xff\xff", []float64{-2}},
		{I32, "\xfe\xff\xff\xff" + "\x00\x00\x00\x80", []float64{-2, -1 << 31}},
		{I16, "\xfe\xff" + "\x00\x01", []float64{-2, 256}},
		{I8, "\xfe\x7f", []float64{-2, 127}},
		{U32, "\xfe\xff\xff\xff", []float64{1<<32 - 2}},
		{U16, "\xfe\xff", []float64{1<<16 - 2}},
		{U8, "\xfe\x01", []float64{254, 1}},
	} {
		var b bytes.Buffer
		err := Write(&b, nil, []Tensor{{Name: "a", DType: c.dtype, Shape: []int{len(c.want)}, Stream: text(c.bytes)}})
		if err != nil {
			t.Fatal(err)
		}
		f, err := parse(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var got [][]float64
		if strings.Contains(string(c.dtype), "F") {
			wide, err := f.ReadFloat64("a")
			if err != nil {
				t.Fatal(err)
			}
			narrow, err := f.ReadFloat32("a")
			if err != nil {
				t.Fatal(err)
			}
			got = [][]float64{wide, widen(narrow)}
		} else {
			integers, err := f.ReadInt64("a")
			if err != nil {
				t.Fatal(err)
			}
			got = [][]float64{widen(integers)}
		}
		for _, g := range got {
			if !slices.EqualFunc(g, c.want, func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }) {
				t.Errorf("%s: %v, want %v", c.dtype, g, c.want)
			}
		}
	}
}

func widen[T float32 | int64](values []T) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}
