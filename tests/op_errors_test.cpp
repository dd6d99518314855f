// The documented errors of the general ops: bad shapes, dtypes and values, each in one sentence.
#include "mixrec/core/error.h"
#include "mixrec/core/rng.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/ffn/ffn.h"
#include "mixrec/ops/ffn/swiglu.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/norm.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/softmax.h"

#include <doctest/doctest.h>
#include <functional>

using namespace mixrec;

namespace {

struct Mistake {
  std::function<void()> make;
  const char* message;
};

void check(const std::vector<Mistake>& mistakes) {
  for (const Mistake& mistake : mistakes) {
    std::string message = "no error";
    try {
      mistake.make();
    } catch (const Error& error) {
      message = error.what();
    }
    CAPTURE(message);
    CAPTURE(mistake.message);
    CHECK(message.starts_with(mistake.message));
  }
}

Tensor ids(const std::vector<int64_t>& values) { return Tensor::from(values); }

}  // namespace

TEST_CASE("errors: fused ops name both shapes") {
  const Tensor x = ones({2, 3}), wide = ones({2, 4});
  check({
      {[&] { swiglu(x, wide); }, "[swiglu] the gate is [2, 3] and the up projection [2, 4]"},
      {[&] { swiglu(x, cast(x, bf16)); },
       "[swiglu] the gate is f32 and the up projection is bf16: cast one explicitly"},
      {[&] { swiglu(x); },
       "[swiglu] the last dimension holds gate and up side by side and must be even, got [2, 3]"},
      {[&] { swiglu(x, Tensor()); }, "[swiglu] an undefined tensor was used"},
      {[&] { swiglu(x.transpose(0, 1), x.transpose(0, 1)); },
       "[swiglu] the last dimension of [3, 2] is strided: call contiguous()"},
      {[&] {
         ffn(x, ones({3, 10}), ones({4, 2}));
       },
       "[ffn] gate_up [3, 10] must be twice as wide as down [4, 2] is high"},
      {[&] {
         ffn(x, ones({2, 8}), ones({4, 2}));
       },
       "[ffn] the input [2, 3] does not fit gate_up [2, 8]"},
      {[&] {
         ffn(x, ones({5, 3, 8}), ones({5, 4, 2}));
       },
       "[ffn] the input [2, 3] does not have the 5 heads of gate_up [5, 3, 8]"},
      {[&] {
         ffn(x, ones({3, 8}), ones({5, 4, 2}));
       },
       "[ffn] needs weights [D, 2F] and [F, E], or one of each a head, got [3, 8] and [5, 4, 2]"},
      {[&] {
         ffn(x, ones({3, 8}), ones({4, 2}), x);
       },
       "[ffn] the residual is [2, 3] and the result [2, 2]"},
      {[&] { rms_norm(ones({})); }, "[rms_norm] needs a non-empty last dimension, got []"},
      {[&] {
         rms_norm(ones({4, 0}));
       },
       "[rms_norm] needs a non-empty last dimension, got [4, 0]"},
      {[&] { rms_norm(x, ones({4})); }, "[rms_norm] the gain is [4], but rows of x [2, 3] have 3 elements"},
      {[&] { rms_norm(x, ones({3}, f64)); }, "[rms_norm] x is f32 and the gain is f64: cast one explicitly"},
      {[&] {
         rms_norm(ids({1, 2}));
       },
       "[rms_norm] needs a floating dtype, got i64"},
      {[&] {
         layer_norm(x, ones({3}), ones({1, 3}));
       },
       "[layer_norm] the bias is [1, 3], but rows of x [2, 3] have 3 elements"},
      {[&] {
         softmax(ones({2, 0}));
       },
       "[softmax] needs a non-empty last dimension, got [2, 0]"},
      {[&] { logsumexp(ones({})); }, "[logsumexp] needs a non-empty last dimension, got []"},
  });
}

TEST_CASE("errors: layout ops name the part, the position and the size") {
  const Tensor x = ones({2, 3});
  check({
      {[&] { concat({}, 0); }, "[concat] needs at least one tensor"},
      {[&] {
         concat({x, ones({2, 4})}, 0);
       },
       "[concat] part 1 is [2, 4] and part 0 is [2, 3]; they may differ in dimension 0 only"},
      {[&] {
         concat({x, ones({2})}, 1);
       },
       "[concat] part 1 is [2] and part 0 is [2, 3]"},
      {[&] {
         concat({x, ones({2, 3}, f64)}, 1);
       },
       "[concat] part 0 is f32 and part 1 is f64: cast one explicitly"},
      {[&] {
         split(x, 1, {1, 1});
       },
       "[split] the sizes add up to 2, dimension 1 of [2, 3] is 3"},
      {[&] {
         split(x, 1, {4, -1});
       },
       "[split] size -1 is negative"},
      {[&] {
         gather_rows(x, ids({0, 2}));
       },
       "[gather_rows] id 2 at position 1 is outside the 2 rows of [2, 3]"},
      {[&] { gather_rows(x, ids({-1})); },
       "[gather_rows] id -1 at position 0 is outside the 2 rows of [2, 3]"},
      {[&] { gather_rows(x, x); }, "[gather_rows] ids must be i64 of one dimension, got f32[2, 3]"},
      {[&] { pad_last(x, -1); }, "[pad_last] cannot append -1 zeros"},
      {[&] { pad_last(ones({}), 1); }, "[pad_last] needs a last dimension, got []"},
  });
}

TEST_CASE("errors: losses name what does not fit") {
  const Tensor z = ones({3, 2}), y = zeros({3, 2});
  Tensor trained = ones({3, 2});
  trained.requires_grad();
  check({
      {[&] { bce_with_logits(ones({3}), zeros({3})); }, "[bce_with_logits] needs logits [C, K], got [3]"},
      {[&] {
         bce_with_logits(z, zeros({3, 1}));
       },
       "[bce_with_logits] the labels [3, 1] and the logits [3, 2] differ in shape"},
      {[&] { bce_with_logits(z, y, ones({3})); },
       "[bce_with_logits] the weights [3] and the logits [3, 2] differ in shape"},
      {[&] {
         bce_with_logits(z, zeros({3, 2}, u8));
       },
       "[bce_with_logits] the logits is f32 and the labels is u8: cast one explicitly"},
      {[&] { bce_with_logits(z, trained); },
       "[bce_with_logits] the labels cannot get a gradient: detach() them"},
      {[&] { bce_with_logits(z, y, {}, -1); },
       "[bce_with_logits] the normaliser must not be negative, got -1"},
      {[&] { bce_with_logits_per_task(z, y, {}, {1}); },
       "[bce_with_logits_per_task] 1 normalisers for 2 tasks"},
      {[&] {
         mse(z, ones({2, 3}));
       },
       "[mse] the prediction is [3, 2] and the target [2, 3]"},
      {[&] {
         softmax_cross_entropy(z, ids({0, 2, 1}));
       },
       "[softmax_cross_entropy] label 2 of row 1 is outside the 2 classes"},
      {[&] { softmax_cross_entropy(z, ids({0})); },
       "[softmax_cross_entropy] the labels must be i64 [3], one for every row of the logits [3, 2], got "
       "i64[1]"},
  });
}

TEST_CASE("errors: pointwise ops, dropout, arithmetic and reductions") {
  Rng rng(1);
  const Tensor x = ones({2, 3});
  check({
      {[&] { relu(ids({1})); }, "[relu] needs a floating dtype, got i64"},
      {[&] { clamp(x, 2, 1); }, "[clamp] the lower bound 2 is above the upper one 1"},
      {[&] { dropout(x, 1, rng, true); }, "[dropout] the rate must be in [0, 1), got 1"},
      {[&] { dropout(x, -.1, rng, false); }, "[dropout] the rate must be in [0, 1), got -0.1"},
      {[&] {
         x + ones({2, 4});
       },
       "[add] "},
      {[&] {
         x* ones({2, 3}, bf16);
       },
       "[mul] the left operand is f32 and the right one is bf16: cast one explicitly"},
      {[&] {
         max(ones({2, 0}), 1);
       },
       "[max] the dimension 1 of [2, 0] is empty"},
      {[&] { sum(x, 2); }, "[sum] "},
      {[&] {
         broadcast_to(x, {2, 4});
       },
       "[broadcast_to] "},
  });
}

TEST_CASE("errors: a saved tensor that changed is refused, with its op") {
  Tensor gate = ones({2, 4}).requires_grad();
  const Tensor y = sum(swiglu(gate));
  gate.fill(2);
  check({{[&] { y.backward(); },
          "[swiglu] a tensor [2, 4] that the backward needs was changed in place after the forward"}});
}
