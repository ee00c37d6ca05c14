package safetensors

import (
	"bytes"
	"io"
	"maps"
	"os"
	"reflect"
	"testing"
)

// Whatever the bytes: no panic, and a file that is accepted can be read as a
// whole, written, and read again the same.
func FuzzParse(f *testing.F) {
	for _, seed := range [][]byte{
		nil,
		file(`{}`, 0),
		file(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8),
		file(`{"b":{"dtype":"F16","shape":[3],"data_offsets":[4,10]},"a":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}  `, 10),
		file(`{"a":{"dtype":"U8","shape":[0,9223372036854775807],"data_offsets":[0,0]}}`, 0),
		file(`{"a":{"dtype":"BF16","shape":[4294967296,4294967296],"data_offsets":[0,2]}}`, 2),
		file(`{"a":{"dtype":"F64","shape":[1],"data_offsets":[8,0]}}`, 8),
		file(`{"\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
	} {
		f.Add(seed)
	}
	whole, err := os.ReadFile(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:4096])
	f.Fuzz(func(t *testing.T, b []byte) {
		f, err := parse(b)
		if err != nil {
			return
		}
		var tensors []Tensor
		total := int64(0)
		for _, name := range f.Names() {
			info, _ := f.Tensor(name)
			total += info.Size
			data := b[info.Offset : info.Offset+info.Size]
			tensors = append(tensors, Tensor{Name: name, DType: info.DType, Shape: info.Shape,
				Stream: func(w io.Writer) error { _, err := w.Write(data); return err }})
			if toFloat32[info.DType] != nil {
				if v, err := f.ReadFloat32(name); err != nil || len(v) != info.Elements() {
					t.Errorf("%q: %d values, error %v, want %d", name, len(v), err, info.Elements())
				}
			}
		}
		if header := int64(len(b)) - total; header < 10 {
			t.Errorf("%d bytes of tensors in a file of %d", total, len(b))
		}
		var again bytes.Buffer
		if err := Write(&again, f.Metadata(), tensors); err != nil {
			t.Fatal(err)
		}
		g, err := parse(again.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(f.Metadata(), g.Metadata()) || !reflect.DeepEqual(f.Names(), g.Names()) {
			t.Errorf("names %q, metadata %q; written and read again %q, %q", f.Names(), f.Metadata(), g.Names(), g.Metadata())
		}
		for _, name := range f.Names() {
			x, _ := f.Tensor(name)
			y, _ := g.Tensor(name)
			if x.DType != y.DType || len(x.Shape) != len(y.Shape) ||
				!bytes.Equal(b[x.Offset:x.Offset+x.Size], again.Bytes()[y.Offset:y.Offset+y.Size]) {
				t.Errorf("%q: %+v, written and read again %+v", name, x, y)
			}
		}
	})
}
