package bf16

import (
	"reflect"
	"testing"
	"unsafe"
)

// TestArgumentLayout holds the kernels' arguments to the offsets that gen
// counts: one word a field, in this order.
func TestArgumentLayout(t *testing.T) {
	for _, arg := range []struct {
		is   reflect.Type
		want []string
	}{
		{reflect.TypeFor[tile](), []string{
			"a", "b", "c", "bias", "add", "mask", "offsets", "segments", "steps", "rowStride", "splitA", "strideC", "splitC",
		}},
		{reflect.TypeFor[packing](), []string{"dst", "src", "mask", "stride", "pairs"}},
		{reflect.TypeFor[conversion](), []string{"dst", "src", "dstStride", "srcStride", "rows", "n"}},
		{reflect.TypeFor[transposition](), []string{"dst", "dstStride", "src", "srcStride", "rows", "columns", "rowMask", "columnMask"}},
		{reflect.TypeFor[addition](), []string{"c", "add", "bias", "mask", "stride", "rows"}},
		{reflect.TypeFor[amxTile](), []string{
			"upper", "lower", "b", "upperC", "lowerC", "upperInit", "lowerInit", "initStride", "offsets", "segments", "steps",
			"rowStride", "strideC", "config",
		}},
	} {
		if arg.is.NumField() != len(arg.want) {
			t.Fatalf("%v has %d fields, the kernels know %d", arg.is, arg.is.NumField(), len(arg.want))
		}
		for i, name := range arg.want {
			f := arg.is.Field(i)
			if f.Name != name || f.Offset != uintptr(8*i) || f.Type.Size() != 8 && name != "config" {
				t.Errorf("field %d of %v is %s at %d, the kernels want %s at %d", i, arg.is, f.Name, f.Offset, name, 8*i)
			}
		}
	}
}

// TestTileConfiguration holds the operand of LDTILECFG to the Intel manual:
// byte 0 is the palette, 16 on are 16-bit row lengths, 48 on are rows.
func TestTileConfiguration(t *testing.T) {
	var c tileConfig
	if unsafe.Sizeof(c) != 64 || unsafe.Offsetof(c.rowBytes) != 16 || unsafe.Offsetof(c.rows) != 48 {
		t.Fatalf("%d bytes, lengths at %d, rows at %d", unsafe.Sizeof(c), unsafe.Offsetof(c.rowBytes), unsafe.Offsetof(c.rows))
	}
	c.shape([2]int{13, 12}, [2]int{16, 5})
	want := [64]byte{0: 1}
	for tile, shape := range [8][2]byte{{13, 64}, {13, 20}, {12, 64}, {12, 20}, {13, 64}, {12, 64}, {16, 64}, {16, 20}} {
		want[48+tile], want[16+2*tile] = shape[0], shape[1]
	}
	if got := *(*[64]byte)(unsafe.Pointer(&c)); got != want {
		t.Errorf("got % x\nwant % x", got, want)
	}
	c.shape([2]int{3, 0}, [2]int{7, 0})
	want = [64]byte{0: 1}
	for tile, shape := range map[int][2]byte{0: {3, 28}, 4: {3, 64}, 6: {16, 28}} {
		want[48+tile], want[16+2*tile] = shape[0], shape[1]
	}
	if got := *(*[64]byte)(unsafe.Pointer(&c)); got != want {
		t.Errorf("one tile: got % x\nwant % x", got, want)
	}
}
