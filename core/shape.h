// Shape: up to six dimensions, stored inline.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <string>

namespace mixrec {

class Shape {
 public:
  static constexpr int kMaxDims = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);

  int ndim() const { return ndim_; }
  // Size of dimension `i`; negative i counts from the end.  Throws outside the range.
  int64_t operator[](int i) const { return dims_[index(i)]; }
  void set(int i, int64_t size) { dims_[index(i)] = size; }
  void append(int64_t size);
  void remove(int i);
  void insert(int i, int64_t size);

  // Number of elements; 1 for a scalar (no dimensions).  Throws when no int64_t holds it.
  int64_t numel() const;

  // Throws unless a tensor can have this shape: no size is negative, and the bytes of its elements, sizes of 0
  // taken as 1, can be counted in an int64_t.  Every tensor was checked when it was made.
  void check_countable() const;

  const int64_t* begin() const { return dims_; }
  const int64_t* end() const { return dims_ + ndim_; }

  bool operator==(const Shape& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

  // "[2, 3]"
  std::string to_string() const;

  // Normalises a possibly negative dimension number; throws outside the range.
  int index(int i) const;

 private:
  int64_t dims_[kMaxDims] = {};
  int ndim_ = 0;
};

std::ostream& operator<<(std::ostream& out, const Shape& shape);

// a · b and a + b of sizes, offsets and bytes; throws, naming `what`, when no int64_t holds the result.
int64_t checked_product(int64_t a, int64_t b, const char* what);
int64_t checked_sum(int64_t a, int64_t b, const char* what);

// Strides, in elements, of a dense row-major tensor.
Shape dense_strides(const Shape& shape);

// Shape that both broadcast to: dimensions are matched from the end, a size of 1 stretches.  Throws when they
// differ.
Shape broadcast_shapes(const Shape& a, const Shape& b);

}  // namespace mixrec
