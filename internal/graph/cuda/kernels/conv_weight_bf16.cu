// The gradient of convolutions with respect to their weights, of bf16 operands: conv_weight.h.
#include "conv_weight.h"

KERNEL BOUNDS(128, 2) conv_weight_bf16_128x128(ConvWeightParams p) {
  gradient<Block128x128<Bf16>, true, true>(p);
}
KERNEL BOUNDS(128, 3) conv_weight_bf16_128x64(ConvWeightParams p) {
  gradient<Block128x64<Bf16>, true, true>(p);
}
KERNEL BOUNDS(128, 4) conv_weight_bf16_64x64(ConvWeightParams p) {
  gradient<Block64x64<Bf16>, true, true>(p);
}
KERNEL BOUNDS(128, 3) conv_weight_bf16_128x8(ConvWeightParams p) {
  gradient<Block128x8<Bf16>, true, false>(p);
}
KERNEL BOUNDS(256, 2) conv_weight_bf16_any(ConvWeightParams p) {
  gradient<BlockAny<Bf16>, false, false>(p);
}
