package vector

import (
	"reflect"
	"testing"
)

// TestArgumentLayout holds the kernels' arguments to the offsets that gen
// counts: one word a field, in this order, then the numbers.
func TestArgumentLayout(t *testing.T) {
	want := []string{
		"out", "x", "y", "t0", "t1", "t2", "t3", "t4", "sum", "dot",
		"rows", "columns", "strideOut", "strideX", "strideY", "f", "s",
	}
	is := reflect.TypeFor[call]()
	if is.NumField() != len(want) {
		t.Fatalf("%v has %d fields, the kernels know %d", is, is.NumField(), len(want))
	}
	for i, name := range want {
		offset := uintptr(8 * i)
		if name == "s" {
			offset += 8 * uintptr(len(call{}.f)-1)
		}
		if f := is.Field(i); f.Name != name || f.Offset != offset {
			t.Errorf("field %d of %v is %s at %d, the kernels want %s at %d", i, is, f.Name, f.Offset, name, offset)
		}
	}
}
