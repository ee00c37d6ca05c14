package gemm

import (
	"reflect"
	"testing"
)

// TestArgumentLayout holds the kernels' arguments to the offsets that gen
// counts: one word a field, in this order.
func TestArgumentLayout(t *testing.T) {
	for _, arg := range []struct {
		is   reflect.Type
		want []string
	}{
		{reflect.TypeFor[tile](), []string{
			"a", "b", "c", "bias", "mask", "offsets", "segments", "steps", "rowStride", "stepStride",
			"splitA", "strideC", "splitC", "addend", "partial",
		}},
		{reflect.TypeFor[packing](), []string{"dst", "src", "mask", "stride", "rows"}},
	} {
		if arg.is.NumField() != len(arg.want) {
			t.Fatalf("%v has %d fields, the kernels know %d", arg.is, arg.is.NumField(), len(arg.want))
		}
		for i, name := range arg.want {
			if f := arg.is.Field(i); f.Name != name || f.Offset != uintptr(8*i) || f.Type.Size() != 8 {
				t.Errorf("field %d of %v is %s at %d, the kernels want %s at %d", i, arg.is, f.Name, f.Offset, name, 8*i)
			}
		}
	}
}
