package cpu

// source is what a convolution reads: an image [N,H,W,C], two images side by
// side on channels without a copy, or an image that is doubled in height and
// width as it is read.
type source struct {
	a, b []float32 // [N,H,W,ca] and [N,H,W,cb]; b is nil where cb is 0
	// ca + cb are the convolution's C.
	ca, cb int
	// doubled says that pixel (i, j) of the convolution's input is pixel
	// (i/2, j/2) of a, which is [N,H/2,W/2,C]; there is no b.
	doubled bool
}

// epilogue is what a convolution adds to its output [N,OH,OW,K] while it is
// still in registers or in the cache. Each may be nil.
type epilogue struct {
	bias      []float32 // [K]
	perSample []float32 // [N,K], added to every pixel of a sample
	residual  []float32 // [N,OH,OW,K]
}
