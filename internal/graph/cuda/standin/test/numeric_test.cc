// Checks the elementary functions of ../../kernels/numeric.h against float64, at the bounds that it states. On the CPU
// the approximations that they build on are exact to an ulp; a GPU adds its own error, see device_gpu.h.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "../../kernels/numeric.h"

// Worst is the largest error seen and where.
struct Worst {
  double error = 0;
  double at = 0;

  void see(double e, double x) {
    if (!(e <= error)) {
      error = e;
      at = x;
    }
  }
};

// ulps is an error in units in the last place of the wanted result as a float32, subnormal ones included.
static double ulps(double got, double want) {
  int exponent;
  frexp(want, &exponent);
  return std::abs(got - want) / ldexp(1.0, std::max(exponent - 24, -149));
}

static bool report(const char* name, const Worst& w, double bound) {
  const bool ok = w.error <= bound;
  printf("%-40s %.3g at %.9g, allowed %.3g: %s\n", name, w.error, w.at, bound, ok ? "ok" : "FAILED");
  return ok;
}

static bool is(const char* what, float got, float want) {
  const bool ok = std::isnan(want) ? std::isnan(got) : got == want && std::signbit(got) == std::signbit(want);
  if (!ok) {
    printf("%s is %g, want %g: FAILED\n", what, got, want);
  }
  return ok;
}

// Every 977th float32 of all, and every one near 1 for the logarithm.
static bool check_functions() {
  Worst exp_error, exp_tiny, log_error, log_near_1, silu_error, silu_tiny, slope_error;
  for (u64 bits = 0; bits <= 0xffffffffu; bits += 977) {
    const float x = as_float((u32)bits);
    if (!std::isfinite(x)) {
      continue;
    }
    const double d = x;
    const double e = exp(d);
    if (e < 3.4e38) {
      (e > 1.2e-38 ? exp_error : exp_tiny).see(e > 1.2e-38 ? ulps(exp_(x), e) : std::abs(exp_(x) - e), d);
    }
    if (x > 0) {
      log_error.see(ulps(log_(x), log(d)), d);
    }
    const double silu_x = d < -700 ? 0 : d / (1 + exp(-d));
    (d > -87 ? silu_error : silu_tiny).see(d > -87 ? ulps(silu(x), silu_x) : std::abs(silu(x) - silu_x), d);
    if (std::abs(d) < 700) {
      const double s = 1 / (1 + exp(-d));
      slope_error.see(std::abs(silu_slope(x) - s * (1 + d / (1 + exp(d)))), d);
    }
  }
  for (u32 bits = as_bits(0.99f); bits < as_bits(1.01f); bits++) {
    const float x = as_float(bits);
    if (x != 1) {
      log_near_1.see(ulps(log_(x), log((double)x)), x);
    }
  }
  bool ok = report("exp_, ulp", exp_error, 2);
  ok = report("exp_ of subnormal results, absolute", exp_tiny, ldexp(1.0, -149)) && ok;
  ok = report("log_, ulp", log_error, 2) && ok;
  ok = report("log_ near 1, ulp", log_near_1, 2) && ok;
  ok = report("silu, ulp", silu_error, 5) && ok;
  ok = report("silu below -87, absolute", silu_tiny, 2e-43) && ok;
  return report("silu_slope, absolute", slope_error, 5e-7) && ok;
}

static bool check_sincos() {
  Worst error;
  const double pi = 3.14159265358979323846;
  const auto see = [&](float x) {
    float s, c;
    sincos_2pi(x, &s, &c);
    const double turn = x - std::nearbyint((double)x);
    error.see(std::max(std::abs(s - sin(2 * pi * turn)), std::abs(c - cos(2 * pi * turn))), x);
  };
  for (int i = 0; i < 1 << 24; i += 3) {
    see(ldexpf((float)i, -24));
  }
  for (int i = -(1 << 23); i < 1 << 23; i += 7) {
    see(ldexpf((float)i, -3));
  }
  return report("sincos_2pi, absolute", error, 1.2e-7);
}

static bool check_special_values() {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  float s, c;
  bool ok = is("exp_(0)", exp_(0), 1);
  ok = is("exp_(1e30)", exp_(1e30f), inf) && ok;
  ok = is("exp_(-1e30)", exp_(-1e30f), 0) && ok;
  ok = is("exp_(inf)", exp_(inf), inf) && ok;
  ok = is("exp_(-inf)", exp_(-inf), 0) && ok;
  ok = is("exp_(NaN)", exp_(nan), nan) && ok;
  ok = is("log_(1)", log_(1), 0) && ok;
  ok = is("log_(0)", log_(0), -inf) && ok;
  ok = is("log_(-0)", log_(-0.0f), -inf) && ok;
  ok = is("log_(-1)", log_(-1), nan) && ok;
  ok = is("log_(inf)", log_(inf), inf) && ok;
  ok = is("log_(NaN)", log_(nan), nan) && ok;
  ok = is("silu(0)", silu(0), 0) && ok;
  ok = is("silu(1e30)", silu(1e30f), 1e30f) && ok;
  ok = is("silu(-1e30)", silu(-1e30f), -0.0f) && ok;
  ok = is("silu(NaN)", silu(nan), nan) && ok;
  ok = is("silu_slope(0)", silu_slope(0), 0.5f) && ok;
  ok = is("silu_slope(1e30)", silu_slope(1e30f), 1) && ok;
  ok = is("silu_slope(-1e30)", silu_slope(-1e30f), -0.0f) && ok;
  ok = is("silu_slope(NaN)", silu_slope(nan), nan) && ok;
  sincos_2pi(0.25f, &s, &c);
  ok = is("sine of a quarter turn", s, 1) && ok;
  sincos_2pi(0.5f, &s, &c);
  return is("cosine of half a turn", c, -1) && ok;
}

// divisor is what a launcher computes, see FastDivisor.
static FastDivisor divisor(u32 d) {
  u32 shift = 0;
  while ((u64)1 << shift < d) {
    shift++;
  }
  return {d, (u32)((((u64)1 << 32) * (((u64)1 << shift) - d)) / d + 1), shift};
}

static bool check_division() {
  const u32 most = 0x7fffffffu;
  const auto exact = [](u32 n, u32 d) {
    const FastDivisor f = divisor(d);
    const bool ok = divide(n, f) == n / d && remainder(n, f) == n % d;
    if (!ok) {
      printf("divide(%u, %u) is %u: FAILED\n", n, d, divide(n, f));
    }
    return ok;
  };
  for (u32 i = 1; i < 100000; i++) {
    // Small divisors and some of every size, with the dividends at which a quotient changes.
    for (u32 d : {i, most - i, (i * 2654435761u & most) >> i % 31 | 1}) {
      const u32 last = most / d * d;
      for (u32 n : {0u, 1u, d - 1, d, most, last, last - 1, i * 40503u & most}) {
        if (n <= most && !exact(n, d)) {
          return false;
        }
      }
    }
  }
  return exact(most, 1u << 31) && exact(12345, 1u << 31);
}

int main() {
  bool ok = check_functions();
  ok = check_sincos() && ok;
  ok = check_special_values() && ok;
  ok = check_division() && ok;
  printf("%s\n", ok ? "ok" : "FAILED");
  return ok ? 0 : 1;
}
