package picture

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// GridOptions arranges a grid; the zero value chooses everything.
type GridOptions struct {
	Columns      int         // images a row; 0 makes the grid near-square
	Scale        int         // pixels a side drawn for one pixel of an image; 0 enlarges small images
	Gap          int         // pixels between images; 0 follows the size of a cell, negative is none
	Paper        color.Color // colour between the images; nil is a warm white
	RowLabels    []string    // left of each row
	ColumnLabels []string    // above each column; those that would overlap are left out
}

const (
	targetWidth = 800 // pixels: small images are enlarged until a row is about this wide ...
	maxEnlarged = 128 // ... or one of them has this side
)

var (
	defaultPaper = color.RGBA{250, 249, 246, 255}
	labelInk     = color.RGBA{70, 70, 76, 255}
	labelFace    = basicfont.Face7x13
)

// Grid lays out n images of h x w pixels and c channels, images[n,H,W,C], row
// by row. The last row may be short.
func Grid(images []byte, n, w, h, c int, opt GridOptions) image.Image {
	columns := opt.Columns
	if columns <= 0 {
		columns = squareColumns(n, w, h)
	}
	rows := (n + columns - 1) / columns
	scale := opt.Scale
	if scale <= 0 {
		scale = max(1, min(targetWidth/(columns*w), maxEnlarged/max(w, h)))
	}
	cellW, cellH := w*scale, h*scale
	gap := max(0, opt.Gap)
	if opt.Gap == 0 {
		gap = max(2, (cellW+cellH)/32)
	}
	paper := opt.Paper
	if paper == nil {
		paper = defaultPaper
	}

	left, top := gap, gap
	for _, label := range opt.RowLabels {
		left = max(left, textWidth(label)+2*labelMargin)
	}
	if len(opt.ColumnLabels) > 0 {
		top = labelFace.Height + 2*labelMargin
	}
	canvas := image.NewRGBA(image.Rect(0, 0, left+columns*(cellW+gap), top+rows*(cellH+gap)))
	draw.Draw(canvas, canvas.Bounds(), image.NewUniform(paper), image.Point{}, draw.Src)
	for i := range n {
		x, y := left+i%columns*(cellW+gap), top+i/columns*(cellH+gap)
		enlarge(canvas, x, y, images[i*w*h*c:(i+1)*w*h*c], w, h, c, scale)
	}

	free := 0 // x from which the next column label may start
	for i, label := range opt.ColumnLabels {
		x := left + i*(cellW+gap) + (cellW-textWidth(label))/2
		if i >= columns || x < free || x+textWidth(label) > canvas.Rect.Max.X {
			continue
		}
		text(canvas, x, labelMargin+labelFace.Ascent, label)
		free = x + textWidth(label) + labelFace.Advance
	}
	free = 0
	for i, label := range opt.RowLabels {
		y := top + i*(cellH+gap) + (cellH-labelFace.Height)/2
		if i >= rows || y < free {
			continue
		}
		text(canvas, left-labelMargin-textWidth(label), y+labelFace.Ascent, label)
		free = y + labelFace.Height
	}
	return canvas
}

// Trajectory draws how n samples form: one row a sample, one column a moment.
// moments[k] holds [n,H,W,C] at time step t[k].
func Trajectory(moments [][]byte, t []int, n, w, h, c int, opt GridOptions) image.Image {
	size := w * h * c
	images := make([]byte, 0, n*len(moments)*size)
	for i := range n {
		for _, moment := range moments {
			images = append(images, moment[i*size:(i+1)*size]...)
		}
	}
	opt.Columns = len(moments)
	if opt.ColumnLabels == nil {
		for _, t := range t {
			opt.ColumnLabels = append(opt.ColumnLabels, fmt.Sprintf("t=%d", t))
		}
	}
	return Grid(images, n*len(moments), w, h, c, opt)
}

// squareColumns is the number of columns that makes n cells of w x h about as
// wide as high, moved up to twice as far if that leaves no hole in the last row.
func squareColumns(n, w, h int) int {
	if n <= 1 {
		return 1
	}
	square := min(n, max(1, int(math.Ceil(math.Sqrt(float64(n)*float64(h)/float64(w))))))
	for columns := square; columns <= 2*square && columns < n; columns++ {
		if n%columns == 0 {
			return columns
		}
	}
	return square
}

// enlarge draws one picture at (x, y), each pixel as a square of side scale.
func enlarge(dst *image.RGBA, x, y int, pixels []byte, w, h, c, scale int) {
	for i := range h {
		row := dst.Pix[dst.PixOffset(x, y+i*scale):][:4*w*scale]
		for j := range w {
			p := pixels[(i*w+j)*c:][:c]
			rgba := [4]byte{p[0], p[c/2], p[c-1], 255}
			for k := j * scale; k < (j+1)*scale; k++ {
				copy(row[4*k:], rgba[:])
			}
		}
		for k := 1; k < scale; k++ {
			copy(dst.Pix[dst.PixOffset(x, y+i*scale+k):], row)
		}
	}
}

const labelMargin = 6 // pixels on each side of a label

func textWidth(s string) int { return font.MeasureString(labelFace, s).Ceil() }

func text(dst draw.Image, x, baseline int, s string) {
	d := font.Drawer{Dst: dst, Src: image.NewUniform(labelInk), Face: labelFace, Dot: fixed.P(x, baseline)}
	d.DrawString(s)
}
