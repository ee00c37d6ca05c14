// Random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), counted as
// package rng does, so that a number is a function of (seed, stream, step, sample) and its position.
#pragma once

#include "device.h"
#include "numeric.h"

// RandomKey names one sequence of words: row i of keys [N,4] is the seed's low and high word, the step, the sample.
struct RandomKey {
  u32 seed_low, seed_high, stream, step, sample;
};

DEV RandomKey random_key(const u32* keys, i64 i, u32 stream) {
  return RandomKey{keys[4 * i], keys[4 * i + 1], stream, keys[4 * i + 2], keys[4 * i + 3]};
}

// random_block sets words to 4*block .. 4*block+3 of the sequence.
DEV void random_block(const RandomKey& key, u32 block, u32 words[4]) {
  u32 c0 = block, c1 = key.stream, c2 = key.step, c3 = key.sample;
  u32 k0 = key.seed_low, k1 = key.seed_high;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u64 p0 = (u64)c0 * 0xD2511F53u;
    const u64 p1 = (u64)c2 * 0xCD9E8D57u;
    c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
    c1 = (u32)p1;
    c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
    c3 = (u32)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// uniform maps the top 24 bits of a word to [0, 1), exactly.
DEV float uniform(u32 word) { return (float)(word >> 8) * 5.9604644775390625e-8f; }

// random_normals sets z to numbers 4*block .. 4*block+3 of the sequence's standard normal numbers (Box & Muller, 1958).
// The argument of the logarithm lies in (0, 1], so the radius is finite.
DEV void random_normals(const RandomKey& key, u32 block, float z[4]) {
  u32 words[4];
  random_block(key, block, words);
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const float radius = sqrt_exact(-2.0f * log_(1.0f - uniform(words[i])));
    float sine, cosine;
    sincos_2pi(uniform(words[i + 1]), &sine, &cosine);
    z[i] = radius * cosine;
    z[i + 1] = radius * sine;
  }
}
