// Fused ops against their composed twins: values and gradients in f64.
#include "mixrec/ops/reference.h"

#include "mixrec/autograd/record.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/ffn/ffn.h"
#include "mixrec/ops/ffn/swiglu.h"
#include "mixrec/ops/head_mixing.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/linear_by_request.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/ops/norm.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/request.h"
#include "mixrec/ops/side_mixing.h"
#include "mixrec/ops/softmax.h"
#include "mixrec/tests/golden.h"
#include "mixrec/tests/op_cases.h"

#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

using Tensors = std::vector<Tensor>;
using Function = std::function<Tensor(const Tensors&)>;

// Same values and gradients from both, for inputs of the given shapes.
void check_twins(const std::string& name, const std::vector<Shape>& shapes, const Function& fused,
                 const Function& composed) {
  CAPTURE(name);
  Rng rng(derive_seed(3, name.c_str()));
  Tensors inputs;
  for (const Shape& shape : shapes) inputs.push_back(normal(rng, shape).requires_grad());
  Tensors grads[2];
  Tensor results[2], upstream;
  for (const int which : {0, 1}) {
    for (Tensor& x : inputs) x.zero_grad();
    const Tensor y = (which ? composed : fused)(inputs);
    if (!upstream) upstream = normal(rng, y.shape());
    y.backward(upstream);
    results[which] = y.detach();
    for (const Tensor& x : inputs) grads[which].push_back(x.grad());
  }
  CHECK(relative_difference(results[0], results[1]) < 1e-13);
  for (size_t i = 0; i < inputs.size(); ++i) {
    CAPTURE(i);
    CHECK(relative_difference(grads[0][i], grads[1][i]) < 1e-12);
  }
}

}  // namespace

TEST_CASE("fused ops equal their composed twins") {
  namespace ref = reference;
  for (const Shape& shape : {Shape{3, 4, 9}, Shape{1, 40}, Shape{70, 3}}) {
    Shape wide = shape;
    wide.set(-1, 2 * shape[-1]);
    const Shape row{shape[-1]};
    const auto on = [](Tensor (*f)(const Tensor&)) { return [f](const Tensors& in) { return f(in[0]); }; };
    check_twins("softmax", {shape}, on(softmax), on(ref::softmax));
    check_twins("log_softmax", {shape}, on(log_softmax), on(ref::log_softmax));
    check_twins("logsumexp", {shape}, on(logsumexp), on(ref::logsumexp));
    check_twins("swiglu fused", {wide}, on(swiglu), on(ref::swiglu));
    check_twins(
        "swiglu", {shape, shape}, [](const Tensors& in) { return swiglu(in[0], in[1]); },
        [](const Tensors& in) { return ref::swiglu(in[0], in[1]); });
    check_twins(
        "rms_norm", {shape, row}, [](const Tensors& in) { return rms_norm(in[0], in[1]); },
        [](const Tensors& in) { return ref::rms_norm(in[0], in[1]); });
    check_twins(
        "layer_norm", {shape, row, row}, [](const Tensors& in) { return layer_norm(in[0], in[1], in[2]); },
        [](const Tensors& in) { return ref::layer_norm(in[0], in[1], in[2]); });
    check_twins(
        "dropout", {shape},
        [](const Tensors& in) {
          Rng rng(8, uint64_t{5} << 32 | 0xfffffffe);  // over the edge of the counter's lower word
          return dropout(in[0], .4, rng, true);
        },
        [](const Tensors& in) {
          Rng rng(8, uint64_t{5} << 32 | 0xfffffffe);
          return ref::dropout(in[0], .4, rng, true);
        });
  }
}

TEST_CASE("norms of bf16 rows take f32 parameters and give them f32 gradients") {
  Rng rng(6);
  const Shape shape{37, 24}, row{24};
  const Tensor upstream = cast(normal(rng, shape), bf16);
  Tensors inputs{cast(normal(rng, shape), bf16), cast(normal(rng, row), f32), cast(normal(rng, row), f32)};
  for (Tensor& x : inputs) x.requires_grad();
  const auto check = [&](const Function& fused, const Function& composed) {
    Tensors results[2];
    for (const int which : {0, 1}) {
      for (Tensor& x : inputs) x.zero_grad();
      const Tensor y = (which ? composed : fused)(inputs);
      CHECK(y.dtype() == bf16);
      y.backward(upstream);
      results[which] = {y.detach(), inputs[0].grad(), inputs[1].grad()};
    }
    CHECK(results[0][2].dtype() == f32);
    CHECK(relative_difference(results[0][0], results[1][0]) < 4e-3);
    CHECK(relative_difference(results[0][1], results[1][1]) < 4e-3);
    CHECK(relative_difference(results[0][2], results[1][2]) < 1e-6);  // never rounded to bf16
  };
  check([](const Tensors& in) { return rms_norm(in[0], in[1]); },
        [](const Tensors& in) { return reference::rms_norm(in[0], in[1]); });
  check([](const Tensors& in) { return layer_norm(in[0], in[1], in[2]); },
        [](const Tensors& in) { return reference::layer_norm(in[0], in[1], in[2]); });
}

TEST_CASE("losses equal their composed twins") {
  namespace ref = reference;
  Rng rng(4);
  const Shape shape{90, 3};
  const Tensor labels = uniform(rng, shape, 0, 1), weights = uniform(rng, shape, 0, 2);
  weights.narrow(1, 1, 1).fill(0);
  const std::vector<double> counts{100, 0, 7};
  for (const Tensor& w : {weights, Tensor()}) {
    for (const double normaliser : {0., 12.}) {
      check_twins(
          "bce", {shape}, [&](const Tensors& in) { return bce_with_logits(in[0], labels, w, normaliser); },
          [&](const Tensors& in) { return ref::bce_with_logits(in[0], labels, w, normaliser); });
    }
    check_twins(
        "bce per task", {shape},
        [&](const Tensors& in) { return bce_with_logits_per_task(in[0], labels, w); },
        [&](const Tensors& in) { return ref::bce_with_logits_per_task(in[0], labels, w); });
  }
  check_twins(
      "bce per task, counts", {shape},
      [&](const Tensors& in) { return bce_with_logits_per_task(in[0], labels, weights, counts); },
      [&](const Tensors& in) { return ref::bce_with_logits_per_task(in[0], labels, weights, counts); });
  const Tensor classes = integers(rng, {90}, 3);
  check_twins(
      "softmax_cross_entropy", {shape},
      [&](const Tensors& in) { return softmax_cross_entropy(in[0], classes); },
      [&](const Tensors& in) { return ref::softmax_cross_entropy(in[0], classes); });
}

// In f64 they are the same code; what is fused is f32.
TEST_CASE("the fused ffn has the bits of its composed twin, and its gradients") {
  for (const bool per_head : {false, true}) {
    CAPTURE(per_head);
    Rng rng(6);
    const auto random = [&](const Shape& shape) {
      return cast(normal(rng, shape) / 8.0, f32).requires_grad();
    };
    // 700 rows are cut in parts, 390 inputs and 400 units in blocks; rows are strided.
    const Tensor wide = random({700, 3, 395}), residual = random({700, 3, 21});
    const Tensor gate_up = per_head ? random({3, 390, 104}) : random({390, 800}),
                 down = per_head ? random({3, 52, 21}) : random({400, 21});
    const Tensors inputs{wide, gate_up, down, residual};
    const Tensor upstream = cast(normal(rng, residual.shape()), f32);
    Tensor results[2];
    Tensors grads[2];
    for (const int which : {0, 1}) {
      for (Tensor x : inputs) x.zero_grad();
      const Tensor x = wide.narrow(-1, 5, 390);
      const Tensor y = (which ? reference::ffn : ffn)(x, gate_up, down, residual);
      y.backward(upstream);
      results[which] = y.detach();
      for (const Tensor& x : inputs) grads[which].push_back(x.grad());
      const NoGrad off;
      CHECK((which ? reference::ffn : ffn)(x, gate_up, down, residual).to_vector() == y.to_vector());
    }
    CHECK(results[0].to_vector() == results[1].to_vector());
    for (size_t i = 0; i < inputs.size(); ++i)
      CHECK(relative_difference(cast(grads[0][i], f64), cast(grads[1][i], f64)) < 1e-5);
    // What a frozen weight, or an input without gradient, leaves to compute is the same.
    for (const size_t only : {0, 1, 2}) {
      Tensors some;
      for (size_t i = 0; i < 3; ++i) some.push_back(inputs[i].detach().requires_grad(i == only));
      ffn(some[0].narrow(-1, 5, 390), some[1], some[2]).backward(upstream);
      CHECK(some[only].grad().to_vector() == grads[0][only].to_vector());
    }
  }
}

TEST_CASE("ops by request equal those of expanded rows") {
  const Tensor offsets = Tensor::from(std::vector<int64_t>{0, 3, 3, 4, 11});
  const int64_t requests = 4, candidates = 11, users = 3, items = 2, width = 20, chunk = 4;
  check_twins(
      "linear_by_request", {{requests, 5}, {candidates, 7}, {12, 6}, {6}},
      [&](const Tensors& in) { return linear_by_request(in[0], in[1], offsets, in[2], in[3]); },
      [&](const Tensors& in) {
        return linear(concat({expand_by_request(in[0], offsets), in[1]}, 1), in[2], in[3]);
      });
  // x: users, items; residuals of either.
  const std::vector<Shape> shapes{{requests, users, width}, {candidates, items, width}};
  const auto masked = [&](const Tensors& in) {
    return head_mixing(concat({expand_by_request(in[0], offsets), in[1]}, 1), users) +
           concat({expand_by_request(in[0], offsets), in[1]}, 1);
  };
  const auto columns = [](const Tensor& x, int64_t first, int64_t count) {
    return x.narrow(2, first * chunk, count * chunk);
  };
  check_twins(
      "side_mixing of items", shapes,
      [&](const Tensors& in) {
        return side_mixing(columns(in[1], users, items), in[1], columns(in[0], users, items), offsets);
      },
      [&](const Tensors& in) { return masked(in).narrow(1, users, items); });
  check_twins(
      "side_mixing of users", shapes,
      [&](const Tensors& in) {
        return expand_by_request(side_mixing(columns(in[0], 0, users), in[0]), offsets) +
               0 * sum(in[1]);  // which the masked form does not depend on either
      },
      [&](const Tensors& in) { return masked(in).narrow(1, 0, users); });
}
