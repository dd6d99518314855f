// Views and dense copies, as members of Tensor.  Gradients of views are dense tensors of the input's shape.
#include "mixrec/autograd/record.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"
#include "mixrec/core/tensor.h"

namespace mixrec {
namespace {

// Strides of `x` under a new shape of the same size, or false when only a copy has that shape.
bool reshaped_strides(const Tensor& x, const Shape& shape, Shape* strides) {
  if (x.is_contiguous()) return *strides = dense_strides(shape), true;
  // Walks both shapes from the end in groups of equal size; inside a group of x the strides must be dense.
  *strides = shape;
  int from = x.ndim() - 1, to = shape.ndim() - 1;
  while (from >= 0 && to >= 0) {
    int64_t size_from = x.dim(from), size_to = shape[to], step = x.strides()[from];
    int64_t expected = step * size_from;
    strides->set(to, step);
    while (size_from != size_to) {
      if (size_from < size_to) {
        if (--from < 0 || (x.dim(from) != 1 && x.strides()[from] != expected)) return false;
        size_from *= x.dim(from);
        expected *= x.dim(from);
      } else {
        step *= shape[to];
        if (--to < 0) return false;
        strides->set(to, step);
        size_to *= shape[to];
      }
    }
    --from, --to;
  }
  for (; to >= 0; --to) strides->set(to, 1);
  return true;
}

Shape resolved(const Tensor& x, Shape shape) {
  int unknown = -1;
  int64_t known = 1;
  for (int i = 0; i < shape.ndim(); ++i) {
    if (shape[i] == -1) {
      MR_CHECK(unknown < 0, "only one size of a reshape may be -1, got ", shape);
      unknown = i;
    } else {
      known = checked_product(known, shape[i], "the sizes of a reshape");
    }
  }
  MR_CHECK(unknown < 0 || known > 0, "cannot tell what -1 is in a reshape of ", x.shape(), " to ", shape);
  if (unknown >= 0) shape.set(unknown, x.numel() / known);
  MR_CHECK(shape.numel() == x.numel(), "cannot reshape ", x.shape(), " to ", shape);
  return shape;
}

Tensor view_of(const Tensor& x, int64_t offset, const Shape& shape, const Shape& strides) {
  return Tensor::view(x.storage(), x.offset() + offset, shape, strides, x.dtype());
}

}  // namespace

Tensor Tensor::contiguous() const {
  MR_OP("contiguous");
  if (is_contiguous()) return *this;
  return record(clone(), {*this}, [] { return [](const Tensor& dy) -> Grads { return {dy}; }; });
}

Tensor Tensor::reshape(const Shape& requested) const {
  MR_OP("reshape");
  const Shape target = resolved(*this, requested);
  Shape strides;
  const Tensor source = reshaped_strides(*this, target, &strides) ? *this : contiguous();
  if (source.is_contiguous()) strides = dense_strides(target);
  return record(view_of(source, 0, target, strides), {source},
                [&] { return [shape = shape()](const Tensor& dy) -> Grads { return {dy.reshape(shape)}; }; });
}

Tensor Tensor::narrow(int dim, int64_t start, int64_t length) const {
  MR_OP("narrow");
  dim = shape().index(dim);
  MR_CHECK(start >= 0 && start <= this->dim(dim) && length >= 0 && length <= this->dim(dim) - start,
           "a slice of ", length, " from ", start, " is outside dimension ", dim, " of ", shape());
  Shape target = shape();
  target.set(dim, length);
  return record(view_of(*this, start * strides()[dim], target, strides()), {*this}, [&] {
    return [shape = shape(), dim, start, length](const Tensor& dy) -> Grads {
      Tensor dx = zeros(shape, dy.dtype(), dy.device());
      copy_into(dx.narrow(dim, start, length), dy);
      return {dx};
    };
  });
}

Tensor Tensor::select(int dim, int64_t index) const {
  dim = shape().index(dim);
  Shape target = shape();
  target.remove(dim);
  const Tensor row = narrow(dim, index, 1);
  Shape strides = row.strides();
  strides.remove(dim);
  MR_OP("select");
  return record(view_of(row, 0, target, strides), {row}, [&] {
    return [shape = row.shape()](const Tensor& dy) -> Grads { return {dy.reshape(shape)}; };
  });
}

Tensor Tensor::transpose(int a, int b) const {
  MR_OP("transpose");
  a = shape().index(a);
  b = shape().index(b);
  const auto swapped = [a, b](Shape s) {
    const int64_t kept = s[a];
    s.set(a, s[b]);
    s.set(b, kept);
    return s;
  };
  return record(view_of(*this, 0, swapped(shape()), swapped(strides())), {*this},
                [&] { return [a, b](const Tensor& dy) -> Grads { return {dy.transpose(a, b)}; }; });
}

}  // namespace mixrec
