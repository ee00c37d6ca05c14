// The gradient of convolutions with respect to their weights, of operands rounded to TF32: conv_weight.h.
#include "conv_weight.h"

KERNEL BOUNDS(128, 2) conv_weight_tf32_128x128(ConvWeightParams p) {
  gradient<Block128x128<Tf32>, true, true>(p);
}
KERNEL BOUNDS(128, 4) conv_weight_tf32_64x64(ConvWeightParams p) {
  gradient<Block64x64<Tf32>, true, true>(p);
}
KERNEL BOUNDS(128, 3) conv_weight_tf32_128x8(ConvWeightParams p) {
  gradient<Block128x8<Tf32>, true, false>(p);
}
KERNEL BOUNDS(256, 2) conv_weight_tf32_any(ConvWeightParams p) {
  gradient<BlockAny<Tf32>, false, false>(p);
}
