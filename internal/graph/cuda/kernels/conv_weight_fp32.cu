// The gradient of convolutions with respect to their weights, of float32 operands, as three products of TF32: conv_weight.h.
#include "conv_weight.h"

KERNEL BOUNDS(128, 2) conv_weight_fp32_128x64(ConvWeightParams p) {
  gradient<Block128x64<Fp32>, true, true>(p);
}
KERNEL BOUNDS(128, 2) conv_weight_fp32_64x64(ConvWeightParams p) {
  gradient<Block64x64<Fp32>, true, true>(p);
}
KERNEL BOUNDS(128, 2) conv_weight_fp32_128x8(ConvWeightParams p) {
  gradient<Block128x8<Fp32>, true, false>(p);
}
KERNEL BOUNDS(256, 1) conv_weight_fp32_any(ConvWeightParams p) {
  gradient<BlockAny<Fp32>, false, false>(p);
}
