// Attention, of fp32 operands: attention_forward.h.
#include "attention_forward.h"

KERNEL BOUNDS(128, 2) attn_forward_fp32_64x128x64(AttentionParams p) {
  attention_forward<Fp32, CHUNKS, 64, 128, 64, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_fp32_64x64x128(AttentionParams p) {
  attention_forward<Fp32, CHUNKS, 64, 64, 128, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_fp32_64x64x64_any(AttentionParams p) {
  attention_forward<Fp32, ELEMENTS, 64, 64, 64, false>(p);
}
