package cpu

import "ddpm/internal/graph/cpu/gemm"

// How the gradient with respect to the weights is cut.
const (
	groupChannels = 28  // input channels of a task: two of the tallest tiles
	blockPixels   = 256 // output pixels between two visits to a tile of dw
	chunkPixels   = 512 // output pixels at least in a partial sum of dw
)

// weightCuts are the tasks of a weight gradient: each computes one chunk of the
// sum over pixels, for some input channels and some panels of output channels.
type weightCuts struct {
	blocks           pixelBlocks
	channels, panels int // number of groups
	chunks           int
	patch            patch
	panel            int // size of a packed panel of a block of dy
}

func (e *engine) weightCuts(g convGeometry) weightCuts {
	c := weightCuts{blocks: cutPixels(g.N, g.OH, g.OW, blockPixels)}
	c.channels = ceil(g.C, groupChannels)
	panels := e.gemm.Panels(g.K)
	tasks := c.channels * panels
	c.chunks = max(1, min(ceil(manyTasks/2, tasks), g.pixels()/chunkPixels, c.blocks.count()))
	c.panels = min(panels, ceil(manyTasks, c.channels*c.chunks))
	c.patch = newPatch(g, c.blocks, ceil(g.C, c.channels))
	c.panel = c.blocks.images * c.blocks.rows * g.OW * e.gemm.Panel(0, g.K).Width
	return c
}

// directGradWeight binds dw, the gradient with respect to w, from x and dy.
func (e *engine) directGradWeight(g convGeometry, dw []float32, x source, dy, ws []float32) func() {
	c := e.weightCuts(g)
	size := g.R * g.S * g.C * g.K
	patches := gemm.Carve(&ws, e.pool.Workers()*c.patch.size())
	packed := gemm.Carve(&ws, e.pool.Workers()*c.panel)
	sums := gemm.Sums{Result: dw[:size], Others: gemm.Carve(&ws, (c.chunks-1)*size)}

	layouts := make([]*gemm.Layout, c.blocks.count())
	for i := range layouts {
		b := c.blocks.block(i)
		var rows []int
		for n := range b.images {
			for i := range b.rows {
				rows = append(rows, c.patch.at(n, i*g.Stride, 0))
			}
		}
		layouts[i] = gemm.NewLayout(1, g.Stride*c.patch.channels, g.OW, rows...)
	}

	run := func(task, worker int) {
		group, chunk := task%(c.channels*c.panels), task/(c.channels*c.panels)
		c0, c1 := cut(g.C, c.channels, group%c.channels)
		j0, j1 := cut(e.gemm.Panels(g.K), c.panels, group/c.channels)
		first, end := cut(c.blocks.count(), c.chunks, chunk)
		part := sums.Part(chunk)
		p := e.own(patches, worker)
		s := gemm.Strip{Stride: g.K, B: e.own(packed, worker)}
		for i := first; i < end; i++ {
			b := c.blocks.block(i)
			c.patch.fill(p, x, b, c0, c1)
			s.Layout = layouts[i]
			s.Accumulate = i > first
			pixel := (b.image*g.OH + b.row) * g.OW
			for j := j0; j < j1; j++ {
				s.Panel = e.gemm.Panel(j, g.K)
				e.gemm.PackPanel(s.B, gemm.Matrix{Data: dy[pixel*g.K:], Stride: g.K}, s.Panel, 0, s.Layout.K())
				for r := range g.R {
					// With all channels in the patch, the taps of a row are one run.
					taps, rows := g.S, c1-c0
					if c.channels == 1 {
						taps, rows = 1, g.S*g.C
					}
					for q := range taps {
						s.Rows = rows
						s.A = p[c.patch.at(0, r, q):]
						s.C = part[((r*g.S+q)*g.C+c0)*g.K+s.Panel.First:]
						e.gemm.Run(&s)
					}
				}
			}
		}
	}
	reduce := e.gemm.Reducer(sums)
	tasks := c.channels * c.panels * c.chunks
	return func() {
		e.pool.Run(tasks, run)
		reduce()
	}
}

func (e *engine) directGradWeightWorkspace(g convGeometry) int {
	c := e.weightCuts(g)
	workers := e.pool.Workers()
	return gemm.Scratch(workers*c.patch.size(), workers*c.panel, (c.chunks-1)*g.R*g.S*g.C*g.K)
}
