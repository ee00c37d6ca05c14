package data

import (
	"math/bits"

	"ddpm/internal/rng"
)

// feistelRounds is even, so that both halves are changed equally often. Four
// rounds of a random function make a pseudo-random permutation of large domains
// (Luby and Rackoff, 1988). Of sets of five to eight images, some successions
// are visibly more frequent than others below sixteen.
const feistelRounds = 24

// permutation is a random order of [0, n) that takes no memory: an alternating
// Feistel network over the numbers of b bits, n <= 2^b < 2n, whose round
// function is a word of Philox. A number that lands at n or above is sent
// through again until it lands below (cycle walking), which keeps the map a
// bijection and takes fewer than two turns on average.
type permutation struct {
	n         uint64
	low, high uint // bits of the two halves
	key       rng.Key
}

func newPermutation(seed uint64, epoch int64, n int) permutation {
	width := uint(bits.Len64(uint64(n - 1)))
	return permutation{
		n:    uint64(n),
		low:  width - width/2,
		high: width / 2,
		key:  rng.Key{Seed: seed, Stream: rng.Shuffle, Step: uint32(epoch)},
	}
}

// at returns which image comes at a position.
func (p permutation) at(position int64) int64 {
	x := uint64(position)
	for {
		if x = p.turn(x); x < p.n {
			return int64(x)
		}
	}
}

func (p permutation) turn(x uint64) uint64 {
	lowMask, highMask := uint64(1)<<p.low-1, uint64(1)<<p.high-1
	low, high := x&lowMask, x>>p.low
	for round := uint32(0); round < feistelRounds; round += 2 {
		low ^= p.round(round, high) & lowMask
		high ^= p.round(round+1, low) & highMask
	}
	return high<<p.low | low
}

func (p permutation) round(round uint32, half uint64) uint64 {
	key := p.key
	key.Sample = round
	return uint64(key.Block(uint32(half))[0])
}
