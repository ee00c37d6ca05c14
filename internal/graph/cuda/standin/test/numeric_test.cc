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

static bool check_growth() {
  Worst first, second;
  for (u64 bits = 0; bits <= 0xffffffffu; bits += 977) {
    const float x = as_float((u32)bits);
    const double d = x;
    // Below, the square is no normal number.
    if (!(std::abs(d) > 1e-18 && d < 88)) {
      continue;
    }
    double rest = expm1(d) - d;
    if (std::abs(d) < 1) {
      rest = 0;
      double term = d * d / 2;
      for (int k = 3; k < 25; k++) {
        rest += term;
        term *= d / k;
      }
    }
    const Growth g = growth(x);
    first.see(ulps(g.first, expm1(d)), d);
    second.see(ulps(g.second, rest), d);
  }
  bool ok = report("growth, e^x - 1, ulp", first, 3);
  return report("growth, e^x - 1 - x, ulp", second, 6) && ok;
}

static double density(double z) { return exp(-0.5 * z * z) / sqrt(2 * 3.14159265358979323846); }
static double tail(double z) { return 0.5 * erfc(z / sqrt(2.0)); }

static bool check_normal() {
  Worst bell, tails, beyond, mass_above, means_above;
  for (int i = 0; i < 1500000; i++) {
    const float x = i * 1e-5f;
    if (x < 13) {
      bell.see(ulps(normal_bell(x), exp(-0.5 * (double)x * x)), x);
    }
    x < 12.8f ? tails.see(ulps(normal_tail(x), tail(x)), x) : beyond.see(std::abs(normal_tail(x) - tail(x)), x);
  }
  for (int i = 0; i < 200000; i++) {
    const float x = -8 + i * 7.5e-5f;
    const double mass = tail(x), mean = density(x) / mass;
    if (mass > 1e-12) {
      const NormalPart part = normal_above(x);
      mass_above.see(std::abs(part.mass / mass - 1), x);
      means_above.see(std::abs(part.mean - mean) / (1 + mean), x);
      means_above.see(std::abs(part.square - x * mean) / (1 + std::abs(x * mean)), x);
    }
  }
  // Half widths of a thousandth to seven.
  Worst mass_within, mass_middle, means_within;
  for (int i = 0; i < 1600; i++) {
    for (int j = 0; j < 180; j++) {
      const float m = -8 + i * 0.01f, h = expf(-7 + j * 0.05f);
      const double a = std::abs((double)m) + h, b = std::abs((double)m) - h;
      // By parts of a thirty-second at most, with Gauss's rule of three points.
      const int parts = 64 + (int)(32 * (a - b));
      double mass = 0, mean = 0, square = 0;
      for (int k = 0; k < parts; k++) {
        const double half = (a - b) / parts / 2, middle = b + (2 * k + 1) * half;
        for (int node = -1; node <= 1; node++) {
          const double z = middle + node * half * sqrt(0.6);
          const double weight = (node ? 5.0 : 8.0) / 9 * half * density(z);
          mass += weight;
          mean += weight * z;
          square += weight * (z * z - 1);
        }
      }
      if (mass < 1e-12) {
        continue;
      }
      const NormalPart part = normal_within(m, h);
      mean /= m < 0 ? -mass : mass;
      square /= mass;
      (std::abs(m) < 2 ? mass_middle : mass_within).see(std::abs(part.mass / mass - 1), m);
      means_within.see(std::abs(part.mean - mean) / (1 + std::abs(mean)), m);
      means_within.see(std::abs(part.square - square) / (1 + std::abs(square)), m);
    }
  }
  bool ok = report("normal_bell, ulp", bell, 4);
  ok = report("normal_tail, ulp", tails, 6) && ok;
  ok = report("normal_tail beyond 12.8, absolute", beyond, 2e-44) && ok;
  ok = report("normal_above, mass, relative", mass_above, 4e-7) && ok;
  ok = report("normal_above, means, of 1 or more", means_above, 4e-7) && ok;
  ok = report("normal_within, mass, relative", mass_within, 6e-6) && ok;
  ok = report("normal_within near 0, mass, relative", mass_middle, 1e-6) && ok;
  return report("normal_within, means, of 1 or more", means_within, 8e-7) && ok;
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
  ok = is("growth(0)", growth(0).second, 0) && ok;
  ok = is("growth(NaN)", growth(nan).first, nan) && ok;
  ok = is("growth(-inf)", growth(-inf).first, -1) && ok;
  ok = is("normal_tail(0)", normal_tail(0), 0.5f) && ok;
  ok = is("normal_tail(NaN)", normal_tail(nan), nan) && ok;
  ok = is("normal_above(-inf)", normal_above(-inf).mass, 1) && ok;
  ok = is("normal_above(NaN)", normal_above(nan).mass, nan) && ok;
  ok = is("normal_within(0, inf)", normal_within(0, inf).mass, 1) && ok;
  ok = is("normal_within(NaN, 1)", normal_within(nan, 1).mass, nan) && ok;
  ok = is("normal_within(NaN, 0.01)", normal_within(nan, 0.01f).mean, nan) && ok;
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
  ok = check_growth() && ok;
  ok = check_normal() && ok;
  ok = check_special_values() && ok;
  ok = check_division() && ok;
  printf("%s\n", ok ? "ok" : "FAILED");
  return ok ? 0 : 1;
}
