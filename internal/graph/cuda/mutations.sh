#!/bin/sh
# Shows that the tests can fail: takes one barrier, wait, mask or term out of a kernel at a time, and expects a test
# to notice. mutations.sh [OUT_DIR], by default a folder that is removed afterwards. It needs what go test -tags gpu
# needs (make standin-env) and g++.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -gt 0 ]; then
  mkdir -p "$1"
  out=$(cd "$1" && pwd)
else
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
kernels=$out/kernels
missed=0
cd "$here"
go test -c -tags gpu -o "$out/cuda.test" .

# passes runs the tests that PATTERN names on the kernels as they are in $kernels.
passes() {
  standin/build.sh "$out" "$kernels"
  DDPM_LIBCUDA=$out/libcuda.so.1 timeout 300 "$out/cuda.test" -test.failfast -test.run "$1" > "$out/said" 2>&1
}

fresh() {
  rm -rf "$kernels"
  mkdir "$kernels"
  cp -r kernels/*.cu kernels/*.h kernels/sm_90a "$kernels"
}

# without PATTERN FILE N TEXT [REPLACEMENT]: the tests PATTERN must fail once TEXT, where it occurs for the Nth time in
# FILE, is replaced, by default by nothing.
without() {
  fresh
  if ! standin/without.sh "kernels/$2" "$3" "$4" ${5+"$5"} > "$kernels/$2"; then
    echo "$2 has no \"$4\" number $3"
    missed=1
  elif passes "$1"; then
    echo "MISSED by $1: $2: $4 ($3)"
    missed=1
  else
    echo "$2: $4 ($3): $(grep -m 1 -E 'stand-in: |off by|not the same bits' "$out/said" | sed 's/^ *//' | cut -c 1-140)"
  fi
}

fresh
if ! passes 'TestBackend/bf16/(ops|networks|states)'; then
  echo "the kernels fail as they are:"
  cat "$out/said"
  exit 1
fi

products='TestBackend/(bf16|fp32)/ops/(Conv2D|Linear)'
without "$products" product.h 1 "copy_async_wait<S::stages - 2>();" "copy_async_wait<S::stages - 1>();"
without "$products" product.h 2 "barrier();"
without TestBackend/bf16/ops/Attention/ attention_forward.h 1 "left < KEYS" "false"
without TestBackend/bf16/ops/AttentionGrad/ attention_queries.h 1 "barrier();"
without TestBackend/bf16/ops/AttentionGrad/ attention_keys.h 1 " - mean[e]" " - 0 * mean[e]"
without TestBackend/bf16/ops/GroupNormStats groupnorm.cu 2 "barrier();"
without TestBackend/bf16/ops/GroupNormGradSums groupnorm.cu 3 "barrier();"
without TestBackend/fp32/states/ten optimizer.cu 1 "barrier();"
without TestBackend/fp32/ops/PSample diffuse.cu 2 "q.count == 0" "false"
without TestBackend/fp32/ops/Dropout diffuse.cu 1 "first >= p.extents.size" "false"
without TestBackend/fp32/ops/X0Limit diffuse.cu 1 "barrier();"
without TestBackend/fp32/ops/X0Limit diffuse.cu 3 "barrier();"
without TestBackend/fp32/ops/X0Limit diffuse.cu 1 "key >> (shift + width) == prefix" "true"
without TestBackend/fp32/ops/Guidance guide.cu 1 "barrier();"
without TestEmbedding embedding.cu 2 "barrier();"
without TestDecoderTerms vlb.cu 1 "part.mean *= side;"
boxed=sm_90a/tma_weight.cu
without TestBoxedWeights $boxed 1 "wgmma_wait<0>();"
without TestBoxedWeights $boxed 1 "wgmma_wait<1>();" "wgmma_wait<2>();"
without TestBoxedWeights $boxed 1 "ring, read, speaks && read >= 0" "ring, ring.stage, speaks"
without TestBoxedWeights $boxed 1 "multiplying = 8" "multiplying = 4"
without TestBoxedWeights $boxed 1 "share < more ? share : more" "0"
without TestBoxedWeights $boxed 1 "k * 2048, p.pixel_bytes, 1024" "k * 2048, 1024, 1024"
without TestBoxedWeights $boxed 1 "y == last" "y == group.rows"
without TestBoxedWeights $boxed 1 "first >= 0 && column < (u32)p.columns" "first >= 0"
without TestBoxedWeights conv_phases.cu 1 "(r + 1 - P) / 2" "r / 2"
boxed=sm_90a/tma_conv.cu
forward=TestTmaConvolutions/tma_conv_forward
without $forward $boxed 1 "tma_ring_wait(weights);"
without $forward $boxed 1 "wgmma_wait<1>();"
without $forward $boxed 1 "weight, speaks && weight >= 0" "weights.stage, speaks"
without $forward $boxed 1 "box_before = box;" "box_before = boxes.stage;"
without $forward $boxed 1 "weight_bytes / 2, 1024" "weight_bytes, 1024"
without $forward $boxed 1 "T::thread_images == 2 ? half : 0" "0"
without $forward $boxed 1 "multipliers_barrier();"
without TestTmaConvolutions/tma_conv_data_norm $boxed 4 "multipliers_barrier();"
without TestTmaConvolutions/tma_conv_data_norm $boxed 2 "channel >= p.channels" "false"
without $forward conv_taps.cu 1 "min_int(2, 2 * a + p)" "2 * a + p - 1"
[ "$missed" = 0 ]
echo "ok"
