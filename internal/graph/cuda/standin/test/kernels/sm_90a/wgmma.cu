// Kernels that use every primitive of hopper.h; ../../driver_test.cc knows what they shall compute.
#include "params.h"

// load_box copies a box by rank.
DEV void load_box(u32 to, const BoxParams& p, u32 full) {
  const TensorMap* map = &p.table->map;
  const int* at = p.at;
  if (p.rank == 3) {
    tma_load3(to, map, at[0], at[1], at[2], full);
  } else if (p.rank == 4) {
    tma_load4(to, map, at[0], at[1], at[2], at[3], full);
  } else {
    tma_load5(to, map, at[0], at[1], at[2], at[3], at[4], full);
  }
}

// tma_box brings a box to shared memory and writes out how it lies there. Launch: 64 threads, bytes of shared memory
// for the box, and 8 more.
KERNEL BOUNDS(64, 1) tma_box(BoxParams p) {
  const u32 box = shared_base();
  const u32 full = box + p.bytes;
  if (thread_x() == 0) {
    mbarrier_init(full, 1);
    mbarrier_init_fence();
    tma_prefetch(&p.table->map);
  }
  barrier();
  if (thread_x() == 0) {
    mbarrier_arrive_expect(full, p.bytes);
    load_box(box, p, full);
  }
  mbarrier_wait(full, 0);
  for (int i = thread_x() * 16; i < p.bytes; i += 64 * 16) {
    store_global16(p.y + i, load_shared16(box + i));
  }
}

// WgmmaMemory is the shared memory of a product: stages of two boxes of a and the boxes of b, what warpgroups exchange,
// and mbarriers.
template <int N>
struct WgmmaMemory {
  static constexpr int stages = 3;
  static constexpr u32 a_bytes = 2 * 8192;
  static constexpr u32 stage_bytes = a_bytes + N * 128;
  static constexpr u32 row_bytes = N * 4 + 16;  // a bit more than a row, so that rows begin in different banks
  static constexpr u32 exchange = 16 * row_bytes;
  static constexpr u32 bytes = stages * stage_bytes + exchange + 64;
  u32 base = shared_base();

  DEV u32 a(int stage) const { return base + stage * stage_bytes; }
  DEV u32 b(int stage) const { return a(stage) + a_bytes; }
  DEV u32 row(int i) const { return base + stages * stage_bytes + i * row_bytes; }
  DEV u32 full(int stage) const { return row(16) + 16 * stage; }
  DEV u32 empty(int stage) const { return full(stage) + 8; }
};

// bring_operands fills the stages, for every tile of 128 rows of c and every 64 of k.
template <int N, bool A_TURNED, bool B_TURNED>
DEV void bring_operands(const WgmmaParams& p, const WgmmaMemory<N>& memory) {
  int stage = 0;
  u32 parity = 1;
  for (int tile = 0; tile < p.m; tile += 128) {
    for (int k = 0; k < p.k; k += 64) {
      mbarrier_wait(memory.empty(stage), parity);
      const u32 full = memory.full(stage);
      mbarrier_arrive_expect(full, memory.stage_bytes);
      for (int half = 0; half < 2; half++) {
        const int row = tile + 64 * half;
        tma_load3(memory.a(stage) + 8192 * half, &p.table->a, A_TURNED ? row : k, A_TURNED ? k : row, 0, full);
      }
      for (int column = 0; column < (B_TURNED ? N : 1); column += 64) {
        tma_load3(memory.b(stage) + column * 128, &p.table->b, B_TURNED ? column : k, B_TURNED ? k : 0, 0, full);
      }
      if (++stage == memory.stages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
}

template <bool A_TURNED, bool B_TURNED>
DEV void product(float (&d)[32], u64 a, u64 b) { wgmma_64x64<A_TURNED, B_TURNED>(d, a, b); }
template <bool A_TURNED, bool B_TURNED>
DEV void product(float (&d)[64], u64 a, u64 b) { wgmma_64x128<A_TURNED, B_TURNED>(d, a, b); }
template <bool A_TURNED, bool B_TURNED>
DEV void product(float (&d)[96], u64 a, u64 b) { wgmma_64x192<A_TURNED, B_TURNED>(d, a, b); }
template <bool A_TURNED, bool B_TURNED>
DEV void product(float (&d)[128], u64 a, u64 b) { wgmma_64x256<A_TURNED, B_TURNED>(d, a, b); }

// store_rows writes the sums of both warpgroups, by way of shared memory: 16 rows at a time, as 16 warps would have
// them that a warp writes whole.
template <int N>
DEV void store_rows(const float (&d)[N / 2], const WgmmaMemory<N>& memory, float* c) {
  const u32 thread = thread_x() - 128;
  const u32 warp = thread / 32, lane = thread % 32;
  // Two rows of each of the eight warps are exchanged at a time: the rows whose number modulo 8 is turn.
#pragma unroll 1
  for (u32 turn = 0; turn < 8; turn++) {
    if (lane / 4 == turn) {
#pragma unroll
      for (int j = 0; j < N / 8; j++) {
        const u32 at = (8 * j + 2 * (lane % 4)) * 4;
        store_shared8(memory.row(2 * warp) + at, Vec2{as_bits(d[4 * j]), as_bits(d[4 * j + 1])});
        store_shared8(memory.row(2 * warp + 1) + at, Vec2{as_bits(d[4 * j + 2]), as_bits(d[4 * j + 3])});
      }
    }
    named_barrier<1, 256>();
    // Another warp's rows, so that the barriers matter.
    const u32 other = (warp + 3) % 8;
    for (u32 half = 0; half < 2; half++) {
      float* to = c + (other * 16 + 8 * half + turn) * N;
      for (u32 column = lane * 4; column < N; column += 128) {
        store_global16(to + column, load_shared16(memory.row(2 * other + half) + column * 4));
      }
    }
    named_barrier<1, 256>();
  }
}

// multiply_operands computes c as the stages are filled.
template <int N, bool A_TURNED, bool B_TURNED>
DEV void multiply_operands(const WgmmaParams& p, const WgmmaMemory<N>& memory) {
  const u32 warpgroup = thread_x() / 128 - 1;
  const bool speaks = thread_x() % 32 == 0;
  int stage = 0;
  u32 parity = 0;
  for (int tile = 0; tile < p.m; tile += 128) {
    float d[N / 2];
#pragma unroll
    for (float& v : d) {
      v = 0;
    }
    wgmma_pin(d);
    int before = -1;
    int k = 0;
    do {
      mbarrier_wait(memory.full(stage), parity);
      const u32 a = memory.a(stage) + 8192 * warpgroup;
      const u32 b = memory.b(stage);
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < 4; i++) {
        product<A_TURNED, B_TURNED>(
            d, A_TURNED ? wgmma_descriptor(a + 2048 * i, 0, 1024) : wgmma_descriptor(a + 32 * i, 0, 1024),
            B_TURNED ? wgmma_descriptor(b + 2048 * i, 8192, 1024) : wgmma_descriptor(b + 32 * i, 0, 1024));
      }
      wgmma_commit();
      wgmma_wait<1>();
      mbarrier_arrive_if(memory.empty(before), speaks && before >= 0);
      before = stage;
      if (++stage == memory.stages) {
        stage = 0;
        parity ^= 1;
      }
      k += 64;
    } while (k < p.k);
    wgmma_wait<0>();
    wgmma_pin(d);
    mbarrier_arrive_if(memory.empty(before), speaks);
    store_rows<N>(d, memory, p.c + (i64)tile * N);
  }
}

template <int N, bool A_TURNED, bool B_TURNED>
DEV void multiply(const WgmmaParams& p) {
  const WgmmaMemory<N> memory;
  if (thread_x() == 0) {
    for (int stage = 0; stage < memory.stages; stage++) {
      mbarrier_init(memory.full(stage), 1);
      mbarrier_init(memory.empty(stage), 8);
    }
    mbarrier_init_fence();
  }
  barrier();
  if (thread_x() < 128) {
    registers_give<40>();
    if (thread_x() == 0) {
      bring_operands<N, A_TURNED, B_TURNED>(p, memory);
    }
  } else {
    registers_take<232>();
    multiply_operands<N, A_TURNED, B_TURNED>(p, memory);
  }
}

// c = a b for n = 64, 128, 192 and 256. Launch: 384 threads, WgmmaMemory<n>::bytes of shared memory, one block.
KERNEL BOUNDS(384, 1) wgmma_64_tn(WgmmaParams p) { multiply<64, true, false>(p); }
KERNEL BOUNDS(384, 1) wgmma_128_nn(WgmmaParams p) { multiply<128, false, false>(p); }
KERNEL BOUNDS(384, 1) wgmma_192_nt(WgmmaParams p) { multiply<192, false, true>(p); }
KERNEL BOUNDS(384, 1) wgmma_256_tt(WgmmaParams p) { multiply<256, true, true>(p); }

// wgmma_squares computes c[i][64 j + l] = sum over k of a[i][k]^2 b[8 j + k][l]: threads square a in shared memory, and
// the three blocks of 64 columns overlap. Launch: 256 threads, 8192 + 10240 + 24 bytes of shared memory, one block.
KERNEL BOUNDS(256, 1) wgmma_squares(OverlapParams p) {
  const u32 a = shared_base();
  const u32 b = a + 8192;
  const u32 a_full = b + 10240, b_full = a_full + 8, a_ready = b_full + 8;
  const u32 thread = thread_x();
  if (thread == 0) {
    mbarrier_init(a_full, 1);
    mbarrier_init(b_full, 1);
    mbarrier_init(a_ready, 128);
    mbarrier_init_fence();
  }
  barrier();
  if (thread == 0) {
    mbarrier_arrive_expect(a_full, 8192);
    tma_load3(a, &p.table->a, 0, 0, 0, a_full);
    mbarrier_arrive_expect(b_full, 10240);
    tma_load3(b, &p.table->b, 0, 0, 0, b_full);
  }
  if (thread < 128) {
    mbarrier_wait(a_full, 0);
    for (u32 i = thread * 8; i < 8192; i += 1024) {
      Vec2 v = load_shared8(a + i);
      u32* words[] = {&v.x, &v.y};
      for (u32* word : words) {
        const float low = widen_bf16((u16)*word), high = widen_bf16((u16)(*word >> 16));
        *word = pack_bf16(low * low, high * high);
      }
      store_shared8(a + i, v);
    }
    fence_async_proxy();
    mbarrier_arrive(a_ready);
    return;
  }
  float d[96];
#pragma unroll
  for (float& v : d) {
    v = 0;
  }
  wgmma_pin(d);
  mbarrier_wait(b_full, 0);
  mbarrier_wait(a_ready, 0);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < 4; i++) {
    wgmma_64x192<false, true>(d, wgmma_descriptor(a + 32 * i, 0, 1024), wgmma_descriptor(b + 2048 * i, 1024, 1024));
  }
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_pin(d);
  const u32 row = (thread - 128) / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int j = 0; j < 24; j++) {
    float* c = p.c + row * 192 + 8 * j + 2 * (thread % 4);
    store_global8(c, Vec2{as_bits(d[4 * j]), as_bits(d[4 * j + 1])});
    store_global8(c + 8 * 192, Vec2{as_bits(d[4 * j + 2]), as_bits(d[4 * j + 3])});
  }
}
