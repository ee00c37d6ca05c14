// The gradient of convolutions with respect to their input, of operands rounded to TF32: conv_data.h.
#include "conv_data.h"

KERNEL BOUNDS(128, 2) conv_data_tf32_128x128(ConvDataParams p) {
  gradient<Block128x128<Tf32>, true>(p);
}
KERNEL BOUNDS(128, 4) conv_data_tf32_64x64(ConvDataParams p) {
  gradient<Block64x64<Tf32>, true>(p);
}
KERNEL BOUNDS(256, 2) conv_data_tf32_any(ConvDataParams p) {
  gradient<BlockAny<Tf32>, false>(p);
}
