// The update rules, each written once: for dense parameters and tables, in f32 and f64, for the CPU (f32 eight
// elements at a time) and for CUDA threads.
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

#include "mixrec/core/host_device.h"
#include "mixrec/core/simd.h"
#include "mixrec/optim/options.h"

#include <cmath>
#include <cstdint>

namespace mixrec::optim {

// The numbers of a rule that all of its parameters share.
struct RuleNumbers {
  double beta1, beta2, decay, momentum, eps;
  bool nesterov, decoupled;

  explicit RuleNumbers(const RuleOptions& o)
      : beta1(o.beta1),
        beta2(o.beta2),
        decay(o.decay),
        momentum(o.momentum),
        eps(o.eps),
        nesterov(o.nesterov),
        decoupled(o.name == "adamw" || o.name == "lazy_adam") {}
};

// The factors that undo the pull of m and v towards their start at 0, after t steps.
struct AdamCorrection {
  double first = 1;   // 1 / (1 - β₁ᵗ)
  double second = 1;  // 1 / √(1 - β₂ᵗ)

  AdamCorrection() = default;
  MR_HOST_DEVICE AdamCorrection(double beta1, double beta2, int64_t t)
      : first(1 / (1 - std::pow(beta1, static_cast<double>(t)))),
        second(1 / std::sqrt(1 - std::pow(beta2, static_cast<double>(t)))) {}
};

// A rule is called with the gradient, the parameter and its kSlots state values, for elements of type V: a
// pack of floats, a float or a double.  make() takes the learning rate and decay of one parameter in one step.

template <class T>
struct Sgd {
  static constexpr int kSlots = 0;
  T lr, weight_decay;

  MR_HOST_DEVICE static Sgd make(const RuleNumbers&, double lr, double weight_decay, const AdamCorrection&) {
    return {static_cast<T>(lr), static_cast<T>(weight_decay)};
  }
  template <class V>
  MR_HOST_DEVICE void operator()(V g, V& p) const {
    p -= V(lr) * (g + V(weight_decay) * p);
  }
};

template <class T>
struct Momentum {
  static constexpr int kSlots = 1;
  T lr, weight_decay, momentum;
  T own, kept;  // p -= lr (own · d + kept · b)

  MR_HOST_DEVICE static Momentum make(const RuleNumbers& o, double lr, double weight_decay,
                                      const AdamCorrection&) {
    const T momentum = static_cast<T>(o.momentum);
    return {static_cast<T>(lr), static_cast<T>(weight_decay), momentum, o.nesterov ? T(1) : T(0),
            o.nesterov ? momentum : T(1)};
  }
  template <class V>
  MR_HOST_DEVICE void operator()(V g, V& p, V& b) const {
    const V d = g + V(weight_decay) * p;
    b = V(momentum) * b + d;
    p -= V(lr) * (V(own) * d + V(kept) * b);
  }
};

template <class T>
struct RmsProp {
  static constexpr int kSlots = 1;
  T lr, weight_decay, decay, fresh, eps;  // fresh = 1 - decay, rounded once

  MR_HOST_DEVICE static RmsProp make(const RuleNumbers& o, double lr, double weight_decay,
                                     const AdamCorrection&) {
    return {static_cast<T>(lr), static_cast<T>(weight_decay), static_cast<T>(o.decay),
            static_cast<T>(1 - o.decay), static_cast<T>(o.eps)};
  }
  template <class V>
  MR_HOST_DEVICE void operator()(V g, V& p, V& s) const {
    const V d = g + V(weight_decay) * p;
    s = V(decay) * s + V(fresh) * d * d;
    p -= V(lr) * d / (simd::sqrt(s) + V(eps));
  }
};

template <class T>
struct Adagrad {
  static constexpr int kSlots = 1;
  T lr, weight_decay, eps;

  MR_HOST_DEVICE static Adagrad make(const RuleNumbers& o, double lr, double weight_decay,
                                     const AdamCorrection&) {
    return {static_cast<T>(lr), static_cast<T>(weight_decay), static_cast<T>(o.eps)};
  }
  template <class V>
  MR_HOST_DEVICE void operator()(V g, V& p, V& s) const {
    const V d = g + V(weight_decay) * p;
    s += d * d;
    p -= V(lr) * d / (simd::sqrt(s) + V(eps));
  }
};

// Its two halves: d of every element, and, once the sum has got the mean of d², the step.
template <class T>
struct RowWiseAdagrad {
  static constexpr int kSlots = 1;  // of one number a row
  T lr, weight_decay, eps;

  MR_HOST_DEVICE static RowWiseAdagrad make(const RuleNumbers& o, double lr, double weight_decay,
                                            const AdamCorrection&) {
    return {static_cast<T>(lr), static_cast<T>(weight_decay), static_cast<T>(o.eps)};
  }
  template <class V>
  MR_HOST_DEVICE V decayed(T scale, V unscaled, V p) const {
    return V(scale) * unscaled + V(weight_decay) * p;
  }
  MR_HOST_DEVICE T rate(T sum) const { return lr / (simd::sqrt(sum) + eps); }
};

template <class T>
struct Adam {
  static constexpr int kSlots = 2;
  double lr;
  T coupled, shrink;  // λ and 1, or decoupled: 0 and 1 - lr λ
  T beta1, fresh1, beta2, fresh2, eps;
  T rate = 0;  // lr / (1 - β₁ᵗ)
  T root = 0;  // 1 / √(1 - β₂ᵗ)

  MR_HOST_DEVICE static Adam make(const RuleNumbers& o, double lr, double weight_decay,
                                  const AdamCorrection& correction) {
    Adam rule{.lr = lr,
              .coupled = static_cast<T>(o.decoupled ? 0 : weight_decay),
              .shrink = static_cast<T>(o.decoupled ? 1 - lr * weight_decay : 1),
              .beta1 = static_cast<T>(o.beta1),
              .fresh1 = static_cast<T>(1 - o.beta1),
              .beta2 = static_cast<T>(o.beta2),
              .fresh2 = static_cast<T>(1 - o.beta2),
              .eps = static_cast<T>(o.eps)};
    rule.correct(correction);
    return rule;
  }
  MR_HOST_DEVICE void correct(const AdamCorrection& correction) {
    rate = static_cast<T>(lr * correction.first);
    root = static_cast<T>(correction.second);
  }
  template <class V>
  MR_HOST_DEVICE void operator()(V g, V& p, V& m, V& v) const {
    const V d = g + V(coupled) * p;
    m = V(beta1) * m + V(fresh1) * d;
    v = V(beta2) * v + V(fresh2) * d * d;
    p = V(shrink) * p - V(rate) * m / (simd::sqrt(v) * V(root) + V(eps));
  }
};

// use.operator()<Rule>() with the rule of that name for dense parameters, and for rows of tables.
template <class T, class Use>
void with_dense_rule(const RuleOptions& o, Use&& use) {
  if (o.name == "sgd" && o.momentum == 0) return use.template operator()<Sgd<T>>();
  if (o.name == "sgd") return use.template operator()<Momentum<T>>();
  if (o.name == "rmsprop") return use.template operator()<RmsProp<T>>();
  if (o.name == "adagrad") return use.template operator()<Adagrad<T>>();
  use.template operator()<Adam<T>>();
}
template <class T, class Use>
void with_table_rule(const RuleOptions& o, Use&& use) {
  if (o.name == "sgd") return use.template operator()<Sgd<T>>();
  if (o.name == "adagrad") return use.template operator()<Adagrad<T>>();
  if (o.name == "row_wise_adagrad") return use.template operator()<RowWiseAdagrad<T>>();
  use.template operator()<Adam<T>>();
}

// average = value + kept (average - value)
template <class T, class V>
MR_HOST_DEVICE V blended(T kept, V value, V average) {
  return value + V(kept) * (average - value);
}

}  // namespace mixrec::optim
