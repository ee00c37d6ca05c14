#!/bin/sh
# Tests the stand-in itself: standin/test.sh [OUT_DIR], by default a folder that is removed afterwards. It needs a C++
# compiler (CXX, by default g++); with clang-19 it also compiles the test kernels, which use every primitive of
# device.h and hopper.h, for a GPU and loads the PTX.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -gt 0 ]; then
  mkdir -p "$1"
  out=$(cd "$1" && pwd)
else
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
cxx=${CXX:-g++}
clang=${CLANG:-clang-19}
flags="-std=c++17 -O1 -Wall -Wextra -DSTANDIN -I$here/../kernels"

echo "== numbers, rounded as written and with products fused into sums, as compilers may"
"$cxx" $flags -O2 -ffp-contract=off -o "$out/numeric_test" "$here/test/numeric_test.cc"
"$out/numeric_test"
if grep -qw fma /proc/cpuinfo 2> /dev/null; then
  "$cxx" $flags -O2 -mfma -ffp-contract=fast -o "$out/numeric_test" "$here/test/numeric_test.cc"
  "$out/numeric_test"
fi

echo "== the driver"
"$here/build.sh" "$out" "$here/test/kernels"
"$cxx" $flags -I"$here/test/kernels" -o "$out/driver_test" "$here/test/driver_test.cc" -L"$out" -l:libcuda.so.1 \
  -pthread
LD_LIBRARY_PATH=$out "$out/driver_test"

echo "== the driver with the system's own switch of contexts"
STANDIN_FLAGS=-DSTANDIN_UCONTEXT "$here/build.sh" "$out/ucontext" "$here/test/kernels"
LD_LIBRARY_PATH=$out/ucontext "$out/driver_test" | tail -n 1

echo "== what is missing in a kernel shows"
missed=0

# without CASE FILE N TEXT [REPLACEMENT]: CASE must fail once TEXT, where it occurs for the Nth time in FILE, is
# replaced, by default by nothing.
without() {
  rm -rf "$out/mutated"
  cp -r "$here/test/kernels" "$out/mutated"
  if ! "$here/without.sh" "$here/test/kernels/$2" "$3" "$4" ${5+"$5"} > "$out/mutated/$2"; then
    echo "$2 has no \"$4\" number $3"
    missed=1
    return
  fi
  "$here/build.sh" "$out" "$out/mutated"
  if said=$(LD_LIBRARY_PATH=$out "$out/driver_test" "$1"); then
    echo "MISSED: $2: $4 ($3)"
    missed=1
  else
    echo "$2: $4 ($3): $(echo "$said" | grep -o 'said: .*' | head -n 1 | cut -c 1-150)"
  fi
}

without gemm_bf16 gemm.cu 1 "copy_async_wait<stages - 2>();"
without gemm_bf16 gemm.cu 1 "copy_async_wait<stages - 2>();" "copy_async_wait<stages - 1>();"
without gemm_bf16 gemm.cu 1 "barrier();"
without gemm_bf16 gemm.cu 1 "warp_m + i * 16" "i * 16"
without gemm_tf32 gemm.cu 1 "to_tf32(a[" "as_bits(a["
without gemm_bf16_transposed gemm.cu 1 "copy_async_wait<0>();"
without gemm_bf16_transposed gemm.cu 1 "warp_barrier();"
without gemm_bf16_transposed gemm.cu 2 "warp_barrier();"
without gemm_bf16_transposed gemm.cu 1 "load_matrix2_transposed" "load_matrix2"
without block_sums primitives.cu 1 "barrier();"
without lanes primitives.cu 1 "warp_barrier();"
without copy_pipeline primitives.cu 1 "copy_async_wait<1>();"
without copy_pipeline primitives.cu 2 " barrier();"
without copy_pipeline primitives.cu 3 " barrier();"
without copy_pipeline primitives.cu 1 "at < p.n ? 16 : 0" "16"
without scale primitives.cu 1 "(i < p.n)" "(true)"
without ticket primitives.cu 1 "fence();"
without ticket primitives.cu 2 "fence();"
without ticket primitives.cu 4 " barrier();"

wgmma=sm_90a/wgmma.cu
without boxes $wgmma 1 "mbarrier_wait(full, 0);"
without boxes $wgmma 1 "mbarrier_arrive_expect(full, p.bytes)" "mbarrier_arrive_expect(full, p.bytes - 16)"
without wgmma_128_nn $wgmma 1 "mbarrier_wait(memory.empty(stage), parity);"
without wgmma_128_nn $wgmma 1 "memory.stage_bytes);" "memory.stage_bytes - 128);"
without wgmma_128_nn $wgmma 1 "base + stage" "base + 512 + stage"
without wgmma_128_nn $wgmma 1 "parity ^= 1;"
without wgmma_128_nn $wgmma 1 "mbarrier_wait(memory.full(stage), parity);"
without wgmma_128_nn $wgmma 1 "wgmma_fence();"
without wgmma_128_nn $wgmma 1 "b + 32 * i" "b + 64 * i"
without wgmma_128_nn $wgmma 1 "b = memory.b(stage)" "b = memory.b(stage) + (speaks ? 2048 : 0)"
without wgmma_128_nn $wgmma 1 "wgmma_commit();"
without wgmma_128_nn $wgmma 1 "wgmma_wait<1>();" "wgmma_wait<2>();"
without wgmma_128_nn $wgmma 1 "memory.empty(before), speaks && before >= 0" "memory.empty(stage), speaks"
without wgmma_128_nn $wgmma 1 "wgmma_wait<0>();"
without wgmma_128_nn $wgmma 1 "mbarrier_arrive_if(memory.empty(before), speaks);"
without wgmma_128_nn $wgmma 1 "memory.empty(stage), 8" "memory.empty(stage), 4"
without wgmma_128_nn $wgmma 1 "memory.empty(stage), 8" "memory.empty(stage), 9"
without wgmma_128_nn $wgmma 2 "mbarrier_init_fence();"
without wgmma_128_nn $wgmma 2 " barrier();"
without wgmma_128_nn $wgmma 1 "named_barrier<1, 256>();"
without wgmma_128_nn $wgmma 2 "named_barrier<1, 256>();"
without wgmma_128_nn $wgmma 1 "registers_take<232>();" "registers_take<240>();"
without wgmma_192_nt $wgmma 1 "b + 2048 * i, 8192, 1024" "b + 2048 * i, 1024, 8192"
without wgmma_squares $wgmma 1 "mbarrier_wait(a_full, 0);"
without wgmma_squares $wgmma 1 "fence_async_proxy();"
without wgmma_squares $wgmma 1 "a_ready, 128" "a_ready, 96"
without wgmma_squares $wgmma 1 "mbarrier_wait(b_full, 0);"
without wgmma_squares $wgmma 1 "mbarrier_wait(a_ready, 0);"
without wgmma_squares $wgmma 1 "b + 2048 * i, 1024, 1024" "b + 2048 * i, 2048, 1024"
[ "$missed" = 0 ]

if command -v "$clang" > /dev/null; then
  echo "== the same kernels for a GPU"
  for source in "$here"/test/kernels/*.cu "$here"/test/kernels/sm_90a/*.cu; do
    case $source in */sm_90a/*) set_name=sm_90a ;; *) set_name=sm_80 ;; esac
    "$clang" -x cuda --cuda-device-only -nocudainc -nocudalib -S -O3 -std=c++17 --cuda-gpu-arch=$set_name \
      --cuda-feature=+ptx80 -Wall -Wextra -Werror -I"$here/test/kernels" -I"$here/../kernels" \
      -o "$out/$(basename "$source" .cu).ptx" "$source"
  done
  "$here/build.sh" "$out" "$here/test/kernels"
  LD_LIBRARY_PATH=$out "$out/driver_test" load "$out"/*.ptx
fi
echo "ok"
