// Tests of the stand-in: what it computes, what it refuses, and what it notices. Run by ../test.sh.
//
// A case runs in a process of its own with the environment it asks for. One that has to die must say the expected
// words; any other must end well. Arguments: names of the cases to run, by default all; or "bench"; or "load FILE..."
// to load modules of PTX.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "../driver.h"
#include "kernels/params.h"

static void check_that(bool holds, const char* what, int line) {
  if (!holds) {
    fprintf(stderr, "line %d: %s does not hold\n", line, what);
    _exit(1);
  }
}

static void check_result(int got, int want, const char* what, int line) {
  if (got != want) {
    fprintf(stderr, "line %d: %s is %d, want %d\n", line, what, got, want);
    _exit(1);
  }
}

// Macros, as a failure shall show the source.
#define CHECK(holds) check_that(holds, #holds, __LINE__)
#define SUCCEEDS(call) check_result(call, CUDA_SUCCESS, #call, __LINE__)
#define FAILS(call, result) check_result(call, result, #call, __LINE__)

// entry_text is the PTX of a kernel without a body, which is all that the stand-in reads.
static std::string entry_text(const char* name, size_t bytes, int threads, const char* body = "") {
  std::ostringstream s;
  s << ".visible .entry " << name << "(\n\t.param .align 8 .b8 " << name << "_param_0[" << bytes
    << "]\n)\n.maxntid " << threads << ", 1, 1\n.minnctapersm 1\n{\n" << body << "\tret;\n}\n";
  return s.str();
}

static const char* const header = "// comment .entry x(\n.version 8.0\n.target sm_80\n.address_size 64\n";

static std::string all_entries() {
  return header + entry_text("indices", sizeof(IndexParams), 256) + entry_text("block_sums", sizeof(SumParams), 256) +
         entry_text("lanes", sizeof(LaneParams), 32) + entry_text("copy_pipeline", sizeof(CopyParams), 64) +
         entry_text("scale", sizeof(ValueParams), 128) + entry_text("ticket_sum", sizeof(TicketParams), 32) +
         entry_text("conversions", sizeof(ValueParams), 32) + entry_text("gemm_bf16", sizeof(GemmParams), 128) +
         entry_text("gemm_tf32", sizeof(GemmParams), 128) + entry_text("gemm_bf16_kn", sizeof(GemmParams), 32) +
         entry_text("fault", sizeof(FaultParams), 64, "\t.shared .align 16 .b8 a[256];\n");
}

static std::string hopper_entries() {
  std::string text = ".version 8.0\n.target sm_90a\n.address_size 64\n" + entry_text("tma_box", sizeof(BoxParams), 64) +
                     entry_text("wgmma_squares", sizeof(OverlapParams), 256) +
                     entry_text("hopper_fault", sizeof(HopperFaultParams), 384);
  for (const char* name : {"wgmma_64_tn", "wgmma_128_nn", "wgmma_192_nt", "wgmma_256_tt"}) {
    text += entry_text(name, sizeof(WgmmaParams), 384);
  }
  return text;
}

static CUmodule module_of_all, module_of_hopper;

static void start() {
  SUCCEEDS(cuInit(0));
  CUcontext context;
  SUCCEEDS(cuDevicePrimaryCtxRetain(&context, 0));
  SUCCEEDS(cuCtxSetCurrent(context));
  SUCCEEDS(cuModuleLoadDataEx(&module_of_all, all_entries().c_str(), 0, nullptr, nullptr));
}

static void start_hopper() {
  start();
  SUCCEEDS(cuModuleLoadDataEx(&module_of_hopper, hopper_entries().c_str(), 0, nullptr, nullptr));
}

static CUfunction function(const char* name) {
  CUfunction f;
  if (module_of_hopper && cuModuleGetFunction(&f, module_of_hopper, name) == CUDA_SUCCESS) {
    return f;
  }
  SUCCEEDS(cuModuleGetFunction(&f, module_of_all, name));
  return f;
}

template <class Params>
static CUresult launch(const char* name, unsigned grid_x, unsigned grid_y, unsigned threads, unsigned shared,
                       Params params, CUstream stream = nullptr) {
  void* parameters[] = {&params};
  return cuLaunchKernel(function(name), grid_x, grid_y, 1, threads, 1, 1, shared, stream, parameters, nullptr);
}

static CUdeviceptr new_memory(size_t bytes) {
  CUdeviceptr p;
  SUCCEEDS(cuMemAlloc_v2(&p, bytes));
  return p;
}

template <class Value>
static Value* to_device(const std::vector<Value>& v) {
  const CUdeviceptr p = new_memory(v.size() * sizeof(Value));
  SUCCEEDS(cuMemcpyHtoD_v2(p, v.data(), v.size() * sizeof(Value)));
  return (Value*)p;
}

template <class Value>
static std::vector<Value> to_host(const Value* p, size_t n) {
  std::vector<Value> v(n);
  SUCCEEDS(cuMemcpyDtoH_v2(v.data(), (CUdeviceptr)p, n * sizeof(Value)));
  return v;
}

static std::mt19937 generator(1);

static float random_value() { return std::uniform_real_distribution<float>(-1, 1)(generator); }

static std::vector<float> random_values(size_t n) {
  std::vector<float> v(n);
  for (float& x : v) {
    x = random_value();
  }
  return v;
}

static void test_indices() {
  start();
  const u32 gx = 3, gy = 4, gz = 2, threads = 70;
  auto* out = to_device(std::vector<u32>(gx * gy * gz * threads * 8));
  IndexParams params{out};
  void* parameters[] = {&params};
  SUCCEEDS(cuLaunchKernel(function("indices"), gx, gy, gz, threads, 1, 1, 0, nullptr, parameters, nullptr));
  const auto got = to_host(out, gx * gy * gz * threads * 8);
  size_t i = 0;
  for (u32 z = 0; z < gz; z++) {
    for (u32 y = 0; y < gy; y++) {
      for (u32 x = 0; x < gx; x++) {
        for (u32 t = 0; t < threads; t++) {
          for (u32 want : {t, x, y, z, gx, gy, gz, threads}) {
            CHECK(got[i++] == want);
          }
        }
      }
    }
  }
}

static void test_block_sums() {
  start();
  const size_t blocks = 50, threads = 256;
  const auto x = random_values(blocks * threads);
  auto* y = to_device(std::vector<float>(blocks));
  SUCCEEDS(launch("block_sums", blocks, 1, threads, 0, SumParams{to_device(x), y}));
  const auto got = to_host(y, blocks);
  for (size_t b = 0; b < blocks; b++) {
    double want = 0;
    for (size_t t = 0; t < threads; t++) {
      want += x[b * threads + t];
    }
    CHECK(std::abs(got[b] - want) < 1e-4);
  }
}

static void test_lanes() {
  start();
  auto* out = to_device(std::vector<u32>(32 * 6));
  SUCCEEDS(launch("lanes", 1, 1, 32, 0, LaneParams{out}));
  const auto got = to_host(out, 32 * 6);
  for (u32 lane = 0; lane < 32; lane++) {
    const u32* g = &got[lane * 6];
    CHECK(g[0] == 100 + (lane ^ 5));
    CHECK(g[1] == 100 + (lane + 3 < 32 ? lane + 3 : lane));
    CHECK(g[2] == 100 + lane * 7 % 32);
    CHECK(g[3] == 0x49249249u);
    CHECK(g[4] == 1);
    CHECK(g[5] == (31 - lane) * (31 - lane));
  }
}

static void test_copy_pipeline() {
  start();
  const size_t n = 5 * 1024 + 516, padded = 6 * 1024;
  std::vector<char> x(n);
  for (size_t i = 0; i < n; i++) {
    x[i] = (char)(i * 37 % 251 + 1);
  }
  auto* y = to_device(std::vector<char>(padded, 99));
  SUCCEEDS(launch("copy_pipeline", 1, 1, 64, 2048, CopyParams{to_device(x), y, (i64)n}));
  const auto got = to_host(y, padded);
  for (size_t i = 0; i < padded; i++) {
    CHECK(got[i] == (i < n ? x[i] : 0));
  }
}

static std::vector<u16> to_bf16(const std::vector<float>& v) {
  std::vector<u16> r(v.size());
  for (size_t i = 0; i < v.size(); i++) {
    r[i] = round_bf16(v[i]);
  }
  return r;
}

// check_product compares with sums in double precision; b(k, j) is element j of row k.
template <class A, class B>
static void check_product(const std::vector<float>& got, int m, int n, int k, A a, B b, double tolerance) {
  for (int i = 0; i < m; i++) {
    for (int j = 0; j < n; j++) {
      double want = 0;
      for (int l = 0; l < k; l++) {
        want += (double)a(i, l) * b(l, j);
      }
      CHECK(std::abs(got[(size_t)(i * n + j)] - want) < tolerance);
    }
  }
}

static const unsigned gemm_shared = 3 * 2 * 64 * 80;

static void allow_shared(const char* kernel, int bytes) {
  SUCCEEDS(cuFuncSetAttribute(function(kernel), 8, bytes));
}

static void test_gemm_bf16() {
  start();
  const int m = 128, n = 64, k = 160;
  const auto a = to_bf16(random_values(m * k)), b = to_bf16(random_values(n * k));
  auto* c = to_device(std::vector<float>(m * n));
  SUCCEEDS(launch("gemm_bf16", n / 64, m / 64, 128, gemm_shared, GemmParams{to_device(a), to_device(b), c, m, n, k}));
  check_product(
      to_host(c, m * n), m, n, k, [&](int i, int l) { return widen_bf16(a[(size_t)(i * k + l)]); },
      [&](int l, int j) { return widen_bf16(b[(size_t)(j * k + l)]); }, 1e-4);
}

static void test_gemm_bf16_transposed() {
  start();
  const int m = 48, n = 24, k = 64;
  const auto a = to_bf16(random_values(m * k)), b = to_bf16(random_values(n * k));
  auto* c = to_device(std::vector<float>(m * n));
  SUCCEEDS(launch("gemm_bf16_kn", n / 8, m / 16, 32, 0, GemmParams{to_device(a), to_device(b), c, m, n, k}));
  check_product(
      to_host(c, m * n), m, n, k, [&](int i, int l) { return widen_bf16(a[(size_t)(i * k + l)]); },
      [&](int l, int j) { return widen_bf16(b[(size_t)(l * n + j)]); }, 1e-4);
}

static void test_gemm_tf32() {
  start();
  const int m = 64, n = 128, k = 96;
  const auto a = random_values(m * k), b = random_values(n * k);
  auto* c = to_device(std::vector<float>(m * n));
  SUCCEEDS(launch("gemm_tf32", n / 64, m / 64, 128, gemm_shared, GemmParams{to_device(a), to_device(b), c, m, n, k}));
  check_product(
      to_host(c, m * n), m, n, k, [&](int i, int l) { return as_float(to_tf32(a[(size_t)(i * k + l)])); },
      [&](int l, int j) { return as_float(to_tf32(b[(size_t)(j * k + l)])); }, 1e-4);
}

static void test_scale() {
  start();
  const int n = 200;
  const auto x = random_values(n);
  auto* y = to_device(std::vector<float>(n));
  SUCCEEDS(launch("scale", 2, 1, 128, 0, ValueParams{to_device(x), y, n, 3}));
  const auto got = to_host(y, n);
  for (size_t i = 0; i < n; i++) {
    CHECK(got[i] == 3 * x[i]);
  }
}

static void test_ticket() {
  start();
  const size_t blocks = 100;
  const auto x = random_values(blocks * 32);
  double want = 0;
  for (float v : x) {
    want += v;
  }
  auto* ticket = to_device(std::vector<int>(1, 0));
  auto* y = to_device(std::vector<float>(1));
  const TicketParams params{to_device(x), to_device(std::vector<float>(blocks)), y, ticket};
  for (int round = 0; round < 3; round++) {
    SUCCEEDS(launch("ticket_sum", blocks, 1, 32, 0, params));
    CHECK(std::abs(to_host(y, 1)[0] - want) < 1e-3);
    CHECK(to_host(ticket, 1)[0] == 0);
  }
}

static void test_conversions() {
  start();
  const float inf = INFINITY;
  const std::vector<float> x = {0.0f, -0.0f, 1.0f, 1.00390625f, 1.01171875f, -1.00390625f, 3.4e38f, -3.4e38f, inf,
                                -inf, NAN, 1e-40f, -1e-40f, 1.00048828125f, 1.0004882f, 65536.5f, 1e-3f, 0.1f,
                                -0.3f, 7.0f, 2.5f, 1e30f, 1e-30f, 123456.7f, -9.9f, 5e-45f, 0.5f, 0.25f, 100.0f,
                                1.9999999f, 255.99f, 3.14159f};
  CHECK(x.size() == 32);
  auto* y = to_device(std::vector<float>(32 * 4));
  SUCCEEDS(launch("conversions", 1, 1, 32, 0, ValueParams{to_device(x), y, 32, 0}));
  const auto got = to_host(y, 32 * 4);
  // nearest is v rounded to significant bits, halves to even or away from zero.
  const auto nearest = [](float v, int bits, bool to_even) {
    if (v == 0 || !std::isfinite(v)) {
      return (double)v;
    }
    int exponent;
    frexp((double)v, &exponent);
    const double unit = ldexp(1.0, std::max(exponent, -125) - bits);
    const double scaled = std::abs(v) / unit;
    const double rounded = (to_even ? std::nearbyint(scaled) : std::floor(scaled + 0.5)) * unit;
    return std::copysign(rounded >= ldexp(1.0, 128) ? (double)INFINITY : rounded, (double)v);
  };
  for (size_t i = 0; i < 32; i++) {
    const float* g = &got[i * 4];
    if (std::isnan(x[i])) {
      CHECK(std::isnan(g[0]) && std::isnan(g[1]) && std::isnan(g[2]));
    } else {
      CHECK(g[0] == nearest(x[i], 8, true));
      CHECK(g[1] == nearest(x[i], 8, true));
      CHECK(g[2] == nearest(x[i], 11, false));
    }
    CHECK(g[3] == (float)(as_bits(x[i]) >> 16));
  }
}

// Tiling is what cuTensorMapEncodeTiled is told; the tests change one thing at a time.
struct Tiling {
  unsigned type = 9;  // bf16
  std::vector<u64> extents;
  std::vector<u64> strides;  // bytes
  std::vector<unsigned> box;
  std::vector<unsigned> steps;
  unsigned interleave = 0;
  unsigned swizzle = 3;  // 128 bytes
  unsigned promotion = 2;
  unsigned fill = 0;
  void* address = nullptr;
};

static CUresult encode(TensorMap* map, const Tiling& t) {
  std::vector<unsigned> steps = t.steps;
  steps.resize(t.extents.size(), 1);
  return cuTensorMapEncodeTiled(map, t.type, (unsigned)t.extents.size(), t.address, t.extents.data(), t.strides.data(),
                                t.box.data(), steps.data(), t.interleave, t.swizzle, t.promotion, t.fill);
}

// map_of is a map of a tensor of bf16 in device memory whose dimensions are dense.
static TensorMap map_of(const void* address, std::vector<u64> extents, std::vector<unsigned> box) {
  Tiling t;
  t.extents = extents;
  t.box = box;
  t.address = (void*)address;
  u64 bytes = 2;
  for (size_t i = 0; i + 1 < extents.size(); i++) {
    bytes *= extents[i];
    t.strides.push_back(bytes);
  }
  alignas(64) TensorMap map;
  SUCCEEDS(encode(&map, t));
  return map;
}

template <class Table>
static const Table* table_in_memory(const Table& table) {
  return to_device(std::vector<Table>{table});
}

static void test_tensor_map_rules() {
  SUCCEEDS(cuInit(0));
  alignas(64) TensorMap maps[2];
  Tiling good;
  good.extents = {100, 7, 5};
  good.strides = {256, 2048};
  good.box = {64, 3, 2};
  good.steps = {1, 2, 1};
  good.address = (void*)0x10000;
  SUCCEEDS(encode(maps, good));
  const auto refused = [&](auto change) {
    Tiling t = good;
    change(t);
    FAILS(encode(maps, t), CUDA_ERROR_INVALID_VALUE);
  };
  const auto accepted = [&](auto change) {
    Tiling t = good;
    change(t);
    SUCCEEDS(encode(maps, t));
  };
  FAILS(encode((TensorMap*)((char*)maps + 32), good), CUDA_ERROR_INVALID_VALUE);
  refused([](Tiling& t) { t.address = (void*)0x10008; });
  refused([](Tiling& t) { t.address = nullptr; });
  refused([](Tiling& t) { t.type = 13; });
  refused([](Tiling& t) { t.extents = t.strides = {}; });
  refused([](Tiling& t) {
    t.extents = {64, 1, 1, 1, 1, 1};
    t.strides = {128, 128, 128, 128, 128};
    t.box = {64, 1, 1, 1, 1, 1};
  });
  accepted([](Tiling& t) {
    t.extents = {64, 1, 1, 1, 1};
    t.strides = {128, 128, 128, 128};
    t.box = {64, 1, 1, 1, 1};
  });
  refused([](Tiling& t) { t.extents[1] = 0; });
  refused([](Tiling& t) { t.extents[1] = ((u64)1 << 32) + 1; });
  accepted([](Tiling& t) { t.extents[1] = (u64)1 << 32; });
  refused([](Tiling& t) { t.strides[0] = 248; });
  refused([](Tiling& t) { t.strides[1] = (u64)1 << 40; });
  accepted([](Tiling& t) { std::swap(t.strides[0], t.strides[1]); });
  refused([](Tiling& t) { t.box[2] = 257; });
  refused([](Tiling& t) { t.box[1] = 0; });
  accepted([](Tiling& t) { t.box[2] = 256; });
  refused([](Tiling& t) { t.box[0] = 60; });
  refused([](Tiling& t) { t.box[0] = 72; });
  accepted([](Tiling& t) {
    t.box[0] = 72;
    t.swizzle = 0;
  });
  refused([](Tiling& t) { t.swizzle = 2; });
  refused([](Tiling& t) { t.swizzle = 4; });
  refused([](Tiling& t) { t.steps[1] = 9; });
  refused([](Tiling& t) { t.steps[1] = 0; });
  refused([](Tiling& t) { t.promotion = 4; });
  refused([](Tiling& t) { t.interleave = 3; });
  refused([](Tiling& t) {
    t.type = 0;
    t.fill = 1;
  });
  setenv("STANDIN_CAPABILITY", "8.9", 1);
  FAILS(encode(maps, good), CUDA_ERROR_NOT_SUPPORTED);
}

// BoxCase is a copy of one box. All extents and coordinates go from the innermost dimension outwards.
struct BoxCase {
  std::vector<u64> extents;
  std::vector<u64> strides;  // bytes
  std::vector<unsigned> box;
  std::vector<int> at;
  unsigned swizzle = 3;
  std::vector<unsigned> steps = {};
  unsigned type = 9;
  unsigned element = 2;  // bytes
};

static void check_box(const BoxCase& c) {
  Tiling t;
  t.extents = c.extents;
  t.strides = c.strides;
  t.box = c.box;
  t.steps = c.steps;
  t.steps.resize(c.extents.size(), 1);
  t.type = c.type;
  t.swizzle = c.swizzle;
  size_t size = c.extents[0] * c.element;
  for (size_t i = 1; i < c.extents.size(); i++) {
    size += (c.extents[i] - 1) * c.strides[i - 1];
  }
  std::vector<char> x(size);
  for (char& v : x) {
    v = (char)(generator() % 255 + 1);
  }
  t.address = to_device(x);
  BoxTable table;
  alignas(64) TensorMap map;
  SUCCEEDS(encode(&map, t));
  table.map = map;
  // What the box shall be, row by row, then permuted.
  std::vector<unsigned> counts;
  size_t bytes = c.element;
  for (size_t i = 0; i < c.box.size(); i++) {
    counts.push_back((c.box[i] + t.steps[i] - 1) / t.steps[i]);
    bytes *= counts[i];
  }
  std::vector<char> want(bytes);
  const size_t patterns[] = {0, 32, 64, 128};
  for (size_t element = 0; element < bytes / c.element; element++) {
    size_t rest = element, from = 0;
    bool inside = true;
    for (size_t i = 0; i < counts.size(); i++) {
      const i64 coordinate = c.at[i] + (i64)(rest % counts[i]) * t.steps[i];
      rest /= counts[i];
      inside = inside && coordinate >= 0 && coordinate < (i64)c.extents[i];
      from += (size_t)coordinate * (i ? c.strides[i - 1] : c.element);
    }
    size_t to = element * c.element;
    const size_t pattern = patterns[c.swizzle];
    if (pattern) {
      to ^= (to / 128 % 8 % (pattern / 16)) * 16;
    }
    for (unsigned b = 0; b < c.element; b++) {
      want[to + b] = inside ? x[from + b] : 0;
    }
  }
  BoxParams params{table_in_memory(table), to_device(std::vector<char>(bytes)), (int)c.box.size(), (int)bytes, {}};
  for (size_t i = 0; i < c.at.size(); i++) {
    params.at[i] = c.at[i];
  }
  allow_shared("tma_box", 200000);
  SUCCEEDS(launch("tma_box", 1, 1, 64, (unsigned)bytes + 8, params));
  CHECK(to_host((const char*)params.y, bytes) == want);
}

static void test_boxes() {
  start_hopper();
  const BoxCase cases[] = {
      // A feature map of 3 images of 6 x 5 pixels, of 96 channels: channels, images, columns, rows.
      {{96, 3, 5, 6}, {6 * 5 * 192, 192, 5 * 192}, {64, 8, 6, 4}, {0, 0, -1, -1}},
      {{96, 3, 5, 6}, {6 * 5 * 192, 192, 5 * 192}, {64, 8, 6, 4}, {64, -2, 2, 4}},
      {{96, 3, 5, 6}, {6 * 5 * 192, 192, 5 * 192}, {64, 8, 6, 4}, {40, 1, 0, 7}},
      {{96, 3, 5, 6}, {6 * 5 * 192, 192, 5 * 192}, {64, 8, 6, 4}, {-8, 1, 0, 1}},
      // Rank 3 and 5, other swizzles, steps, element types.
      {{200, 9, 3}, {400, 3600}, {64, 5, 2}, {150, 6, 1}},
      {{200, 9, 3}, {400, 3600}, {64, 5, 2}, {3, 1, 0}, 0},
      {{200, 9, 3}, {400, 3600}, {32, 7, 2}, {0, 1, 0}, 2},
      {{200, 9, 3}, {400, 3600}, {16, 8, 3}, {8, 0, 0}, 1},
      {{64, 4, 3, 5, 2}, {128, 512, 1536, 7680}, {64, 2, 2, 3, 1}, {0, 1, -1, 3, 1}},
      {{64, 9, 3}, {128, 1152}, {64, 7, 2}, {0, 1, 0}, 3, {1, 3, 1}},
      {{50, 9, 3}, {208, 1872}, {32, 3, 3}, {30, 1, 1}, 3, {}, 7, 4},
  };
  for (const BoxCase& c : cases) {
    check_box(c);
  }
}

static const struct {
  const char* name;
  int n;
  bool a_turned, b_turned;
} wgmma_kernels[] = {
    {"wgmma_64_tn", 64, true, false},
    {"wgmma_128_nn", 128, false, false},
    {"wgmma_192_nt", 192, false, true},
    {"wgmma_256_tt", 256, true, true},
};

static unsigned wgmma_shared(int n) { return 3 * (2 * 8192 + (unsigned)n * 128) + 16 * ((unsigned)n * 4 + 16) + 64; }

// check_wgmma multiplies, and returns the product.
static std::vector<float> check_wgmma(const char* name, int n, bool a_turned, bool b_turned, int m, int k) {
  const auto a = to_bf16(random_values((size_t)(m * k))), b = to_bf16(random_values((size_t)(k * n)));
  const u64 um = (u64)m, un = (u64)n, uk = (u64)k;
  WgmmaTable table;
  table.a = map_of(to_device(a), a_turned ? std::vector<u64>{um, uk, 1} : std::vector<u64>{uk, um, 1}, {64, 64, 1});
  table.b = b_turned ? map_of(to_device(b), {un, uk, 1}, {64, 64, 1})
                     : map_of(to_device(b), {uk, un, 1}, {64, (unsigned)n, 1});
  auto* c = to_device(std::vector<float>((size_t)(m * n)));
  allow_shared(name, (int)wgmma_shared(n));
  SUCCEEDS(launch(name, 1, 1, 384, wgmma_shared(n), WgmmaParams{table_in_memory(table), c, m, k}));
  const auto got = to_host(c, (size_t)(m * n));
  check_product(
      got, m, n, k, [&](int i, int l) { return widen_bf16(a[(size_t)(a_turned ? l * m + i : i * k + l)]); },
      [&](int l, int j) { return widen_bf16(b[(size_t)(b_turned ? l * n + j : j * k + l)]); }, 1e-4);
  return got;
}

template <int number>
static void test_wgmma() {
  start_hopper();
  const auto& kernel = wgmma_kernels[number];
  for (int seed = 1; seed <= 3; seed++) {
    setenv("STANDIN_SEED", std::to_string(seed).c_str(), 1);
    check_wgmma(kernel.name, kernel.n, kernel.a_turned, kernel.b_turned, 256, 320);
  }
}

// The result depends on neither the order of things nor when products run.
static void test_wgmma_seeds() {
  start_hopper();
  std::vector<float> first;
  for (int seed = 1; seed <= 20; seed++) {
    setenv("STANDIN_SEED", std::to_string(seed).c_str(), 1);
    generator.seed(1);
    const auto got = check_wgmma("wgmma_128_nn", 128, false, false, 128, 256);
    CHECK(first.empty() || got == first);
    first = got;
  }
}

static void test_wgmma_squares() {
  start_hopper();
  for (int seed = 1; seed <= 8; seed++) {
    setenv("STANDIN_SEED", std::to_string(seed).c_str(), 1);
    const auto a = to_bf16(random_values(64 * 64)), b = to_bf16(random_values(80 * 64));
    WgmmaTable table;
    table.a = map_of(to_device(a), {64, 64, 1}, {64, 64, 1});
    table.b = map_of(to_device(b), {64, 80, 1}, {64, 80, 1});
    auto* c = to_device(std::vector<float>(64 * 192));
    SUCCEEDS(launch("wgmma_squares", 1, 1, 256, 8192 + 10240 + 24, OverlapParams{table_in_memory(table), c}));
    check_product(
        to_host(c, 64 * 192), 64, 192, 64,
        [&](int i, int l) {
          const float v = widen_bf16(a[(size_t)(i * 64 + l)]);
          return widen_bf16(round_bf16(v * v));
        },
        [&](int l, int j) { return widen_bf16(b[(size_t)((j / 64 * 8 + l) * 64 + j % 64)]); }, 1e-4);
  }
}

static void test_hopper_modules() {
  start_hopper();
  CUmodule m;
  for (const char* capability : {"8.9", "9.1", "10.0", "12.0"}) {
    setenv("STANDIN_CAPABILITY", capability, 1);
    FAILS(cuModuleLoadDataEx(&m, hopper_entries().c_str(), 0, nullptr, nullptr), CUDA_ERROR_INVALID_PTX);
  }
}

// The primitives of sm_90a are not for a kernel of another target.
static void test_hopper_kernel_for_sm_80() {
  start();
  const std::string text = header + entry_text("tma_box", sizeof(BoxParams), 64);
  SUCCEEDS(cuModuleLoadDataEx(&module_of_hopper, text.c_str(), 0, nullptr, nullptr));
  SUCCEEDS(launch("tma_box", 1, 1, 64, 1024, BoxParams{}));
  SUCCEEDS(cuCtxSynchronize());
}

static void commit_hopper_fault(int fault) {
  start_hopper();
  const auto x = to_bf16(std::vector<float>(64 * 64, 1));
  HopperFaultTable table{};
  const auto* memory = to_device(x);
  table.map = map_of(memory, {64, 64, 1}, {64, 64, 1});
  table.too_long = map_of(memory, {64, 128, 1}, {64, 64, 1});
  auto* y = to_device(std::vector<float>(256));
  auto* told = to_device(std::vector<int>(1));
  SUCCEEDS(launch("hopper_fault", 1, 1, 256, 32768, HopperFaultParams{fault, table_in_memory(table), y, told}));
  SUCCEEDS(cuCtxSynchronize());
}

// A commit of each fault is a case of its own.
static int fault_to_commit;
static unsigned fault_blocks = 1;
static unsigned fault_threads = 64;

static void commit_fault() {
  start();
  const FaultParams params{fault_to_commit, to_device(std::vector<float>(256)), to_device(std::vector<int>(1, 0))};
  SUCCEEDS(launch("fault", fault_blocks, 1, fault_threads, 256, params));
  SUCCEEDS(cuCtxSynchronize());
}

static void test_fresh_memory_is_nan() {
  start();
  const auto got = to_host((const float*)new_memory(1000 * 4), 1000);
  for (float v : got) {
    CHECK(std::isnan(v));
  }
}

// new_pinned is page-locked host memory.
static float* new_pinned(size_t n) {
  void* p;
  SUCCEEDS(cuMemHostAlloc(&p, n * sizeof(float), 0));
  return (float*)p;
}

static CUstream new_stream(unsigned flags = CU_STREAM_NON_BLOCKING) {
  CUstream s;
  SUCCEEDS(cuStreamCreate(&s, flags));
  return s;
}

static CUevent new_event() {
  CUevent e;
  SUCCEEDS(cuEventCreate(&e, 0));
  return e;
}

static void test_streams_are_lazy() {
  start();
  const size_t n = 64;
  float* in = new_pinned(n);
  float* out = new_pinned(n);
  const CUdeviceptr x = new_memory(n * 4), y = new_memory(n * 4);
  const CUstream s = new_stream();
  in[3] = 1;
  SUCCEEDS(cuMemcpyHtoDAsync_v2(x, in, n * 4, s));
  SUCCEEDS(launch("scale", 1, 1, 64, 0, ValueParams{(float*)x, (float*)y, (int)n, 10}, s));
  SUCCEEDS(cuMemcpyDtoHAsync_v2(out, y, n * 4, s));
  CHECK(std::isnan(out[3]));
  in[3] = 2;  // too early: the copy has not read it yet
  FAILS(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
  SUCCEEDS(cuStreamSynchronize(s));
  CHECK(out[3] == 20);
  SUCCEEDS(cuStreamQuery(s));

  // Memory that is not page-locked is read at once.
  std::vector<float> pageable(n, 5);
  SUCCEEDS(cuMemcpyHtoDAsync_v2(x, pageable.data(), n * 4, s));
  pageable[3] = 6;
  SUCCEEDS(cuMemcpyDtoHAsync_v2(pageable.data(), x, n * 4, s));
  CHECK(pageable[3] == 5);
}

static void test_events_order_streams() {
  start();
  const size_t n = 64;
  float* out = new_pinned(n);
  const CUdeviceptr x = new_memory(n * 4);
  const CUstream first = new_stream(), second = new_stream();
  const CUevent e = new_event(), end = new_event();
  SUCCEEDS(cuMemsetD32Async(x, as_bits(7), n, first));
  SUCCEEDS(cuMemcpyDtoHAsync_v2(out, x, n * 4, second));
  SUCCEEDS(cuStreamSynchronize(second));
  CHECK(std::isnan(out[0]));  // nothing ordered it after the fill

  SUCCEEDS(cuEventRecord(e, first));
  FAILS(cuEventQuery(e), CUDA_ERROR_NOT_READY);
  SUCCEEDS(cuStreamWaitEvent(second, e, 0));
  SUCCEEDS(cuMemcpyDtoHAsync_v2(out, x, n * 4, second));
  SUCCEEDS(cuEventRecord(end, second));
  float ms;
  FAILS(cuEventElapsedTime(&ms, e, end), CUDA_ERROR_NOT_READY);
  SUCCEEDS(cuEventSynchronize(end));
  CHECK(out[0] == 7);
  SUCCEEDS(cuEventElapsedTime(&ms, e, end));
  CHECK(ms >= 0);
  SUCCEEDS(cuEventDestroy_v2(e));
  SUCCEEDS(cuStreamDestroy_v2(first));
  FAILS(cuStreamSynchronize(first), CUDA_ERROR_INVALID_HANDLE);
}

static void test_null_stream_orders_blocking_streams() {
  start();
  const size_t n = 16;
  const CUdeviceptr x = new_memory(n * 4);
  const CUstream blocking = new_stream(0), other = new_stream();
  SUCCEEDS(cuMemsetD32Async(x, as_bits(1), n, blocking));
  CHECK(to_host((const float*)x, n)[0] == 1);
  SUCCEEDS(cuMemsetD32Async(x, as_bits(2), n, other));
  CHECK(to_host((const float*)x, n)[0] == 1);
  SUCCEEDS(cuCtxSynchronize());
  CHECK(to_host((const float*)x, n)[0] == 2);
  SUCCEEDS(cuMemsetD32Async(x, as_bits(3), n, nullptr));
  float* out = new_pinned(n);
  SUCCEEDS(cuMemcpyDtoHAsync_v2(out, x, n * 4, blocking));
  SUCCEEDS(cuStreamSynchronize(blocking));
  CHECK(out[0] == 3);
}

static void test_graph_replays() {
  start();
  const size_t n = 64;
  float* in = new_pinned(n);
  float* out = new_pinned(n);
  const CUdeviceptr x = new_memory(n * 4), y = new_memory(n * 4), z = new_memory(n * 4);
  const CUstream s = new_stream(), side = new_stream();
  const CUevent fork = new_event(), join = new_event();
  SUCCEEDS(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  SUCCEEDS(cuMemcpyHtoDAsync_v2(x, in, n * 4, s));
  SUCCEEDS(cuEventRecord(fork, s));
  SUCCEEDS(cuStreamWaitEvent(side, fork, 0));
  SUCCEEDS(launch("scale", 1, 1, 64, 0, ValueParams{(float*)x, (float*)y, (int)n, 10}, s));
  SUCCEEDS(cuMemcpyDtoDAsync_v2(z, x, n * 4, side));
  SUCCEEDS(cuEventRecord(join, side));
  SUCCEEDS(cuStreamWaitEvent(s, join, 0));
  SUCCEEDS(cuMemcpyDtoHAsync_v2(out, y, n * 2, s));
  SUCCEEDS(cuMemcpyDtoHAsync_v2(out + n / 2, z, n * 2, s));
  CUgraph graph;
  SUCCEEDS(cuStreamEndCapture(s, &graph));
  size_t nodes;
  SUCCEEDS(cuGraphGetNodes(graph, nullptr, &nodes));
  CHECK(nodes == 5);
  CUgraphExec executable;
  SUCCEEDS(cuGraphInstantiateWithFlags(&executable, graph, 0));
  SUCCEEDS(cuGraphDestroy(graph));
  SUCCEEDS(cuStreamSynchronize(s));
  CHECK(std::isnan(out[0]));
  for (int round = 1; round <= 8; round++) {
    for (size_t i = 0; i < n; i++) {
      in[i] = (float)round;
    }
    SUCCEEDS(cuGraphLaunch(executable, s));
    SUCCEEDS(cuStreamSynchronize(s));
    CHECK(out[1] == (float)(10 * round) && out[n / 2] == (float)round);
  }
  SUCCEEDS(cuGraphLaunch(executable, s));
  SUCCEEDS(cuGraphExecDestroy(executable));
  SUCCEEDS(cuStreamSynchronize(s));
}

// A graph's unordered nodes run in any order, so that a missing dependency shows.
static void test_graph_order_is_random() {
  start();
  const CUdeviceptr x = new_memory(4);
  const CUstream s = new_stream(), side = new_stream();
  const CUevent fork = new_event(), join = new_event();
  SUCCEEDS(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  SUCCEEDS(cuEventRecord(fork, s));
  SUCCEEDS(cuStreamWaitEvent(side, fork, 0));
  SUCCEEDS(cuMemsetD32Async(x, 1, 1, s));
  SUCCEEDS(cuMemsetD32Async(x, 2, 1, side));
  SUCCEEDS(cuEventRecord(join, side));
  SUCCEEDS(cuStreamWaitEvent(s, join, 0));
  CUgraph graph;
  SUCCEEDS(cuStreamEndCapture(s, &graph));
  CUgraphExec executable;
  SUCCEEDS(cuGraphInstantiateWithFlags(&executable, graph, 0));
  bool seen[3] = {};
  for (int i = 0; i < 50; i++) {
    SUCCEEDS(cuGraphLaunch(executable, s));
    SUCCEEDS(cuStreamSynchronize(s));
    seen[to_host((const u32*)x, 1)[0]] = true;
  }
  CHECK(seen[1] && seen[2]);
}

static void begin(CUstream s, CUstreamCaptureMode mode) { SUCCEEDS(cuStreamBeginCapture_v2(s, mode)); }

static void test_capture_forbids() {
  start();
  const CUstream s = new_stream(0), other = new_stream();
  const CUevent e = new_event();
  const CUdeviceptr x = new_memory(64);
  float* pinned = new_pinned(16);
  std::vector<float> pageable(16);
  CUgraph graph;
  CUdeviceptr p;

  begin(s, CU_STREAM_CAPTURE_MODE_GLOBAL);
  FAILS(cuMemAlloc_v2(&p, 16), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  FAILS(cuMemsetD32Async(x, 0, 1, s), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  FAILS(cuStreamEndCapture(s, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  CHECK(graph == nullptr);

  begin(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  CUresult elsewhere;
  CUcontext context;
  SUCCEEDS(cuCtxGetCurrent(&context));
  std::thread([&] {
    cuCtxSetCurrent(context);
    elsewhere = cuMemAlloc_v2(&p, 16);
  }).join();
  SUCCEEDS(elsewhere);
  FAILS(cuStreamSynchronize(s), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  FAILS(cuStreamEndCapture(s, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  begin(s, CU_STREAM_CAPTURE_MODE_RELAXED);
  SUCCEEDS(cuMemAlloc_v2(&p, 16));
  FAILS(cuMemcpyHtoD_v2(x, pageable.data(), 64), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  FAILS(cuStreamEndCapture(s, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  begin(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  FAILS(cuMemcpyHtoDAsync_v2(x, pageable.data(), 64, s), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  FAILS(cuStreamEndCapture(s, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  SUCCEEDS(cuEventRecord(e, other));
  begin(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  FAILS(cuStreamWaitEvent(s, e, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  FAILS(cuStreamEndCapture(s, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  begin(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  SUCCEEDS(cuEventRecord(e, s));
  FAILS(cuEventSynchronize(e), CUDA_ERROR_CAPTURED_EVENT);
  FAILS(cuStreamEndCapture(s, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  begin(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  SUCCEEDS(cuEventRecord(e, s));
  SUCCEEDS(cuStreamWaitEvent(other, e, 0));
  SUCCEEDS(cuMemcpyHtoDAsync_v2(x, pinned, 64, other));
  FAILS(cuStreamEndCapture(other, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  FAILS(cuStreamEndCapture(s, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  begin(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  SUCCEEDS(cuEventRecord(e, s));
  SUCCEEDS(cuStreamWaitEvent(other, e, 0));
  SUCCEEDS(cuMemcpyHtoDAsync_v2(x, pinned, 64, other));
  FAILS(cuStreamEndCapture(s, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);

  FAILS(cuStreamEndCapture(s, &graph), CUDA_ERROR_ILLEGAL_STATE);
  FAILS(cuStreamBeginCapture_v2(nullptr, CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

static void test_graph_with_freed_memory() {
  start();
  const CUstream s = new_stream();
  const CUdeviceptr x = new_memory(64);
  begin(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  SUCCEEDS(cuMemsetD32Async(x, 0, 16, s));
  CUgraph graph;
  CUgraphExec executable;
  SUCCEEDS(cuStreamEndCapture(s, &graph));
  SUCCEEDS(cuGraphInstantiateWithFlags(&executable, graph, 0));
  SUCCEEDS(cuMemFree_v2(x));
  SUCCEEDS(cuGraphLaunch(executable, s));
  SUCCEEDS(cuStreamSynchronize(s));
}

static void test_context_rules() {
  int count;
  FAILS(cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED);
  SUCCEEDS(cuInit(0));
  SUCCEEDS(cuDeviceGetCount(&count));
  CHECK(count == 1);
  CUdeviceptr p;
  FAILS(cuMemAlloc_v2(&p, 16), CUDA_ERROR_INVALID_CONTEXT);
  CUcontext context;
  FAILS(cuDevicePrimaryCtxRetain(&context, 1), CUDA_ERROR_INVALID_DEVICE);
  SUCCEEDS(cuDevicePrimaryCtxRetain(&context, 0));
  SUCCEEDS(cuCtxSetCurrent(context));
  SUCCEEDS(cuMemAlloc_v2(&p, 16));
  CUdevice device = -1;
  SUCCEEDS(cuCtxGetDevice(&device));
  CHECK(device == 0);
  CUresult elsewhere;
  std::thread([&] { elsewhere = cuMemFree_v2(p); }).join();
  FAILS(elsewhere, CUDA_ERROR_INVALID_CONTEXT);
  SUCCEEDS(cuMemFree_v2(p));
  FAILS(cuMemFree_v2(p), CUDA_ERROR_INVALID_VALUE);
  SUCCEEDS(cuDevicePrimaryCtxRelease_v2(0));
  FAILS(cuMemAlloc_v2(&p, 16), CUDA_ERROR_CONTEXT_IS_DESTROYED);
}

static void test_memory_limit() {
  start();
  size_t free, total;
  SUCCEEDS(cuMemGetInfo_v2(&free, &total));
  CHECK(free == 100000 && total == 100000);
  const CUdeviceptr p = new_memory(60000);
  CHECK(p % 256 == 0);
  SUCCEEDS(cuMemGetInfo_v2(&free, &total));
  CHECK(free == 40000);
  CUdeviceptr q;
  FAILS(cuMemAlloc_v2(&q, 40001), CUDA_ERROR_OUT_OF_MEMORY);
  FAILS(cuMemAlloc_v2(&q, (size_t)1 << 60), CUDA_ERROR_OUT_OF_MEMORY);
  FAILS(cuMemAlloc_v2(&q, 0), CUDA_ERROR_INVALID_VALUE);
  SUCCEEDS(cuMemFree_v2(p));
  q = new_memory(100000);
  char byte = 0;
  FAILS(cuMemcpyHtoD_v2(q + 100000, &byte, 1), CUDA_ERROR_INVALID_VALUE);
  FAILS(cuMemsetD32Async(q + 2, 0, 1, nullptr), CUDA_ERROR_INVALID_VALUE);
}

static void test_modules() {
  start();
  CUmodule m;
  char log[200] = "";
  int options[] = {5, 6};
  void* values[] = {log, (void*)sizeof log};
  const auto load = [&](const std::string& ptx) {
    values[1] = (void*)sizeof log;
    return cuModuleLoadDataEx(&m, ptx.c_str(), 2, options, values);
  };
  FAILS(load("garbage"), CUDA_ERROR_INVALID_PTX);
  CHECK(strstr(log, ".version"));
  FAILS(load(header + entry_text("absent", 8, 32)), CUDA_ERROR_INVALID_PTX);
  CHECK(strstr(log, "absent") && (size_t)values[1] == strlen(log));
  FAILS(load(header + entry_text("scale", sizeof(ValueParams) + 8, 32)), CUDA_ERROR_INVALID_PTX);
  CHECK(strstr(log, "scale"));
  FAILS(load(".version 8.0\n.target sm_90a\n" + entry_text("scale", sizeof(ValueParams), 32)), CUDA_ERROR_INVALID_PTX);
  FAILS(load(".version 8.7\n.target sm_80\n"), CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
  FAILS(load(header + entry_text("scale", sizeof(ValueParams), 32, ".shared .align 4 .b8 a[49153];")),
        CUDA_ERROR_INVALID_PTX);
  SUCCEEDS(load(header + std::string(".shared .align 4 .f32 used[10];\n.shared .align 4 .b8 unused[1000];\n"
                                     ".extern .shared .align 1024 .b8 dynamic[];\n") +
                entry_text("scale", sizeof(ValueParams), 96,
                           ".shared .align 16 .b8 a[24];\nmov.u64 %rd1, used;\nmov.u64 %rd2, dynamic;\n")));
  CUfunction f;
  FAILS(cuModuleGetFunction(&f, m, "gemm_bf16"), CUDA_ERROR_NOT_FOUND);
  SUCCEEDS(cuModuleGetFunction(&f, m, "scale"));
  int value;
  SUCCEEDS(cuFuncGetAttribute(&value, 1, f));
  CHECK(value == 64);
  SUCCEEDS(cuFuncGetAttribute(&value, 0, f));
  CHECK(value == 96);
  SUCCEEDS(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, f, 96, 0));
  CHECK(value >= 1 && value <= 21);
  SUCCEEDS(cuModuleUnload(m));
  FAILS(cuFuncGetAttribute(&value, 0, f), CUDA_ERROR_INVALID_HANDLE);
}

static void test_launch_limits() {
  start();
  const ValueParams params{to_device(std::vector<float>(8)), to_device(std::vector<float>(8)), 0, 1};
  const auto with = [&](unsigned x, unsigned y, unsigned threads, unsigned shared) {
    return launch("scale", x, y, threads, shared, params);
  };
  SUCCEEDS(with(1, 1, 128, 49152));
  FAILS(with(0, 1, 32, 0), CUDA_ERROR_INVALID_VALUE);
  FAILS(with(1, 65536, 32, 0), CUDA_ERROR_INVALID_VALUE);
  FAILS(with(1, 1, 129, 0), CUDA_ERROR_INVALID_VALUE);
  FAILS(with(1, 1, 0, 0), CUDA_ERROR_INVALID_VALUE);
  FAILS(with(1, 1, 32, 49153), CUDA_ERROR_INVALID_VALUE);
  allow_shared("scale", 232448);
  SUCCEEDS(with(1, 1, 32, 232448));
  FAILS(cuFuncSetAttribute(function("scale"), 8, 232449), CUDA_ERROR_INVALID_VALUE);
  FAILS(cuFuncSetAttribute(function("fault"), 8, 232448), CUDA_ERROR_INVALID_VALUE);
  SUCCEEDS(cuCtxSynchronize());
}

static void test_shared_limit_of_capability() {
  start();
  FAILS(cuFuncSetAttribute(function("scale"), 8, 166913), CUDA_ERROR_INVALID_VALUE);
  allow_shared("scale", 166912);
}

static void test_old_device() {
  SUCCEEDS(cuInit(0));
  int major, minor, count;
  SUCCEEDS(cuDeviceGetCount(&count));
  SUCCEEDS(cuDeviceGetAttribute(&major, 75, 1));
  SUCCEEDS(cuDeviceGetAttribute(&minor, 76, 1));
  CHECK(count == 2 && major == 7 && minor == 5);
  char name[64];
  SUCCEEDS(cuDeviceGetName(name, sizeof name, 1));
  CHECK(!strcmp(name, "ddpm stand-in"));
  CUcontext context;
  SUCCEEDS(cuDevicePrimaryCtxRetain(&context, 1));
  SUCCEEDS(cuCtxSetCurrent(context));
  FAILS(cuModuleLoadDataEx(&module_of_all, all_entries().c_str(), 0, nullptr, nullptr), CUDA_ERROR_INVALID_PTX);
}

static void test_no_device() { FAILS(cuInit(0), CUDA_ERROR_NO_DEVICE); }

static void test_failures() {
  start();
  CUdeviceptr p = new_memory(64);
  FAILS(cuMemAlloc_v2(&p, 64), CUDA_ERROR_OUT_OF_MEMORY);
  SUCCEEDS(cuMemAlloc_v2(&p, 64));
  ValueParams params{(float*)p, (float*)p, 0, 1};
  void* parameters[] = {&params};
  const CUfunction scale = function("scale");
  const CUstream s = new_stream();
  SUCCEEDS(launch("scale", 1, 1, 32, 0, params, s));
  SUCCEEDS(cuStreamSynchronize(s));
  SUCCEEDS(launch("scale", 1, 1, 32, 0, params, s));
  SUCCEEDS(launch("scale", 1, 1, 32, 0, params, s));
  FAILS(cuStreamSynchronize(s), 700);
  FAILS(cuMemAlloc_v2(&p, 64), 700);
  FAILS(cuLaunchKernel(scale, 1, 1, 1, 32, 1, 1, 0, s, parameters, nullptr), 700);
  const char* text;
  SUCCEEDS(cuGetErrorName(700, &text));
  CHECK(!strcmp(text, "CUDA_ERROR_ILLEGAL_ADDRESS"));
  SUCCEEDS(cuGetErrorString(700, &text));
  CHECK(!strcmp(text, "an illegal memory access was encountered"));
  FAILS(cuGetErrorName(12345, &text), CUDA_ERROR_INVALID_VALUE);
}

// Not every order may be the same, and every one must give the same result.
static void test_many_seeds() {
  start();
  const int m = 64, n = 64, k = 96;
  const auto a = to_bf16(random_values(m * k)), b = to_bf16(random_values(n * k));
  const auto *da = to_device(a), *db = to_device(b);
  std::vector<float> first;
  for (int seed = 1; seed <= 20; seed++) {
    setenv("STANDIN_SEED", std::to_string(seed).c_str(), 1);
    auto* c = to_device(std::vector<float>(m * n));
    SUCCEEDS(launch("gemm_bf16", 1, 1, 128, gemm_shared, GemmParams{da, db, c, m, n, k}));
    const auto got = to_host(c, m * n);
    CHECK(first.empty() || got == first);
    first = got;
  }
}

// Seconds of the wall clock, and of processor time of all threads.
struct Time {
  double wall, processor;
};

template <class Body>
static Time time_of(Body body) {
  const auto begin = std::chrono::steady_clock::now();
  const clock_t processor_begin = clock();
  body();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
          (double)(clock() - processor_begin) / CLOCKS_PER_SEC};
}

static void bench_gemm(const char* kernel, const void* a, const void* b, int n) {
  auto* c = to_device(std::vector<float>(n * n));
  const Time t = time_of([&] {
    SUCCEEDS(launch(kernel, n / 64, n / 64, 128, gemm_shared, GemmParams{a, b, c, n, n, n}));
    SUCCEEDS(cuCtxSynchronize());
  });
  const double flop = 2.0 * n * n * n;
  printf("%-10s %d^3: %6.3f s, %5.2f GFLOP/s; %5.2f in a second of processor time\n", kernel, n, t.wall,
         flop / t.wall * 1e-9, flop / t.processor * 1e-9);
}

// bench_wgmma times the products of one block, whose two warpgroups multiply 128 rows.
static void bench_wgmma() {
  const int n = 128, k = 64 * 1000;
  WgmmaTable table;
  table.a = map_of(to_device(std::vector<u16>(128 * k, 0x3f80)), {k, 128, 1}, {64, 64, 1});
  table.b = map_of(to_device(std::vector<u16>(n * k, 0x3f80)), {k, n, 1}, {64, n, 1});
  auto* c = to_device(std::vector<float>(128 * n));
  allow_shared("wgmma_128_nn", (int)wgmma_shared(n));
  Time t;
  for (int round = 0; round < 2; round++) {  // the first one starts the workers
    const WgmmaParams params{table_in_memory(table), c, 128, k};
    t = time_of([&] {
      SUCCEEDS(launch("wgmma_128_nn", 1, 1, 384, wgmma_shared(n), params));
      SUCCEEDS(cuCtxSynchronize());
    });
  }
  CHECK(to_host(c, 1)[0] == k);
  printf("wgmma_128_nn: %6.2f us a product of 64 x %d x 16, %5.2f GFLOP/s in a second of processor time\n",
         t.processor / (k / 16 * 2) * 1e6, n, 2.0 * 128 * n * k / t.processor * 1e-9);
}

static void bench() {
  start_hopper();
  bench_wgmma();
  const int n = 512;
  const auto a = random_values(n * n), b = random_values(n * n);
  bench_gemm("gemm_bf16", to_device(to_bf16(a)), to_device(to_bf16(b)), n);
  bench_gemm("gemm_tf32", to_device(a), to_device(b), n);
  const int values = 1 << 20;
  auto* x = to_device(std::vector<float>(values));
  auto* y = to_device(std::vector<float>(values));
  for (const char* memory : {"touched first", "touched again"}) {
    const Time t = time_of([&] {
      SUCCEEDS(launch("scale", values / 128, 1, 128, 0, ValueParams{x, y, values, 2}));
      SUCCEEDS(cuCtxSynchronize());
    });
    printf("scale, memory %s: %5.1f ns of processor time a thread\n", memory, t.processor / values * 1e9);
  }
}

struct Case {
  std::string name;
  std::string environment;  // NAME=VALUE, several with a space between
  std::string expected;     // words on standard error with which it has to die, or none
  std::function<void()> run;
};

struct FaultCase {
  Fault fault;
  const char* name;
  const char* expected;
  unsigned blocks = 1, threads = 64;
};

struct HopperFaultCase {
  HopperFault fault;
  const char* name;
  const char* expected;
};

static std::vector<Case> all_cases() {
  std::vector<Case> cases = {
      {"indices", "", "", test_indices},
      {"block_sums", "", "", test_block_sums},
      {"lanes", "", "", test_lanes},
      {"copy_pipeline", "", "", test_copy_pipeline},
      {"gemm_bf16", "", "", test_gemm_bf16},
      {"gemm_bf16_transposed", "", "", test_gemm_bf16_transposed},
      {"gemm_tf32", "", "", test_gemm_tf32},
      {"scale", "", "", test_scale},
      {"ticket", "", "", test_ticket},
      {"ticket_four_workers", "STANDIN_WORKERS=4 STANDIN_SEED=7", "", test_ticket},
      {"conversions", "", "", test_conversions},
      {"many_seeds", "", "", test_many_seeds},
      {"fresh_memory", "", "", test_fresh_memory_is_nan},
      {"streams", "", "", test_streams_are_lazy},
      {"events", "", "", test_events_order_streams},
      {"null_stream", "", "", test_null_stream_orders_blocking_streams},
      {"graph", "", "", test_graph_replays},
      {"graph_order", "", "", test_graph_order_is_random},
      {"capture", "", "", test_capture_forbids},
      {"graph_freed", "", "has been freed", test_graph_with_freed_memory},
      {"context", "", "", test_context_rules},
      {"memory", "STANDIN_MEMORY=100000", "", test_memory_limit},
      {"modules", "", "", test_modules},
      {"launch_limits", "STANDIN_CAPABILITY=9.0", "", test_launch_limits},
      {"shared_limit", "", "", test_shared_limit_of_capability},
      {"old_device", "STANDIN_CAPABILITY=7.5 STANDIN_DEVICES=2", "", test_old_device},
      {"no_device", "STANDIN_DEVICES=0", "", test_no_device},
      {"tensor_maps", "STANDIN_CAPABILITY=9.0", "", test_tensor_map_rules},
      {"boxes", "STANDIN_CAPABILITY=9.0", "", test_boxes},
      {"wgmma_64_tn", "STANDIN_CAPABILITY=9.0", "", test_wgmma<0>},
      {"wgmma_128_nn", "STANDIN_CAPABILITY=9.0", "", test_wgmma<1>},
      {"wgmma_192_nt", "STANDIN_CAPABILITY=9.0", "", test_wgmma<2>},
      {"wgmma_256_tt", "STANDIN_CAPABILITY=9.0", "", test_wgmma<3>},
      {"wgmma_seeds", "STANDIN_CAPABILITY=9.0", "", test_wgmma_seeds},
      {"wgmma_squares", "STANDIN_CAPABILITY=9.0", "", test_wgmma_squares},
      {"hopper_modules", "STANDIN_CAPABILITY=9.0", "", test_hopper_modules},
      {"hopper_for_sm_80", "STANDIN_CAPABILITY=9.0", "was not compiled for sm_90a", test_hopper_kernel_for_sm_80},
      {"failures", "STANDIN_FAIL=call:cuMemAlloc_v2:2:2,launch:scale:2:700", "", test_failures},
      {"bad_setting", "STANDIN_WORKERS=none", "want a number from 1 to 64", test_indices},
      {"bad_failure", "STANDIN_FAIL=launch", "want rules like", test_indices},
  };
  const FaultCase faults[] = {
      {none, "none", ""},
      {missing_barrier, "missing_barrier", "of static shared memory"},
      {missing_barrier_after_read, "missing_barrier_after_read", "of static shared memory"},
      {missing_warp_barrier, "missing_warp_barrier", "data race"},
      {missing_wait, "missing_wait", "is read while an asynchronous copy of thread"},
      {missing_wait_with_barrier, "missing_wait_with_barrier", "is read while an asynchronous copy of thread"},
      {missing_barrier_after_wait, "missing_barrier_after_wait", "data race"},
      {barrier_in_branch, "barrier_in_branch", "deadlock: "},
      {diverged_warp, "diverged_warp", "the warp has diverged: some of its lanes are in"},
      {ended_lane, "ended_lane", "ended"},
      {partial_warp, "partial_warp", "needs all 32 lanes", 1, 48},
      {unrounded_operand, "unrounded_operand", "is not rounded by to_tf32"},
      {misaligned_row, "misaligned_row", "not aligned to 16 bytes"},
      {misaligned_copy, "misaligned_copy", "copy_async16 at"},
      {misaligned_vector, "misaligned_vector", "load_global16 at"},
      {misaligned_cast, "misaligned_cast", "not aligned"},
      {misaligned_shared, "misaligned_shared", "faults.cu:"},
      {global_past_end, "global_past_end", "0 bytes past the end of an allocation of 1024 bytes"},
      {global_before_start, "global_before_start", "4 bytes before an allocation of 1024 bytes"},
      {global_past_end_vector, "global_past_end_vector", "read of 16 bytes"},
      {global_past_end_copy, "global_past_end_copy", "past the end of an allocation"},
      {null_pointer, "null_pointer", "no allocation is near"},
      {dynamic_past_end, "dynamic_past_end", "at byte 256 of dynamic shared memory"},
      {dynamic_past_end_row, "dynamic_past_end_row", "is not in shared memory"},
      {static_past_end, "static_past_end", "index 4 is out of the bounds of 'float [4]'"},
      {static_far_past_end, "static_far_past_end", "outside of device and shared memory"},
      {division_by_zero, "division_by_zero", "division by zero"},
      {copy_to_global, "copy_to_global", "is not in shared memory"},
      {copy_of_eight_bytes, "copy_of_eight_bytes", "want 0 or 16"},
      {bad_shuffle, "bad_shuffle", "want 0 to 31"},
      {stack_overflow, "stack_overflow", "stack overflow"},
      {block_race, "block_race", "of block", 2},
      {missing_fence, "missing_fence", "data race: byte", 8},
      {thread_race_in_global, "thread_race_in_global", "of device memory"},
  };
  static_assert(sizeof faults / sizeof *faults == fault_count, "a case for each fault");
  for (const FaultCase& f : faults) {
    cases.push_back({std::string("fault_") + f.name, "", f.expected, [f] {
                       fault_to_commit = f.fault;
                       fault_blocks = f.blocks;
                       fault_threads = f.threads;
                       commit_fault();
                     }});
  }
  const HopperFaultCase hopper_faults[] = {
      {hopper_none, "none", ""},
      {no_wait_for_copy, "no_wait_for_copy", "is read while a copy to it is in flight"},
      {wait_of_other_warp, "wait_of_other_warp", "is read without a wait for the mbarrier at byte 24576"},
      {copy_over_copy, "copy_over_copy", "to which another copy is in flight"},
      {copy_over_unfenced, "copy_over_unfenced", "wrote without a fence_async_proxy"},
      {copy_over_read, "copy_over_read", "data race: a copy overwrites"},
      {product_of_copy_in_flight, "product_of_copy_in_flight", "to which a copy is in flight"},
      {product_of_unfenced, "product_of_unfenced", "wrote without a fence_async_proxy"},
      {product_of_unordered, "product_of_unordered", "data race: a product reads what thread"},
      {write_during_product, "write_during_product", "nothing says that the product of warpgroup 0"},
      {copy_during_product, "copy_during_product", "nothing says that the product of warpgroup 0"},
      {too_few_bytes, "too_few_bytes", "lacks 0 of 1 arrivals and -128 bytes"},
      {too_many_bytes, "too_many_bytes", "lacks 0 of 1 arrivals and 128 bytes"},
      {too_many_arrivals, "too_many_arrivals", "more than 1 arrivals"},
      {no_init_barrier, "no_init_barrier", "mbarrier"},
      {no_init_fence, "no_init_fence", "no mbarrier_init_fence"},
      {init_twice, "init_twice", "is initialised again"},
      {no_mbarrier, "no_mbarrier", "where no mbarrier is"},
      {mbarrier_overwritten, "mbarrier_overwritten", "is written, where an mbarrier is"},
      {copy_over_mbarrier, "copy_over_mbarrier", "where an mbarrier is"},
      {misaligned_box, "misaligned_box", "not aligned to 1024 bytes"},
      {misaligned_map, "misaligned_map", "not at a multiple of 64"},
      {no_map, "no_map", "is no tensor map"},
      {other_rank, "other_rank", "of rank 4 by the tensor map of a tensor of rank 3"},
      {copy_past_shared, "copy_past_shared", "passes its end, 32768"},
      {copy_past_global, "copy_past_global", "past the end of an allocation"},
      {copy_never_waited, "copy_never_waited", "the block ends with 1 copies"},
      {other_descriptor, "other_descriptor", "start different products"},
      {other_argument, "other_argument", "in wgmma_wait of"},
      {no_descriptor, "no_descriptor", "is not one of wgmma_descriptor"},
      {descriptor_in_row, "descriptor_in_row", "an operand of a product begins at"},
      {descriptor_stride, "descriptor_stride", "has stride 512"},
      {product_past_shared, "product_past_shared", "a product reads byte"},
      {no_wgmma_fence, "no_wgmma_fence", "without a wgmma_fence"},
      {no_wgmma_wait, "no_wgmma_wait", "with products that no wgmma_wait covers"},
      {commits_differ, "commits_differ", "committed different numbers"},
      {named_barrier_of_part, "named_barrier_of_part", "lanes of warp"},
      {named_barrier_of_others, "named_barrier_of_others", "while others wait there for"},
      {named_barrier_deadlock, "named_barrier_deadlock", "32 at named barriers"},
      {take_without_give, "take_without_give", "256 for products or registers"},
      {take_less, "take_less", "registers_take<224> by a warpgroup of 232 registers"},
      {give_more, "give_more", "registers_give<48> by a warpgroup of 40 registers"},
      {unordered_warps, "unordered_warps", "data race"},
      {misaligned_shared16, "misaligned_shared16", "not aligned to 16 bytes"},
      {shared16_past_end, "shared16_past_end", "store_shared16 at byte 32768"},
  };
  static_assert(sizeof hopper_faults / sizeof *hopper_faults == hopper_fault_count, "a case for each fault");
  for (const HopperFaultCase& f : hopper_faults) {
    cases.push_back({std::string("hopper_fault_") + f.name, "STANDIN_CAPABILITY=9.0", f.expected,
                     [f] { commit_hopper_fault(f.fault); }});
  }
  return cases;
}

// run_in_child is what a case writes to standard error, and its exit status.
static std::string run_in_child(const Case& c, int* status) {
  int ends[2];
  if (pipe(ends)) {
    perror("pipe");
    exit(1);
  }
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    std::istringstream settings(c.environment);
    for (std::string setting; settings >> setting;) {
      putenv(strdup(setting.c_str()));
    }
    alarm(60);
    c.run();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char part[512];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) {
    text.append(part, (size_t)n);
  }
  close(ends[0]);
  waitpid(child, status, 0);
  return text;
}

static bool passes(const Case& c) {
  int status;
  const std::string text = run_in_child(c, &status);
  const bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  const bool died = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  const bool ok = c.expected.empty() ? ended_well : died && text.find(c.expected) != std::string::npos;
  printf("%-32s %s\n", c.name.c_str(), ok ? "ok" : "FAILED");
  if (!ok) {
    printf("  status 0x%x, said: %s\n  want: %s\n", status, text.c_str(), c.expected.c_str());
  } else if (getenv("VERBOSE") && !text.empty()) {
    printf("  %s", text.c_str());
  }
  return ok;
}

static int load_modules(int count, char** files) {
  setenv("STANDIN_CAPABILITY", "9.0", 1);
  start();
  for (int i = 0; i < count; i++) {
    std::ifstream file(files[i]);
    std::stringstream text;
    text << file.rdbuf();
    CUmodule m;
    SUCCEEDS(cuModuleLoadDataEx(&m, text.str().c_str(), 0, nullptr, nullptr));
  }
  return 0;
}

int main(int count, char** arguments) {
  const std::string first = count > 1 ? arguments[1] : "";
  if (first == "bench") {
    setenv("STANDIN_CAPABILITY", "9.0", 1);
    bench();
    return 0;
  }
  if (first == "load") {
    return load_modules(count - 2, arguments + 2);
  }
  bool ok = true;
  int run = 0;
  for (const Case& c : all_cases()) {
    bool wanted = count == 1;
    for (int i = 1; i < count; i++) {
      wanted = wanted || c.name == arguments[i];
    }
    if (wanted) {
      run++;
      ok = passes(c) && ok;
      fflush(stdout);
    }
  }
  printf("%d cases: %s\n", run, ok ? "ok" : "FAILED");
  return ok && run > 0 ? 0 : 1;
}
