// Package rng is the only source of randomness in the program: Philox4x32-10
// counter-based streams (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011).
//
// A number is a function of (seed, stream, step, sample) and its position, and
// of nothing else. There is no generator state to save: training resumes with
// the same draws, and any thread, device or rank can compute any part of them.
package rng

import (
	"math"
	"math/bits"
)

// Stream separates the uses of randomness, so that no two of them ever read
// the same numbers. Values are part of the reproducibility contract: append,
// never renumber.
type Stream uint32

const (
	Shapes     Stream = iota // the synthetic data set: step and sample hold the 64-bit image index
	Init                     // initial weights: step is the parameter's index
	Timestep                 // t of a training sample
	Noise                    // eps of a training sample
	Flip                     // horizontal flip of a training sample
	Shuffle                  // order of the images in an epoch
	Prior                    // x_T of a generated sample
	Ancestral                // noise added while sampling: step is the index of the sampling step
	Evaluation               // t and eps of held-out images
	Dropout                  // Dropout+i is the mask of the i-th dropout layer, i < 1<<16
)

// Streams that came later, beyond those of the dropout layers.
const (
	ClassDropout Stream = 1<<20 + iota // whether a training image goes without its class
	Repaint                            // noise of the known part of an inpainted image, and of going back in time; step counts both
	Distillation                       // t and noise of a distilled student's training image
)

// Key names one sequence of numbers.
type Key struct {
	Seed   uint64
	Stream Stream
	Step   uint32
	Sample uint32
}

const (
	multiplier0 = 0xD2511F53
	multiplier1 = 0xCD9E8D57
	weyl0       = 0x9E3779B9
	weyl1       = 0xBB67AE85
)

// Philox returns the four 32-bit words of one Philox4x32-10 block.
func Philox(counter [4]uint32, key [2]uint32) [4]uint32 {
	c0, c1, c2, c3 := counter[0], counter[1], counter[2], counter[3]
	k0, k1 := key[0], key[1]
	for range 10 {
		p0 := uint64(c0) * multiplier0
		p1 := uint64(c2) * multiplier1
		c0, c1, c2, c3 = uint32(p1>>32)^c1^k0, uint32(p1), uint32(p0>>32)^c3^k1, uint32(p0)
		k0 += weyl0
		k1 += weyl1
	}
	return [4]uint32{c0, c1, c2, c3}
}

// Block returns words 4*block .. 4*block+3 of the sequence.
func (k Key) Block(block uint32) [4]uint32 {
	return Philox([4]uint32{block, uint32(k.Stream), k.Step, k.Sample}, [2]uint32{uint32(k.Seed), uint32(k.Seed >> 32)})
}

// Uniform maps the top 24 bits of a word to [0, 1), exactly representable in
// float32.
func Uniform(word uint32) float64 { return float64(word>>8) / (1 << 24) }

// Uniforms fills dst with numbers in [0, 1).
func (k Key) Uniforms(dst []float64) {
	for i := range dst {
		if i%4 == 0 {
			w := k.Block(uint32(i / 4))
			for j := 0; j < 4 && i+j < len(dst); j++ {
				dst[i+j] = Uniform(w[j])
			}
		}
	}
}

// IntN returns an integer in [0, n), n > 0, from the first two words of the
// sequence. The bias is below n / 2^64.
func (k Key) IntN(n int) int {
	w := k.Block(0)
	hi, _ := bits.Mul64(uint64(w[0])<<32|uint64(w[1]), uint64(n))
	return int(hi)
}

// Normals fills dst with standard normal numbers, four to a block.
func (k Key) Normals(dst []float32) { k.NormalsAt(dst, 0) }

// NormalsAt fills dst with the numbers from position first on; first must be a
// multiple of 4.
func (k Key) NormalsAt(dst []float32, first int) {
	for i := 0; i < len(dst); i += 4 {
		z := BoxMuller(k.Block(uint32((first + i) / 4)))
		copy(dst[i:], z[:])
	}
}

// BoxMuller turns the four words of a block into four independent standard
// normal numbers. u1 lies in (0, 1], so the radius is finite: at most 5.8.
func BoxMuller(w [4]uint32) [4]float32 {
	var z [4]float32
	for i := 0; i < 4; i += 2 {
		u1 := 1 - Uniform(w[i])
		radius := math.Sqrt(-2 * math.Log(u1))
		sin, cos := math.Sincos(2 * math.Pi * Uniform(w[i+1]))
		z[i], z[i+1] = float32(radius*cos), float32(radius*sin)
	}
	return z
}
