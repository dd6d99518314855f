#include "mixrec/ops/linear_by_request.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/jagged.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/gemm/product.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/request.h"

namespace mixrec {
namespace {

Tensor as_operand(const Tensor& x) { return x.reshape({1, x.dim(0), x.dim(1)}); }

}  // namespace

Tensor linear_by_request(const Tensor& given_shared, const Tensor& given_own, const Tensor& given_offsets,
                         const Tensor& w, const Tensor& bias) {
  MR_OP("linear_by_request");
  check_same(given_shared, given_own, "shared", "own");
  MR_CHECK(given_shared.ndim() == 2 && given_own.ndim() == 2 && w.ndim() == 2 &&
               given_shared.dim(1) + given_own.dim(1) == w.dim(0),
           "shared ", given_shared.shape(), " and own ", given_own.shape(), " do not fit the weight ",
           w.shape());
  MR_CHECK(!bias.defined() || bias.shape() == Shape{w.dim(1)}, "the bias ", bias.shape(),
           " does not fit the weight ", w.shape());
  const int64_t requests = given_shared.dim(0), candidates = given_own.dim(0), width = w.dim(1);
  MR_CHECK(
      given_offsets.defined() && given_offsets.dtype() == i64 && given_offsets.shape() == Shape{requests + 1},
      "offsets must be i64 [", requests + 1, "] for as many requests as shared has");
  check_offsets(given_offsets, candidates, "offsets");
  const Tensor shared = given_shared.detach().contiguous(), own = given_own.detach().contiguous(),
               offsets = given_offsets.contiguous();
  const Tensor weight = operand_for(own, w, "the weight").contiguous();
  const auto of_shared = [columns = shared.dim(1)](const Tensor& x) {
    return as_operand(x.narrow(0, 0, columns));
  };
  const auto of_own = [from = shared.dim(1), columns = own.dim(1)](const Tensor& x) {
    return as_operand(x.narrow(0, from, columns));
  };
  Tensor once = empty({requests, width}, own.dtype(), own.device());
  multiply({as_operand(shared)}, {of_shared(weight)}, as_operand(once),
           bias.defined() ? operand_for(own, bias, "the bias").contiguous() : bias);
  const Tensor y = expand_by_request(once, offsets, candidates);
  multiply_add({as_operand(own)}, {of_own(weight)}, as_operand(y));
  return record(y, {given_shared, given_own, w, bias}, [&] {
    return [=, shared = Saved(shared), own = Saved(own), offsets = Saved(offsets), weight = Saved(weight),
            w_shape = w.shape(), w_dtype = w.dtype(), bias_dtype = bias.defined() ? bias.dtype() : f32](
               const Tensor& upstream, const Needs& needs) -> Grads {
      const Tensor dy = as_operand(upstream.contiguous());
      const Tensor once = as_operand(segment_sum(upstream.contiguous(), offsets.get()));
      const auto gradient_of = [&](const Tensor& x, const Tensor& from, const Tensor& part) {
        const Tensor dx = empty_like(x);
        multiply({from}, {part, true}, as_operand(dx));
        return dx;
      };
      Grads grads(4);
      if (needs[0]) grads[0] = gradient_of(shared.get(), once, of_shared(weight.get()));
      if (needs[1]) grads[1] = gradient_of(own.get(), dy, of_own(weight.get()));
      if (needs[2]) {
        grads[2] = needs.gradient(2, w_shape, w_dtype, dy.device());
        multiply({as_operand(shared.get()), true}, {once}, of_shared(grads[2]));
        multiply({as_operand(own.get()), true}, {dy}, of_own(grads[2]));
      }
      if (needs[3]) grads[3] = sum_to(cast(dy, bias_dtype), {width});
      return grads;
    };
  });
}

}  // namespace mixrec
