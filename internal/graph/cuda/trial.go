//go:build gpu && !cpu

package cuda

import (
	"errors"
	"math"
	"sync"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
	"ddpm/internal/rng"
)

// lab is device memory in which operations run on random data, apart from any plan:
// the guard compares kernels there, the tuner times them.
type lab struct {
	*device
	numbers kernels.Ptr // what operands are copied from: randomNumbers
	begin   kernels.Ptr // of the part for operands and results
	filled  int         // elements copied so far, so that operands differ
}

const (
	// numbersCount is a prime, so that an address that is off by a round number of
	// elements finds another number.
	numbersCount = 1<<18 - 5
	// weightScale keeps sums of some hundred products near 1, where what is added to
	// them counts.
	weightScale = 1.0 / 16
)

// randomNumbers are normal numbers as float32, the same for weights, which are smaller,
// and both as bfloat16, in which they are exact: numbersCount of each.
var randomNumbers = sync.OnceValue(func() []byte {
	z, weights := make([]float32, numbersCount+3)[:numbersCount], make([]float32, numbersCount)
	narrow := make([]uint16, 2*numbersCount)
	rng.Key{Seed: 1, Stream: rng.Noise}.Normals(z)
	for i := range z {
		z[i] = math.Float32frombits(math.Float32bits(z[i]) &^ 0xffff)
		weights[i] = weightScale * z[i]
		narrow[i] = uint16(math.Float32bits(z[i]) >> 16)
		narrow[numbersCount+i] = uint16(math.Float32bits(weights[i]) >> 16)
	}
	return append(append(driver.Bytes(z), driver.Bytes(weights)...), driver.Bytes(narrow)...)
})

// newLab makes a lab with room for so many bytes. Free it.
func (d *device) newLab(bytes int) (*lab, error) {
	numbers := randomNumbers()
	memory, err := d.Alloc(int64(align(len(numbers)) + bytes))
	if err != nil {
		return nil, err
	}
	l := &lab{device: d, numbers: memory, begin: memory + kernels.Ptr(align(len(numbers)))}
	if err := d.stream.Write(memory, numbers); err != nil {
		return nil, after(err, l.free)
	}
	return l, nil
}

func (l *lab) free() error { return l.Free(l.numbers) }

// after gives something back behind what ended with an error or without. From a lost
// device nothing can be taken back, and what lost it is the error to tell.
func after(err error, free func() error) error {
	if errors.Is(err, driver.ErrDeviceLost) {
		return err
	}
	return errors.Join(err, free())
}

// room hands out memory from its beginning on. To lay something out at 0 tells how
// much it takes.
type room struct {
	begin kernels.Ptr
	size  int
}

// take is memory of so many bytes, at a multiple of 256.
func (r *room) take(bytes int) kernels.Ptr {
	p := r.begin + kernels.Ptr(r.size)
	r.size += align(bytes)
	return p
}

// place gives a tensor memory.
func (r *room) place(t tensor) tensor {
	t.ptr = r.take(t.bytes())
	return t
}

// placeOperands gives operands memory; those of weights come in bfloat16 too if
// products want it.
func (r *room) placeOperands(op graph.Op, precision graph.Precision, in []tensor) []tensor {
	at, weighted := graph.WeightsAt(op)
	placed := make([]tensor, len(in))
	for i, t := range in {
		placed[i] = r.place(t)
		if weighted && i == at && precision == graph.BF16 && !t.bf16 {
			placed[i].rounded = r.take(2 * t.len())
		}
	}
	return placed
}

func (t tensor) bytes() int {
	if t.bf16 {
		return 2 * t.len()
	}
	return 4 * t.len()
}

// fill gives the operands of an operation random values.
func (l *lab) fill(op graph.Op, in []tensor) error {
	if len(in) == 0 {
		return nil
	}
	at, weighted := graph.WeightsAt(op)
	for i, t := range in {
		if err := l.copyNumbers(t, weighted && i == at); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) copyNumbers(t tensor, weights bool) error {
	wide, narrow := l.numbers, l.numbers+2*4*numbersCount
	if weights {
		wide, narrow = wide+4*numbersCount, narrow+2*numbersCount
	}
	start := l.filled % numbersCount
	for done := 0; done < t.len(); {
		n := min(t.len()-done, numbersCount-start)
		copies := []struct {
			to, from kernels.Ptr
			size     int
		}{{t.ptr, wide, 4}, {t.rounded, narrow, 2}}
		if t.bf16 {
			copies[0].from, copies[0].size = narrow, 2
		}
		for _, c := range copies {
			if c.to == 0 {
				continue
			}
			to, from := c.to+kernels.Ptr(done*c.size), c.from+kernels.Ptr(start*c.size)
			if err := l.stream.Copy(to, from, int64(n*c.size)); err != nil {
				return err
			}
		}
		done, start = done+n, 0
	}
	l.filled += t.len()
	return nil
}

// ready is a list of launches that can run again and again.
type ready struct {
	lab      *lab
	launches []launch
}

func (l *lab) ready(launches []launch) (*ready, error) {
	if err := l.prepareAll(launches); err != nil {
		return nil, err
	}
	return &ready{l, launches}, l.settle(launches)
}

func (r *ready) run() error { return r.lab.runAll(r.launches) }

// results runs the launches once, waits, and returns the bytes of what they write. What
// they leave alone shows as NaN.
func (r *ready) results(written ...tensor) ([][]byte, error) {
	for _, t := range written {
		const nan = math.MaxUint32 // in both element types
		if err := r.lab.stream.Fill(t.ptr, nan, int64(pieces(t.bytes(), 4))); err != nil {
			return nil, err
		}
	}
	if err := r.run(); err != nil {
		return nil, err
	}
	return r.lab.read(written...)
}

// read waits and reads.
func (l *lab) read(values ...tensor) ([][]byte, error) {
	if err := l.stream.Synchronize(); err != nil {
		return nil, err
	}
	var all [][]byte
	for _, t := range values {
		b := make([]byte, t.bytes())
		if err := l.stream.Read(b, t.ptr); err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// shapesOf are the extents of tensors.
func shapesOf(tensors []tensor) []graph.Shape {
	shapes := make([]graph.Shape, len(tensors))
	for i, t := range tensors {
		shapes[i] = t.shape
	}
	return shapes
}
