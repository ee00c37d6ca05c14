// dk and dv of attention's gradient, of bf16 operands: attention_keys.h.
#include "attention_keys.h"

KERNEL BOUNDS(256, 1) attn_keys_bf16_128x256x256_whole(AttentionGradParams p) {
  attention_keys<Bf16, CHUNKS, Warps<2, 4>, 256, 256, true>(p);
}
KERNEL BOUNDS(128, 2) attn_keys_bf16_64x256x256_whole(AttentionGradParams p) {
  attention_keys<Bf16, CHUNKS, Warps<1, 4>, 256, 256, true>(p);
}
KERNEL BOUNDS(128, 2) attn_keys_bf16_64x128x64(AttentionGradParams p) {
  attention_keys<Bf16, CHUNKS, Warps<1, 4>, 128, 64, false>(p);
}
KERNEL BOUNDS(128, 2) attn_keys_bf16_64x64x128(AttentionGradParams p) {
  attention_keys<Bf16, CHUNKS, Warps<1, 4>, 64, 128, false>(p);
}
KERNEL BOUNDS(256, 1) attn_keys_bf16_64x128x256(AttentionGradParams p) {
  attention_keys<Bf16, CHUNKS, Warps<1, 8>, 128, 256, false>(p);
}
KERNEL BOUNDS(128, 2) attn_keys_bf16_64x64x64_any(AttentionGradParams p) {
  attention_keys<Bf16, ELEMENTS, Warps<1, 4>, 64, 64, false>(p);
}
