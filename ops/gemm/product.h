// Products of views outside the graph: what the ops on matrices are made of.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// An operand as a product sees it: `batch` matrices [rows, cols], possibly transposed, rows of any stride.
struct Operand {
  Tensor tensor;  // [batch, rows, cols], last dimension dense
  bool transpose = false;

  int64_t rows() const { return tensor.dim(transpose ? 2 : 1); }
  int64_t cols() const { return tensor.dim(transpose ? 1 : 2); }
};

// y[i] = scale · a[i] b[i] (+ bias), into the (possibly strided) y of a's dtype, or of f32.
void multiply(const Operand& a, const Operand& b, const Tensor& y, const Tensor& bias = {}, double scale = 1);

// y[i] += scale · a[i] b[i].
void multiply_add(const Operand& a, const Operand& b, const Tensor& y, double scale = 1);

// y[i] = scale · a[i] b[i] + addend[i]; the addend has y's shape and dtype.
void multiply_with(const Operand& a, const Operand& b, const Tensor& addend, const Tensor& y,
                   double scale = 1);

// A parameter as a product with x reads it: itself, or the bf16 shadow of an f32 parameter under a bf16 x.
Tensor operand_for(const Tensor& x, const Tensor& parameter, const char* name);

}  // namespace mixrec
