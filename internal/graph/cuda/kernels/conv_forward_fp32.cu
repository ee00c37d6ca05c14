// Convolutions and linear layers, of float32 operands, as three products of TF32: conv_forward.h.
#include "conv_forward.h"

KERNEL BOUNDS(128, 2) conv_forward_fp32_128x64(ConvForwardParams p) {
  forward<Block128x64<Fp32>, true, true>(p);
}
KERNEL BOUNDS(128, 2) conv_forward_fp32_64x64(ConvForwardParams p) {
  forward<Block64x64<Fp32>, true, true>(p);
}
KERNEL BOUNDS(128, 2) conv_forward_fp32_128x8(ConvForwardParams p) {
  forward<Block128x8<Fp32>, true, false>(p);
}
KERNEL BOUNDS(256, 1) conv_forward_fp32_any(ConvForwardParams p) {
  forward<BlockAny<Fp32>, false, false>(p);
}
