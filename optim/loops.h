// The CPU's loops over the elements of a parameter or a row.
#pragma once

#include "mixrec/optim/rules.h"

#include <cstdint>
#include <type_traits>

namespace mixrec::optim {

// Applies `rule` to n elements: gradient[i] · scale, value[i], state[i]….
template <class T, class Rule, class... State>
void update(int64_t n, const Rule& rule, T scale, const T* gradient, T* value, State*... state) {
  if constexpr (std::is_same_v<T, double>) {
    for (int64_t i = 0; i < n; ++i) rule(scale * gradient[i], value[i], state[i]...);
  } else {
    using simd::Floats8;
    const auto pack = [&](int64_t i, auto... count) {
      const auto apply = [&](Floats8 p, auto... s) {
        rule(Floats8(scale) * simd::load(gradient + i, count...), p, s...);
        simd::store(value + i, p, count...);
        (simd::store(state + i, s, count...), ...);
      };
      apply(simd::load(value + i, count...), simd::load(state + i, count...)...);
    };
    int64_t i = 0;
    for (; i + Floats8::size <= n; i += Floats8::size) pack(i);
    if (i < n) pack(i, n - i);
  }
}

// average = value + kept (average - value)
template <class T>
void blend(int64_t n, T kept, const T* value, T* average) {
  simd::transform(
      n, average, [&](auto p, auto a) { return blended(kept, p, a); }, value, average);
}

// Σ x², in double, in an order that depends on n alone.
template <class T>
double sum_of_squares(int64_t n, const T* x) {
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k)
      lanes[k] += static_cast<double>(x[i + k]) * static_cast<double>(x[i + k]);
  }
  for (int64_t k = 0; i + k < n; ++k)
    lanes[k] += static_cast<double>(x[i + k]) * static_cast<double>(x[i + k]);
  const double a = lanes[0] + lanes[4], b = lanes[1] + lanes[5], c = lanes[2] + lanes[6],
               d = lanes[3] + lanes[7];
  return (a + c) + (b + d);
}

}  // namespace mixrec::optim
