// Convolutions and linear layers, of bf16 operands: conv_forward.h.
#include "conv_forward.h"

KERNEL BOUNDS(128, 2) conv_forward_bf16_128x128(ConvForwardParams p) {
  forward<Block128x128<Bf16>, true, true>(p);
}
KERNEL BOUNDS(128, 3) conv_forward_bf16_128x64(ConvForwardParams p) {
  forward<Block128x64<Bf16>, true, true>(p);
}
KERNEL BOUNDS(128, 4) conv_forward_bf16_64x64(ConvForwardParams p) {
  forward<Block64x64<Bf16>, true, true>(p);
}
KERNEL BOUNDS(128, 3) conv_forward_bf16_128x8(ConvForwardParams p) {
  forward<Block128x8<Bf16>, true, false>(p);
}
KERNEL BOUNDS(256, 2) conv_forward_bf16_any(ConvForwardParams p) {
  forward<BlockAny<Bf16>, false, false>(p);
}
