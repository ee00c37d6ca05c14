// hopper_fault commits one of the faults that the stand-in has to notice in a kernel for sm_90a. Launch: 256 threads,
// 32768 bytes of shared memory, one block.
#include "params.h"

constexpr u32 box_bytes = 8192;

// FaultMemory: two boxes, some numbers, then mbarriers.
struct FaultMemory {
  u32 base = shared_base();

  DEV u32 box(int i) const { return base + box_bytes * i; }
  DEV u32 numbers() const { return base + 2 * box_bytes; }
  DEV u32 full() const { return base + 24576; }
  DEV u32 empty() const { return full() + 8; }
};

DEV void bring(u32 to, const HopperFaultParams& p, u32 full, u32 bytes = box_bytes) {
  mbarrier_arrive_expect(full, bytes);
  tma_load3(to, &p.table->map, 0, 0, 0, full);
}

DEV u64 operand(u32 address) { return wgmma_descriptor(address, 0, 1024); }

DEV void start_product(float (&d)[32], u64 a, u64 b) {
  wgmma_fence();
  wgmma_64x64<false, false>(d, a, b);
}

// finish_product commits and waits.
DEV void finish_product() {
  wgmma_commit();
  wgmma_wait<0>();
}

// tell and hear let threads come after others without any order that counts.
DEV void tell(const HopperFaultParams& p) { atomic_add(p.told, 1); }

DEV void hear(const HopperFaultParams& p, int times) {
  while (atomic_add(p.told, 0) < times) {
  }
}

// loaded brings both boxes and waits for them, by all threads.
DEV void loaded(const HopperFaultParams& p, const FaultMemory& memory) {
  if (thread_x() == 0) {
    mbarrier_arrive_expect(memory.full(), 2 * box_bytes);
    tma_load3(memory.box(0), &p.table->map, 0, 0, 0, memory.full());
    tma_load3(memory.box(1), &p.table->map, 0, 0, 0, memory.full());
  }
  mbarrier_wait(memory.full(), 0);
}

DEV void commit_copy_fault(const HopperFaultParams& p, const FaultMemory& memory, u32 t, Vec4& r) {
  const u32 full = memory.full(), empty = memory.empty();
  switch (p.fault) {
    case no_wait_for_copy:
      if (t == 0) {
        bring(memory.box(0), p, full);
        r = load_shared16(memory.box(0));
        mbarrier_wait(full, 0);
      }
      break;
    case wait_of_other_warp:
      if (t == 0) {
        bring(memory.box(0), p, full);
        mbarrier_wait(full, 0);
        tell(p);
      } else if (t == 32) {
        hear(p, 1);
        r = load_shared16(memory.box(0));
      }
      break;
    case copy_over_copy:
      if (t == 0) {
        mbarrier_arrive_expect(full, 2 * box_bytes);
        tma_load3(memory.box(0), &p.table->map, 0, 0, 0, full);
        tma_load3(memory.box(0), &p.table->map, 0, 0, 0, full);
        mbarrier_wait(full, 0);
      }
      break;
    case copy_over_unfenced:
      store_shared16(memory.box(0) + 16 * t, r);
      barrier();
      if (t == 0) {
        bring(memory.box(0), p, full);
        mbarrier_wait(full, 0);
      }
      break;
    case copy_over_read:
      loaded(p, memory);
      r = load_shared16(memory.box(0) + 16 * t);
      if (t % 32) {
        break;
      }
      if (t > 0) {
        mbarrier_arrive(empty);  // says nothing of the other lanes
        break;
      }
      mbarrier_arrive(empty);
      mbarrier_wait(empty, 0);
      bring(memory.box(0), p, full);
      mbarrier_wait(full, 1);
      break;
    case too_few_bytes:
      if (t == 0) {
        bring(memory.box(0), p, full, box_bytes - 128);
        mbarrier_wait(full, 0);
      }
      break;
    case too_many_bytes:
      if (t == 0) {
        bring(memory.box(0), p, full, box_bytes + 128);
        mbarrier_wait(full, 0);
      }
      break;
    case copy_over_mbarrier:
      if (t == 0) {
        bring(memory.base + 18432, p, full);
        mbarrier_wait(full, 0);
      }
      break;
    case misaligned_box:
      if (t == 0) {
        bring(memory.box(0) + 512, p, full);
        mbarrier_wait(full, 0);
      }
      break;
    case misaligned_map:
      if (t == 0) {
        mbarrier_arrive_expect(full, box_bytes);
        tma_load3(memory.box(0), (const TensorMap*)((const char*)&p.table->map + 8), 0, 0, 0, full);
        mbarrier_wait(full, 0);
      }
      break;
    case no_map:
      if (t == 0) {
        mbarrier_arrive_expect(full, box_bytes);
        tma_load3(memory.box(0), &p.table->nothing, 0, 0, 0, full);
        mbarrier_wait(full, 0);
      }
      break;
    case other_rank:
      if (t == 0) {
        mbarrier_arrive_expect(full, box_bytes);
        tma_load4(memory.box(0), &p.table->map, 0, 0, 0, 0, full);
        mbarrier_wait(full, 0);
      }
      break;
    case copy_past_shared:
      if (t == 0) {
        bring(memory.base + 25600, p, full);
        mbarrier_wait(full, 0);
      }
      break;
    case copy_past_global:
      if (t == 0) {
        mbarrier_arrive_expect(full, box_bytes);
        tma_load3(memory.box(0), &p.table->too_long, 0, 64, 0, full);
        mbarrier_wait(full, 0);
      }
      break;
    case copy_never_waited:
      if (t == 0) {
        bring(memory.box(0), p, full);
      }
      break;
    default:
      break;
  }
}

DEV void commit_product_fault(const HopperFaultParams& p, const FaultMemory& memory, u32 t, float (&d)[32]) {
  const u64 a = operand(memory.box(0)), b = operand(memory.box(1));
  switch (p.fault) {
    case product_of_copy_in_flight:
      if (t == 0) {
        mbarrier_arrive_expect(memory.full(), 2 * box_bytes);
        tma_load3(memory.box(0), &p.table->map, 0, 0, 0, memory.full());
        tma_load3(memory.box(1), &p.table->map, 0, 0, 0, memory.full());
      }
      barrier();
      start_product(d, a, b);
      mbarrier_wait(memory.full(), 0);
      finish_product();
      break;
    case product_of_unfenced:
      for (u32 i = 16 * t; i < 2 * box_bytes; i += 16 * 256) {
        store_shared16(memory.box(0) + i, Vec4{0, 0, 0, 0});
      }
      barrier();
      start_product(d, a, b);
      finish_product();
      break;
    case product_of_unordered:
      if (t >= 128) {
        for (u32 i = 16 * (t - 128); i < 2 * box_bytes; i += 16 * 128) {
          store_shared16(memory.box(0) + i, Vec4{0, 0, 0, 0});
        }
        fence_async_proxy();
        tell(p);
      } else {
        hear(p, 128);
        start_product(d, a, b);
        finish_product();
      }
      break;
    case write_during_product:
      loaded(p, memory);
      if (t < 128) {
        start_product(d, a, b);
        wgmma_commit();
        store_shared16(memory.box(0) + 16 * t, Vec4{0, 0, 0, 0});
        wgmma_wait<0>();
      }
      break;
    case copy_during_product:
      loaded(p, memory);
      if (t < 128) {
        start_product(d, a, b);
        wgmma_commit();
        mbarrier_arrive_if(memory.empty(), t % 32 == 0);
        wgmma_wait<0>();
      } else if (t == 128) {
        for (int i = 0; i < 4; i++) {
          mbarrier_arrive(memory.empty());
        }
        mbarrier_wait(memory.empty(), 0);
        bring(memory.box(0), p, memory.full());
        mbarrier_wait(memory.full(), 1);
      }
      break;
    case other_descriptor:
      loaded(p, memory);
      start_product(d, t % 128 == 77 ? b : a, b);
      finish_product();
      break;
    case other_argument:
      loaded(p, memory);
      start_product(d, a, b);
      wgmma_commit();
      if (t % 128 == 77) {
        wgmma_wait<1>();
      } else {
        wgmma_wait<0>();
      }
      break;
    case no_descriptor:
      loaded(p, memory);
      start_product(d, memory.box(0) >> 4, b);
      finish_product();
      break;
    case descriptor_in_row:
      loaded(p, memory);
      start_product(d, operand(memory.box(0) + 128), b);
      finish_product();
      break;
    case descriptor_stride:
      loaded(p, memory);
      start_product(d, wgmma_descriptor(memory.box(0), 0, 512), b);
      finish_product();
      break;
    case product_past_shared:
      loaded(p, memory);
      start_product(d, wgmma_descriptor(memory.box(0), 0, 5120), b);
      finish_product();
      break;
    case no_wgmma_fence:
      loaded(p, memory);
      wgmma_64x64<false, false>(d, a, b);
      finish_product();
      break;
    case no_wgmma_wait:
      loaded(p, memory);
      start_product(d, a, b);
      wgmma_commit();
      break;
    case commits_differ:
      loaded(p, memory);
      start_product(d, a, b);
      wgmma_commit();
      if (t % 128 == 77) {
        wgmma_commit();
      }
      wgmma_wait<0>();
      break;
    case take_without_give:
      registers_take<232>();
      break;
    case take_less:
      if (t < 128) {
        registers_give<40>();
      } else {
        registers_take<232>();
        registers_take<224>();
      }
      break;
    case give_more:
      registers_give<40>();
      registers_give<48>();
      break;
    default:
      break;
  }
}

DEV void commit_thread_fault(const HopperFaultParams& p, const FaultMemory& memory, u32 t, Vec4& r) {
  const u32 numbers = memory.numbers();
  switch (p.fault) {
    case too_many_arrivals:
      if (t == 0) {
        mbarrier_arrive(memory.empty());
        for (int i = 0; i < 8; i++) {
          mbarrier_arrive(memory.empty());
        }
        bring(memory.box(0), p, memory.full());
        mbarrier_arrive(memory.full());
      }
      break;
    case init_twice:
      if (t == 0) {
        mbarrier_init(memory.full(), 1);
      }
      break;
    case no_mbarrier:
      mbarrier_arrive(memory.full() + 16);
      break;
    case mbarrier_overwritten:
      store_shared8(memory.full(), Vec2{0, 0});
      break;
    case named_barrier_of_part:
      // Lanes of warps 0 to 2 that are as many as two warps.
      if (t < 96 && t % 3 != 0) {
        named_barrier<1, 64>();
      }
      break;
    case named_barrier_of_others:
      if (t < 32) {
        named_barrier<1, 64>();
      } else if (t < 64) {
        named_barrier<1, 96>();
      }
      break;
    case named_barrier_deadlock:
      if (t < 32) {
        named_barrier<1, 64>();
      }
      break;
    case unordered_warps:
      // A barrier of warps 0 and 1 says nothing of warp 2.
      if (t < 96) {
        store_shared16(numbers + 16 * t, r);
      }
      if (t < 64) {
        named_barrier<1, 64>();
        r = load_shared16(numbers + 16 * ((t + 32) % 96));
      }
      break;
    case misaligned_shared16:
      r = load_shared16(numbers + 8);
      break;
    case shared16_past_end:
      store_shared16(memory.base + 32768, r);
      break;
    default:
      break;
  }
}

KERNEL BOUNDS(384, 1) hopper_fault(HopperFaultParams p) {
  const FaultMemory memory;
  const u32 t = thread_x();
  Vec4 r = {0, 0, 0, 0};
  float d[32] = {};
  if (t == 0) {
    mbarrier_init(memory.full(), 1);
    mbarrier_init(memory.empty(), 8);
    if (p.fault != no_init_fence) {
      mbarrier_init_fence();
    }
  }
  if (p.fault != no_init_barrier) {
    barrier();
  }
  if (p.fault == no_init_barrier || p.fault == no_init_fence || p.fault == hopper_none) {
    loaded(p, memory);
    r = load_shared16(memory.box(t / 128) + t % 128 * 16);
  } else {
    commit_copy_fault(p, memory, t, r);
    commit_product_fault(p, memory, t, d);
    commit_thread_fault(p, memory, t, r);
  }
  p.y[t] = d[t % 32] + as_float(r.x);
}
