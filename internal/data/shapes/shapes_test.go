package shapes

import (
	"hash/crc32"
	"math"
	"testing"
)

// The vectors were written by the independent NumPy implementation. Sines may
// differ in the last bit between math libraries, so values are compared within
// one byte, and checksums only where none differs: on the machines Go runs its
// portable Sincos on, which is all but s390x.

func TestWordsAndParams(t *testing.T) {
	words := [8]uint32{6694888, 14772677, 12343212, 10158299, 16311500, 6074880, 11642228, 622335}
	if got := Words(0, 0); got != words {
		t.Errorf("Words(0, 0) = %d, want %d", got, words)
	}
	p := Draw(0, 0)
	if p.Class != Ring || p.Background != 1 {
		t.Errorf("image 0: class %d, background %d, want %d, 1", p.Class, p.Background, Ring)
	}
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"phi", p.Phi, 4.622619646}, {"r", p.Radius, 0.36054818}, {"cx", p.CX, 0.593930486},
		{"cy", p.CY, 0.472569411}, {"theta", p.Tilt, 0.077572346},
	} {
		if math.Abs(c.got-c.want) > 5e-10 {
			t.Errorf("image 0: %s = %.9f, want %.9f", c.name, c.got, c.want)
		}
	}
}

func TestSingleImages(t *testing.T) {
	var img [Size * Size * 3]byte
	for _, c := range []struct {
		index             uint64
		class, background int
		sum               int
		crc               uint32
	}{
		{0, Ring, 1, 155934, 0x8c7b64df},
		{1, Square, 1, 150432, 0xd9a8ccac},
		{2, Disc, 1, 158723, 0x36504f77},
		{12345, Square, 1, 151960, 0x27531208},
	} {
		p := Image(0, c.index, img[:])
		if p.Class != c.class || p.Background != c.background {
			t.Errorf("image %d: class %d, background %d, want %d, %d", c.index, p.Class, p.Background, c.class, c.background)
		}
		sum := 0
		for _, v := range img {
			sum += int(v)
		}
		if crc := crc32.ChecksumIEEE(img[:]); sum != c.sum || crc != c.crc {
			t.Errorf("image %d: sum %d, crc32 %08x, want %d, %08x", c.index, sum, crc, c.sum, c.crc)
		}
	}
	Image(0, 0, img[:])
	for j, want := range [Size]byte{232, 232, 232, 232, 99, 47, 112, 231, 231, 231, 231, 230, 113, 47, 98, 230} {
		if got := img[(8*Size+j)*3]; got+1 < want || got > want+1 {
			t.Errorf("image 0, row 8, column %d: red %d, want %d", j, got, want)
		}
	}
}

func TestThousandImages(t *testing.T) {
	var img [Size * Size * 3]byte
	var labels [len(Classes)]int
	sum, crc := 0, uint32(0)
	for i := range uint64(1000) {
		labels[Image(0, i, img[:]).Class]++
		for _, v := range img {
			sum += int(v)
		}
		crc = crc32.Update(crc, crc32.IEEETable, img[:])
	}
	if sum != 101194353 || crc != 0x6e1c7e8b {
		t.Errorf("sum %d, crc32 %08x, want 101194353, 6e1c7e8b", sum, crc)
	}
	if want := [len(Classes)]int{194, 191, 206, 196, 213}; labels != want {
		t.Errorf("labels %d, want %d", labels, want)
	}
}

// All 64 bits of index and seed count.
func TestSeedAndIndexSeparateImages(t *testing.T) {
	base := Words(0, 7)
	for _, c := range [][2]uint64{{1, 7}, {1 << 32, 7}, {0, 8}, {0, 7 + 1<<32}} {
		if Words(c[0], c[1]) == base {
			t.Errorf("Words(%d, %d) equals Words(0, 7)", c[0], c[1])
		}
	}
}

// Coverage, Background and Render are one formula cut in three.
func TestRenderCombinesCoverageAndBackground(t *testing.T) {
	for _, size := range []int{5, Size, 33} {
		alpha := make([]float64, size*size)
		back, img := make([]float64, size*size*3), make([]float64, size*size*3)
		for i := range uint64(50) {
			p := Draw(3, i)
			Coverage(p, size, alpha)
			Background(p, size, back)
			Render(p, size, img)
			for k, got := range img {
				a := alpha[k/3]
				want := back[k] + a*(Colours[p.Class][k%3]-back[k])
				if math.Abs(got-want) > 1e-12 || got < 0 || got > 1 || a < 0 || a > 1 {
					t.Fatalf("size %d, image %d, value %d: %v, want %v (coverage %v)", size, i, k, got, want, a)
				}
			}
			limit := 0.0
			if p.Class == Triangle || p.Class == Cross {
				limit = 0.43
			}
			for k := range size {
				for _, at := range []int{k, (size-1)*size + k, k * size, k*size + size - 1} {
					if size >= Size && alpha[at] > limit {
						t.Fatalf("size %d, image %d: the shape covers %v of border pixel %d, want at most %v", size, i, alpha[at], at, limit)
					}
				}
			}
		}
	}
}

func TestNothingAllocates(t *testing.T) {
	img := make([]byte, Size*Size*3)
	values := make([]float64, Size*Size*3)
	if n := testing.AllocsPerRun(10, func() {
		p := Image(1, 2, img)
		Render(p, Size, values)
		Coverage(p, Size, values)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkCoverage(b *testing.B) {
	dst := make([]float64, Size*Size)
	p := Draw(0, 0)
	for b.Loop() {
		Coverage(p, Size, dst)
	}
}

func BenchmarkImage(b *testing.B) {
	dst := make([]byte, Size*Size*3)
	b.SetBytes(int64(len(dst)))
	b.ReportAllocs()
	for b.Loop() {
		Image(0, 1, dst)
	}
}
