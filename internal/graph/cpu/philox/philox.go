// Package philox draws the numbers of package rng with vector instructions,
// where they decide about so many elements that drawing them is the work.
//
// A sequence is cut into blocks of four words, each a function of its number
// alone (Salmon et al., 2011), so the lanes of a vector compute as many blocks
// at once. The words are those of rng.Key.Block, bit for bit, whatever the
// instruction set.
package philox

//go:generate go run ./gen

import (
	"math"

	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/rng"
)

// BlockSize is the number of words in a block, and so of elements that share
// one.
const BlockSize = 4

// Dropout drops elements with one probability, with one instruction set.
type Dropout struct {
	set   isa.Set
	limit uint32 // an element is kept if the top 24 bits of its word are at least this
	scale float32
}

// NewDropout returns dropout with probability p, 0 <= p < 1, for a set that must
// be a supported one.
func NewDropout(set isa.Set, p float64) Dropout {
	return Dropout{set, limit(p), float32(1 / (1 - p))}
}

// limit turns a comparison of numbers into one of integers: with v the top 24
// bits of a word,
//
//	rng.Uniform(word) >= p  <=>  v / 2^24 >= p  <=>  v >= p 2^24  <=>  v >= ceil(p 2^24)
//
// where multiplying by a power of 2 rounds nothing. For p < 1 it is at most
// 2^24, which no word reaches.
func limit(p float64) uint32 { return uint32(math.Ceil(p * (1 << 24))) }

// Apply computes y = x / (1 - p) where it keeps an element and 0 where it drops
// it: element i is kept if word i of key's sequence, counted from the beginning
// of a block, is at least p as a number in [0, 1). y has the length of x and may
// be x.
func (d Dropout) Apply(y, x []float32, key rng.Key, block uint32) {
	y = y[:len(x)]
	done := d.vector(y, x, key, block)
	d.generic(y[done:], x[done:], key, block+uint32(done/BlockSize))
}

// generic is Apply in portable Go. It masks instead of branching on what nobody
// can predict.
func (d Dropout) generic(y, x []float32, key rng.Key, block uint32) {
	for ; len(x) >= BlockSize; x, y = x[BlockSize:], y[BlockSize:] {
		for j, word := range key.Block(block) {
			y[j] = d.one(x[j], word)
		}
		block++
	}
	if len(x) > 0 {
		words := key.Block(block)
		for j := range x {
			y[j] = d.one(x[j], words[j])
		}
	}
}

// one decides about an element. The difference is negative if it is kept.
func (d Dropout) one(x float32, word uint32) float32 {
	kept := uint32((int32(d.limit) - 1 - int32(word>>8)) >> 31)
	return math.Float32frombits(math.Float32bits(x*d.scale) & kept)
}
