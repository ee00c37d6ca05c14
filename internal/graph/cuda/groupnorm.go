//go:build gpu && !cpu

package cuda

import (
	"slices"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// norm finds the kernels of group normalisation. x may be two tensors side by
// side on channels.
func (d *device) norm(c call) (kernel, bool) {
	switch op := c.heart.(type) {
	case graph.GroupNormStats:
		return normOf(c, op.Groups).stats(op.Eps), true
	case graph.GroupNorm:
		return normOf(c, op.Groups).forward(op.SiLU), true
	case graph.GroupNormGradSums:
		return normOf(c, op.Groups).gradSums(op.SiLU), true
	case graph.GroupNormGradData:
		return normOf(c, op.Groups).gradData(op.SiLU, c.fusion.Residual), true
	case graph.GroupNormGradAffine:
		sums := c.in[0]
		return sumKernel(1, sums[0], sums[1]*sums[2]), true
	}
	return kernel{}, false
}

// normalization is the extents of a group normalisation.
type normalization struct {
	parts                    int // 2 if x is two tensors
	images, pixels, channels int
	split                    int // channels of the first part
	groups                   int
	chunk, chunks            int // pixels that a block takes, blocks of an image
}

func normOf(c call, groups int) normalization {
	n := normalization{parts: 1, groups: groups}
	n.images, n.pixels, n.split = image(c.in[0])
	n.channels = n.split
	if c.fusion.Joined {
		n.parts = 2
		n.channels += c.in[1][3]
	}
	n.chunk, n.chunks = chunksOf(n.pixels, n.channels)
	return n
}

// operands splits the operands of an instruction into the parts of x and the
// rest; b is empty if there is one part.
func (n normalization) operands(m operands) (a, b tensor, rest []tensor) {
	if n.parts == 2 {
		b = m.in[1]
	}
	return m.in[0], b, m.in[n.parts:]
}

// access is the access to the parts of x and to others of its shape.
func (n normalization) access(m operands, others ...tensor) access {
	return accessTo(append(others, m.in[:n.parts]...), n.split, n.channels)
}

func (n normalization) extents(s sheet) kernels.NormExtents {
	return kernels.NormExtents{
		Pixels: int32(n.pixels), Channels: int32(n.channels), Split: int32(n.split), Groups: int32(n.groups),
		GroupWidth: fastDivisor(n.channels / n.groups), Chunk: int32(n.chunk), Chunks: int32(n.chunks),
		Lanes: int32(s.lanes), Rows: int32(s.rows),
	}
}

func (n normalization) launch(name string, a access, s sheet, params any) launch {
	return launch{
		kernel: name + a.suffix, grid: [3]int{n.images * n.chunks, s.slabs, 1}, block: pointThreads, params: params,
	}
}

// partials is the size of two values for each channel of each chunk.
func (n normalization) partials() int { return 4 * n.images * n.chunks * 2 * n.channels }

// stats leaves the statistics of a group to the block that sees all of its image,
// if one does.
func (n normalization) stats(eps float64) kernel {
	scratch := 0
	if n.chunks > 1 || n.channels > pointThreads {
		scratch = n.partials()
	}
	return kernel{scratch: scratch, launches: func(m operands) []launch {
		if len(m.found) > 0 {
			return n.foundStats(m, eps)
		}
		x, y, _ := n.operands(m)
		a := n.access(m)
		s := sheetOf(n.channels, a, pointThreads)
		p := &kernels.NormStatsParams{
			A: values(x), B: values(y), Stats: m.out.ptr, Extents: n.extents(s), Epsilon: float32(eps),
		}
		launches := []launch{n.launch("norm_stats", a, s, p)}
		if n.chunks > 1 || s.slabs > 1 {
			p.Moments = m.scratch
			const groups = pointThreads / 32 // of a block
			launches = append(launches, launch{
				kernel: "norm_stats_merge", grid: [3]int{n.images, pieces(n.groups, groups), 1}, block: pointThreads, params: p,
			})
		}
		return launches
	}}
}

// quad is the number of neighbouring channels that moments left by others are of.
const quad = 4

// foundStats makes statistics of the moments that the producers of x left.
func (n normalization) foundStats(m operands, eps float64) []launch {
	part := func(found tensor, channels int) kernels.NormMoments {
		return kernels.NormMoments{
			Moments: found.ptr, Slots: int32(found.len() / (n.images * 2 * channels / quad)), Quads: int32(channels / quad),
		}
	}
	p := &kernels.NormFoundParams{
		A: part(m.found[0], n.split), Stats: m.out.ptr, Pixels: int32(n.pixels), Groups: int32(n.groups),
		Width: int32(n.channels / n.groups / quad), Epsilon: float32(eps),
	}
	if n.parts == 2 {
		p.B = part(m.found[1], n.channels-n.split)
	}
	const groups = pointThreads / 32 // of a block
	return []launch{{
		kernel: "norm_stats_found", grid: [3]int{n.images, pieces(n.groups, groups), 1}, block: pointThreads, params: p,
	}}
}

func (n normalization) forward(silu bool) kernel {
	return kernel{launches: func(m operands) []launch {
		x, y, rest := n.operands(m)
		a := n.access(m, m.out)
		s := sheetOf(n.channels, a, pointThreads)
		return []launch{n.launch("norm_forward", a, s, &kernels.NormParams{
			A: values(x), B: values(y), Stats: rest[0].ptr, Gamma: rest[1].ptr, Beta: rest[2].ptr,
			Y: values(m.out), Extents: n.extents(s), Silu: flag(silu),
		})}
	}}
}

func (n normalization) gradSums(silu bool) kernel {
	scratch := 0
	if n.chunks > 1 {
		scratch = n.partials()
	}
	return kernel{scratch: scratch, launches: func(m operands) []launch {
		if len(m.found) > 0 {
			slots := m.found[0].len() / (n.images * 2 * n.channels)
			return []launch{sumLaunch(m.out.ptr, m.found[0], n.images, slots, 2*n.channels, slots)}
		}
		x, y, rest := n.operands(m)
		dy := rest[3]
		a := n.access(m, dy)
		s := sheetOf(n.channels, a, pointThreads)
		p := &kernels.NormGradSumsParams{
			A: values(x), B: values(y), Stats: rest[0].ptr, Gamma: rest[1].ptr, Beta: rest[2].ptr,
			Dy: values(dy), Sums: m.out.ptr, Extents: n.extents(s), Silu: flag(silu),
		}
		launches := []launch{n.launch("norm_grad_sums", a, s, p)}
		if n.chunks > 1 {
			p.Sums = m.scratch
			partial := tensor{ptr: m.scratch}
			launches = append(launches, sumLaunch(m.out.ptr, partial, n.images, n.chunks, 2*n.channels, n.chunks))
		}
		return launches
	}}
}

func (n normalization) gradData(silu, adds bool) kernel {
	return kernel{launches: func(m operands) []launch {
		x, y, rest := n.operands(m)
		dy, sums := rest[3], rest[4]
		others := []tensor{m.out, dy}
		var residual tensor
		if adds {
			residual = rest[5]
			others = append(others, residual)
		}
		var left kernels.Ptr
		if m.aside != nil {
			left = m.aside.out.ptr
		}
		a := n.access(m, others...)
		s := sheetOf(n.channels, a, pointThreads)
		return []launch{n.launch("norm_grad_data", a, s, &kernels.NormGradDataParams{
			A: values(x), B: values(y), Stats: rest[0].ptr, Gamma: rest[1].ptr, Beta: rest[2].ptr,
			Dy: values(dy), Sums: sums.ptr, Residual: values(residual), Dx: values(m.out), Left: left,
			Extents: n.extents(s), Silu: flag(silu),
		})}
	}}
}

// Leaves is the memory of the moments and sums that convolutions leave, and of the
// gradient's sums over each chunk of an image that the normalisation leaves for biases.
func (b *Backend) Leaves(op graph.Op, out graph.Shape, in []graph.Shape, reader graph.Op, readerIn []graph.Shape) int {
	if len(out) != 4 {
		return 0
	}
	c := callOf(op, out, slices.Clone(in))
	n, channels := out[0], out[3]
	switch heart, _ := graph.Unfuse(reader); norm := heart.(type) {
	case graph.GroupNormStats:
		r := normOf(callOf(reader, nil, slices.Clone(readerIn)), norm.Groups)
		if r.channels/r.groups%quad != 0 || channels%quad != 0 {
			return 0
		}
		return n * b.device.tmaMoments(c) * 2 * channels / quad
	case graph.SumPixels, graph.SumRows:
		if by, ok := c.heart.(graph.GroupNormGradData); ok {
			return n * normOf(c, by.Groups).chunks * channels
		}
	case graph.GroupNormGradSums:
		if readerIn[0][3]%vector != 0 {
			return 0 // a part of x is not bfloat16
		}
		return n * b.device.tmaGradSums(c) * 2 * channels
	}
	return 0
}
