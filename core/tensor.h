// Tensor: a handle to a strided block of numbers, with reverse-mode gradients.
//
//   Tensor w = Tensor::from({1.f, 2.f}, {2}).requires_grad();
//   sum(w * w).backward();
//   w.grad();                                     // [2, 4]
//
// Copying a Tensor shares it; clone() copies the numbers.  Views share storage.  Everything is eager.
#pragma once

#include "mixrec/core/device.h"
#include "mixrec/core/dtype.h"
#include "mixrec/core/mat.h"
#include "mixrec/core/shape.h"

#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

namespace mixrec {

class Storage;

namespace autograd {
struct Meta;  // gradient, graph node, pending look-ups: autograd/meta.h
}

class Tensor {
 public:
  Tensor() = default;  // undefined: no shape, no storage

  // Copies host values: Tensor::from({1.f, 2.f}, {2}).  The dtype follows T; throws unless sizes agree.
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    return from_host(values.data(), static_cast<int64_t>(values.size()), dtype_of<T>, shape);
  }
  template <class T>
  static Tensor from(std::initializer_list<T> values, const Shape& shape) {
    return from_host(values.begin(), static_cast<int64_t>(values.size()), dtype_of<T>, shape);
  }
  template <class T>
  static Tensor from(const std::vector<T>& values) {
    return from(values, {static_cast<int64_t>(values.size())});
  }

  bool defined() const { return impl_ != nullptr; }
  explicit operator bool() const { return defined(); }

  const Shape& shape() const;
  const Shape& strides() const;  // in elements
  int ndim() const { return shape().ndim(); }
  int64_t dim(int i) const { return shape()[i]; }  // negative counts from the end
  int64_t numel() const { return shape().numel(); }
  DType dtype() const;
  Device device() const;
  bool is_contiguous() const;

  // First element.  T must be the tensor's element type (or const of it).
  template <class T>
  T* data() const {
    return static_cast<T*>(raw(dtype_of<std::remove_const_t<T>>));
  }
  void* raw_data() const;

  // All leading dimensions as rows of the last one.  Throws when the strides allow no such view: call
  // contiguous().
  template <class T>
  Mat<T> mat() const {
    const Mat<std::byte> m = rows_view();
    return {data<T>(), m.batch, m.rows, m.cols, m.batch_stride, m.row_stride};
  }
  // The last two dimensions as matrices [dim(-2), dim(-1)], the others as batch.
  template <class T>
  Mat<T> matrices() const {
    const Mat<std::byte> m = matrices_view();
    return {data<T>(), m.batch, m.rows, m.cols, m.batch_stride, m.row_stride};
  }

  // Host copies.  item() needs exactly one element; both convert from any dtype.
  double item() const;
  template <class T = float>
  std::vector<T> to_vector() const;

  Tensor clone() const;       // dense copy, outside the graph
  Tensor to(Device) const;    // outside the graph; itself when already there
  Tensor detach() const;      // same storage, outside the graph
  Tensor contiguous() const;  // itself when dense; otherwise a dense copy, inside the graph

  // Differentiable views (ops/view.cpp).
  Tensor reshape(const Shape& shape) const;  // one size may be -1; copies only if the strides allow no view
  Tensor narrow(int dim, int64_t start, int64_t length) const;
  Tensor transpose(int a, int b) const;
  Tensor select(int dim, int64_t index) const;  // removes the dimension

  // In-place, outside the graph.  Both bump the version.
  void fill(double value);
  void copy_from(const Tensor& source);  // same shape; converts dtype and device

  // Autograd (autograd/).
  Tensor& requires_grad(bool on = true);  // leaves only
  bool needs_grad() const;                // a leaf that requires one, or the result of an op on one
  bool is_leaf() const;
  Tensor grad() const;                               // undefined before the first backward
  void zero_grad();                                  // forgets the gradient and pending look-ups
  void backward(const Tensor& upstream = {}) const;  // upstream defaults to 1 for one element

  uint32_t version() const;
  void bump_version() const;  // after writing through data()

  // A tensor over existing storage: views, flat parameter buffers.
  // Throws when an element would lie outside it.
  static Tensor view(std::shared_ptr<Storage> storage, int64_t offset, const Shape& shape,
                     const Shape& strides, DType dtype);
  // A dense tensor over bytes of `whole` from `begin` on, with a version of its own.
  static Tensor part(const std::shared_ptr<Storage>& whole, size_t begin, const Shape& shape, DType dtype);
  const std::shared_ptr<Storage>& storage() const;
  int64_t offset() const;  // in elements
  // Points every handle of this tensor at `other`'s storage; shape and dtype must agree, gradients stay.
  void rebind(const Tensor& other) const;
  // The same where the dtype differs too.
  void rebind_as(const Tensor& other) const;
  // Identity of the handle: equal for copies of one Tensor.
  const void* id() const { return impl_.get(); }
  bool sole_owner() const;  // no other handle and no other view holds this storage

  const std::shared_ptr<autograd::Meta>& meta() const;
  void set_meta(std::shared_ptr<autograd::Meta> meta) const;

  std::string to_string() const;

 private:
  struct Impl;

  static Tensor from_host(const void* values, int64_t count, DType dtype, const Shape& shape);
  void* raw(DType expected) const;
  Mat<std::byte> rows_view() const;
  Mat<std::byte> matrices_view() const;
  const Impl& impl() const;

  std::shared_ptr<Impl> impl_;
};

Tensor empty(const Shape& shape, DType dtype = f32, Device device = kCpu);
Tensor zeros(const Shape& shape, DType dtype = f32, Device device = kCpu);
Tensor ones(const Shape& shape, DType dtype = f32, Device device = kCpu);
Tensor full(const Shape& shape, double value, DType dtype = f32, Device device = kCpu);
Tensor arange(int64_t count, Device device = kCpu);  // i64 [count]: 0, 1, 2, …
Tensor empty_like(const Tensor& x);
Tensor zeros_like(const Tensor& x);

// Element-wise with broadcasting (ops/arithmetic.cpp).
Tensor operator+(const Tensor& a, const Tensor& b);
Tensor operator-(const Tensor& a, const Tensor& b);
Tensor operator*(const Tensor& a, const Tensor& b);
Tensor operator/(const Tensor& a, const Tensor& b);
Tensor operator+(const Tensor& a, double b);
Tensor operator-(const Tensor& a, double b);
Tensor operator*(const Tensor& a, double b);
Tensor operator/(const Tensor& a, double b);
Tensor operator+(double a, const Tensor& b);
Tensor operator-(double a, const Tensor& b);
Tensor operator*(double a, const Tensor& b);
Tensor operator/(double a, const Tensor& b);
Tensor operator-(const Tensor& a);

std::ostream& operator<<(std::ostream& out, const Tensor& x);

}  // namespace mixrec
