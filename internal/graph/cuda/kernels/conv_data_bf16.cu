// The gradient of convolutions with respect to their input, of bf16 operands: conv_data.h.
#include "conv_data.h"

KERNEL BOUNDS(128, 2) conv_data_bf16_128x128(ConvDataParams p) {
  gradient<Block128x128<Bf16>, true>(p);
}
KERNEL BOUNDS(128, 3) conv_data_bf16_128x64(ConvDataParams p) {
  gradient<Block128x64<Bf16>, true>(p);
}
KERNEL BOUNDS(128, 4) conv_data_bf16_64x64(ConvDataParams p) {
  gradient<Block64x64<Bf16>, true>(p);
}
KERNEL BOUNDS(256, 2) conv_data_bf16_any(ConvDataParams p) {
  gradient<BlockAny<Bf16>, false>(p);
}
