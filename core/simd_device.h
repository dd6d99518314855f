// What CUDA threads compute with in place of packs: the functions of core/simd.h for one float or double.
//
// Formulas that are templates over their value type (ops/pointwise_functions.h, optim/rules.h) include
// core/simd.h, which sends CUDA sources here.  The functions are CUDA's own, precise ones: at most 2 units in
// the last place off in f32.
#pragma once

#include "mixrec/core/host_device.h"

#include <cmath>
#include <type_traits>

namespace mixrec::simd {
// A namespace of their own, so that the linker never takes one of these for its namesake of core/simd.h.
inline namespace device {

template <class T>
requires std::is_floating_point_v<T> MR_HOST_DEVICE T select(bool condition, T a, std::type_identity_t<T> b) {
  return condition ? a : b;
}

// b when the two do not compare.
template <class T>
requires std::is_floating_point_v<T> MR_HOST_DEVICE T max(T a, std::type_identity_t<T> b) {
  return a > b ? a : b;
}
template <class T>
requires std::is_floating_point_v<T> MR_HOST_DEVICE T min(T a, std::type_identity_t<T> b) {
  return a < b ? a : b;
}

MR_HOST_DEVICE inline float abs(float x) { return ::fabsf(x); }
MR_HOST_DEVICE inline float sqrt(float x) { return ::sqrtf(x); }
MR_HOST_DEVICE inline float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
MR_HOST_DEVICE inline float exp(float x) { return ::expf(x); }
MR_HOST_DEVICE inline float log(float x) { return ::logf(x); }
MR_HOST_DEVICE inline float tanh(float x) { return ::tanhf(x); }

MR_HOST_DEVICE inline double abs(double x) { return ::fabs(x); }
MR_HOST_DEVICE inline double sqrt(double x) { return ::sqrt(x); }
MR_HOST_DEVICE inline double fma(double a, double b, double c) { return ::fma(a, b, c); }
MR_HOST_DEVICE inline double exp(double x) { return ::exp(x); }
MR_HOST_DEVICE inline double log(double x) { return ::log(x); }
MR_HOST_DEVICE inline double tanh(double x) { return ::tanh(x); }

// 1 / (1 + e^-x), from e^-|x|, which cannot overflow.
template <class T>
requires std::is_floating_point_v<T> MR_HOST_DEVICE T sigmoid(T x) {
  const T e = exp(-abs(x));
  return (x < 0 ? e : T(1)) / (e + T(1));
}

}  // namespace device
}  // namespace mixrec::simd
