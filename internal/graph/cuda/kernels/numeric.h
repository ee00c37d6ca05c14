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

// Growth is e^x - 1 and e^x - 1 - x, neither by subtraction where x is small.
struct Growth {
  float first, second;
};

// growth is within 3 ulp of e^x - 1 and 6 ulp of e^x - 1 - x. Below 1 the latter is x^2 times a sum of Taylor's, which
// leaves out 4e-9 of it.
DEV Growth growth(float x) {
  float q = 2.50521084e-08f;
  q = fma(q, x, 2.75573192e-07f);
  q = fma(q, x, 2.75573192e-06f);
  q = fma(q, x, 2.48015873e-05f);
  q = fma(q, x, 0.000198412698f);
  q = fma(q, x, 0.00138888889f);
  q = fma(q, x, 0.00833333333f);
  q = fma(q, x, 0.0416666667f);
  q = fma(q, x, 0.166666667f);
  q = fma(q, x, 0.5f);
  if (x > -1.0f && x < 1.0f) {
    const float second = x * x * q;
    return Growth{x + second, second};
  }
  const float first = exp_(x) - 1.0f;
  return Growth{first, first - x};
}

// NormalPart is the part of N(0, 1) in an interval (a, b): its mass, and the mean of z and of z^2-1 in it, which are
// (phi(a) - phi(b)) / mass and (a phi(a) - b phi(b)) / mass, phi the density.
struct NormalPart {
  float mass, mean, square;
};

// normal_bell is e^(-x^2/2), within 4 ulp for |x| < 13; the rounding error of x^2 is put back in first order.
DEV float normal_bell(float x) {
  const float square = x * x;
  return exp_(-0.5f * square) * fma(-0.5f, fma(x, x, -square), 1.0f);
}

constexpr float normal_density_0 = 0.398942280f;  // 1/sqrt(2 pi)

// normal_tail is the mass of N(0, 1) above x >= 0, within 6 ulp for x < 12.8 and 2e-44 beyond. Divided by e^(-x^2/2) it
// falls like 1/x: a polynomial in (x-4)/(x+4) over 1+x, by Chebyshev's nodes up to 14, of relative error 1e-8.
DEV float normal_tail(float x) {
  x = x > 14.0f ? 14.0f : x;  // NaN stays NaN
  const float t = div_exact(x - 4.0f, x + 4.0f);
  float p = -7.19952444e-05f;
  p = fma(p, t, -6.12790609e-05f);
  p = fma(p, t, 0.000692906684f);
  p = fma(p, t, -0.000303045672f);
  p = fma(p, t, -0.00500416942f);
  p = fma(p, t, 0.017939996f);
  p = fma(p, t, -0.032197345f);
  p = fma(p, t, 0.0286000017f);
  p = fma(p, t, 0.0139996028f);
  p = fma(p, t, -0.0967034698f);
  p = fma(p, t, 0.4720532f);
  return normal_bell(x) * div_exact(p, 1.0f + x);
}

// normal_above is the part above x; relative errors 4e-7 where the mass is above 1e-12.
DEV NormalPart normal_above(float x) {
  const float bounded = x > 14.0f ? 14.0f : x < -14.0f ? -14.0f : x;
  const float tail = normal_tail(bounded < 0.0f ? -bounded : bounded);
  const float mass = bounded < 0.0f ? 1.0f - tail : tail;
  const float mean = div_exact(normal_density_0 * normal_bell(bounded), mass);
  return NormalPart{mass, mean, bounded * mean};
}

// normal_within is the part from m-h to m+h, h > 0. Where the mass is above 1e-12 its relative error is 6e-6, for
// |m| < 2 1e-6, and the means are good to 8e-7 of themselves or of 1. Where the density changes little from end to end,
// differences would cancel: the integrals of its series about m, of Hermite's polynomials, take their place.
DEV NormalPart normal_within(float m, float h) {
  const float distance = m < 0.0f ? -m : m;
  if (h * (1.0f + distance) < 0.35f) {
    const float z = distance > 14.0f ? 14.0f : distance;
    const float square = h * h;
    const float c1 = square * 0.166666667f, c2 = square * square * 0.00833333333f;
    const float c3 = square * square * square * 0.000198412698f;
    const float h2 = fma(z, z, -1.0f);
    const float h3 = fma(z, h2, -2.0f * z);
    const float h4 = fma(z, h3, -3.0f * h2);
    const float h5 = fma(z, h4, -4.0f * h3);
    const float h6 = fma(z, h5, -5.0f * h4);
    const float h7 = fma(z, h6, -6.0f * h5);
    const float h8 = fma(z, h7, -7.0f * h6);
    const float sum = fma(c3, h6, fma(c2, h4, fma(c1, h2, 1.0f)));
    const float mean = div_exact(fma(c3, h7, fma(c2, h5, fma(c1, h3, z))), sum);
    const float spread = div_exact(fma(c3, h8, fma(c2, h6, fma(c1, h4, h2))), sum);
    return NormalPart{2.0f * h * normal_density_0 * normal_bell(z) * sum, m < 0.0f ? -mean : mean, spread};
  }
  // From b to a on the side of m that is away from 0, so that tails are small.
  float a = distance + h, b = distance - h;
  a = a > 14.0f ? 14.0f : a;
  b = b > 14.0f ? 14.0f : b < -14.0f ? -14.0f : b;
  const float far = normal_tail(a);
  const float near = normal_tail(b < 0.0f ? -b : b);
  const float mass = b < 0.0f ? 1.0f - near - far : near - far;
  const float density_a = normal_density_0 * normal_bell(a), density_b = normal_density_0 * normal_bell(b);
  const float mean = div_exact(density_b - density_a, mass);
  const float spread = div_exact(fma(b, density_b, -a * density_a), mass);
  return NormalPart{mass, m < 0.0f ? -mean : mean, spread};
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
