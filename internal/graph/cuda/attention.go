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

// heads is the extents of attention. A sequence is one head of one image, that is
// length pixels of width channels.
type heads struct {
	precision graph.Precision // of products
	images    int
	length    int
	channels  int
	count     int
	width     int
	tall      bool // whether blocks of threads may own 128 rows of scores
}

// attentionOf is that of operands [N,H,W,C]. In bf16 precision, operands that are
// float32 in memory, having too few channels, are multiplied as TF32, which is no
// less exact.
func (d *device) attentionOf(c call, count int) heads {
	a := heads{precision: d.precision, count: count}
	a.images, a.length, a.channels = image(c.in[0])
	a.width = a.channels / count
	if a.precision == graph.BF16 && !d.stored(c.in[0]) {
		a.precision = graph.TF32
	}
	a.tall = d.Info.SharedBytes >= tallShared && a.sequences()*pieces(a.length, 128) >= tallBlocks
	return a
}

// Blocks of 128 rows read keys and values half as often as blocks of 64, and give
// the same bits. They want more shared memory than some GPUs have, in bytes, and one
// has a multiprocessor to itself, so there must be as many as there may be
// multiprocessors.
const (
	tallShared = 139 << 10
	tallBlocks = 96
)

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

// scale is that of the scores, log2Scale that of their powers of two.
func (a heads) scale() float32     { return float32(1 / math.Sqrt(float64(a.width))) }
func (a heads) log2Scale() float32 { return float32(math.Log2E / math.Sqrt(float64(a.width))) }

// attentionBlock is how many rows of scores a block of threads owns, how many
// columns of them it takes at a time and how many channels of the result it
// computes.
type attentionBlock struct {
	rows, columns, width, threads int
	// suffix is _whole where there must not be more columns; _any is of the block that
	// accesses tensors element by element.
	suffix string
}

var (
	anyBlock   = attentionBlock{64, 64, 64, 128, "_any"}
	wholeBlock = attentionBlock{64, 256, 256, 128, "_whole"}
	tallBlock  = attentionBlock{128, 256, 256, 256, "_whole"}
)

// whole is whether a block computes the scores of all columns at once, and which.
func (a heads) whole() (attentionBlock, bool) {
	b := wholeBlock
	if a.tall {
		b = tallBlock
	}
	return b, a.precision == graph.BF16 && a.width > 128 && a.length > 128 && a.length <= 256
}

func (a heads) forwardBlock(chunked bool) attentionBlock {
	if !chunked {
		return anyBlock
	}
	if b, ok := a.whole(); ok {
		return b
	}
	switch {
	case a.width <= 64:
		return attentionBlock{64, 128, 64, 128, ""}
	case a.precision == graph.FP32:
		return attentionBlock{64, 64, 128, 128, ""}
	case a.width <= 128 && a.precision == graph.BF16:
		return attentionBlock{64, 128, 128, 128, ""}
	}
	return attentionBlock{64, 64, 256, 128, ""}
}

func (a heads) gradBlock(chunked bool) attentionBlock {
	if !chunked {
		return anyBlock
	}
	if b, ok := a.whole(); ok {
		return b
	}
	switch {
	case a.width <= 64 && a.precision == graph.FP32:
		return attentionBlock{64, 64, 64, 128, ""}
	case a.width <= 64:
		return attentionBlock{64, 128, 64, 128, ""}
	case a.width <= 128:
		return attentionBlock{64, 64, 128, 128, ""}
	}
	return attentionBlock{64, 128, 256, 256, ""}
}

// slices is how often the scores are computed, each time for other channels of the
// result.
func (a heads) slices(b attentionBlock) int { return pieces(a.width, b.width) }

// launch is one of a family of kernels in the precision.
func (a heads) launch(family string, b attentionBlock, params any) launch {
	precision := a.precision
	if b == anyBlock && precision == graph.TF32 {
		precision = graph.FP32 // There is none that would be less exact.
	}
	const stages, stage = 3, 16 << 10
	return launch{
		kernel: fmt.Sprintf("attn_%s_%s_%dx%dx%d%s", family, precision, b.rows, b.columns, b.width, b.suffix),
		grid:   [3]int{a.sequences() * a.slices(b) * pieces(a.length, b.rows), 1, 1},
		block:  b.threads,
		shared: b.rows*b.columns*a.bytes() + stages*max(64*(b.rows+b.columns), stage),
		params: params,
	}
}

func (a heads) forward(m operands) []launch {
	q, k, v, out := a.tensor(m.in[0]), a.tensor(m.in[1]), a.tensor(m.in[2]), a.tensor(m.out)
	b := a.forwardBlock(a.chunked(q, k, v, out))
	return []launch{a.launch("forward", b, &kernels.AttentionParams{
		Q: q, K: k, V: v, Out: out, Shape: a.shape(), Slices: int32(a.slices(b)), Scale: a.log2Scale(),
	})}
}

// attentionStatistics is how many numbers of a query attention_grad.h has.
const attentionStatistics = 3

// gradient is statistics of the queries with dq, then dk and dv. The statistics are
// all that it keeps in memory.
func (a heads) gradient() kernel {
	return kernel{scratch: 4 * attentionStatistics * a.sequences() * a.length, launches: a.gradLaunches}
}

func (a heads) gradLaunches(m operands) []launch {
	size := kernels.Ptr(m.in[0].len() * storedBytes(m.out))
	part := func(i int) kernels.AttentionTensor {
		t := m.out
		t.ptr += kernels.Ptr(i) * size
		return a.tensor(t)
	}
	q, k, v, dout := a.tensor(m.in[0]), a.tensor(m.in[1]), a.tensor(m.in[2]), a.tensor(m.in[3])
	dq, dk, dv := part(0), part(1), part(2)
	b := a.gradBlock(a.chunked(q, k, v, dout, dq, dk, dv))
	p := &kernels.AttentionGradParams{
		Q: q, K: k, V: v, Dout: dout, Dq: dq, Dk: dk, Dv: dv, Shape: a.shape(), Statistics: m.scratch,
		Slices: int32(a.slices(b)), Scale: a.scale(), Log2Scale: a.log2Scale(),
	}
	return []launch{a.launch("queries", b, p), a.launch("keys", b, p)}
}

// storedBytes is the size of an element of a value.
func storedBytes(t tensor) int {
	if t.bf16 {
		return 2
	}
	return 4
}
