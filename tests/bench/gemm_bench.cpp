// Our matrix product against OpenBLAS (when installed) on the shapes that MixFormer meets: one line of JSON a
// shape.
//
//   gemm_bench [--threads N] [--seconds S] [--filter TEXT]
//
// The two run in turns, so that other load on the machine hits both; ratio is the median of the turns'
// ratios.
#include "mixrec/core/cpu.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/ops/gemm/gemm.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <string>
#include <vector>

using namespace mixrec;
using kernel::Gemm;

namespace {

// cblas_sgemm, row-major; 111 is "as stored", 112 "transposed".
using Sgemm = void (*)(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                       const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc);

// OpenBLAS takes processors newer than itself for very old ones, so it is told what to use (unless the user has told it).
Sgemm open_blas(int threads) {
  setenv("OPENBLAS_CORETYPE", current_isa() == Isa::avx512 ? "SkylakeX" : "Haswell", 0);
  void* library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (!library) return nullptr;
  if (auto set = reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads"))) set(threads);
  return reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm"));
}

struct Shape {
  const char* what;
  Gemm g;
};

Gemm plain(int64_t m, int64_t n, int64_t k, bool transpose_a = false, bool transpose_b = false) {
  Gemm g;
  g.m = m, g.n = n, g.k = k, g.transpose_a = transpose_a, g.transpose_b = transpose_b;
  g.lda = transpose_a ? m : k, g.ldb = transpose_b ? k : n, g.ldc = n;
  return g;
}

// One product a head on rows that hold all heads side by side: activations [rows, heads, in] and [rows,
// heads, out].
Gemm per_head(int64_t rows, int64_t heads, int64_t in, int64_t out) {
  Gemm g = plain(rows, out, in);
  g.lda = heads * in, g.ldc = heads * out;
  g.batch = heads, g.stride_a = in, g.stride_b = in * out, g.stride_c = out;
  return g;
}
Gemm per_head_input_gradient(int64_t rows, int64_t heads, int64_t in, int64_t out) {
  Gemm g = plain(rows, in, out, false, true);
  g.lda = heads * out, g.ldc = heads * in;
  g.batch = heads, g.stride_a = out, g.stride_b = in * out, g.stride_c = in;
  return g;
}
Gemm per_head_weight_gradient(int64_t rows, int64_t heads, int64_t in, int64_t out) {
  Gemm g = plain(in, out, rows, true);
  g.lda = heads * in, g.ldb = heads * out;
  g.batch = heads, g.stride_a = in, g.stride_b = out, g.stride_c = in * out;
  return g;
}

std::vector<Shape> shapes() {
  return {{"events up", plain(32768, 512, 256)},
          {"events down", plain(32768, 256, 512)},
          {"events up, input gradient", plain(32768, 256, 512, false, true)},
          {"events up, weight gradient", plain(256, 512, 32768, true)},
          {"events down, weight gradient", plain(512, 256, 32768, true)},
          {"per head up", per_head(512, 8, 64, 172)},
          {"per head down", per_head(512, 8, 172, 64)},
          {"per head up, input gradient", per_head_input_gradient(512, 8, 64, 172)},
          {"per head up, weight gradient", per_head_weight_gradient(512, 8, 64, 172)},
          {"dense layer", plain(512, 512, 512)},
          {"dense layer, transposed weight", plain(512, 512, 512, false, true)},
          {"square", plain(1024, 1024, 1024)},
          {"narrow output", plain(32768, 16, 256)},
          {"one output", plain(32768, 1, 256)},
          {"one row", plain(1, 512, 256)},
          {"one row, transposed weight", plain(1, 512, 256, false, true)},
          {"few rows", plain(8, 512, 256)},
          {"tiny", plain(16, 16, 16)}};
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

// Seconds that `repeats` runs take.
template <class F>
double time(int64_t repeats, F f) {
  const double start = seconds_now();
  for (int64_t i = 0; i < repeats; ++i) f();
  return seconds_now() - start;
}

void bench(const Shape& shape, Sgemm blas, double seconds) {
  const Gemm& g = shape.g;
  const auto extent = [&](int64_t rows, int64_t ld, int64_t columns, int64_t stride) {
    return static_cast<size_t>((g.batch - 1) * stride + (rows - 1) * ld + columns);
  };
  std::vector<float> a(extent(g.transpose_a ? g.k : g.m, g.lda, g.transpose_a ? g.m : g.k, g.stride_a), 0.5f);
  std::vector<float> b(extent(g.transpose_b ? g.n : g.k, g.ldb, g.transpose_b ? g.k : g.n, g.stride_b),
                       0.25f);
  std::vector<float> c(extent(g.m, g.ldc, g.n, g.stride_c));
  const auto ours = [&] { kernel::gemm(g, a.data(), b.data(), c.data()); };
  const auto theirs = [&] {
    for (int64_t i = 0; i < g.batch; ++i)
      blas(101, g.transpose_a ? 112 : 111, g.transpose_b ? 112 : 111, static_cast<int>(g.m),
           static_cast<int>(g.n), static_cast<int>(g.k), 1, a.data() + i * g.stride_a,
           static_cast<int>(g.lda), b.data() + i * g.stride_b, static_cast<int>(g.ldb), 0,
           c.data() + i * g.stride_c, static_cast<int>(g.ldc));
  };
  const double flop = 2.0 * static_cast<double>(g.m * g.n * g.k * g.batch);
  time(2, ours);
  if (blas) time(2, theirs);
  const auto repeats = static_cast<int64_t>(2e-3 / std::max(time(3, ours) / 3, 1e-9)) + 1;
  std::vector<double> our_seconds, their_seconds, ratios;
  for (const double end = seconds_now() + seconds; seconds_now() < end || our_seconds.size() < 5;) {
    our_seconds.push_back(time(repeats, ours) / static_cast<double>(repeats));
    if (!blas) continue;
    their_seconds.push_back(time(repeats, theirs) / static_cast<double>(repeats));
    ratios.push_back(their_seconds.back() / our_seconds.back());
  }
  std::printf(
      "{\"bench\":\"gemm\",\"what\":\"%s\",\"m\":%ld,\"n\":%ld,\"k\":%ld,\"batch\":%ld,\"threads\":%d,"
      "\"isa\":\"%s\","
      "\"gflops\":%.1f",
      shape.what, g.m, g.n, g.k, g.batch, num_threads(), isa_name(current_isa()),
      flop / median(our_seconds) * 1e-9);
  if (blas)
    std::printf(",\"openblas_gflops\":%.1f,\"ratio\":%.2f", flop / median(their_seconds) * 1e-9,
                median(ratios));
  std::printf("}\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 0.5;
  std::string filter;
  for (int i = 1; i < argc; i += 2) {
    const std::string option = argv[i];
    if (i + 1 == argc || (option != "--threads" && option != "--seconds" && option != "--filter")) {
      std::fprintf(stderr, "usage: gemm_bench [--threads N] [--seconds S] [--filter TEXT]\n");
      return 2;
    }
    if (option == "--threads")
      set_num_threads(std::atoi(argv[i + 1]));
    else if (option == "--seconds")
      seconds = std::atof(argv[i + 1]);
    else
      filter = argv[i + 1];
  }
  const Sgemm blas = open_blas(num_threads());
  for (const Shape& shape : shapes())
    if (std::string(shape.what).find(filter) != std::string::npos) bench(shape, blas, seconds);
}
