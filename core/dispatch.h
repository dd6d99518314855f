// From a tensor's dtype and device to a kernel's template argument and backend tag.
#pragma once

#include "mixrec/config.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"
#include "mixrec/core/tensor.h"

namespace mixrec {

inline constexpr bool kHasCuda = MIXREC_CUDA != 0;

// f.operator()<T>() for the floating dtype; throws for integers.
template <class F>
decltype(auto) dispatch_floating(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::bf16:
      return f.template operator()<bfloat16>();
    case DType::f64:
      return f.template operator()<double>();
    default:
      MR_FAIL("needs a floating dtype, got ", dtype);
  }
}

template <class F>
decltype(auto) dispatch_any(DType dtype, F&& f) {
  switch (dtype) {
    case DType::i32:
      return f.template operator()<int32_t>();
    case DType::i64:
      return f.template operator()<int64_t>();
    case DType::u8:
      return f.template operator()<uint8_t>();
    default:
      return dispatch_floating(dtype, f);
  }
}

// f(backend) with the tag of the device.
template <class F>
void on_backend(Device device, F&& f) {
  if (device.is_cpu()) return f(Cpu{});
  if constexpr (kHasCuda) {
    f(Cuda{cuda::current_stream(device.index)});
  } else {
    MR_FAIL("a tensor is on ", device, ", and ", cuda::unavailable_reason());
  }
}

// f.operator()<T>(backend): T from like's floating dtype, backend from its device.
template <class F>
void run(const Tensor& like, F&& f) {
  dispatch_floating(like.dtype(), [&]<class T>() {
    on_backend(like.device(), [&](auto backend) { f.template operator()<T>(backend); });
  });
}

// Throws unless both tensors have one dtype and one device; names them `a` and `b` in the message.
void check_same(const Tensor& a, const Tensor& b, const char* a_name, const char* b_name);

}  // namespace mixrec
