#include "mixrec/core/shape.h"

#include "mixrec/core/error.h"

#include <ostream>

namespace mixrec {

Shape::Shape(std::initializer_list<int64_t> dims) {
  for (int64_t size : dims) append(size);
}

void Shape::append(int64_t size) { insert(ndim_, size); }

void Shape::insert(int i, int64_t size) {
  MR_CHECK(ndim_ < kMaxDims, "a tensor has at most ", kMaxDims, " dimensions");
  MR_CHECK(size >= -1, "negative size ", size, " in a shape");  // -1: to be found by reshape
  MR_CHECK(i >= 0 && i <= ndim_, "cannot insert dimension ", i, " into ", to_string());
  std::copy_backward(dims_ + i, dims_ + ndim_, dims_ + ndim_ + 1);
  dims_[i] = size;
  ++ndim_;
}

void Shape::remove(int i) {
  i = index(i);
  std::copy(dims_ + i + 1, dims_ + ndim_, dims_ + i);
  --ndim_;
}

int64_t Shape::numel() const {
  int64_t count = 1;
  bool overflow = false;
  for (int64_t size : *this) {
    if (size == 0) return 0;
    overflow |= __builtin_mul_overflow(count, size, &count);
  }
  MR_CHECK(!overflow, "a tensor of shape ", to_string(), " has more elements than can be counted");
  return count;
}

void Shape::check_countable() const {
  constexpr int64_t kLargestElement = 8;  // bytes
  int64_t bytes = kLargestElement;
  bool overflow = false;
  for (int64_t size : *this) {
    MR_CHECK(size >= 0, "a tensor cannot have the shape ", to_string());
    overflow |= __builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes);
  }
  MR_CHECK(!overflow, "a tensor of shape ", to_string(), " has more bytes than can be counted");
}

int64_t checked_product(int64_t a, int64_t b, const char* what) {
  int64_t result = 0;
  MR_CHECK(!__builtin_mul_overflow(a, b, &result), what, ": ", a, " times ", b,
           " is more than can be counted");
  return result;
}

int64_t checked_sum(int64_t a, int64_t b, const char* what) {
  int64_t result = 0;
  MR_CHECK(!__builtin_add_overflow(a, b, &result), what, ": ", a, " plus ", b,
           " is more than can be counted");
  return result;
}

int Shape::index(int i) const {
  const int normalised = i < 0 ? i + ndim_ : i;
  MR_CHECK(normalised >= 0 && normalised < ndim_, "dimension ", i, " is outside ", to_string());
  return normalised;
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < ndim_; ++i) text += (i ? ", " : "") + std::to_string(dims_[i]);
  return text + "]";
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.to_string(); }

Shape dense_strides(const Shape& shape) {
  Shape strides = shape;
  int64_t step = 1;
  for (int i = shape.ndim() - 1; i >= 0; --i) {
    strides.set(i, step);
    step = checked_product(step, std::max<int64_t>(shape[i], 1), "the strides of a shape");
  }
  return strides;
}

Shape broadcast_shapes(const Shape& a, const Shape& b) {
  Shape out = a.ndim() >= b.ndim() ? a : b;
  for (int i = 1; i <= out.ndim(); ++i) {
    const int64_t x = i <= a.ndim() ? a[-i] : 1;
    const int64_t y = i <= b.ndim() ? b[-i] : 1;
    MR_CHECK(x == y || x == 1 || y == 1, "shapes do not broadcast: ", a, " and ", b);
    out.set(-i, x == 1 ? y : x);
  }
  return out;
}

}  // namespace mixrec
