// Arithmetic on eight floats at once, and our own exp, log, tanh and sigmoid.
//
// A pointwise formula is written once, as a template over its value type, and then runs on float, double and
// Pack<float>: every function below has an overload for the three.  (Say `simd::exp`: a plain `exp` is the C
// library's.)
//
//   template <class T> T silu(T x) { return x * simd::sigmoid(x); }
//
//   simd::transform(n, y, [](auto x) { return silu(x); }, x);   // y[i] = silu(x[i]), floats eight at a time
//
// A float is computed as a lane of a pack, so a value has the same bits alone, in a body and in a tail.
// Errors in f32 stay below 1.1, 1, 2 and 2.2 units in the last place (exp, log, tanh, sigmoid); doubles use
// the standard library.  Infinities, NaNs, signed zeros and subnormal numbers come out as they do there.
//
// Written in the compiler's vector extension, so it builds for any processor; one AVX2 register holds a pack.
// A CUDA source gets the functions of float and double alone (core/simd_device.h): there a thread is a lane.
#pragma once

#ifdef __CUDACC__
#include "mixrec/core/simd_device.h"
#else

#include "mixrec/core/bfloat16.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

// Below AVX a pack is passed in memory; no two objects that exchange packs are built for different
// processors.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"

namespace mixrec::simd {

template <class T>
struct Pack;

template <>
struct Pack<float> {
  static constexpr int64_t size = 8;
  using Floats = float __attribute__((vector_size(32)));
  using Ints = int32_t __attribute__((vector_size(32)));

  // The outcome of a comparison: all bits of a lane, or none.
  struct Mask {
    Ints lanes;
    friend Mask operator&(Mask a, Mask b) { return {a.lanes & b.lanes}; }
    friend Mask operator|(Mask a, Mask b) { return {a.lanes | b.lanes}; }
    friend Mask operator!(Mask a) { return {~a.lanes}; }
  };

  Floats lanes;

  Pack() = default;
  Pack(Floats value) : lanes(value) {}              // NOLINT: another name
  Pack(float v) : lanes{v, v, v, v, v, v, v, v} {}  // NOLINT: constants in formulas
  float operator[](int64_t lane) const { return lanes[lane]; }

  friend Pack operator+(Pack a, Pack b) { return a.lanes + b.lanes; }
  friend Pack operator-(Pack a, Pack b) { return a.lanes - b.lanes; }
  friend Pack operator*(Pack a, Pack b) { return a.lanes * b.lanes; }
  friend Pack operator/(Pack a, Pack b) { return a.lanes / b.lanes; }
  friend Pack operator-(Pack a) { return -a.lanes; }
  Pack& operator+=(Pack b) { return *this = *this + b; }
  Pack& operator-=(Pack b) { return *this = *this - b; }
  Pack& operator*=(Pack b) { return *this = *this * b; }
  Pack& operator/=(Pack b) { return *this = *this / b; }

  friend Mask operator<(Pack a, Pack b) { return {a.lanes < b.lanes}; }
  friend Mask operator<=(Pack a, Pack b) { return {a.lanes <= b.lanes}; }
  friend Mask operator>(Pack a, Pack b) { return {a.lanes > b.lanes}; }
  friend Mask operator>=(Pack a, Pack b) { return {a.lanes >= b.lanes}; }
  friend Mask operator==(Pack a, Pack b) { return {a.lanes == b.lanes}; }
  friend Mask operator!=(Pack a, Pack b) { return {a.lanes != b.lanes}; }
};

using Floats8 = Pack<float>;

// ---- Load and store.  `count` in [0, 8]: only the first `count` lanes touch memory, the others load as
// zero. ----

inline Floats8 load(const float* from) {
  Floats8 pack;
  std::memcpy(&pack.lanes, from, sizeof(pack.lanes));
  return pack;
}
inline void store(float* to, Floats8 pack) { std::memcpy(to, &pack.lanes, sizeof(pack.lanes)); }

inline Floats8::Mask first_lanes(int64_t count) {
  return {Floats8::Ints{0, 1, 2, 3, 4, 5, 6, 7} < static_cast<int32_t>(count)};
}
inline Floats8 load(const float* from, int64_t count) {
#ifdef __AVX__
  return Floats8(
      __builtin_ia32_maskloadps256(reinterpret_cast<const Floats8::Floats*>(from), first_lanes(count).lanes));
#else
  Floats8 pack(0.0f);
  std::memcpy(&pack.lanes, from, static_cast<size_t>(count) * sizeof(float));
  return pack;
#endif
}
inline void store(float* to, Floats8 pack, int64_t count) {
#ifdef __AVX__
  __builtin_ia32_maskstoreps256(reinterpret_cast<Floats8::Floats*>(to), first_lanes(count).lanes, pack.lanes);
#else
  std::memcpy(to, &pack.lanes, static_cast<size_t>(count) * sizeof(float));
#endif
}

namespace detail {

using Shorts = uint16_t __attribute__((vector_size(16)));
using Words = uint32_t __attribute__((vector_size(32)));

inline Floats8 widen(Shorts bits) {
#ifdef __AVX2__  // one instruction, where the conversion compiles to four
  using SignedShorts = int16_t __attribute__((vector_size(16)));
  return (Floats8::Floats)(__builtin_ia32_pmovzxwd256((SignedShorts)bits) << 16);
#else
  return (Floats8::Floats)(__builtin_convertvector(bits, Words) << 16);
#endif
}

// The rounding of bfloat16(float), lane by lane.
inline Shorts narrow(Floats8 pack) {
  const Words word = (Words)pack.lanes;
  const Words rounded = (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
  const Words quiet_nan = word >> 16 | 0x40u;
  return __builtin_convertvector((word & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded, Shorts);
}

}  // namespace detail

inline Floats8 load(const bfloat16* from, int64_t count = Floats8::size) {
  detail::Shorts bits{};
  std::memcpy(&bits, from, static_cast<size_t>(count) * sizeof(bfloat16));
  return detail::widen(bits);
}
inline void store(bfloat16* to, Floats8 pack, int64_t count = Floats8::size) {
  const detail::Shorts bits = detail::narrow(pack);
  std::memcpy(to, &bits, static_cast<size_t>(count) * sizeof(bfloat16));
}

// ---- Elementary functions. ----

// a where the condition holds, else b.
inline Floats8 select(Floats8::Mask condition, Floats8 a, Floats8 b) {
  return condition.lanes ? a.lanes : b.lanes;
}
template <class T>
requires std::is_floating_point_v<T> T select(bool condition, T a, std::type_identity_t<T> b) {
  return condition ? a : b;
}

// The larger and the smaller; b when the two do not compare, so the operand whose NaN must show goes second.
inline Floats8 max(Floats8 a, Floats8 b) { return a.lanes > b.lanes ? a.lanes : b.lanes; }
inline Floats8 min(Floats8 a, Floats8 b) { return a.lanes < b.lanes ? a.lanes : b.lanes; }
template <class T>
requires std::is_floating_point_v<T> T max(T a, std::type_identity_t<T> b) { return a > b ? a : b; }
template <class T>
requires std::is_floating_point_v<T> T min(T a, std::type_identity_t<T> b) { return a < b ? a : b; }

inline Floats8 abs(Floats8 x) { return (Floats8::Floats)((Floats8::Ints)x.lanes & 0x7fffffff); }
inline float abs(float x) { return std::fabs(x); }
inline double abs(double x) { return std::fabs(x); }

inline Floats8 sqrt(Floats8 x) {
#ifdef __AVX__
  return Floats8(__builtin_ia32_sqrtps256(x.lanes));
#else
  for (int i = 0; i < Floats8::size; ++i) x.lanes[i] = __builtin_sqrtf(x.lanes[i]);
  return x;
#endif
}
inline float sqrt(float x) { return std::sqrt(x); }
inline double sqrt(double x) { return std::sqrt(x); }

// a·b + c, rounded once where the build's processor can.
inline Floats8 fma(Floats8 a, Floats8 b, Floats8 c) {
#ifdef __FMA__
  return Floats8(__builtin_ia32_vfmaddps256(a.lanes, b.lanes, c.lanes));
#else
  return a * b + c;
#endif
}
inline float fma(float a, float b, float c) { return fma(Floats8(a), Floats8(b), Floats8(c))[0]; }
inline double fma(double a, double b, double c) { return a * b + c; }

// Sum and largest of the eight lanes, as a tree: ((0+4)+(2+6)) + ((1+5)+(3+7)).
inline float sum(Floats8 x) {
  const float a = x[0] + x[4], b = x[1] + x[5], c = x[2] + x[6], d = x[3] + x[7];
  return (a + c) + (b + d);
}
inline float max(Floats8 x) {
  const float a = max(x[0], x[4]), b = max(x[1], x[5]), c = max(x[2], x[6]), d = max(x[3], x[7]);
  return max(max(a, c), max(b, d));
}

namespace detail {

template <size_t N>
Floats8 polynomial(Floats8 x, const float (&coefficients)[N]) {
  Floats8 result = coefficients[N - 1];
  for (size_t i = N - 1; i-- > 0;) result = fma(result, x, coefficients[i]);
  return result;
}

inline Floats8 power_of_two(Floats8::Ints n) { return (Floats8::Floats)((n + 127) << 23); }

constexpr float kLog2High = 0.693359375f,
                kLog2Low = -2.12194440e-4f;  // their sum is ln 2; the first has few bits

}  // namespace detail

// e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2; e^r = 1 + r + r² p(r), p fitted for the least
// largest relative error.  2^n is applied in two halves, because n reaches past the exponents of normal
// numbers on both sides.
inline Floats8 exp(Floats8 x) {
  x = max(-104.0f, min(89.0f, x));
  const Floats8 kShift = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer in the lowest bits
  const Floats8 shifted = fma(x, 1.44269504f, kShift);
  const Floats8 n = shifted - kShift;
  const Floats8::Ints exponent = (Floats8::Ints)shifted.lanes - (Floats8::Ints)kShift.lanes;
  const Floats8 r = fma(n, -detail::kLog2Low, fma(n, -detail::kLog2High, x));
  constexpr float p[] = {0.5f, 1.666651964e-01f, 4.166840017e-02f, 8.368851617e-03f, 1.381431823e-03f};
  const Floats8 y = fma(r * r, detail::polynomial(r, p), r) + 1.0f;
  const Floats8::Ints half = exponent >> 1;
  return y * detail::power_of_two(half) * detail::power_of_two(exponent - half);
}

// x = 2^e (1 + f) with 1 + f in [√½, √2); log(1 + f) = f - f²/2 + f³ p(f).
inline Floats8 log(Floats8 x) {
  const Floats8::Mask tiny = x < 1.17549435e-38f;
  const Floats8 scaled = select(tiny, x * 8388608.0f, x);
  const Floats8::Ints bits = (Floats8::Ints)scaled.lanes;
  // √½; without sign, for negative arguments wrap around here and are replaced below
  const auto offset = (Floats8::Ints)((detail::Words)bits - 0x3f3504f3u);
  const Floats8::Ints e = (offset >> 23) - (tiny.lanes & 23);
  const Floats8 f = Floats8((Floats8::Floats)((offset & 0x007fffff) + 0x3f3504f3)) - 1.0f;
  const Floats8 exponent = __builtin_convertvector(e, Floats8::Floats);
  constexpr float p[] = {3.333333135e-01f, -2.500082254e-01f, 2.000122666e-01f, -1.662335694e-01f,
                         1.420176178e-01f, -1.316019446e-01f, 1.276154965e-01f, -7.634429634e-02f};
  const Floats8 square = f * f;
  Floats8 y = fma(exponent, detail::kLog2Low, square * f * detail::polynomial(f, p));
  y = fma(square, -0.5f, y) + f;
  y = fma(exponent, detail::kLog2High, y);
  y = select(x == 0.0f, -__builtin_inff(), y);
  y = select(x < 0.0f, __builtin_nanf(""), y);
  return select(x < __builtin_inff(), y, x);
}

// Near zero an odd polynomial, else 1 - 2 / (e^2|x| + 1) with the sign put back.
inline Floats8 tanh(Floats8 x) {
  constexpr float p[] = {-3.333328068e-01f, 1.333144158e-01f, -5.373971164e-02f, 2.063907869e-02f,
                         -5.704978481e-03f};
  const Floats8 square = x * x, magnitude = abs(x);
  const Floats8 near = fma(square * magnitude, detail::polynomial(square, p), magnitude);
  const Floats8 far = Floats8(1.0f) - Floats8(2.0f) / (exp(magnitude + magnitude) + 1.0f);
  const Floats8 result = select(magnitude < 0.625f, near, far);
  const Floats8::Ints sign = (Floats8::Ints)x.lanes & INT32_MIN;
  return (Floats8::Floats)((Floats8::Ints)result.lanes | sign);
}

// 1 / (1 + e^-x), from e^-|x|, which cannot overflow.
inline Floats8 sigmoid(Floats8 x) {
  const Floats8 e = exp(-abs(x));
  return select(x < 0.0f, e, 1.0f) / (e + 1.0f);
}

inline float exp(float x) { return exp(Floats8(x))[0]; }
inline float log(float x) { return log(Floats8(x))[0]; }
inline float tanh(float x) { return tanh(Floats8(x))[0]; }
inline float sigmoid(float x) { return sigmoid(Floats8(x))[0]; }

inline double exp(double x) { return std::exp(x); }
inline double log(double x) { return std::log(x); }
inline double tanh(double x) { return std::tanh(x); }
inline double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return (x < 0 ? e : 1) / (e + 1);
}

// ---- Loops. ----

// y[i] = f(x0[i], x1[i], …) for i in [0, n).  f takes and returns Pack<float> for float and bfloat16, double
// for double; y may be one of the inputs.
template <class T, class F, class... X>
void transform(int64_t n, T* y, F&& f, const X*... x) {
  if constexpr (std::is_same_v<T, double>) {
    for (int64_t i = 0; i < n; ++i) y[i] = f(x[i]...);
  } else {
    int64_t i = 0;
    for (; i + Floats8::size <= n; i += Floats8::size) store(y + i, f(load(x + i)...));
    if (i < n) store(y + i, f(load(x + i, n - i)...), n - i);
  }
}

}  // namespace mixrec::simd

#pragma GCC diagnostic pop

#endif  // __CUDACC__
