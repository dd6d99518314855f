// Plain numbers: elements, views, layouts, reductions.
#include "mixrec/tests/expected.h"

#include <algorithm>
#include <cmath>

namespace mixrec::test {

Plain Plain::zeros(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return {shape, std::vector<double>(static_cast<size_t>(count))};
}

int64_t Plain::rows() const {
  int64_t count = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) count *= shape[i];
  return count;
}

namespace expected {
namespace {

size_t dim_of(const Plain& x, int dim) {
  return static_cast<size_t>(dim < 0 ? dim + static_cast<int>(x.shape.size()) : dim);
}

// The sizes before, of, and after a dimension.
struct Parts {
  int64_t outer = 1, middle = 1, inner = 1;
};
Parts parts_of(const std::vector<int64_t>& shape, size_t dim) {
  Parts parts;
  for (size_t i = 0; i < shape.size(); ++i) {
    (i < dim ? parts.outer : i == dim ? parts.middle : parts.inner) *= shape[i];
  }
  return parts;
}

// Calls f(place, index of every dimension) for every element of a shape, in row-major order.
void each(const std::vector<int64_t>& shape,
          const std::function<void(size_t, const std::vector<int64_t>&)>& f) {
  const size_t count = Plain::zeros(shape).values.size();
  std::vector<int64_t> index(shape.size());
  for (size_t i = 0; i < count; ++i) {
    auto rest = static_cast<int64_t>(i);
    for (size_t d = shape.size(); d-- > 0;) index[d] = rest % shape[d], rest /= shape[d];
    f(i, index);
  }
}

// The element that `index` of a broader shape falls on.
double stretched(const Plain& x, const std::vector<int64_t>& index) {
  int64_t at = 0;
  for (size_t d = 0; d < x.shape.size(); ++d) {
    const int64_t i = index[index.size() - x.shape.size() + d];
    at = at * x.shape[d] + (x.shape[d] == 1 ? 0 : i);
  }
  return x.values[static_cast<size_t>(at)];
}

}  // namespace

Plain map(const Plain& x, const Scalar& f) {
  Plain y = x;
  for (double& v : y.values) v = f(v);
  return y;
}

Plain combine(const Plain& a, const Plain& b, const std::function<double(double, double)>& f) {
  std::vector<int64_t> shape(std::max(a.shape.size(), b.shape.size()), 1);
  for (const Plain* x : {&a, &b}) {
    for (size_t d = 0; d < x->shape.size(); ++d) {
      int64_t& size = shape[shape.size() - x->shape.size() + d];
      if (size == 1) size = x->shape[d];
    }
  }
  Plain y = Plain::zeros(shape);
  each(shape,
       [&](size_t i, const auto& index) { y.values[i] = f(stretched(a, index), stretched(b, index)); });
  return y;
}

Plain plus(const Plain& a, const Plain& b) {
  return combine(a, b, [](double x, double y) { return x + y; });
}

// Philox4x32-10 as Salmon et al. (SC'11) define it.
Plain philox_dropout(const Plain& x, double rate, uint64_t seed) {
  Plain y = x;
  for (size_t i = 0; i < x.values.size(); ++i) {
    uint64_t c0 = i / 4, c1 = 0, c2 = 0, c3 = 0, k0 = seed & 0xffffffff, k1 = seed >> 32;
    for (int round = 0; round < 10; ++round) {
      const uint64_t left = 0xD2511F53 * c0, right = 0xCD9E8D57 * c2;
      c0 = (right >> 32) ^ c1 ^ k0, c1 = right & 0xffffffff;
      c2 = (left >> 32) ^ c3 ^ k1, c3 = left & 0xffffffff;
      k0 = (k0 + 0x9E3779B9) & 0xffffffff, k1 = (k1 + 0xBB67AE85) & 0xffffffff;
    }
    const uint64_t word = std::vector<uint64_t>{c0, c1, c2, c3}[i % 4];
    y.values[i] = static_cast<double>(word) >= rate * 4294967296.0 ? x.values[i] / (1 - rate) : 0;
  }
  return y;
}

// 8 bits of significand: x is a multiple of half a spacing, and the spacing follows from the exponent.
double to_bf16(double x) {
  if (x == 0 || !std::isfinite(x)) return x;
  int exponent = 0;
  std::frexp(x, &exponent);  // |x| in [1/2, 1) · 2^exponent
  const double spacing = std::ldexp(1, exponent - 8);
  const double scaled = x / spacing, below = std::floor(scaled), part = scaled - below;
  const bool up = part > .5 || (part == .5 && std::fmod(below, 2) != 0);
  return (below + up) * spacing;
}

Plain reshaped(const Plain& x, const std::vector<int64_t>& shape) { return {shape, x.values}; }

Plain slice(const Plain& x, int dim, int64_t start, int64_t length) {
  const size_t d = dim_of(x, dim);
  std::vector<int64_t> shape = x.shape;
  shape[d] = length;
  Plain y = Plain::zeros(shape);
  const Parts from = parts_of(x.shape, d), to = parts_of(shape, d);
  for (int64_t o = 0; o < to.outer; ++o)
    for (int64_t m = 0; m < length; ++m)
      for (int64_t i = 0; i < to.inner; ++i)
        y.values[static_cast<size_t>((o * length + m) * to.inner + i)] =
            x.values[static_cast<size_t>((o * from.middle + start + m) * from.inner + i)];
  return y;
}

Plain swapped(const Plain& x, int a, int b) {
  const size_t first = dim_of(x, a), second = dim_of(x, b);
  std::vector<int64_t> shape = x.shape;
  std::swap(shape[first], shape[second]);
  Plain y = Plain::zeros(shape);
  each(shape, [&](size_t i, std::vector<int64_t> index) {
    std::swap(index[first], index[second]);
    y.values[i] = stretched(x, index);
  });
  return y;
}

Plain joined(const Plains& parts, int dim) {
  const size_t d = dim_of(parts[0], dim);
  std::vector<int64_t> shape = parts[0].shape;
  shape[d] = 0;
  for (const Plain& part : parts) shape[d] += part.shape[d];
  Plain y = Plain::zeros(shape);
  const Parts to = parts_of(shape, d);
  int64_t begin = 0;
  for (const Plain& part : parts) {
    const Parts from = parts_of(part.shape, d);
    for (int64_t o = 0; o < to.outer; ++o)
      for (int64_t m = 0; m < from.middle; ++m)
        for (int64_t i = 0; i < to.inner; ++i)
          y.values[static_cast<size_t>((o * to.middle + begin + m) * to.inner + i)] =
              part.values[static_cast<size_t>((o * from.middle + m) * to.inner + i)];
    begin += from.middle;
  }
  return y;
}

Plain taken(const Plain& x, const Plain& ids) {
  const Parts parts = parts_of(x.shape, 0);
  std::vector<int64_t> shape = ids.shape;
  shape.insert(shape.end(), x.shape.begin() + 1, x.shape.end());
  Plain y = Plain::zeros(shape);
  for (size_t j = 0; j < ids.values.size(); ++j)
    for (int64_t i = 0; i < parts.inner; ++i)
      y.values[j * static_cast<size_t>(parts.inner) + static_cast<size_t>(i)] =
          x.values[static_cast<size_t>(static_cast<int64_t>(ids.values[j]) * parts.inner + i)];
  return y;
}

namespace {

Plain reduced(const Plain& x, int dim, double start, double (*f)(double, double)) {
  const size_t d = dim_of(x, dim);
  std::vector<int64_t> shape = x.shape;
  shape.erase(shape.begin() + static_cast<int64_t>(d));
  Plain y = Plain::zeros(shape);
  const Parts parts = parts_of(x.shape, d);
  for (int64_t o = 0; o < parts.outer; ++o)
    for (int64_t i = 0; i < parts.inner; ++i) {
      double& v = y.values[static_cast<size_t>(o * parts.inner + i)] = start;
      for (int64_t m = 0; m < parts.middle; ++m)
        v = f(v, x.values[static_cast<size_t>((o * parts.middle + m) * parts.inner + i)]);
    }
  return y;
}

}  // namespace

Plain total(const Plain& x, int dim) {
  return reduced(x, dim, 0, [](double a, double b) { return a + b; });
}

Plain best(const Plain& x, int dim) {
  return reduced(x, dim, -INFINITY, [](double a, double b) { return b > a ? b : a; });
}

}  // namespace expected
}  // namespace mixrec::test
