//go:build gpu && !cpu

package cuda

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
	"ddpm/internal/rng"
)

// The conformance suite holds every operation to its definition on small shapes.
// The tests of the families of operations hold them to it where a kernel splits
// its work over blocks, in both storage types and mixtures of them, on operands
// that lie anywhere, and next to memory that is not theirs.

// storage is how a value lies in memory.
type storage int

const (
	float32s storage = iota
	bfloat16s
	bytes8
	words32
)

func (s storage) String() string { return [...]string{"f32", "bf16", "u8", "u32"}[s] }

func (s storage) size() int { return [...]int{4, 2, 1, 4}[s] }

// value is an operand, already rounded to its storage type.
type value struct {
	graph.Operand
	storage storage
	// shift moves the value this many bytes away from the alignment of memory.
	shift int
}

// bf16Of rounds to nearest even.
func bf16Of(v float64) uint16 {
	bits := math.Float32bits(float32(v))
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func (s storage) round(v float64) float64 {
	switch s {
	case float32s:
		return float64(float32(v))
	case bfloat16s:
		return float64(math.Float32frombits(uint32(bf16Of(v)) << 16))
	}
	return v
}

func (v value) bytes() []byte {
	b := make([]byte, 0, len(v.Data)*v.storage.size())
	for _, x := range v.Data {
		var word uint32
		switch v.storage {
		case float32s:
			word = math.Float32bits(float32(x))
		case bfloat16s:
			word = uint32(bf16Of(x))
		default:
			word = uint32(x)
		}
		for range v.storage.size() {
			b = append(b, byte(word))
			word >>= 8
		}
	}
	return b
}

// normals is a value of mean 1 and standard deviation 2.
func normals(s storage, shape ...int) value { return spreadOf(s, 1, 2, shape...) }

// spreadOf is normal numbers; which ones depends on the mean and the deviation too,
// so that operands of one shape differ.
func spreadOf(s storage, mean, std float64, shape ...int) value {
	v := value{Operand: graph.Operand{Shape: shape}, storage: s}
	v.Data = make([]float64, graph.Shape(shape).TotalSize())
	z := make([]float32, len(v.Data))
	key := 31*math.Float64bits(mean) + math.Float64bits(std)
	rng.Key{Seed: key, Stream: rng.Noise, Sample: uint32(len(shape))}.Normals(z)
	for i := range v.Data {
		v.Data[i] = s.round(mean + std*float64(z[i]))
	}
	return v
}

func wordsOf(shape ...int) value {
	v := value{Operand: graph.Operand{Shape: shape}, storage: words32}
	for i := range graph.Shape(shape).TotalSize() {
		v.Data = append(v.Data, float64(rng.Key{Seed: 7}.Block(uint32(i))[1]))
	}
	return v
}

func bytesOf(shape ...int) value {
	v := value{Operand: graph.Operand{Shape: shape}, storage: bytes8}
	for i := range graph.Shape(shape).TotalSize() {
		v.Data = append(v.Data, float64(rng.Key{Seed: 8}.Block(uint32(i))[0]>>24))
	}
	return v
}

func shifted(v value, bytes int) value {
	v.shift = bytes
	return v
}

// define is what an operation's definition makes of operands, unrounded.
func define(op graph.Op, in ...value) (graph.Operand, error) {
	operands := make([]graph.Operand, len(in))
	shapes := make([]graph.Shape, len(in))
	for i, v := range in {
		operands[i], shapes[i] = v.Operand, v.Shape
	}
	shape, err := op.Infer(shapes)
	if err != nil {
		return graph.Operand{}, err
	}
	out := graph.Operand{Shape: shape, Data: make([]float64, shape.TotalSize())}
	op.Eval(out, operands)
	return out, nil
}

var testDevice = sync.OnceValues(func() (*device, error) {
	b, err := open(graph.Options{Precision: graph.BF16})
	if err != nil {
		return nil, err
	}
	return b.device, nil
})

// deviceFor is a device. Where there is none the test is skipped, unless a driver
// was asked for.
func deviceFor(t *testing.T) *device {
	t.Helper()
	d, err := testDevice()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// memory is device memory of a test, filled with NaN around the values in it.
type memory struct {
	device *device
	freed  []kernels.Ptr
}

const guard = 1024 // bytes around a value

func (m *memory) room(bytes, shift int) (kernels.Ptr, error) {
	p, err := m.device.Alloc(int64(bytes + 2*guard + shift))
	if err != nil {
		return 0, err
	}
	m.freed = append(m.freed, p)
	fill := make([]byte, bytes+2*guard+shift)
	for i := range fill {
		fill[i] = 0xff
	}
	return p + guard + kernels.Ptr(shift), m.device.stream.Write(p, fill)
}

func (m *memory) put(v value) (tensor, error) {
	b := v.bytes()
	p, err := m.room(len(b), v.shift)
	if err != nil {
		return tensor{}, err
	}
	return tensor{ptr: p, shape: v.Shape, bf16: v.storage == bfloat16s}, m.device.stream.Write(p, b)
}

// get reads n values back, and checks that what lies around them was left alone.
func (m *memory) get(t tensor, shift int) ([]float64, error) {
	s := float32s
	if t.bf16 {
		s = bfloat16s
	}
	n := t.len() * s.size()
	around := make([]byte, n+2*guard+shift)
	if err := m.device.stream.Read(around, t.ptr-guard-kernels.Ptr(shift)); err != nil {
		return nil, err
	}
	first := guard + shift
	for i, b := range around {
		if (i < first || i >= first+n) && b != 0xff {
			return nil, fmt.Errorf("byte %d beside the result %v was written", i-first, t.shape)
		}
	}
	values := make([]float64, t.len())
	for i := range values {
		at := around[first+i*s.size():]
		bits := uint32(at[0])<<16 | uint32(at[1])<<24
		if s == float32s {
			bits = uint32(at[0]) | uint32(at[1])<<8 | uint32(at[2])<<16 | uint32(at[3])<<24
		}
		values[i] = float64(math.Float32frombits(bits))
	}
	return values, nil
}

func (m *memory) free() {
	for _, p := range m.freed {
		_ = m.device.Free(p)
	}
}

// opTest is an operation on operands, written as a storage type.
type opTest struct {
	op  graph.Op
	in  []value
	out storage
	// tolerance is relative to the largest value of the result; a bfloat16 result
	// may also be off by its rounding.
	tolerance float64
	// over is 1 more than the index of the operand whose memory the result takes.
	over int
	// outShift moves the result, in bytes.
	outShift int
	// found is what others left for the operation, of these operands if it is to be
	// told from what the operation would compute of its own.
	found, of []value
}

func (c opTest) name() string {
	parts := []string{strings.NewReplacer("graph.", "", " ", "_", "{", "_", "}", "").Replace(fmt.Sprintf("%T%+v", c.op, c.op))}
	for _, v := range c.in {
		part := strings.ReplaceAll(strings.Trim(fmt.Sprint([]int(v.Shape)), "[]"), " ", "x") + v.storage.String()
		if v.shift != 0 {
			part += fmt.Sprintf("+%d", v.shift)
		}
		parts = append(parts, part)
	}
	parts = append(parts, "to_"+c.out.String())
	if c.over > 0 {
		parts = append(parts, "in_place")
	}
	for _, v := range c.found {
		parts = append(parts, fmt.Sprintf("found_%d", v.Shape.TotalSize()))
	}
	return strings.Join(parts, "_")
}

func shapesIn(values []value) []graph.Shape {
	shapes := make([]graph.Shape, len(values))
	for i, v := range values {
		shapes[i] = v.Shape
	}
	return shapes
}

// compute runs the kernels of the operation.
func (c opTest) compute(d *device) (got []float64, err error) {
	got, _, err = c.leaving(d, nil, 0)
	return got, err
}

// leaving also has them leave so many values for a reader, if there is one.
func (c opTest) leaving(d *device, reader graph.Op, size int) (got, left []float64, err error) {
	shapes := shapesIn(c.in)
	shape, err := c.op.Infer(shapes)
	if err != nil {
		return nil, nil, err
	}
	k, ok := d.kernel(c.op, shape, shapes)
	if !ok {
		return nil, nil, fmt.Errorf("no kernel for %T", c.op)
	}
	m := &memory{device: d}
	defer m.free()
	var o operands
	for _, v := range c.in {
		operand, err := m.put(v)
		if err != nil {
			return nil, nil, err
		}
		o.in = append(o.in, operand)
	}
	for _, v := range c.found {
		left, err := m.put(v)
		if err != nil {
			return nil, nil, err
		}
		o.found = append(o.found, left)
	}
	o.out = tensor{shape: shape, bf16: c.out == bfloat16s}
	shift := c.outShift
	if c.over > 0 {
		o.out.ptr, shift = o.in[c.over-1].ptr, c.in[c.over-1].shift
	} else if o.out.ptr, err = m.room(o.out.len()*c.out.size(), shift); err != nil {
		return nil, nil, err
	}
	scratch := tensor{shape: graph.Shape{(k.scratch + 3) / 4}}
	if scratch.ptr, err = m.room(4*scratch.len(), 0); err != nil {
		return nil, nil, err
	}
	o.scratch = scratch.ptr
	if reader != nil {
		o.aside = &aside{op: reader, in: []tensor{o.out}, out: tensor{shape: graph.Shape{size}}}
		if o.aside.out.ptr, err = m.room(4*size, 0); err != nil {
			return nil, nil, err
		}
	}
	if err := d.launchAll(k.launches(o)); err != nil {
		return nil, nil, err
	}
	if _, err := m.get(scratch, 0); err != nil {
		return nil, nil, fmt.Errorf("scratch memory: %w", err)
	}
	if reader != nil {
		if left, err = m.get(o.aside.out, 0); err != nil {
			return nil, nil, fmt.Errorf("what is left: %w", err)
		}
	}
	got, err = m.get(o.out, shift)
	return got, left, err
}

func (d *device) launchAll(launches []launch) error {
	if err := d.settle(launches); err != nil {
		return err
	}
	for _, l := range launches {
		if err := d.prepare(l); err != nil {
			return err
		}
		if err := d.run(l); err != nil {
			return err
		}
	}
	return d.stream.Synchronize()
}

func (c opTest) run(t *testing.T) {
	d := deviceFor(t)
	of := c.of
	if of == nil {
		of = c.in
	}
	want, err := define(c.op, of...)
	if err != nil {
		t.Fatal(err)
	}
	var got []float64
	if err := d.Do(func() (err error) { got, err = c.compute(d); return err }); err != nil {
		t.Fatal(err)
	}
	rounding := 0.0
	if c.out == bfloat16s {
		rounding = 1.0 / 256
	}
	if err := near(got, want.Data, c.tolerance, rounding); err != nil {
		t.Error(err)
	}
}

// near reports the worst of got, beyond tolerance times the largest wanted value
// and rounding times the value itself.
func near(got, want []float64, tolerance, rounding float64) error {
	var largest float64
	for _, w := range want {
		largest = max(largest, math.Abs(w))
	}
	worst, at := 0.0, -1
	for i, w := range want {
		off := math.Abs(got[i]-w) - rounding*math.Abs(w)
		if math.IsNaN(got[i]) {
			off = math.Inf(1)
		}
		if off > worst {
			worst, at = off, i
		}
	}
	if worst > tolerance*largest {
		return fmt.Errorf("element %d of %d is %v, want %v: off by %.2g of the largest, %.3g; allowed %.2g",
			at, len(want), got[at], want[at], worst/largest, largest, tolerance)
	}
	return nil
}

func runAll(t *testing.T, cases []opTest) {
	for _, c := range cases {
		t.Run(c.name(), c.run)
	}
}

func TestElementwise(t *testing.T) {
	var cases []opTest
	add := func(tolerance float64, out storage, op graph.Op, in ...value) {
		cases = append(cases, opTest{op: op, in: in, out: out, tolerance: tolerance})
	}
	const summed, smooth, quick = 2e-6, 1e-6, 1e-5
	for _, s := range [][]int{{1, 3, 3, 8}, {2, 11, 13, 24}, {1, 5, 5, 3}, {5003}} {
		for _, x := range []storage{float32s, bfloat16s} {
			for _, out := range []storage{float32s, bfloat16s} {
				a, b := normals(x, s...), spreadOf(out, -1, 3, s...)
				add(0, out, graph.Copy{}, a)
				add(1e-7, out, graph.Add{}, a, b)
				add(quick, out, graph.SiLU{}, a)
				add(quick, out, graph.SiLUGrad{}, a, b)
			}
		}
		whole := normals(float32s, s...)
		add(0, float32s, graph.Copy{}, shifted(whole, 4))
		add(0, bfloat16s, graph.Copy{}, shifted(whole, 8))
		add(0, float32s, graph.Copy{}, shifted(normals(bfloat16s, s...), 2))
		add(0, bfloat16s, graph.Copy{}, shifted(normals(bfloat16s, s...), 2))
		add(smooth, float32s, graph.SiLU{}, shifted(whole, 4))
	}
	for _, s := range [][4]int{{2, 3, 5, 8}, {3, 4, 4, 5}, {1, 37, 29, 24}, {2, 2, 2, 2056}, {1, 1, 3, 517}, {1, 200, 1, 130}} {
		n, h, w, c := s[0], s[1], s[2], s[3]
		for _, x := range []storage{float32s, bfloat16s} {
			add(1e-7, x, graph.AddPerSample{}, normals(x, n, h, w, c), normals(float32s, n, c))
			add(0, x, graph.Upsample{}, normals(x, n, h, w, c))
			add(1e-7, x, graph.UpsampleGrad{}, normals(x, n, 2*h, 2*w, c))
			add(summed, float32s, graph.SumPixels{}, normals(x, n, h, w, c))
			add(summed, float32s, graph.SumRows{}, normals(x, n, h, w, c))
		}
		add(0, bfloat16s, graph.Upsample{}, normals(float32s, n, h, w, c))
	}
	for _, rows := range []int{1, 255, 256, 257, 700, 3001} {
		add(summed, float32s, graph.SumRows{}, normals(float32s, rows, 72))
		add(summed, float32s, graph.SumRows{}, normals(float32s, rows, 3))
	}
	add(summed, float32s, graph.SumRows{}, normals(bfloat16s, 2, 300, 300, 16))
	add(summed, float32s, graph.SumRows{}, shifted(normals(float32s, 300, 8), 4))
	for _, s := range []storage{float32s, bfloat16s} {
		for _, widths := range [][2]int{{8, 16}, {24, 40}, {3, 5}, {1032, 1040}} {
			a, b := normals(s, 2, 3, 7, widths[0]), spreadOf(s, 0, 1, 2, 3, 7, widths[1])
			add(0, s, graph.Concat{}, a, b)
			both := normals(s, 2, 3, 7, widths[0]+widths[1])
			add(0, s, graph.SliceChannels{From: 0, Width: widths[0]}, both)
			add(0, s, graph.SliceChannels{From: widths[0], Width: widths[1]}, both)
			add(0, float32s, graph.SliceChannels{From: widths[0] - 1, Width: widths[1]}, both)
		}
	}
	add(0, bfloat16s, graph.Concat{}, normals(float32s, 2, 3, 7, 3), normals(float32s, 2, 3, 7, 5))
	add(0, bfloat16s, graph.Concat{}, normals(bfloat16s, 2, 3, 7, 8), normals(float32s, 2, 3, 7, 8))
	add(0, float32s, graph.Concat{}, normals(bfloat16s, 2, 3, 7, 8), normals(float32s, 2, 3, 7, 5))

	for _, s := range []storage{float32s, bfloat16s} {
		x, y := normals(s, 2, 7, 9, 24), spreadOf(s, 0, 1, 2, 7, 9, 24)
		for _, c := range []opTest{
			{op: graph.Add{}, in: []value{x, y}, tolerance: 1e-7},
			{op: graph.SiLU{}, in: []value{x}, tolerance: quick},
			{op: graph.AddPerSample{}, in: []value{x, normals(float32s, 2, 24)}, tolerance: 1e-7},
			{op: graph.Dropout{P: 0.3, Stream: rng.Dropout}, in: []value{x, wordsOf(2, 4)}, tolerance: 1e-7},
		} {
			c.out, c.over = s, 1
			cases = append(cases, c)
		}
	}
	runAll(t, cases)
}

// TestSumsOfASampleDoNotDependOnTheBatch holds the results for one sample to the
// same bits in a batch of three.
func TestSumsOfASampleDoNotDependOnTheBatch(t *testing.T) {
	d := deviceFor(t)
	const h, w, c = 37, 24, 48
	for _, s := range []storage{float32s, bfloat16s} {
		x, dy := normals(s, 3, h, w, c), spreadOf(s, 0, 1, 3, h, w, c)
		gamma, beta := normals(float32s, c), spreadOf(float32s, 0, 1, c)
		first := func(v value) value {
			v.Data = v.Data[:len(v.Data)/3]
			v.Shape = append(graph.Shape{1}, v.Shape[1:]...)
			return v
		}
		stats := normals(float32s, 3, 8, 2)
		for _, c := range []struct {
			op graph.Op
			of func(cut func(value) value) []value
		}{
			{graph.SumPixels{}, func(cut func(value) value) []value { return []value{cut(x)} }},
			{graph.GroupNormStats{Groups: 8, Eps: 1e-6}, func(cut func(value) value) []value { return []value{cut(x)} }},
			{graph.GroupNormGradSums{Groups: 8, SiLU: true}, func(cut func(value) value) []value {
				return []value{cut(x), cut(stats), gamma, beta, cut(dy)}
			}},
			{graph.SquaredError{}, func(cut func(value) value) []value { return []value{cut(x), cut(dy)} }},
			{graph.VLB{}, func(cut func(value) value) []value {
				return []value{cut(x), cut(shifted(dy, 4)), cut(dy), cut(vlbCoefs(3))}
			}},
		} {
			err := d.Do(func() error {
				batch, err := opTest{op: c.op, in: c.of(func(v value) value { return v })}.compute(d)
				if err != nil {
					return err
				}
				alone, err := opTest{op: c.op, in: c.of(first)}.compute(d)
				if err != nil {
					return err
				}
				for i, v := range alone {
					if v != batch[i] {
						return fmt.Errorf("element %d is %v alone and %v in a batch", i, v, batch[i])
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("%T of %v: %v", c.op, s, err)
			}
		}
	}
}
