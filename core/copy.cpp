#include "mixrec/core/copy.h"

#include "mixrec/core/cuda.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/storage.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace mixrec {
namespace {

kernel::Walk merged(const Tensor& a, const Tensor& b) {
  kernel::Walk walk;
  for (int i = a.ndim() - 1; i >= 0; --i) {
    const int64_t size = a.dim(i);
    if (size == 1) continue;
    if (walk.shape.ndim() && a.strides()[i] == walk.dst[0] * walk.shape[0] &&
        b.strides()[i] == walk.src[0] * walk.shape[0]) {
      walk.shape.set(0, walk.shape[0] * size);
      continue;
    }
    walk.shape.insert(0, size);
    walk.dst.insert(0, a.strides()[i]);
    walk.src.insert(0, b.strides()[i]);
  }
  if (!walk.shape.ndim()) walk = {{1}, {1}, {1}};
  return walk;
}

// Between devices whole blocks of bytes travel; what is strided or of another dtype is made so before or
// after.
void copy_across(const Tensor& dst, const Tensor& src) {
  const Tensor from = src.is_contiguous() ? src : src.clone();
  const bool direct = dst.is_contiguous() && dst.dtype() == src.dtype();
  const Tensor to = direct ? dst : empty(dst.shape(), src.dtype(), dst.device());
  cuda::copy(to.raw_data(), to.device(), from.raw_data(), from.device(),
             static_cast<size_t>(from.numel()) * size_of(from.dtype()));
  if (!direct) copy_into(dst, to);
}

}  // namespace

void copy_into(const Tensor& dst, const Tensor& src) {
  MR_CHECK(dst.shape() == src.shape(), "cannot copy ", src.shape(), " into ", dst.shape());
  if (dst.numel() > 0 && dst.device() != src.device()) {
    copy_across(dst, src);
  } else if (dst.numel() > 0) {
    const kernel::Walk walk = merged(dst, src);
    dispatch_any(dst.dtype(), [&]<class D>() {
      dispatch_any(src.dtype(), [&]<class S>() {
        on_backend(dst.device(), [&](auto backend) {
          kernel::copy_elements<D, S>(backend, walk, dst.data<D>(), src.data<const S>());
        });
      });
    });
  }
  dst.bump_version();
}

void add_into(const Tensor& dst, const Tensor& src) {
  MR_CHECK(dst.shape() == src.shape(), "cannot add ", src.shape(), " to ", dst.shape());
  check_same(dst, src, "the sum", "the addend");
  if (dst.numel() > 0) {
    run(dst, [&]<class T>(auto backend) {
      kernel::add_elements<T>(backend, merged(dst, src), dst.data<T>(), src.data<const T>());
    });
  }
  dst.bump_version();
}

namespace kernel {
namespace {

// Calls row(dst, src, n, dst_stride, src_stride) for every innermost row.
template <class D, class S, class Row>
void for_each_row(const Walk& walk, D* d, const S* s, Row row) {
  const int last = walk.shape.ndim() - 1;
  const int64_t n = walk.shape[last];
  if (last == 0) {
    return parallel_for(n, 1, [&](int64_t begin, int64_t end) {
      row(d + begin * walk.dst[0], s + begin * walk.src[0], end - begin, walk.dst[0], walk.src[0]);
    });
  }
  parallel_for(walk.shape.numel() / n, n, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t at_dst = 0, at_src = 0, rest = i;
      for (int k = last - 1; k >= 0; --k) {
        const int64_t index = rest % walk.shape[k];
        rest /= walk.shape[k];
        at_dst += index * walk.dst[k];
        at_src += index * walk.src[k];
      }
      row(d + at_dst, s + at_src, n, walk.dst[last], walk.src[last]);
    }
  });
}

}  // namespace

template <class D, class S>
void copy_elements(Cpu, const Walk& walk, D* dst, const S* src) {
  for_each_row(walk, dst, src, [](D* d, const S* s, int64_t n, int64_t d_step, int64_t s_step) {
    if (d_step == 1 && s_step == 1) {
      if constexpr (std::is_same_v<D, S>) {
        std::memcpy(d, s, static_cast<size_t>(n) * sizeof(D));
      } else {
        for (int64_t i = 0; i < n; ++i) d[i] = static_cast<D>(s[i]);
      }
    } else {
      for (int64_t i = 0; i < n; ++i) d[i * d_step] = static_cast<D>(s[i * s_step]);
    }
  });
}

template <class T>
void add_elements(Cpu, const Walk& walk, T* dst, const T* src) {
  using Sum = acc_t<T>;
  for_each_row(walk, dst, src, [](T* d, const T* s, int64_t n, int64_t d_step, int64_t s_step) {
    if (d_step == 1 && s_step == 1) {
      for (int64_t i = 0; i < n; ++i) d[i] = static_cast<T>(static_cast<Sum>(d[i]) + static_cast<Sum>(s[i]));
    } else {
      for (int64_t i = 0; i < n; ++i)
        d[i * d_step] = static_cast<T>(static_cast<Sum>(d[i * d_step]) + static_cast<Sum>(s[i * s_step]));
    }
  });
}

template <class T>
void fill(Cpu, int64_t n, T value, T* to) {
  std::fill_n(to, n, value);
}
template void fill(Cpu, int64_t, float, float*);
template void fill(Cpu, int64_t, bfloat16, bfloat16*);
template void fill(Cpu, int64_t, double, double*);
template void fill(Cpu, int64_t, int32_t, int32_t*);
template void fill(Cpu, int64_t, int64_t, int64_t*);
template void fill(Cpu, int64_t, uint8_t, uint8_t*);

void count_up(Cpu, int64_t n, int64_t* to) { std::iota(to, to + n, int64_t{0}); }

}  // namespace kernel
}  // namespace mixrec
