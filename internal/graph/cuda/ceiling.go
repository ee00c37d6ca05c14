//go:build gpu && !cpu

package cuda

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// The ceilings of a GPU are the fastest products by tensor cores, of operands in
// registers (ceiling.cu) or, where there is wgmma, in shared memory (tma_ceiling.cu),
// and the driver's copy.

// How they are measured. Launches follow each other in batches, so that starting them
// is not what takes time.
const (
	ceilingTime   = 150 * time.Millisecond // of each way
	ceilingBatch  = 4 * time.Millisecond   // of launches, at least
	ceilingLaunch = time.Millisecond / 2   // of one launch of products, at least, if rounds allow
	ceilingRounds = 1024                   // at most: that many sums still hold what the last adds

	// Arrays of a copy have so many times what the second cache holds, and bytes at the
	// least, but no more than a share of the free memory.
	copyCaches = 6
	leastCopy  = 64 << 20
	copyShare  = 32
)

// errImplausible is of a measurement that cannot be true.
var errImplausible = errors.New("cuda: the ceilings cannot be measured")

// Ceilings implements graph.Measurable.
func (b *Backend) Ceilings() (c graph.Ceilings, err error) {
	d := b.device
	c.Listed = listed(d.Info.Name, d.precision)
	name, per := "tf32", 1.0
	switch d.precision {
	case graph.BF16:
		name = "bf16"
	case graph.FP32:
		per = 3 // products of tf32 for one, see kernels/tile.h
	}
	c.Product = "mma.sync, " + name
	if per > 1 {
		c.Product += fmt.Sprintf(", %v products for one", per)
	}
	speed, err := d.measure(func(m *meter) (float64, error) { return m.productSpeed(d.registerProducts(name)) })
	if err != nil {
		return c, err
	}
	c.Flops = speed / per
	if c.Bytes, err = d.measure((*meter).copySpeed); err != nil {
		return c, err
	}
	// Last, since a kernel that faults leaves nothing to measure with.
	if k, ok := kernels.Find(sharedCeiling); ok && d.has(k) && d.precision == graph.BF16 {
		speed, err := d.measure(func(m *meter) (float64, error) { return m.productSpeed(d.sharedProducts()) })
		switch {
		case err != nil:
			c.Product += fmt.Sprintf("; wgmma: %v", err)
		case speed > c.Flops:
			c.Flops, c.Product = speed, "wgmma, "+name
		}
	}
	return c, nil
}

// meter measures one speed.
type meter struct {
	*device
	memory []kernels.Ptr
	marks  [2]*driver.Event
}

// measure makes a measurement on the device's thread.
func (d *device) measure(f func(*meter) (speed float64, err error)) (speed float64, err error) {
	m := &meter{device: d}
	err = d.Do(func() (err error) {
		for i := range m.marks {
			if m.marks[i], err = d.NewEvent(true); err != nil {
				return err
			}
		}
		speed, err = f(m)
		return err
	})
	err = errors.Join(err, m.close())
	if err == nil && !graph.Plausible(speed) {
		err = fmt.Errorf("%w: %v a second", errImplausible, speed)
	}
	return speed, err
}

func (m *meter) close() error {
	return m.Release(func() error {
		errs := []error{m.stream.Synchronize()}
		for _, p := range m.memory {
			errs = append(errs, m.Free(p))
		}
		for _, mark := range m.marks {
			if mark != nil {
				errs = append(errs, mark.Destroy())
			}
		}
		return errors.Join(errs...)
	})
}

// take allocates memory until the measurement is over.
func (m *meter) take(bytes int64) (kernels.Ptr, error) {
	p, err := m.Alloc(bytes)
	if err == nil {
		m.memory = append(m.memory, p)
	}
	return p, err
}

// ceilingProducts is a kernel that adds products of the same two matrices, m x k and k x n,
// to each of several sums, again and again.
type ceilingProducts struct {
	launch   launch
	rounds   *int32       // a field of params; as many at least
	sums     *kernels.Ptr // likewise
	operands []operandWords
	sets     int // of sums that a launch leaves
	m, n, k  int
	// a, b are the matrices, row-major, b as [n][k].
	a, b []float64
	// at is the row and column of a word of a set of sums.
	at func(word int) (row, column int)
}

// operandWords are words in device memory, and where their address goes.
type operandWords struct {
	words []uint32
	to    *kernels.Ptr
}

// registerProducts are those of ceiling_bf16 or ceiling_tf32: operands as a warp holds
// them, see mma_bf16 and mma_tf32 in kernels/device_gpu.h.
func (d *device) registerProducts(precision string) *ceilingProducts {
	const fragmentsM, fragmentsN, threads = 2, 4, 256
	bf16 := precision == "bf16"
	params := &kernels.CeilingParams{}
	k := 8
	if bf16 {
		k = 16
	}
	blocks := 2 * d.Info.Processors
	p := &ceilingProducts{
		launch: launch{kernel: "ceiling_" + precision, grid: [3]int{blocks, 1, 1}, block: threads, params: params},
		rounds: &params.Rounds, sums: &params.Sums, sets: blocks * threads / 32,
		m: 16 * fragmentsM, n: 8 * fragmentsN, k: k,
		at: func(word int) (row, column int) {
			lane, e, fragment := word%32, word/32%4, word/128
			return fragment/fragmentsN*16 + lane/4 + e/2*8, fragment%fragmentsN*8 + 2*(lane%4) + e%2
		},
	}
	p.draw(bf16)
	// A register holds so many neighbours in k, and a row of a fragment two registers of
	// each of four lanes.
	per := k / 8
	word := func(matrix []float64, row, register, lane int) (w uint32) {
		for i := range per {
			v := math.Float32bits(float32(matrix[row*k+register*4*per+lane%4*per+i]))
			if !bf16 {
				return v
			}
			w |= v >> 16 << (16 * i)
		}
		return w
	}
	var words []uint32
	for lane := range 32 {
		for f := range fragmentsM {
			for r := range 4 {
				words = append(words, word(p.a, 16*f+lane/4+r%2*8, r/2, lane))
			}
		}
		for f := range fragmentsN {
			for r := range 2 {
				words = append(words, word(p.b, 8*f+lane/4, r, lane))
			}
		}
	}
	p.operands = []operandWords{{words, &params.Operands}}
	return p
}

// sharedCeiling is the kernel of sharedProducts.
const sharedCeiling = "tma_ceiling"

// sharedProducts are those of tma_ceiling.
func (d *device) sharedProducts() *ceilingProducts {
	const m, n, k, threads = 128, 256, 64, 256
	params := &kernels.TmaCeilingParams{}
	p := &ceilingProducts{
		launch: launch{
			kernel: sharedCeiling, grid: [3]int{d.Info.Processors, 1, 1}, block: threads, shared: (m + n) * k * 2, params: params,
		},
		rounds: &params.Rounds, sums: &params.Sums, sets: d.Info.Processors, m: m, n: n, k: k,
		at: func(word int) (row, column int) { return word / n, word % n },
	}
	p.draw(true)
	pairs := func(matrix []float64) []uint32 {
		words := make([]uint32, len(matrix)/2)
		for i, v := range matrix {
			words[i/2] |= math.Float32bits(float32(v)) >> 16 << (16 * (i % 2))
		}
		return words
	}
	p.operands = []operandWords{{pairs(p.a), &params.A}, {pairs(p.b), &params.B}}
	return p
}

// draw fills the matrices with normal numbers that their precision holds: what
// changes few bits from one product to the next would draw less power.
func (p *ceilingProducts) draw(bf16 bool) {
	r := rand.New(rand.NewPCG(1, 2))
	mask := uint32(0xffffe000) // tf32
	if bf16 {
		mask = 0xffff0000
	}
	matrix := func(n int) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = float64(math.Float32frombits(math.Float32bits(float32(r.NormFloat64())) & mask))
		}
		return v
	}
	p.a, p.b = matrix(p.m*p.k), matrix(p.n*p.k)
}

// work is the operations of a round, of all sets.
func (p *ceilingProducts) work() float64 { return 2 * float64(p.m*p.n*p.k) * float64(p.sets) }

// check says whether sums are those of so many rounds.
func (p *ceilingProducts) check(sums []byte, rounds int) error {
	size := p.m * p.n
	want := make([]float64, size) // by word
	for word := range want {
		row, column := p.at(word)
		for i := range p.k {
			want[word] += float64(rounds) * p.a[row*p.k+i] * p.b[column*p.k+i]
		}
	}
	// What tensor cores cut off as they add, relative to what a sum usually is.
	bound := 0.02 * float64(rounds) * math.Sqrt(float64(p.k))
	for i := range p.sets * size {
		got := float64(math.Float32frombits(binary.NativeEndian.Uint32(sums[4*i:])))
		if !(math.Abs(got-want[i%size]) <= bound) {
			return fmt.Errorf("%w: %s left %v where %d products make %v", errImplausible, p.launch.kernel, got, rounds, want[i%size])
		}
	}
	return nil
}

// productSpeed is in operations a second.
func (m *meter) productSpeed(p *ceilingProducts) (speed float64, err error) {
	for _, o := range p.operands {
		if *o.to, err = m.take(int64(4 * len(o.words))); err != nil {
			return 0, err
		}
		if err := m.stream.Write(*o.to, driver.Bytes(o.words)); err != nil {
			return 0, err
		}
	}
	sums := make([]byte, 4*p.sets*p.m*p.n)
	if *p.sums, err = m.take(int64(len(sums))); err != nil {
		return 0, err
	}
	if err := m.prepare(p.launch); err != nil {
		return 0, err
	}
	run := func() error { return m.run(p.launch) }
	for *p.rounds = max(*p.rounds, 1); ; *p.rounds *= 2 {
		took, err := m.elapsed(1, run)
		if err != nil {
			return 0, err
		}
		if took >= ceilingLaunch || *p.rounds >= ceilingRounds {
			break
		}
	}
	took, err := m.leastTime(run)
	if err != nil {
		return 0, err
	}
	if err := m.stream.Read(sums, *p.sums); err != nil {
		return 0, err
	}
	return p.work() * float64(*p.rounds) / took, p.check(sums, int(*p.rounds))
}

// copySpeed is in bytes a second, read and written.
func (m *meter) copySpeed() (speed float64, err error) {
	free, _, err := m.MemInfo()
	if err != nil {
		return 0, err
	}
	const whole = 1 << 20
	size := min(int64(max(leastCopy, copyCaches*m.Info.L2Bytes)), free/copyShare) / whole * whole
	if size < int64(2*m.Info.L2Bytes) || size == 0 {
		return 0, fmt.Errorf("%w: %s of memory are free, too little for a copy that no cache holds", errImplausible, graph.Bytes(free))
	}
	from, err := m.take(size)
	if err != nil {
		return 0, err
	}
	to, err := m.take(size)
	if err != nil {
		return 0, err
	}
	const word = 0x40490fdb // pi
	if err := errors.Join(m.stream.Fill(from, word, size/4), m.stream.Zero(to, size)); err != nil {
		return 0, err
	}
	took, err := m.leastTime(func() error { return m.stream.Copy(to, from, size) })
	if err != nil {
		return 0, err
	}
	return 2 * float64(size) / took, m.holds(to, size, word)
}

// holds checks that memory begins and ends with a word.
func (m *meter) holds(p kernels.Ptr, size int64, word uint32) error {
	var got [4096]byte
	want := bytes.Repeat(binary.NativeEndian.AppendUint32(nil, word), len(got)/4)
	for _, at := range []int64{0, size - int64(len(got))} {
		if err := m.stream.Read(got[:], p+kernels.Ptr(at)); err != nil {
			return err
		}
		if !bytes.Equal(got[:], want) {
			return fmt.Errorf("%w: a copy is not equal to what was copied", errImplausible)
		}
	}
	return nil
}

// leastTime is the time in seconds of what is queued: the mean over a batch, of the
// fastest of several batches.
func (m *meter) leastTime(queue func() error) (float64, error) {
	took, err := m.elapsed(1, queue) // also as a warm-up
	if err != nil {
		return 0, err
	}
	const most = 1000
	repeats := min(most, 1+int(ceilingBatch/max(took, ceilingBatch/most)))
	best := math.Inf(1)
	for begun := time.Now(); math.IsInf(best, 1) || time.Since(begun) < ceilingTime; {
		if took, err = m.elapsed(repeats, queue); err != nil {
			return 0, err
		}
		best = min(best, took.Seconds()/float64(repeats))
	}
	return best, nil
}

// elapsed is the time of what is queued so many times, by the device's clock.
func (m *meter) elapsed(repeats int, queue func() error) (time.Duration, error) {
	if err := m.stream.Record(m.marks[0]); err != nil {
		return 0, err
	}
	for range repeats {
		if err := queue(); err != nil {
			return 0, err
		}
	}
	if err := m.stream.Record(m.marks[1]); err != nil {
		return 0, err
	}
	if err := m.stream.Synchronize(); err != nil {
		return 0, err
	}
	return driver.Elapsed(m.marks[0], m.marks[1])
}

// listed is the dense speed of products in bfloat16 in a GPU's data sheet, in
// operations a second; 0 is unknown. Names are the driver's.
func listed(name string, p graph.Precision) float64 {
	if p != graph.BF16 {
		return 0
	}
	switch {
	case name == "NVIDIA H200", name == "NVIDIA H100 80GB HBM3": // with SXM
		return 989e12
	case strings.HasPrefix(name, "NVIDIA A100"):
		return 312e12
	}
	return 0
}
