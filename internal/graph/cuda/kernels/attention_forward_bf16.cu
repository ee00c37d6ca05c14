// Attention, of bf16 operands: attention_forward.h.
#include "attention_forward.h"

KERNEL BOUNDS(256, 1) attn_forward_bf16_128x256x256_whole(AttentionParams p) {
  attention_forward<Bf16, CHUNKS, 128, 256, 256, true>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_bf16_64x256x256_whole(AttentionParams p) {
  attention_forward<Bf16, CHUNKS, 64, 256, 256, true>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_bf16_64x128x64(AttentionParams p) {
  attention_forward<Bf16, CHUNKS, 64, 128, 64, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_bf16_64x128x128(AttentionParams p) {
  attention_forward<Bf16, CHUNKS, 64, 128, 128, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_bf16_64x64x256(AttentionParams p) {
  attention_forward<Bf16, CHUNKS, 64, 64, 256, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_bf16_64x64x64_any(AttentionParams p) {
  attention_forward<Bf16, ELEMENTS, 64, 64, 64, false>(p);
}
