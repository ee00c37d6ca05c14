//go:build gpu && !cpu

package cuda

import (
	"fmt"
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// attention finds the kernels of attention and its gradient.
func (d *device) attention(c call) (kernel, bool) {
	switch op := c.heart.(type) {
	case graph.Attention:
		return kernel{launches: d.attentionOf(c, op.Heads).forward}, true
	case graph.AttentionGrad:
		return d.attentionOf(c, op.Heads).gradient(), true
	}
	return kernel{}, false
}

// attentionThreads is the number of threads in a block of every attention kernel,
// attentionQueries the number of rows of scores that it owns.
const (
	attentionThreads = 128
	attentionQueries = 64
)

// attentionScratch is how much memory the scores of the gradient may take, in
// bytes: as many sequences as fit are worked on together, but at least one.
const attentionScratch = 256 << 20

// heads is the extents of attention. A sequence is one head of one image, that is
// length pixels of width channels.
type heads struct {
	precision graph.Precision // of products
	images    int
	length    int
	channels  int
	count     int
	width     int
	room      int // for the scores of the gradient, in bytes
}

// attentionOf is that of operands [N,H,W,C]. In bf16 precision, operands that are
// float32 in memory, having too few channels, are multiplied as TF32, which is no
// less exact.
func (d *device) attentionOf(c call, count int) heads {
	a := heads{precision: d.precision, count: count, room: attentionScratch}
	a.images, a.length, a.channels = image(c.in[0])
	a.width = a.channels / count
	if a.precision == graph.BF16 && !d.stored(c.in[0]) {
		a.precision = graph.TF32
	}
	return a
}

func (a heads) sequences() int { return a.images * a.count }

// bytes is the size of an element of a tile.
func (a heads) bytes() int {
	if a.precision == graph.BF16 {
		return 2
	}
	return 4
}

func (a heads) chunk() int { return 16 / a.bytes() }

// tensor is a value as the kernels access it: weights in bfloat16 where there is a
// copy.
func (a heads) tensor(t tensor) kernels.AttentionTensor {
	if a.precision == graph.BF16 && t.rounded != 0 {
		t = tensor{ptr: t.rounded, bf16: true}
	}
	return kernels.AttentionTensor{Data: t.ptr, Bf16: flag(t.bf16)}
}

// chunked is whether all tensors can be copied to shared memory as they are, 16
// bytes at a time.
func (a heads) chunked(tensors ...kernels.AttentionTensor) bool {
	for _, t := range tensors {
		if t.Bf16 != flag(a.precision == graph.BF16) || t.Data%16 != 0 {
			return false
		}
	}
	return a.width%a.chunk() == 0
}

func (a heads) shape() kernels.AttentionShape {
	return kernels.AttentionShape{
		Length: int32(a.length), Channels: int32(a.channels), Heads: int32(a.count), Width: int32(a.width),
	}
}

// scale is that of the scores.
func (a heads) scale() float64 { return 1 / math.Sqrt(float64(a.width)) }

// launch is one of a family of kernels in the precision. Those that access tensors
// element by element come in bf16 and fp32.
func (a heads) launch(family, instance string, chunked bool, blocks [3]int, shared int, params any) launch {
	precision, suffix := a.precision, ""
	if !chunked {
		suffix = "_any"
		if precision == graph.TF32 {
			precision = graph.FP32
		}
	}
	return launch{
		kernel: fmt.Sprintf("attn_%s_%s_%s%s", family, precision, instance, suffix),
		grid:   blocks, block: attentionThreads, shared: shared, params: params,
	}
}

// forwardBlock is how many keys a block takes at a time and how many channels it
// computes; whole says that there are no more keys.
func (a heads) forwardBlock(chunked bool) (keys, width int, whole bool) {
	switch {
	case !chunked:
		return 64, 64, false
	case a.width <= 64:
		return 128, 64, false
	case a.precision == graph.FP32:
		return 64, 128, false
	case a.precision == graph.TF32:
		return 64, 256, false
	case a.width <= 128:
		return 128, 128, false
	case a.length > 64 && a.length <= 256:
		return 256, 256, true
	}
	return 64, 256, false
}

func (a heads) forward(m operands) []launch {
	q, k, v, out := a.tensor(m.in[0]), a.tensor(m.in[1]), a.tensor(m.in[2]), a.tensor(m.out)
	chunked := a.chunked(q, k, v, out)
	keys, width, whole := a.forwardBlock(chunked)
	instance := fmt.Sprintf("%dx%d", keys, width)
	if whole {
		instance += "_whole"
	}
	slices := pieces(a.width, width)
	grid := [3]int{a.sequences() * slices * pieces(a.length, attentionQueries), 1, 1}
	const stages, valuesStage = 3, 16 << 10
	stage := max(64*(attentionQueries+keys), valuesStage)
	shared := attentionQueries*keys*a.bytes() + stages*stage
	return []launch{a.launch("forward", instance, chunked, grid, shared, &kernels.AttentionParams{
		Q: q, K: k, V: v, Out: out, Shape: a.shape(), Slices: int32(slices), Scale: float32(a.scale() * math.Log2E),
	})}
}

// pitch is the length of a row of scores in scratch memory.
func (a heads) pitch() int { return pieces(a.length, a.chunk()) * a.chunk() }

// scoresSize is the size of one matrix of scores in scratch memory, in bytes.
func (a heads) scoresSize() int { return a.length * a.pitch() * a.bytes() }

// scratch is the memory for the weights and slopes of so many sequences.
func (a heads) scratch(sequences int) int { return 2 * sequences * a.scoresSize() }

// share is how many sequences are worked on together.
func (a heads) share() int {
	return min(a.sequences(), max(1, a.room/a.scratch(1)))
}

func (a heads) gradient() kernel { return kernel{a.scratch(a.share()), a.gradLaunches} }

// gradLaunches computes the weights and slopes of a share of the sequences and multiplies
// with them, then takes the next share.
func (a heads) gradLaunches(m operands) []launch {
	size := kernels.Ptr(m.in[0].len() * storedBytes(m.out))
	part := func(i int) kernels.AttentionTensor {
		t := m.out
		t.ptr += kernels.Ptr(i) * size
		return a.tensor(t)
	}
	q, k, v, dout := a.tensor(m.in[0]), a.tensor(m.in[1]), a.tensor(m.in[2]), a.tensor(m.in[3])
	dq, dk, dv := part(0), part(1), part(2)
	chunked := a.chunked(q, k, v, dout, dq, dk, dv)
	share := a.share()
	weights, slopes := m.scratch, m.scratch+kernels.Ptr(share*a.scoresSize())
	var launches []launch
	for first := 0; first < a.sequences(); first += share {
		sequences := min(share, a.sequences()-first)
		launches = append(launches,
			a.scores(sequences, chunked, &kernels.AttentionScoresParams{
				Q: q, K: k, V: v, Dout: dout, Shape: a.shape(), Weights: weights, Slopes: slopes,
				Pitch: int32(a.pitch()), First: int32(first),
				Scale: float32(a.scale()), Log2Scale: float32(a.scale() * math.Log2E),
			}),
			a.products(sequences, chunked, &kernels.AttentionProductsParams{
				Q: q, K: k, Dout: dout, Dq: dq, Dk: dk, Dv: dv, Shape: a.shape(), Weights: weights, Slopes: slopes,
				Pitch: int32(a.pitch()), First: int32(first),
			}))
	}
	return launches
}

// storedBytes is the size of an element of a value.
func storedBytes(t tensor) int {
	if t.bf16 {
		return 2
	}
	return 4
}

func (a heads) scores(sequences int, chunked bool, p *kernels.AttentionScoresParams) launch {
	keys, instance := 128, "128"
	switch {
	case !chunked:
		keys, instance = 64, "64"
	case a.precision == graph.BF16 && a.length > 128 && a.length <= 256:
		keys, instance = 256, "256_whole"
	}
	const stages = 3
	shared := attentionQueries*keys*a.bytes() + stages*64*(attentionQueries+keys)
	grid := [3]int{sequences * pieces(a.length, attentionQueries), 1, 1}
	return a.launch("scores", instance, chunked, grid, shared, p)
}

func (a heads) products(sequences int, chunked bool, p *kernels.AttentionProductsParams) launch {
	size := 64
	if chunked && a.precision != graph.FP32 && a.length > 64 && a.width > 64 {
		size = 128
	}
	const results = 3
	grid := [3]int{sequences * pieces(a.length, size) * pieces(a.width, size), results, 1}
	shared := max(256*2*size, size*size*a.bytes())
	return a.launch("products", fmt.Sprintf("%dx%d", size, size), chunked, grid, shared, p)
}
