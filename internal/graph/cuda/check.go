//go:build gpu && !cpu

package cuda

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// The guard compares each kernel of the set sm_90a, the first time a GPU is opened,
// with what the set sm_80 makes of the same operation on random data. One that
// differs, faults or does not load is not used there.

func init() {
	graph.RegisterChecker("cuda", func(o graph.Options) ([]graph.KernelCheck, error) { return compareAll(o) })
}

// check is a call that one kernel of the set sm_90a answers, for the guard to compare
// with what the set sm_80 makes of it.
type check struct {
	kernel string // that must run
	op     graph.Op
	out    graph.Shape
	in     []graph.Shape
	aside  graph.Op // an operation that reads the result, some of which is left beside it; or nil
}

// allChecks are those of every kernel that needs one.
var allChecks = func() []check { return slices.Concat(tmaCases(), tmaWeightCases()) }

// The bounds of what rounding explains, relative to an element of the result or to the
// rms of all, whichever is larger. Both sets multiply the same bfloat16 operands and
// add in float32, in another order: a result in bfloat16 may be rounded to the other
// neighbour, 2^-7 of the element away at most. A product that is left out of a sum of
// a thousand, or an operand of one that is another, is off by some 0.03.
const (
	boundBFloat16 = 1e-2
	boundFloat32  = 1e-3
)

// trusts reports whether a kernel may run here: its set is among those of the device,
// and the guard did not reject it.
func (d *device) trusts(kernel string) bool {
	k, ok := kernels.Find(kernel)
	if !ok || !d.has(k) {
		return false
	}
	if d.trust != nil {
		return d.trust(kernel)
	}
	return d.verdicts[kernel].Wrong == ""
}

// open takes the GPU of o.Ordinal and uses of its kernels those that it computes
// rightly with.
func open(o graph.Options) (*Backend, error) { return guarded(o, false) }

// compareAll compares all kernels of a GPU, in the precision that uses them. Who asks
// gets the verdicts, and no note.
func compareAll(o graph.Options) (all []graph.KernelCheck, err error) {
	o.Precision = graph.BF16
	b, err := guarded(o, true)
	if err != nil {
		return nil, err
	}
	for _, v := range b.device.verdicts {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b graph.KernelCheck) int { return strings.Compare(a.Kernel, b.Kernel) })
	return all, b.Close()
}

// guarded opens a GPU and has the guard look at the kernels that it knows nothing about
// yet, or at all of them. A kernel that faults takes the device's context with it: the
// GPU is opened again, and that kernel not used.
func guarded(o graph.Options, anew bool) (*Backend, error) {
	note := func(text string) {
		if o.Note != nil {
			o.Note(text)
		}
	}
	b, err := start(o)
	if err != nil {
		return nil, err
	}
	cache, err := cacheOf(b.device.Info)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	known := cache.read()
	found := learned{cache: cache, verdicts: map[string]graph.KernelCheck{}, tuned: known.Tuned}
	if !anew {
		maps.Copy(found.verdicts, known.Checks)
	}
	for {
		b.device.learned = found
		fresh, guardErr := b.device.guard()
		advice := "start once more, that kernel will not be used"
		if len(fresh) > 0 {
			if err := cache.update(func(f *findings) { f.keep(fresh) }); err != nil {
				note(err.Error())
				advice = "start once more with " + kernelsVariable + "=sm_80"
			}
		}
		if guardErr == nil {
			break
		}
		var faulty *faultError
		if !errors.As(guardErr, &faulty) {
			return nil, errors.Join(guardErr, b.Close())
		}
		_ = b.Close() // nothing works on a lost context
		unseen := b.device.unchecked(faulty.kernel)
		if b, err = start(o); err != nil {
			// Each start would find but one of the kernels that fault.
			if failed := cache.update(func(f *findings) { f.keep(unseen) }); failed != nil {
				note(failed.Error())
			}
			return nil, fmt.Errorf("%w; the GPU cannot be opened again in this process: %w; %s", faulty, err, advice)
		}
	}
	if !anew {
		b.device.report(note, known.Checks)
	}
	return b, nil
}

// unchecked are verdicts on the kernels without one: they may do as one that faulted.
func (d *device) unchecked(faulted string) map[string]graph.KernelCheck {
	all := map[string]graph.KernelCheck{}
	for _, c := range d.checks() {
		if _, known := d.verdicts[c.kernel]; !known && c.kernel != faulted {
			all[c.kernel] = graph.KernelCheck{Kernel: c.kernel, Wrong: "it was not compared, since " + faulted + " faulted before"}
		}
	}
	return all
}

// report notes which kernels are not used; before holds what was known at the start.
func (d *device) report(note func(string), before map[string]graph.KernelCheck) {
	var said []string
	for _, c := range d.checks() {
		v := d.verdicts[c.kernel]
		if v.Wrong == "" || slices.Contains(said, v.Kernel) {
			continue
		}
		said = append(said, v.Kernel)
		text := fmt.Sprintf("%s is not used on this GPU: %s", v.Kernel, v.Wrong)
		if before[v.Kernel] == v {
			text += "; ddpm devices --check compares it again"
		}
		note(text)
	}
}

// checks are those of the kernels that the device has and would use.
func (d *device) checks() []check {
	if d.precision != graph.BF16 {
		return nil
	}
	return slices.DeleteFunc(allChecks(), func(c check) bool {
		k, ok := kernels.Find(c.kernel)
		return !ok || !d.has(k)
	})
}

// faultError is a kernel that broke the device's context.
type faultError struct {
	kernel string
	err    error
}

func (e *faultError) Error() string { return fmt.Sprintf("%s faults on this GPU: %v", e.kernel, e.err) }
func (e *faultError) Unwrap() error { return e.err }

// guard compares the kernels that there is no verdict of, and returns the new ones. A
// faultError leaves the device lost.
func (d *device) guard() (fresh map[string]graph.KernelCheck, err error) {
	fresh = map[string]graph.KernelCheck{}
	pending := slices.DeleteFunc(d.checks(), func(c check) bool { _, known := d.verdicts[c.kernel]; return known })
	if len(pending) == 0 {
		return fresh, nil
	}
	err = d.Device.Do(func() error {
		room := 0
		for _, c := range pending {
			room = max(room, d.compare(c, 0).size)
		}
		l, err := d.newLab(room)
		if err != nil {
			return err
		}
		for len(pending) > 0 {
			kernel := pending[0].kernel
			v, err := l.verdict(kernel, pending)
			if err == nil || errors.As(err, new(*faultError)) {
				fresh[kernel], d.verdicts[kernel] = v, v
			}
			if err != nil {
				return after(err, l.free)
			}
			pending = slices.DeleteFunc(pending, func(c check) bool { return c.kernel == kernel })
		}
		return l.free()
	})
	return fresh, err
}

// verdict compares a kernel in all of its checks, up to the first that shows it wrong.
func (l *lab) verdict(kernel string, checks []check) (graph.KernelCheck, error) {
	v := graph.KernelCheck{Kernel: kernel}
	for _, c := range checks {
		if c.kernel != kernel || v.Wrong != "" {
			continue
		}
		v.Cases++
		if err := l.judge(l.compare(c, l.begin), &v); err != nil {
			return v, err
		}
	}
	return v, nil
}

// comparison is a check in memory.
type comparison struct {
	check
	tested, reference kernel
	m                 operands // of both
	// reader reads the result, and what is left beside it if read.found is used.
	reader kernel
	read   operands
	size   int // of the memory
	wrong  string
}

// among chooses kernels as if each of the set sm_90a were trusted, or none, and of
// several ways the named one were the fastest.
func (d *device) among(trusted bool, way string, choose func()) {
	trust, choice := d.trust, d.choose
	defer func() { d.trust, d.choose = trust, choice }()
	d.trust = func(string) bool { return trusted }
	d.choose = func(_ string, candidates []string) string {
		if slices.Contains(candidates, way) {
			return way
		}
		return candidates[0]
	}
	choose()
}

// compare lays a check out from an address on.
func (d *device) compare(c check, begin kernels.Ptr) *comparison {
	p := &comparison{check: c}
	b, r := &Backend{d}, room{begin: begin}
	d.among(true, c.kernel, func() { p.tested, _ = d.kernel(c.op, c.out, c.in) })
	d.among(false, "", func() { p.reference, _ = d.kernel(c.op, c.out, c.in) })
	if p.tested.launches == nil || p.reference.launches == nil {
		p.wrong = "it has no counterpart"
		return p
	}
	p.m.out = r.place(tensor{shape: c.out, bf16: b.Stored(c.op, c.out) == graph.BFloat16})
	p.m.in = r.placeOperands(c.op, d.precision, d.activations(c.in))
	if c.aside != nil {
		p.besides(b, &r)
	}
	p.m.scratch = r.take(max(p.tested.scratch, p.reference.scratch))
	p.size = r.size
	return p
}

// besides lays out what reads the result and what is left for it beside that.
func (p *comparison) besides(b *Backend, r *room) {
	at, in := readerOf(p.aside, p.out)
	out, err := p.aside.Infer(in)
	size := 0
	if err == nil {
		b.device.among(true, p.kernel, func() { size = b.Leaves(p.op, p.out, p.in, p.aside, in) })
	}
	if size == 0 {
		p.wrong = fmt.Sprintf("it leaves nothing for %T", p.aside)
		return
	}
	p.read.in = r.placeOperands(p.aside, b.device.precision, b.device.activations(in))
	p.read.in[at] = p.m.out
	p.read.out = r.place(tensor{shape: out, bf16: b.Stored(p.aside, out) == graph.BFloat16})
	beside := r.place(tensor{shape: graph.Shape{size}})
	p.read.found = []tensor{beside}
	p.m.aside = &aside{op: p.aside, in: p.read.in, out: beside}
	p.reader, _ = b.device.kernel(p.aside, out, in)
	p.read.scratch = r.take(p.reader.scratch)
}

// readerOf are the operands of an operation that reads a result of some extents, and
// the index of that one.
func readerOf(op graph.Op, out graph.Shape) (at int, in []graph.Shape) {
	heart, f := graph.Unfuse(op)
	sums, ok := heart.(graph.GroupNormGradSums)
	if !ok {
		return 0, []graph.Shape{out}
	}
	channels := out[len(out)-1]
	in = []graph.Shape{out}
	if f.Joined {
		first, second := out.Clone(), out.Clone()
		first[len(out)-1] = channels / (2 * vector) * vector
		second[len(out)-1] -= first[len(out)-1]
		in = []graph.Shape{first, second}
	}
	in = append(in, graph.Shape{out[0], sums.Groups, 2}, graph.Shape{channels}, graph.Shape{channels}, out)
	return len(in) - 1, in
}

// activations are values of these extents as the device stores them.
func (d *device) activations(shapes []graph.Shape) []tensor {
	all := make([]tensor, len(shapes))
	for i, s := range shapes {
		all[i] = tensor{shape: s, bf16: d.stored(s)}
	}
	return all
}

// judge runs a comparison and adds what it shows to the verdict on its kernel. A
// faultError leaves the device lost.
func (l *lab) judge(p *comparison, v *graph.KernelCheck) error {
	if p.wrong != "" {
		v.Wrong = p.wrong
		return nil
	}
	if err := errors.Join(l.fill(p.op, p.m.in), l.fill(p.aside, p.read.in)); err != nil {
		return err
	}
	var launches []launch
	plain := p.m
	plain.aside = nil
	l.among(false, "", func() { launches = p.reference.launches(plain) })
	want, err := l.compute(launches, p.m.out)
	if err != nil {
		return fmt.Errorf("what %s is compared with: %w", p.kernel, err)
	}
	// In a network blocks go on from tile to tile and use their memory over and over.
	// Here there are too few tiles, unless a single block has them all.
	for _, single := range []bool{false, true} {
		l.single = single
		err := l.judgeLaunched(p, v, want[0])
		l.single = false
		if err != nil || v.Wrong != "" {
			return err
		}
	}
	return nil
}

// judgeLaunched compares the tested kernel with what it should compute.
func (l *lab) judgeLaunched(p *comparison, v *graph.KernelCheck, result []byte) error {
	var launches []launch
	l.among(true, p.kernel, func() { launches = p.tested.launches(p.m) })
	if !slices.ContainsFunc(launches, func(one launch) bool { return one.kernel == p.kernel }) {
		v.Wrong = fmt.Sprintf("it does not run for %v", p)
		return nil
	}
	got, err := l.compute(launches, p.written()...)
	switch {
	case errors.Is(err, driver.ErrDeviceLost):
		v.Wrong = "it faults: " + oneLine(err)
		return &faultError{p.kernel, err}
	case errors.Is(err, driver.ErrOutOfMemory):
		return fmt.Errorf("comparing %s: %w", p.kernel, err) // which another time may go well
	case err != nil:
		v.Wrong = oneLine(err)
		return nil
	}
	p.weigh(v, "", p.m.out, got[0], result)
	if p.aside == nil {
		return nil
	}
	alone := p.read
	alone.found = nil
	want, err := l.compute(p.reader.launches(alone), p.read.out)
	if err == nil {
		got, err = l.compute(p.reader.launches(p.read), p.read.out)
	}
	if err == nil {
		heart, _ := graph.Unfuse(p.aside)
		p.weigh(v, strings.TrimPrefix(fmt.Sprintf("%T ", heart), "graph.")+"from what it leaves ", p.read.out, got[0], want[0])
	}
	return err
}

// oneLine is what an error says, without most of what the driver's compiler had to say.
func oneLine(err error) string {
	const most = 400
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// compute runs launches once and returns the bytes of what they write.
func (l *lab) compute(launches []launch, written ...tensor) ([][]byte, error) {
	r, err := l.ready(launches)
	if err != nil {
		return nil, err
	}
	return r.results(written...)
}

// written is what the tested kernel writes.
func (p *comparison) written() []tensor {
	if p.m.aside != nil {
		return []tensor{p.m.out, p.m.aside.out}
	}
	return []tensor{p.m.out}
}

func (p *comparison) String() string {
	heart, _ := graph.Unfuse(p.op)
	var extents []string
	for _, s := range p.in {
		extents = append(extents, strings.ReplaceAll(strings.Trim(fmt.Sprint([]int(s)), "[]"), " ", "x"))
	}
	return strings.TrimPrefix(fmt.Sprintf("%T of %s", heart, strings.Join(extents, ", ")), "graph.")
}

// weigh adds a difference of results to a verdict.
func (p *comparison) weigh(v *graph.KernelCheck, what string, result tensor, got, want []byte) {
	bound := boundFloat32
	if result.bf16 {
		bound = boundBFloat16
	}
	worst := difference(got, want, result.bf16)
	if v.Bound == 0 || worst/bound > v.Worst/v.Bound {
		v.Worst, v.Bound = worst, bound
	}
	switch {
	case v.Wrong != "" || worst <= bound:
	case worst == math.MaxFloat64:
		v.Wrong = fmt.Sprintf("%sis not finite where that of the sm_80 kernels is, in %v", cmp.Or(what, "its result "), p)
	default:
		v.Wrong = fmt.Sprintf("%sdiffers from the sm_80 kernels by %.2g of the result, where rounding explains %g, in %v",
			cmp.Or(what, "it "), worst, bound, p)
	}
}

// difference is the largest of two results' elements, relative to the wanted one or to
// the rms of all, whichever is larger. It is math.MaxFloat64 where one of the two is
// not finite.
func difference(got, want []byte, bf16 bool) float64 {
	a, b := valuesOf(got, bf16), valuesOf(want, bf16)
	var squares float64
	for _, v := range b {
		squares += float64(v) * float64(v)
	}
	rms := math.Sqrt(squares / float64(len(b)))
	var worst float64
	for i := range b {
		wanted := float64(b[i])
		d := math.Abs(float64(a[i])-wanted) / max(rms, math.Abs(wanted), math.SmallestNonzeroFloat32)
		if !(d <= math.MaxFloat32) {
			return math.MaxFloat64
		}
		worst = max(worst, d)
	}
	return worst
}

// valuesOf are the numbers that bytes hold.
func valuesOf(b []byte, bf16 bool) []float32 {
	if bf16 {
		values := make([]float32, len(b)/2)
		for i := range values {
			values[i] = math.Float32frombits(uint32(binary.NativeEndian.Uint16(b[2*i:])) << 16)
		}
		return values
	}
	values := make([]float32, len(b)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.NativeEndian.Uint32(b[4*i:]))
	}
	return values
}
