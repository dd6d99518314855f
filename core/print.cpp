// Printing tensors: at most six entries a dimension, so that a table of a million rows prints in a few lines.
#include "mixrec/core/copy.h"
#include "mixrec/core/tensor.h"

#include <cstdio>
#include <ostream>

namespace mixrec {
namespace {

constexpr int64_t kEdge = 3;

std::string number(double value, bool integer) {
  char text[32];
  std::snprintf(text, sizeof text, integer ? "%.0f" : "%.4g", value);
  return text;
}

void print(std::string& out, const std::vector<double>& values, const Shape& shape, int dim, size_t begin,
           bool integer) {
  if (dim == shape.ndim()) {
    out += number(values[begin], integer);
    return;
  }
  size_t step = 1;
  for (int i = dim + 1; i < shape.ndim(); ++i) step *= static_cast<size_t>(shape[i]);
  const bool innermost = dim == shape.ndim() - 1;
  out += '[';
  for (int64_t i = 0; i < shape[dim]; ++i) {
    if (i) out += innermost ? ", " : ",\n" + std::string(static_cast<size_t>(dim) + 1, ' ');
    if (i == kEdge && shape[dim] > 2 * kEdge) {
      out += innermost ? "..., " : "...,\n" + std::string(static_cast<size_t>(dim) + 1, ' ');
      i = shape[dim] - kEdge;
    }
    print(out, values, shape, dim + 1, begin + static_cast<size_t>(i) * step, integer);
  }
  out += ']';
}

// Only the corners are copied to the host.
Tensor corners(Tensor x) {
  for (int dim = 0; dim < x.ndim(); ++dim) {
    if (x.dim(dim) <= 4 * kEdge) continue;
    Shape shape = x.shape();
    shape.set(dim, 4 * kEdge);
    Tensor small = empty(shape, x.dtype(), x.device());
    const Tensor plain = x.detach();
    copy_into(small.narrow(dim, 0, 2 * kEdge), plain.narrow(dim, 0, 2 * kEdge));
    copy_into(small.narrow(dim, 2 * kEdge, 2 * kEdge), plain.narrow(dim, x.dim(dim) - 2 * kEdge, 2 * kEdge));
    x = small;
  }
  return x;
}

}  // namespace

std::string Tensor::to_string() const {
  if (!defined()) return "Tensor()";
  std::string out;
  const Tensor small = corners(detach());
  print(out, small.to_vector<double>(), small.shape(), 0, 0, !is_floating(dtype()));
  return out + " " + name_of(dtype()) + shape().to_string();
}

std::ostream& operator<<(std::ostream& out, const Tensor& x) { return out << x.to_string(); }

}  // namespace mixrec
