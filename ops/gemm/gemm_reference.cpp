// The product in double: the definition, with just enough blocking to be bearable.
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/ops/gemm/gemm.h"

#include <algorithm>

namespace mixrec::kernel {

namespace {

constexpr int64_t kDepth = 64;  // rows of B that stay in cache while rows of C pass by

// Adds alpha · op(A)[i, p..p_end) op(B)[p..p_end, :] to row i of C.
void add_row(const Gemm& g, const double* a, const double* b, double* c, int64_t i, int64_t p,
             int64_t p_end) {
  const int64_t a_row = g.transpose_a ? 1 : g.lda, a_step = g.transpose_a ? g.lda : 1;
  if (g.transpose_b) {
    for (int64_t j = 0; j < g.n; ++j) {
      double sum = 0;
      for (int64_t q = p; q < p_end; ++q) sum += a[i * a_row + q * a_step] * b[j * g.ldb + q];
      c[j] += g.alpha * sum;
    }
    return;
  }
  for (int64_t q = p; q < p_end; ++q) {
    const double scaled = g.alpha * a[i * a_row + q * a_step];
    for (int64_t j = 0; j < g.n; ++j) c[j] += scaled * b[q * g.ldb + j];
  }
}

}  // namespace

void gemm(const Gemm& g, const double* a, const double* b, double* c, const double* bias) {
  check(g);
  parallel_for(g.batch * g.m, g.n * g.k, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      double* c_row = c + row / g.m * g.stride_c + row % g.m * g.ldc;
      if (!g.accumulate) std::fill_n(c_row, g.n, 0.0);
      if (bias)
        for (int64_t j = 0; j < g.n; ++j) c_row[j] += bias[row / g.m * g.stride_bias + j];
    }
    for (int64_t p = 0; p < g.k; p += kDepth)
      for (int64_t row = begin; row < end; ++row) {
        const int64_t item = row / g.m, i = row % g.m;
        add_row(g, a + item * g.stride_a, b + item * g.stride_b, c + item * g.stride_c + i * g.ldc, i, p,
                std::min(p + kDepth, g.k));
      }
  });
}

}  // namespace mixrec::kernel
