//go:build gpu && !cpu

package cuda

import (
	"math/bits"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// pointThreads is the number of threads in a block of every kernel that is bound
// by memory.
const pointThreads = 256

// access is how such a kernel reads and writes: each comes in three instances,
// see values.h. It takes width elements at a time.
type access struct {
	suffix string
	width  int
}

var (
	packedBF16 = access{"_bf16", 8}
	packedF32  = access{"_f32", 4}
	single     = access{"_any", 1}
)

// accessTo is the access to tensors in which runs of these lengths lie together.
func accessTo(tensors []tensor, runs ...int) access {
	a := packedF32
	if tensors[0].bf16 {
		a = packedBF16
	}
	for _, t := range tensors {
		if t.bf16 != tensors[0].bf16 || t.ptr%16 != 0 {
			return single
		}
	}
	for _, run := range runs {
		if run%a.width != 0 {
			return single
		}
	}
	return a
}

func values(t tensor) kernels.Values {
	return kernels.Values{Data: t.ptr, Bf16: flag(t.bf16)}
}

// flag is a C++ truth value.
func flag(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// pieces is the number of pieces of a size that n things make, the last perhaps
// smaller.
func pieces(n, size int) int { return (n + size - 1) / size }

// fastDivisor is what kernels divide numbers below 2^31 by n with: see numeric.h.
func fastDivisor(n int) kernels.FastDivisor {
	shift := bits.Len32(uint32(n - 1))
	multiplier := (uint64(1)<<shift-uint64(n))<<32/uint64(n) + 1
	return kernels.FastDivisor{Divisor: uint32(n), Multiplier: uint32(multiplier), Shift: uint32(shift)}
}

// sheet is how the threads of a block lie over rows of channels: lanes beside
// each other, each with the channels of one access, on several rows; slabs
// blocks cover all channels.
type sheet struct{ lanes, rows, slabs int }

func sheetOf(channels int, a access, mostLanes int) sheet {
	packs := pieces(channels, a.width)
	slabs := pieces(packs, mostLanes)
	lanes := pieces(packs, slabs)
	return sheet{lanes, pointThreads / lanes, slabs}
}

// image splits [N,H,W,C] into images, pixels and channels.
func image(s graph.Shape) (n, pixels, c int) { return s[0], s[1] * s[2], s[3] }

// rowsOf splits [...,C] into rows and columns.
func rowsOf(s graph.Shape) (rows, columns int) {
	columns = s[len(s)-1]
	return s.TotalSize() / columns, columns
}

// elementwise finds the kernels that work element by element, those that move
// elements, and sums.
func (d *device) elementwise(c call) (kernel, bool) {
	switch op := c.heart.(type) {
	case graph.Add:
		return mapKernel("map_add", 2), true
	case graph.SiLU:
		return mapKernel("map_silu", 1), true
	case graph.SiLUGrad:
		return mapKernel("map_silu_grad", 2), true
	case graph.Copy:
		return kernel{launches: func(m operands) []launch { return copyLaunches(m.out, m.in[0]) }}, true
	case graph.AddPerSample:
		return kernel{launches: addPerSample}, true
	case graph.SumPixels:
		n, pixels, channels := image(c.in[0])
		return sumKernel(n, pixels, channels), true
	case graph.SumRows:
		rows, columns := rowsOf(c.in[0])
		return sumKernel(1, rows, columns), true
	case graph.Upsample:
		return kernel{launches: func(m operands) []launch { return double("upsample", m.in[0], m.out) }}, true
	case graph.UpsampleGrad:
		return kernel{launches: func(m operands) []launch { return double("upsample_grad", m.out, m.in[0]) }}, true
	case graph.Concat:
		return kernel{launches: func(m operands) []launch {
			_, width := rowsOf(m.in[0].shape)
			return join(m.out, m.in[0], m.in[1], 0, width)
		}}, true
	case graph.SliceChannels:
		return kernel{launches: func(m operands) []launch {
			return join(m.out, m.in[0], tensor{}, op.From, op.Width)
		}}, true
	}
	return kernel{}, false
}

// mapPacks is how many accesses a thread of the map kernels makes.
const mapPacks = 4

func mapKernel(name string, operandCount int) kernel {
	return kernel{launches: func(m operands) []launch {
		p := kernels.MapParams{X: values(m.in[0]), Out: values(m.out), N: int64(m.out.len())}
		tensors := []tensor{m.out, m.in[0]}
		if operandCount == 2 {
			p.Y = values(m.in[1])
			tensors = append(tensors, m.in[1])
		}
		a := accessTo(tensors)
		return []launch{mapLaunch(name+a.suffix, a.width, &p)}
	}}
}

func mapLaunch(name string, width int, p *kernels.MapParams) launch {
	blocks := max(1, pieces(int(p.N)/width, pointThreads*mapPacks))
	return launch{kernel: name, grid: [3]int{blocks, 1, 1}, block: pointThreads, params: p}
}

// copyLaunches copies between any two storage types.
func copyLaunches(to, from tensor) []launch {
	p := &kernels.MapParams{X: values(from), Out: values(to), N: int64(to.len())}
	switch aligned := to.ptr%16 == 0 && from.ptr%16 == 0; {
	case aligned && to.bf16 && !from.bf16:
		return []launch{mapLaunch("map_round", packedBF16.width, p)}
	case aligned && from.bf16 && !to.bf16:
		return []launch{mapLaunch("map_widen", packedBF16.width, p)}
	}
	a := accessTo([]tensor{to, from})
	return []launch{mapLaunch("map_copy"+a.suffix, a.width, p)}
}

// chunkElements is about the number of elements that a block of a kernel over
// images takes: few enough that a small batch fills a GPU.
const chunkElements = 16384

// chunksOf cuts the pixels of an image into chunks. It depends on the image
// alone: what is summed chunk by chunk has one order in a batch of any size.
func chunksOf(pixels, channels int) (chunk, chunks int) {
	chunk = pieces(pixels, pieces(pixels*channels, chunkElements))
	return chunk, pieces(pixels, chunk)
}

func addPerSample(m operands) []launch {
	n, pixels, channels := image(m.out.shape)
	a := accessTo([]tensor{m.out, m.in[0]}, channels)
	s := sheetOf(channels, a, pointThreads)
	chunk, chunks := chunksOf(pixels, channels)
	return []launch{{
		kernel: "add_per_sample" + a.suffix, grid: [3]int{n * chunks, s.slabs, 1}, block: pointThreads,
		params: &kernels.AddPerSampleParams{
			X: values(m.in[0]), V: m.in[1].ptr, Out: values(m.out),
			Pixels: int32(pixels), Channels: int32(channels),
			Chunk: int32(chunk), Chunks: int32(chunks), Lanes: int32(s.lanes), Rows: int32(s.rows),
		},
	}}
}

// A block sums at least leastSummed rows, and there are at most mostSums blocks
// a column, so that their sums are a small part of the work.
const (
	leastSummed = 256
	mostSums    = 512
	sumLanes    = 16
)

// sumKernel sums x [samples,length,columns] over length, or what was left of x:
// sums of neighbouring rows of it.
func sumKernel(samples, length, columns int) kernel {
	chunk := max(leastSummed, pieces(length, mostSums))
	chunks := pieces(length, chunk)
	scratch := 0
	if chunks > 1 {
		scratch = 4 * samples * chunks * columns
	}
	return kernel{scratch: scratch, launches: func(m operands) []launch {
		x, length, chunk := m.in[0], length, chunk
		if len(m.found) > 0 {
			x = m.found[0]
			length = x.len() / (samples * columns)
			chunk = max(leastSummed, pieces(length, chunks))
		}
		chunks := pieces(length, chunk)
		if chunks == 1 {
			return []launch{sumLaunch(m.out.ptr, x, samples, length, columns, chunk)}
		}
		return []launch{
			sumLaunch(m.scratch, x, samples, length, columns, chunk),
			sumLaunch(m.out.ptr, tensor{ptr: m.scratch}, samples, chunks, columns, chunks),
		}
	}}
}

// sumLaunch sums x [samples,length,columns] over chunks of length: to
// [samples,chunks,columns], float32.
func sumLaunch(to kernels.Ptr, x tensor, samples, length, columns, chunk int) launch {
	a := accessTo([]tensor{x}, columns)
	s := sheetOf(columns, a, sumLanes)
	chunks := pieces(length, chunk)
	return launch{
		kernel: "sum_columns" + a.suffix, grid: [3]int{samples * chunks, s.slabs, 1}, block: pointThreads,
		params: &kernels.SumColumnsParams{
			X: values(x), Out: to, Length: int64(length), Chunk: int64(chunk),
			Columns: int32(columns), Chunks: int32(chunks), Lanes: int32(s.lanes), Rows: int32(s.rows),
		},
	}
}

// double is upsample, or its gradient, between small [N,H,W,C] and large
// [N,2H,2W,C].
func double(name string, small, large tensor) []launch {
	n, h, w, channels := small.shape[0], small.shape[1], small.shape[2], small.shape[3]
	a := accessTo([]tensor{small, large}, channels)
	s := sheetOf(channels, a, pointThreads)
	tiles := pieces(w, s.rows)
	return []launch{{
		kernel: name + a.suffix, grid: [3]int{n * h * tiles, s.slabs, 1}, block: pointThreads,
		params: &kernels.DoubleParams{
			Small: values(small), Large: values(large), Width: int32(w), Channels: int32(channels),
			Tiles: int32(tiles), Lanes: int32(s.lanes), Rows: int32(s.rows),
		},
	}}
}

// joinRows is how many rows a thread of join copies.
const joinRows = 4

// join writes rows of width channels of a, those from a column on, and all of b
// behind them; b is empty if out has no more.
func join(out, a, b tensor, from, width int) []launch {
	height, channels := rowsOf(out.shape)
	_, stride := rowsOf(a.shape)
	tensors := []tensor{out, a}
	if width < channels {
		tensors = append(tensors, b)
	}
	how := accessTo(tensors, channels, stride, from, width)
	s := sheetOf(channels, how, pointThreads)
	return []launch{{
		kernel: "join" + how.suffix, grid: [3]int{pieces(height, joinRows*s.rows), s.slabs, 1}, block: pointThreads,
		params: &kernels.JoinParams{
			A: values(a), B: values(b), Out: values(out), Height: int64(height),
			AStride: int32(stride), AFrom: int32(from), Split: int32(width), Channels: int32(channels),
			Lanes: int32(s.lanes), Rows: int32(s.rows),
		},
	}}
}
