// Package model writes the networks as tables of contents over package graph.
//
// The U-Net is that of Ho et al. (2020), in the form of diffusers' UNet2DModel:
// the same parameter names, the same shapes and the same conventions, so that
// checkpoints pass between the two.
package model

import (
	"fmt"
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/rng"
)

// Inputs are what the network reads.
type Inputs struct {
	X *graph.Node // noised images [N,H,W,C]
	T *graph.Node // timesteps [N], 0 .. T-1
	// Class is the class of each image [N], Uint32, NoClass for none; only of a network
	// with classes.
	Class *graph.Node
	// Keys [N,4], see graph.QSample, make dropout active; nil leaves it out.
	Keys *graph.Node
}

// NoClass is the class of an image whose class the network is not told.
func (c Config) NoClass() int { return c.Classes }

// UNet adds the network to b: a prediction of the images' extent, [N,H,W,C], or
// [N,H,W,2C] with LearnSigma, whose second half says where the variance of the
// reverse step is between its two bounds, see graph.PSample.
func UNet(b *graph.Builder, c Config, in Inputs) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	n := &network{Config: c, keys: in.Keys}
	out := channelsOf(in.X)
	if c.LearnSigma {
		out *= 2
	}
	channels := c.LevelChannels()
	deepest := len(channels) - 1

	temb := n.embedding(b, in)
	h := n.conv(b, "conv_in", in.X, channels[0], 3)

	skips := []*graph.Node{h}
	for level, ch := range channels {
		down := b.Scope(fmt.Sprintf("down_blocks.%d", level))
		for i := range c.Blocks {
			h = n.block(down.Scope(fmt.Sprintf("resnets.%d", i)), h, temb, ch)
			h = n.levelAttention(down, i, h)
			skips = append(skips, h)
		}
		if level < deepest {
			h = n.downsample(down.Scope("downsamplers.0"), h)
			skips = append(skips, h)
		}
	}

	mid := b.Scope("mid_block")
	h = n.block(mid.Scope("resnets.0"), h, temb, channels[deepest])
	if c.MidAttention {
		h = n.attention(mid.Scope("attentions.0"), h)
	}
	h = n.block(mid.Scope("resnets.1"), h, temb, channels[deepest])

	for i := range channels {
		level := deepest - i
		up := b.Scope(fmt.Sprintf("up_blocks.%d", i))
		for j := range c.Blocks + 1 {
			h = b.Concat(h, skips[len(skips)-1])
			skips = skips[:len(skips)-1]
			h = n.block(up.Scope(fmt.Sprintf("resnets.%d", j)), h, temb, channels[level])
			h = n.levelAttention(up, j, h)
		}
		if level > 0 {
			h = n.upsample(up.Scope("upsamplers.0"), h)
		}
	}

	h = n.norm(b, "conv_norm_out", h, true)
	return n.branchEnd().conv(b, "conv_out", h, out, 3)
}

// network is a U-Net under construction.
type network struct {
	Config
	keys     *graph.Node
	dropouts int
	// ending marks the last layer of a branch, which the ddpm initialisation
	// starts near zero.
	ending bool
}

func (n *network) branchEnd() *network {
	end := *n
	end.ending = true
	return &end
}

// LevelChannels is the number of channels at each level, finest first.
func (c Config) LevelChannels() []int {
	channels := make([]int, len(c.Mult))
	for i, m := range c.Mult {
		channels[i] = int(m*float64(c.Channels) + 0.5)
	}
	return channels
}

// embedding is what every residual block is told: t, and the class if there are
// classes, [N, 4 times the first level's channels].
func (n *network) embedding(b *graph.Builder, in Inputs) *graph.Node {
	h := n.timeEmbedding(b.Scope("time_embedding"), in.T)
	if n.Classes > 0 {
		h = b.Add(h, n.classEmbedding(b.Scope("class_embedding"), in.Class))
	}
	// Every residual block applies SiLU to the embedding first; once is enough.
	return b.SiLU(h)
}

// timeEmbedding maps t [N] to [N, 4 times the first level's channels].
func (n *network) timeEmbedding(b *graph.Builder, t *graph.Node) *graph.Node {
	width := n.LevelChannels()[0]
	dim := 4 * width
	h := b.TimestepEmbedding(graph.TimestepEmbedding{Dim: width, CosFirst: n.FlipSinToCos, FreqShift: n.FreqShift}, t)
	h = b.SiLU(n.linear(b, "linear_1", h, dim))
	return n.linear(b, "linear_2", h, dim)
}

// classEmbedding is a learned row for each class, and one for none.
func (n *network) classEmbedding(b *graph.Builder, class *graph.Node) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	dim := 4 * n.LevelChannels()[0]
	// Variance 1, as an embedding of PyTorch has.
	table := b.Param("weight", graph.Table, graph.Init{Bound: math.Sqrt(3)}, n.Classes+1, dim)
	return b.Embedding(table, class)
}

// block is a residual block with the time embedding added inside, in the order
// the configuration names.
func (n *network) block(b *graph.Builder, x, temb *graph.Node, out int) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	if n.Block == "simple" {
		return n.simpleBlock(b, x, temb, out)
	}
	return n.resnetBlock(b, x, temb, out)
}

// resnetBlock is norm, SiLU, conv; plus time; norm, SiLU, dropout, conv; plus
// the input.
func (n *network) resnetBlock(b *graph.Builder, x, temb *graph.Node, out int) *graph.Node {
	h := n.norm(b, "norm1", x, true)
	h = n.conv(b, "conv1", h, out, 3)
	h = b.AddPerSample(h, n.linear(b, "time_emb_proj", temb, out))
	h = n.norm(b, "norm2", h, true)
	h = n.dropout(b, h)
	h = n.branchEnd().conv(b, "conv2", h, out, 3)
	return b.Add(h, n.shortcut(b, x, out))
}

// simpleBlock is conv, norm, SiLU; plus time; conv, norm, SiLU, dropout; plus
// the input.
func (n *network) simpleBlock(b *graph.Builder, x, temb *graph.Node, out int) *graph.Node {
	h := n.conv(b, "conv1", x, out, 3)
	h = n.norm(b, "norm1", h, true)
	h = b.AddPerSample(h, n.linear(b, "time_emb_proj", temb, out))
	h = n.conv(b, "conv2", h, out, 3)
	h = n.norm(b, "norm2", h, true)
	h = n.dropout(b, h)
	return b.Add(h, n.shortcut(b, x, out))
}

// shortcut is the input itself, through a 1x1 convolution where the channels
// change.
func (n *network) shortcut(b *graph.Builder, x *graph.Node, out int) *graph.Node {
	if b.Err() != nil || channelsOf(x) == out {
		return x
	}
	return n.conv(b, "conv_shortcut", x, out, 1)
}

// levelAttention follows block i of a level when the configuration lists the
// level's height.
func (n *network) levelAttention(b *graph.Builder, i int, x *graph.Node) *graph.Node {
	if b.Err() != nil || !n.attends(x.Shape()[1]) {
		return x
	}
	return n.attention(b.Scope(fmt.Sprintf("attentions.%d", i)), x)
}

func (c Config) attends(height int) bool {
	for _, h := range c.Attention {
		if h == height {
			return true
		}
	}
	return false
}

// attention is self-attention over pixels with a residual connection.
func (n *network) attention(b *graph.Builder, x *graph.Node) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	c := channelsOf(x)
	heads := 1
	if n.HeadDim > 0 {
		heads = max(1, c/n.HeadDim)
	}
	h := n.norm(b, "group_norm", x, false)
	q, k, v := n.linear(b, "to_q", h, c), n.linear(b, "to_k", h, c), n.linear(b, "to_v", h, c)
	h = b.Attention(q, k, v, heads)
	return b.Add(n.branchEnd().linear(b, "to_out.0", h, c), x)
}

// downsample halves height and width with a 3x3 convolution of stride 2.
func (n *network) downsample(b *graph.Builder, x *graph.Node) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	op := graph.Conv2D{Stride: 2, Bottom: 1, Right: 1}
	if n.DownsamplePadding == 1 {
		op = graph.Conv2D{Stride: 2, Top: 1, Bottom: 1, Left: 1, Right: 1}
	}
	return n.convolve(b, "conv", op, x, channelsOf(x), 3)
}

// upsample doubles height and width, then convolves.
func (n *network) upsample(b *graph.Builder, x *graph.Node) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	return n.conv(b, "conv", b.Upsample(x), channelsOf(x), 3)
}

func (n *network) dropout(b *graph.Builder, x *graph.Node) *graph.Node {
	if n.keys == nil || n.Dropout == 0 {
		return x
	}
	n.dropouts++
	return b.Dropout(x, n.keys, n.Dropout, rng.Dropout+rng.Stream(n.dropouts-1))
}

func channelsOf(x *graph.Node) int {
	s := x.Shape()
	return s[len(s)-1]
}
