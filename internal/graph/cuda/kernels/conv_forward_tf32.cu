// Convolutions and linear layers, of operands rounded to TF32: conv_forward.h.
#include "conv_forward.h"

KERNEL BOUNDS(128, 2) conv_forward_tf32_128x128(ConvForwardParams p) {
  forward<Block128x128<Tf32>, true, true>(p);
}
KERNEL BOUNDS(128, 4) conv_forward_tf32_64x64(ConvForwardParams p) {
  forward<Block64x64<Tf32>, true, true>(p);
}
KERNEL BOUNDS(128, 3) conv_forward_tf32_128x8(ConvForwardParams p) {
  forward<Block128x8<Tf32>, true, false>(p);
}
KERNEL BOUNDS(256, 2) conv_forward_tf32_any(ConvForwardParams p) {
  forward<BlockAny<Tf32>, false, false>(p);
}
