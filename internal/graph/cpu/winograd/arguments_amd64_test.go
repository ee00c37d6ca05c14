package winograd

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
		{reflect.TypeFor[gather](), []string{"dst", "pixels", "mask", "plane", "vectors", "first"}},
		{reflect.TypeFor[scatter](), []string{
			"dst", "src", "bias", "perSample", "residual", "mask", "plane", "vectors", "pixel", "row", "rows", "columns",
		}},
		{reflect.TypeFor[taps](), []string{"planes", "taps", "mask", "plane", "tap", "row", "rows", "vectors"}},
		{reflect.TypeFor[block](), []string{"dst", "src", "dstRow", "srcRow"}},
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
