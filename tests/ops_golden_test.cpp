// Ops against PyTorch in f64: tests/oracle/ops_golden.py.
#include "mixrec/ops/embedding.h"
#include "mixrec/ops/ffn/swiglu.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/ops/norm.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/ops/softmax.h"
#include "mixrec/tests/golden.h"

#include <doctest/doctest.h>
#include <functional>

namespace {

using namespace mixrec;
using mixrec::test::Golden;
using mixrec::test::relative_difference;

using Tensors = std::vector<Tensor>;

struct Case {
  std::string op;
  std::vector<std::string> inputs;  // differentiable
  std::function<Tensor(const Tensors& inputs)> run;
};

std::vector<Case> cases(const Golden& golden) {
  const auto bag = [&](BagMode mode) {
    return [&, mode](const Tensors& in) {
      return embedding_bag(in[0], golden["embedding_bag_sum.ids"], golden["embedding_bag_sum.offsets"], mode);
    };
  };
  const auto weighted = [&](const std::string& op, auto loss) {
    return [&golden, op, loss](const Tensors& in) {
      return loss(in[0], golden[op + ".labels"], golden[op + ".weights"]);
    };
  };
  const auto pointwise = [](Tensor (*f)(const Tensor&)) {
    return [f](const Tensors& in) { return f(in[0]); };
  };
  return {
      {"sigmoid", {"x"}, pointwise(sigmoid)},
      {"tanh", {"x"}, pointwise(mixrec::tanh)},
      {"silu", {"x"}, pointwise(silu)},
      {"gelu", {"x"}, pointwise(gelu)},
      {"relu", {"x"}, pointwise(relu)},
      {"softplus", {"x"}, pointwise(softplus)},
      {"exp", {"x"}, pointwise(mixrec::exp)},
      {"sqrt", {"x"}, pointwise(mixrec::sqrt)},
      {"log", {"x"}, pointwise(mixrec::log)},
      {"log1p", {"x"}, pointwise(mixrec::log1p)},
      {"bce_with_logits",
       {"logits"},
       weighted("bce_with_logits", [](const auto&... in) { return bce_with_logits(in...); })},
      {"bce_with_logits_per_task",
       {"logits"},
       weighted("bce_with_logits_per_task",
                [](const auto&... in) { return bce_with_logits_per_task(in...); })},
      {"mse", {"prediction"}, [&](const Tensors& in) { return mse(in[0], golden["mse.target"]); }},
      {"softmax_cross_entropy",
       {"logits"},
       [&](const Tensors& in) {
         return softmax_cross_entropy(in[0], golden["softmax_cross_entropy.labels"]);
       }},
      {"softmax", {"x"}, [](const Tensors& in) { return softmax(in[0]); }},
      {"log_softmax", {"x"}, [](const Tensors& in) { return log_softmax(in[0]); }},
      {"logsumexp", {"x"}, [](const Tensors& in) { return logsumexp(in[0]); }},
      {"rms_norm", {"x", "gain"}, [](const Tensors& in) { return rms_norm(in[0], in[1]); }},
      {"layer_norm",
       {"x", "gain", "bias"},
       [](const Tensors& in) { return layer_norm(in[0], in[1], in[2]); }},
      {"swiglu", {"gate", "up"}, [](const Tensors& in) { return swiglu(in[0], in[1]); }},
      {"embedding", {"table"}, [&](const Tensors& in) { return embedding(in[0], golden["embedding.ids"]); }},
      {"embedding_bag_sum", {"table"}, bag(BagMode::sum)},
      {"embedding_bag_mean", {"table"}, bag(BagMode::mean)},
      {"matmul", {"x", "other"}, [](const Tensors& in) { return matmul(in[0], in[1]); }},
      {"per_head_matmul", {"x", "weight"}, [](const Tensors& in) { return per_head_matmul(in[0], in[1]); }},
  };
}

}  // namespace

TEST_CASE("ops and their gradients equal PyTorch's in f64") {
  const Golden golden("ops");
  for (const Case& c : cases(golden)) {
    CAPTURE(c.op);
    Tensors inputs;
    for (const auto& name : c.inputs) inputs.push_back(golden[c.op + "." + name].requires_grad());
    const Tensor y = c.run(inputs);
    CHECK(relative_difference(y, golden[c.op + ".y"]) < 1e-13);
    y.backward(golden[c.op + ".dy"]);
    for (size_t i = 0; i < inputs.size(); ++i) {
      CAPTURE(c.inputs[i]);
      CHECK(relative_difference(inputs[i].grad(), golden[c.op + ".d" + c.inputs[i]]) < 1e-12);
    }
  }
}
