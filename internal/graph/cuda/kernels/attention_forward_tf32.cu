// Attention, of tf32 operands: attention_forward.h.
#include "attention_forward.h"

KERNEL BOUNDS(128, 2) attn_forward_tf32_64x128x64(AttentionParams p) {
  attention_forward<Tf32, CHUNKS, 64, 128, 64, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_tf32_64x64x256(AttentionParams p) {
  attention_forward<Tf32, CHUNKS, 64, 64, 256, false>(p);
}
