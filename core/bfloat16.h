// bfloat16: the upper half of a float, 8 bits of exponent and 7 of fraction, for storage only.
//
// Arithmetic happens in float: a bfloat16 turns into one silently (exactly), and a float is rounded into one
// explicitly, to nearest with ties to even.  NaN stays a (quiet) NaN, overflow rounds to infinity, subnormals
// are kept. Usable from host and device code.
#pragma once

#include "mixrec/core/host_device.h"

#include <cstdint>

namespace mixrec {

struct bfloat16 {
  uint16_t bits;

  bfloat16() = default;
  MR_HOST_DEVICE constexpr explicit bfloat16(float value) : bits(round(value)) {}
  MR_HOST_DEVICE constexpr operator float() const {  // NOLINT: widening loses nothing
    return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
  }
  MR_HOST_DEVICE static constexpr bfloat16 from_bits(uint16_t bits) {
    bfloat16 value(0.0f);
    value.bits = bits;
    return value;
  }

 private:
  MR_HOST_DEVICE static constexpr uint16_t round(float value) {
#ifdef __CUDA_ARCH__
    if (!__builtin_is_constant_evaluated()) {  // one instruction, the same bits but for NaN's fraction
      uint16_t rounded;
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(value));
      return rounded;
    }
#endif
    const auto word = __builtin_bit_cast(uint32_t, value);
    // Rounding could carry a NaN's fraction into the sign, so it is cut off and made quiet instead.
    if ((word & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(word >> 16 | 0x40);
    return static_cast<uint16_t>((word + 0x7fffu + (word >> 16 & 1)) >> 16);
  }
};

static_assert(sizeof(bfloat16) == 2);

}  // namespace mixrec
