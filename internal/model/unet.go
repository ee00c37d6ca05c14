// Package model writes the networks as tables of contents over package graph.
//
// The U-Net is that of Ho et al. (2020), in the form of diffusers' UNet2DModel:
// the same parameter names, the same shapes and the same conventions, so that
// checkpoints pass between the two.
package model

import (
	"fmt"

	"ddpm/internal/graph"
	"ddpm/internal/rng"
)

// UNet adds the network to b: from x [N,H,W,C], noised images, and t [N],
// timesteps 0 .. T-1, to a prediction of out channels, [N,H,W,out]. Dropout is
// active when keys [N,4], see graph.QSample, are given, and absent when keys is
// nil.
func UNet(b *graph.Builder, c Config, x, t, keys *graph.Node, out int) *graph.Node {
	if b.Err() != nil {
		return nil
	}
	n := &network{Config: c, keys: keys}
	channels := c.LevelChannels()
	deepest := len(channels) - 1

	temb := n.timeEmbedding(b.Scope("time_embedding"), t)
	h := n.conv(b, "conv_in", x, channels[0], 3)

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

// timeEmbedding maps t [N] to [N, 4 times the first level's channels].
func (n *network) timeEmbedding(b *graph.Builder, t *graph.Node) *graph.Node {
	width := n.LevelChannels()[0]
	dim := 4 * width
	h := b.TimestepEmbedding(graph.TimestepEmbedding{Dim: width, CosFirst: n.FlipSinToCos, FreqShift: n.FreqShift}, t)
	h = b.SiLU(n.linear(b, "linear_1", h, dim))
	// Every residual block applies SiLU to the embedding first; once is enough.
	return b.SiLU(n.linear(b, "linear_2", h, dim))
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
