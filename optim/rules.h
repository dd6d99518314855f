// The update rules, each written once: for dense parameters and tables, in f32 (eight elements at a time) and
// in f64.
//
// g is the gradient (scaled and clipped), p the parameter, t the step from 1 on, λ the weight decay, lr the
// learning rate after schedule and group; all but adamw and lazy_adam begin with d = g + λ p.
//
//   sgd                b = μ b + d                    p -= lr b,  nesterov: p -= lr (d + μ b)
//   rmsprop            s = ρ s + (1 - ρ) d²           p -= lr d / (√s + ε)
//   adagrad            s = s + d²                     p -= lr d / (√s + ε)
//   row_wise_adagrad   s = s + mean of d²             p -= lr d / (√s + ε),  one s for the row
//   adam               m = β₁ m + (1 - β₁) d          p -= lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)
//                      v = β₂ v + (1 - β₂) d²
//   adamw, lazy_adam   p -= lr λ p, then as adam with d = g
//
// s starts at initial_accumulator (adagrad, row_wise_adagrad) or 0; b, m and v start at 0.
#pragma once

#include "mixrec/core/simd.h"
#include "mixrec/optim/options.h"

#include <cmath>
#include <cstdint>
#include <type_traits>

namespace mixrec::optim {

// A rule is called with the gradient, the parameter and its kSlots state values, for elements of type V: a
// pack of floats, or a double.

template <class T>
struct Sgd {
  static constexpr int kSlots = 0;
  T lr, weight_decay;

  template <class V>
  void operator()(V g, V& p) const {
    p -= V(lr) * (g + V(weight_decay) * p);
  }
};

template <class T>
struct Momentum {
  static constexpr int kSlots = 1;
  T lr, weight_decay, momentum;
  T own, kept;  // p -= lr (own · d + kept · b)

  template <class V>
  void operator()(V g, V& p, V& b) const {
    const V d = g + V(weight_decay) * p;
    b = V(momentum) * b + d;
    p -= V(lr) * (V(own) * d + V(kept) * b);
  }
};

template <class T>
struct RmsProp {
  static constexpr int kSlots = 1;
  T lr, weight_decay, decay, fresh, eps;  // fresh = 1 - decay, rounded once

  template <class V>
  void operator()(V g, V& p, V& s) const {
    const V d = g + V(weight_decay) * p;
    s = V(decay) * s + V(fresh) * d * d;
    p -= V(lr) * d / (simd::sqrt(s) + V(eps));
  }
};

template <class T>
struct Adagrad {
  static constexpr int kSlots = 1;
  T lr, weight_decay, eps;

  template <class V>
  void operator()(V g, V& p, V& s) const {
    const V d = g + V(weight_decay) * p;
    s += d * d;
    p -= V(lr) * d / (simd::sqrt(s) + V(eps));
  }
};

// The factors that undo the pull of m and v towards their start at 0, after t steps.
struct AdamCorrection {
  double first;   // 1 / (1 - β₁ᵗ)
  double second;  // 1 / √(1 - β₂ᵗ)

  AdamCorrection(const RuleOptions& o, int64_t t)
      : first(1 / (1 - std::pow(o.beta1, static_cast<double>(t)))),
        second(1 / std::sqrt(1 - std::pow(o.beta2, static_cast<double>(t)))) {}
};

template <class T>
struct Adam {
  static constexpr int kSlots = 2;
  T coupled, shrink;  // λ and 1, or decoupled: 0 and 1 - lr λ
  T beta1, fresh1, beta2, fresh2, eps;
  T rate = 0;  // lr / (1 - β₁ᵗ)
  T root = 0;  // 1 / √(1 - β₂ᵗ)

  void correct(double lr, const AdamCorrection& correction) {
    rate = static_cast<T>(lr * correction.first);
    root = static_cast<T>(correction.second);
  }

  template <class V>
  void operator()(V g, V& p, V& m, V& v) const {
    const V d = g + V(coupled) * p;
    m = V(beta1) * m + V(fresh1) * d;
    v = V(beta2) * v + V(fresh2) * d * d;
    p = V(shrink) * p - V(rate) * m / (simd::sqrt(v) * V(root) + V(eps));
  }
};

// Without its correction.
template <class T>
Adam<T> adam_rule(const RuleOptions& o, double lr, double weight_decay, bool decoupled) {
  return {.coupled = static_cast<T>(decoupled ? 0 : weight_decay),
          .shrink = static_cast<T>(decoupled ? 1 - lr * weight_decay : 1),
          .beta1 = static_cast<T>(o.beta1),
          .fresh1 = static_cast<T>(1 - o.beta1),
          .beta2 = static_cast<T>(o.beta2),
          .fresh2 = static_cast<T>(1 - o.beta2),
          .eps = static_cast<T>(o.eps)};
}

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
      n, average, [&](auto p, auto a) { return p + decltype(p)(kept) * (a - p); }, value, average);
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
