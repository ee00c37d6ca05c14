// Numbers in kernels: index division, loads and stores of float32 and bfloat16 storage, and elementary functions.
//
// Plain code over device.h, the same for the GPU and for the stand-in. All arithmetic is float32; only storage is
// rounded. The error bounds are those that ../standin/test/numeric_test.cc checks against float64, in units in the last
// place (ulp) of the float32 result, plus what the GPU's approximations add (device_gpu.h).
#pragma once

#include "device.h"

// FastDivisor divides by a number known to the launcher with a multiplication (Granlund & Montgomery, "Division by
// invariant integers using multiplication", 1994, figure 4.1): with shift = ceil(log2(divisor)),
// multiplier = floor(2^32 * (2^shift - divisor) / divisor) + 1.
struct FastDivisor {
  u32 divisor, multiplier, shift;
};

// divide is floor(n/d), for n below 2^31 and divisors of 1 to 2^31.
DEV u32 divide(u32 n, FastDivisor d) { return (mul_hi(n, d.multiplier) + n) >> d.shift; }

// remainder is n mod d, for the same arguments.
DEV u32 remainder(u32 n, FastDivisor d) { return n - divide(n, d) * d.divisor; }

// load_any reads element i of an array stored in float32 or bfloat16; store_any writes it.
DEV float load_any(const void* p, i64 i, int is_bf16) {
  return is_bf16 ? widen_bf16(((const u16*)p)[i]) : ((const float*)p)[i];
}

DEV void store_any(void* p, i64 i, float v, int is_bf16) {
  if (is_bf16) {
    ((u16*)p)[i] = round_bf16(v);
  } else {
    ((float*)p)[i] = v;
  }
}

// lower_half and upper_half are the two bf16 in a word, as float32.
DEV float lower_half(u32 pair) { return as_float(pair << 16); }
DEV float upper_half(u32 pair) { return as_float(pair & 0xffff0000u); }

// load4 reads elements i to i+3 of an array in global memory in one access, which the address of element i must
// be aligned to: 16 bytes of float32, 8 of bfloat16. load8 reads eight: two accesses of 16 bytes of float32,
// one of 16 of bfloat16. store4 and store8 write likewise.
DEV void load4(const void* p, i64 i, int is_bf16, float v[4]) {
  if (is_bf16) {
    const Vec2 w = load_global8((const u16*)p + i);
    v[0] = lower_half(w.x);
    v[1] = upper_half(w.x);
    v[2] = lower_half(w.y);
    v[3] = upper_half(w.y);
  } else {
    const Vec4 w = load_global16((const float*)p + i);
    v[0] = as_float(w.x);
    v[1] = as_float(w.y);
    v[2] = as_float(w.z);
    v[3] = as_float(w.w);
  }
}

DEV void load8(const void* p, i64 i, int is_bf16, float v[8]) {
  if (is_bf16) {
    const Vec4 w = load_global16((const u16*)p + i);
    v[0] = lower_half(w.x);
    v[1] = upper_half(w.x);
    v[2] = lower_half(w.y);
    v[3] = upper_half(w.y);
    v[4] = lower_half(w.z);
    v[5] = upper_half(w.z);
    v[6] = lower_half(w.w);
    v[7] = upper_half(w.w);
  } else {
    load4(p, i, 0, v);
    load4(p, i + 4, 0, v + 4);
  }
}

DEV void store4(void* p, i64 i, int is_bf16, const float v[4]) {
  if (is_bf16) {
    store_global8((u16*)p + i, Vec2{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3])});
  } else {
    store_global16((float*)p + i, Vec4{as_bits(v[0]), as_bits(v[1]), as_bits(v[2]), as_bits(v[3])});
  }
}

DEV void store8(void* p, i64 i, int is_bf16, const float v[8]) {
  if (is_bf16) {
    store_global16((u16*)p + i, Vec4{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                                     pack_bf16(v[6], v[7])});
  } else {
    store4(p, i, 0, v);
    store4(p, i + 4, 0, v + 4);
  }
}

// exp_ is e^x, within 2 ulp where the result is a normal number and 2^-149 below. The rounding error of x*log2(e),
// which would grow with x, is found by a fused product and put back in first order. NaN stays NaN.
DEV float exp_(float x) {
  const float log2_e = 1.44269502f;
  const float log2_e_rest = 1.92596303e-08f;
  const float ln_2 = 0.693147182f;
  x = x < -200.0f ? -200.0f : x;
  x = x > 200.0f ? 200.0f : x;
  const float y = x * log2_e;
  const float rest = fma(x, log2_e_rest, fma(x, log2_e, -y));
  return exp2_approx(y) * fma(rest, ln_2, 1.0f);
}

// log_ is the natural logarithm, within 2 ulp everywhere, near 1 too. log_(0) is -inf; of a negative number, NaN.
// x = 2^k (1+f) with 1+f in [sqrt(1/2), sqrt(2)); log(1+f) = f - f^2/2 + f^3 P(f) with a minimax P of relative
// error 6e-9.
DEV float log_(float x) {
  const float smallest_normal = 1.17549435e-38f;
  const float inf = as_float(0x7f800000u);
  const bool subnormal = x < smallest_normal;
  const u32 bits = as_bits(subnormal ? x * 8388608.0f : x);
  // Adding the difference of 1 and sqrt(1/2) makes the exponent field change at sqrt(1/2).
  const u32 shifted = bits + (0x3f800000u - 0x3f3504f3u);
  const float k = (float)((int)(shifted >> 23) - (subnormal ? 127 + 23 : 127));
  const float f = as_float((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;

  float p = -0.0763450265f;
  p = fma(p, f, 0.12761578f);
  p = fma(p, f, -0.13160181f);
  p = fma(p, f, 0.142017573f);
  p = fma(p, f, -0.166233569f);
  p = fma(p, f, 0.200012267f);
  p = fma(p, f, -0.250008196f);
  p = fma(p, f, 0.333333313f);

  // ln(2) in two parts; k times the first is exact.
  const float square = f * f;
  float r = fma(k, -0.000212194442f, f * square * p);
  r = fma(square, -0.5f, r);
  r = fma(k, 0.693359375f, f + r);

  r = x == 0.0f ? -inf : r;
  r = x < 0.0f ? as_float(0x7fffffffu) : r;
  return x < inf ? r : x;  // +inf and NaN are their own logarithms
}

// sincos_2pi sets s and c to sin(2 pi x) and cos(2 pi x), for |x| up to 2^20; absolute error 1.2e-7. The reduction
// to a part of a quarter turn is exact, so whole and half turns give exact results.
DEV void sincos_2pi(float x, float* s, float* c) {
  // Adding 1.5*2^23 leaves the nearest integer in the low bits.
  const float quarters = 4.0f * x;
  const float magic = quarters + 12582912.0f;
  const u32 quadrant = as_bits(magic) & 3u;
  const float t = quarters - (magic - 12582912.0f);

  const float square = t * t;
  float odd = -0.00460165786f;
  odd = fma(odd, square, 0.079680033f);
  odd = fma(odd, square, -0.64596349f);
  odd = fma(odd, square, 1.57079637f) * t;
  float even = 0.000903766544f;
  even = fma(even, square, -0.0208601654f);
  even = fma(even, square, 0.253669232f);
  even = fma(even, square, -1.23370051f);
  even = fma(even, square, 1.0f);

  const float sine = quadrant & 1u ? even : odd;
  const float cosine = quadrant & 1u ? odd : even;
  *s = quadrant & 2u ? -sine : sine;
  *c = quadrant == 1u || quadrant == 2u ? -cosine : cosine;
}

// Logistic is sigmoid(z) = 1/(1+e^-z) and its complement sigmoid(-z), neither by subtraction from 1.
struct Logistic {
  float value, complement;
};

// logistic takes e^-|z|, which cannot overflow, so any finite z is safe; both parts are within 4 ulp where they are
// normal numbers (|z| < 87).
DEV Logistic logistic(float z) {
  const float e = exp_(z < 0.0f ? z : -z);
  const float larger = rcp_approx(1.0f + e);
  const float smaller = e * larger;
  return z < 0.0f ? Logistic{smaller, larger} : Logistic{larger, smaller};
}

// silu is z sigmoid(z), within 5 ulp for z > -87 and 2e-43 below; silu_slope is its derivative
// sigmoid(z) (1 + z sigmoid(-z)), absolute error 5e-7. Any finite z is safe; NaN stays NaN.
DEV float silu(float z) { return z * logistic(z).value; }

DEV float silu_slope(float z) {
  const Logistic g = logistic(z);
  return g.value * fma(z, g.complement, 1.0f);
}
