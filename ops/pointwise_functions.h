// The functions of ops/pointwise.h and their derivatives, written once for double, for packs of floats and
// for the float or double of a CUDA thread.
#pragma once

#include "mixrec/core/simd.h"

#include <cmath>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"

namespace mixrec {

namespace simd {

#ifdef __CUDACC__
inline namespace device {

MR_HOST_DEVICE inline float log1p(float x) { return ::log1pf(x); }
MR_HOST_DEVICE inline double log1p(double x) { return ::log1p(x); }

// Φ, the distribution function of the standard normal.
MR_HOST_DEVICE inline float normal_cdf(float z) { return ::normcdff(z); }
MR_HOST_DEVICE inline double normal_cdf(double z) { return ::normcdf(z); }

MR_HOST_DEVICE inline float pow(float x, double exponent) {
  return static_cast<float>(::pow(static_cast<double>(x), exponent));
}
MR_HOST_DEVICE inline double pow(double x, double exponent) { return ::pow(x, exponent); }

}  // namespace device
#else

// log(1 + x).  What rounding u = 1 + x loses or adds is put back by x / (u - 1): Goldberg 1991, theorem 4.
inline Floats8 log1p(Floats8 x) {
  const Floats8 u = x + 1.0f;
  const Floats8 y = select(u == 1.0f, x, log(u) * (x / (u - 1.0f)));
  return select(x < __builtin_inff(), y, x);
}
inline double log1p(double x) { return std::log1p(x); }

// Φ, the distribution function of the standard normal.  For z <= 0 it is e^(-z²/2) times a smooth function of
// t = 1 / (1 + 0.3 |z|): a polynomial fitted for the least largest relative error, 6e-8.
inline Floats8 normal_cdf(Floats8 z) {
  constexpr float p[] = {7.3723672e-06f, 0.11948421f, 0.12194526f,  0.09458588f, 0.14276524f,
                         -0.076839596f,  0.22895172f, -0.16930743f, 0.038407385f};
  const Floats8 t = Floats8(1.0f) / fma(abs(z), 0.3f, 1.0f);
  const Floats8 square = z * z, lost = fma(z, z, -square);
  const Floats8 density = exp(square * -0.5f) * fma(lost, -0.5f, 1.0f);
  const Floats8 below = density * detail::polynomial(t, p);
  return select(z > 0.0f, Floats8(1.0f) - below, below);
}
inline double normal_cdf(double z) { return 0.5 * std::erfc(-z * M_SQRT1_2); }

inline Floats8 pow(Floats8 x, double exponent) {
  for (int i = 0; i < Floats8::size; ++i) x.lanes[i] = static_cast<float>(std::pow(x.lanes[i], exponent));
  return x;
}
inline double pow(double x, double exponent) { return std::pow(x, exponent); }

#endif

}  // namespace simd

namespace pointwise {

struct Relu {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::max(V(0), x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return simd::select(x > V(0), V(1), V(0));
  }
};

struct LeakyRelu {
  double negative_slope;
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return x * slope(x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return simd::select(x > V(0), V(1), V(negative_slope));
  }
};

struct Silu {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return x * simd::sigmoid(x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    const V s = simd::sigmoid(x);
    return s + x * s * (V(1) - s);
  }
};

struct Gelu {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return x * simd::normal_cdf(x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    const V density = simd::exp(V(-.5) * x * x) * V(0.39894228040143267794);  // 1 / √(2π)
    return simd::normal_cdf(x) + x * density;
  }
};

struct Sigmoid {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::sigmoid(x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return simd::sigmoid(x) * simd::sigmoid(-x);
  }
};

struct Tanh {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::tanh(x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    const V y = simd::tanh(x);
    return V(1) - y * y;
  }
};

struct Exp {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::exp(x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return simd::exp(x);
  }
};

struct Log {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::log(x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return V(1) / x;
  }
};

struct Log1p {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::log1p(x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return V(1) / (V(1) + x);
  }
};

struct Sqrt {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::sqrt(x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return V(.5) / simd::sqrt(x);
  }
};

struct Square {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return x * x;
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return x + x;
  }
};

struct Abs {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::abs(x);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return simd::select(x > V(0), V(1), simd::select(x < V(0), V(-1), V(0)));
  }
};

struct Softplus {
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::max(V(0), x) + simd::log1p(simd::exp(-simd::abs(x)));
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return simd::sigmoid(x);
  }
};

struct Clamp {
  double low, high;
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::min(V(high), simd::max(V(low), x));
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return simd::select(value(x) == x, V(1), V(0));
  }
};

struct Pow {
  double exponent;
  template <class V>
  MR_HOST_DEVICE V value(V x) const {
    return simd::pow(x, exponent);
  }
  template <class V>
  MR_HOST_DEVICE V slope(V x) const {
    return exponent == 0 ? V(0) : V(exponent) * simd::pow(x, exponent - 1);
  }
};

}  // namespace pointwise
}  // namespace mixrec

// All of them, for a backend that compiles its kernels apart from the ops: X(Relu) X(LeakyRelu) …
#define MR_INSTANTIATE_POINTWISE(X) \
  X(Relu)                           \
  X(LeakyRelu)                      \
  X(Silu)                           \
  X(Gelu) X(Sigmoid) X(Tanh) X(Exp) X(Log) X(Log1p) X(Sqrt) X(Square) X(Abs) X(Softplus) X(Clamp) X(Pow)

#pragma GCC diagnostic pop
