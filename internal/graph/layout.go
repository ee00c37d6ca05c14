package graph

import (
	"fmt"
	"slices"

	"ddpm/internal/rng"
)

// ParamKind says how a parameter's order of dimensions relates to PyTorch's.
type ParamKind int

const (
	Vector       ParamKind = iota // [n], the same
	Table                         // [rows,n], the same
	LinearWeight                  // [in,out] here, [out,in] there
	ConvWeight                    // [KH,KW,Cin,Cout] here, [Cout,Cin,KH,KW] there
)

// Init is the distribution of a parameter before training: the constant Value,
// plus uniform in [-Bound, Bound).
type Init struct {
	Value, Bound float64
}

// ParamSpec is one parameter and its place in the arenas.
type ParamSpec struct {
	Name   string
	Shape  []int // as the kernels want it
	Kind   ParamKind
	Init   Init
	Offset int // in elements
	Len    int
}

// Layout places every parameter in one contiguous arena. Gradients, Adam's
// moments and the averaged weights use the same offsets, so the optimiser, the
// global norm and a checkpoint are each one pass over flat memory.
type Layout struct {
	Params []ParamSpec
	Size   int // elements of an arena; the gaps between parameters stay zero
	Count  int // elements of all parameters
}

// alignment keeps every parameter and activation on a cache line.
const alignment = 16

func align(n int) int { return (n + alignment - 1) / alignment * alignment }

func (l *Layout) add(p ParamSpec) {
	p.Offset = l.Size
	p.Len = elements(p.Shape)
	l.Params = append(l.Params, p)
	l.Size = p.Offset + align(p.Len)
	l.Count += p.Len
}

// Equal reports whether two layouts place the same parameters alike.
func (l *Layout) Equal(o *Layout) bool {
	return l.Size == o.Size && slices.EqualFunc(l.Params, o.Params, func(a, b ParamSpec) bool {
		return a.Name == b.Name && a.Offset == b.Offset && slices.Equal(a.Shape, b.Shape)
	})
}

// InitialWeights fills an arena with fresh weights. They depend on the seed,
// and on each parameter's position and distribution.
func (l *Layout) InitialWeights(seed uint64) []float32 {
	arena := make([]float32, l.Size)
	for i, p := range l.Params {
		w := arena[p.Offset : p.Offset+p.Len]
		if p.Init.Bound == 0 {
			for j := range w {
				w[j] = float32(p.Init.Value)
			}
			continue
		}
		key := rng.Key{Seed: seed, Stream: rng.Init, Step: uint32(i)}
		u := make([]float64, len(w))
		key.Uniforms(u)
		for j := range w {
			w[j] = float32(p.Init.Value + p.Init.Bound*(2*u[j]-1))
		}
	}
	return arena
}

// TorchShape is the parameter's shape in a checkpoint.
func (p ParamSpec) TorchShape() []int {
	s := p.Shape
	switch p.Kind {
	case LinearWeight:
		return []int{s[1], s[0]}
	case ConvWeight:
		return []int{s[3], s[2], s[0], s[1]}
	}
	return slices.Clone(s)
}

// ToTorch writes the parameter, its elements src in kernel order, to dst in
// PyTorch's order.
func (p ParamSpec) ToTorch(dst, src []float32) {
	p.permute(func(kernel, torch int) { dst[torch] = src[kernel] })
}

// FromTorch is the inverse of ToTorch.
func (p ParamSpec) FromTorch(dst, src []float32) {
	p.permute(func(kernel, torch int) { dst[kernel] = src[torch] })
}

func (p ParamSpec) permute(move func(kernel, torch int)) {
	rows, in, out := 1, 1, p.Len
	switch p.Kind {
	case LinearWeight:
		in, out = p.Shape[0], p.Shape[1]
	case ConvWeight:
		rows, in, out = p.Shape[0]*p.Shape[1], p.Shape[2], p.Shape[3]
	}
	for r := range rows {
		for i := range in {
			for o := range out {
				move((r*in+i)*out+o, (o*in+i)*rows+r)
			}
		}
	}
}

func (p ParamSpec) String() string { return fmt.Sprintf("%s %v", p.Name, p.TorchShape()) }
