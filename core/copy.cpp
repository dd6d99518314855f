#include "mixrec/core/copy.h"

#include "mixrec/core/dispatch.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/storage.h"

#include <cstring>

namespace mixrec {
namespace {

// Dimensions of two tensors of one shape, merged where both strides allow it, so that the inner loop is long.
struct Walk {
  Shape shape, dst, src;
};

Walk merged(const Tensor& a, const Tensor& b) {
  Walk walk;
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

// Calls row(dst, src, n, dst_stride, src_stride) for every innermost row.
template <class D, class S, class Row>
void for_each_row(const Tensor& dst, const Tensor& src, Row row) {
  if (dst.numel() == 0) return;
  const Walk walk = merged(dst, src);
  const int last = walk.shape.ndim() - 1;
  const int64_t n = walk.shape[last];
  D* d = dst.data<D>();
  const S* s = src.data<const S>();
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

void copy_into(const Tensor& dst, const Tensor& src) {
  MR_CHECK(dst.shape() == src.shape(), "cannot copy ", src.shape(), " into ", dst.shape());
  MR_CHECK(dst.device() == src.device(), "cannot copy from ", src.device(), " to ", dst.device());
  dispatch_any(dst.dtype(), [&]<class D>() {
    dispatch_any(src.dtype(), [&]<class S>() {
      for_each_row<D, S>(dst, src, [](D* d, const S* s, int64_t n, int64_t d_step, int64_t s_step) {
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
    });
  });
  dst.bump_version();
}

void add_into(const Tensor& dst, const Tensor& src) {
  MR_CHECK(dst.shape() == src.shape(), "cannot add ", src.shape(), " to ", dst.shape());
  check_same(dst, src, "the sum", "the addend");
  dispatch_floating(dst.dtype(), [&]<class T>() {
    for_each_row<T, T>(dst, src, [](T* d, const T* s, int64_t n, int64_t d_step, int64_t s_step) {
      if (d_step == 1 && s_step == 1) {
        for (int64_t i = 0; i < n; ++i)
          d[i] = static_cast<T>(static_cast<acc_t<T>>(d[i]) + static_cast<acc_t<T>>(s[i]));
      } else {
        for (int64_t i = 0; i < n; ++i) {
          d[i * d_step] =
              static_cast<T>(static_cast<acc_t<T>>(d[i * d_step]) + static_cast<acc_t<T>>(s[i * s_step]));
        }
      }
    });
  });
  dst.bump_version();
}

}  // namespace mixrec
