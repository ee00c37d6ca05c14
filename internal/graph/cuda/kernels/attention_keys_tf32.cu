// dk and dv of attention's gradient, of tf32 operands: attention_keys.h.
#include "attention_keys.h"

KERNEL BOUNDS(128, 2) attn_keys_tf32_64x128x64(AttentionGradParams p) {
  attention_keys<Tf32, CHUNKS, Warps<1, 4>, 128, 64, false>(p);
}
KERNEL BOUNDS(128, 2) attn_keys_tf32_64x64x128(AttentionGradParams p) {
  attention_keys<Tf32, CHUNKS, Warps<1, 4>, 64, 128, false>(p);
}
KERNEL BOUNDS(256, 1) attn_keys_tf32_64x128x256(AttentionGradParams p) {
  attention_keys<Tf32, CHUNKS, Warps<1, 8>, 128, 256, false>(p);
}
