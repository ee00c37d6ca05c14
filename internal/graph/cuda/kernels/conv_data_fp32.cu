// The gradient of convolutions with respect to their input, of float32 operands, as three products of TF32: conv_data.h.
#include "conv_data.h"

KERNEL BOUNDS(128, 2) conv_data_fp32_128x64(ConvDataParams p) {
  gradient<Block128x64<Fp32>, true>(p);
}
KERNEL BOUNDS(128, 2) conv_data_fp32_64x64(ConvDataParams p) {
  gradient<Block64x64<Fp32>, true>(p);
}
KERNEL BOUNDS(256, 1) conv_data_fp32_any(ConvDataParams p) {
  gradient<BlockAny<Fp32>, false>(p);
}
