package philox

import (
	"reflect"
	"testing"
)

// TestArgumentLayout holds the kernels' argument to the offsets that gen knows.
func TestArgumentLayout(t *testing.T) {
	want := []struct {
		name         string
		offset, size uintptr
	}{
		{"y", 0, 8}, {"x", 8, 8}, {"strides", 16, 8}, {"counter", 24, 16}, {"keys", 40, 80}, {"limit", 120, 4}, {"scale", 124, 4},
	}
	is := reflect.TypeFor[call]()
	if is.NumField() != len(want) {
		t.Fatalf("%v has %d fields, the kernels know %d", is, is.NumField(), len(want))
	}
	for i, w := range want {
		if f := is.Field(i); f.Name != w.name || f.Offset != w.offset || f.Type.Size() != w.size {
			t.Errorf("field %d of %v is %s at %d, the kernels want %s at %d", i, is, f.Name, f.Offset, w.name, w.offset)
		}
	}
}
