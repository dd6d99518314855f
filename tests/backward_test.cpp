// What a backward leaves behind: when it failed, when somebody holds its gradients, when others wait for them.
#include "mixrec/autograd/checkpoint.h"
#include "mixrec/autograd/meta.h"
#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"
#include "mixrec/nn/linear.h"
#include "mixrec/ops/embedding.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/tests/message_of.h"

#include <doctest/doctest.h>
#include <functional>
#include <string>
#include <vector>

using namespace mixrec;
using mixrec::test::message_of;

namespace {

using Numbers = std::vector<double>;

Tensor leaf(const Numbers& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}).requires_grad();
}

Numbers values(const Tensor& x) { return x.to_vector<double>(); }

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// x itself; its backward throws while `fails`.
Tensor fragile(const Tensor& x, const bool& fails) {
  return record(x.clone(), {x}, [&] {
    return [&fails](const Tensor& dy) -> Grads {
      if (fails) throw Error("the bridge is out");
      return {dy};
    };
  });
}

}  // namespace

TEST_CASE("backward: after one that threw, nodes that it had reached are differentiated in full") {
  Tensor x = leaf({1, 2});
  const Tensor h = x * x;
  const Tensor one = h * 3.0, two = h * 4.0;
  bool fails = true;
  const Tensor bad = fragile(h, fails);
  const Tensor loss = one + two + bad;
  CHECK(message_of([&] { loss.backward(ones({2}, f64)); }) == "the bridge is out");
  x.zero_grad();
  // The failed backward had brought `one` and `two` their gradients.
  one.backward(ones({2}, f64));
  CHECK(values(x.grad()) == Numbers{6, 12});
  CHECK(contains(message_of([&] { loss.backward(ones({2}, f64)); }), "second backward"));
  // h was used up by the backward of `one`.
  CHECK(contains(message_of([&] { two.backward(ones({2}, f64)); }), "second backward"));
}

TEST_CASE("backward: a closure that failed once is refused later, whatever made it fail") {
  Tensor x = leaf({1, 2});
  bool fails = true;
  const Tensor y = fragile(x, fails);
  CHECK_THROWS(y.backward(ones({2}, f64)));
  fails = false;
  CHECK(contains(message_of([&] { y.backward(ones({2}, f64)); }), "after a backward that failed"));
  CHECK(!x.grad().defined());

  // The same of a saved tensor that was changed, with a branch that is not.
  Tensor scale = Tensor::from({3., 4.}, {2});
  const Tensor left = x * 2.0, right = x * scale;
  const Tensor sum = left + right;
  scale.fill(0);
  CHECK(contains(message_of([&] { sum.backward(ones({2}, f64)); }), "changed in place"));
  x.zero_grad();
  left.backward(ones({2}, f64));
  CHECK(values(x.grad()) == Numbers{2, 2});
}

TEST_CASE(
    "backward: what is added to the gradient of a sum, all of whose elements are one, keeps each its own") {
  // d/dx of (Σ h)² - Σ h² with h = 2x: 8 Σ x - 8 x.
  const Tensor x = Tensor::from({1., 2., 3., 4., 5., 6.}, {3, 2}).requires_grad();
  const Tensor h = x * 2.0, squares = h * h, total = sum(h, 0);
  (sum(total * total) - sum(squares)).backward();
  CHECK(values(x.grad()) == Numbers{64, 80, 48, 64, 32, 48});
  // The other order of uses, and a broadcast that was asked for.
  const Tensor y = Tensor::from({1., 2.}, {1, 2}).requires_grad();
  const Tensor twice = y * 2.0, wide = broadcast_to(twice, {3, 2});
  (sum(wide * wide) + sum(twice)).backward();
  CHECK(values(y.grad()) == Numbers{26, 50});
}

TEST_CASE("backward: one that threw inside checkpoint leaves nothing waiting either") {
  Tensor x = leaf({1, 2});
  const Tensor h = x * 5.0;
  bool fails = true;
  const auto inside = [&](const std::vector<Tensor>& in) { return fragile(in[0] * in[0], fails); };
  const Tensor side = h * 2.0;
  const Tensor loss = checkpoint(inside, {h}) + side;
  CHECK_THROWS(loss.backward(ones({2}, f64)));
  x.zero_grad();
  side.backward(ones({2}, f64));
  CHECK(values(x.grad()) == Numbers{10, 10});
}

TEST_CASE("backward: a gradient that somebody holds is not written again") {
  for (const bool with_optimizer : {false, true}) {
    CAPTURE(with_optimizer);
    Tensor w = leaf({1, 2, 3}), other = leaf({1});
    std::vector<Optimizer> optimizers;
    if (with_optimizer)
      optimizers.emplace_back(
          std::vector<Parameter>{{"w", w, ParameterKind::dense}, {"o", other, ParameterKind::dense}},
          OptimizerOptions{.dense = {.name = "sgd", .lr = 0.5}});
    const auto backward = [&](double factor) { (w * factor).backward(ones({3}, f64)); };
    const auto step = [&] {
      if (!with_optimizer) return;
      CHECK(optimizers[0].step().applied);
    };
    backward(2);
    const Tensor first = w.grad();
    backward(3);
    CHECK(values(first) == Numbers{2, 2, 2});
    CHECK(values(w.grad()) == Numbers{5, 5, 5});
    const Tensor part = w.grad().narrow(0, 1, 2);
    const Numbers before = values(w);
    step();
    if (with_optimizer) CHECK(values(w) == Numbers{before[0] - 2.5, before[1] - 2.5, before[2] - 2.5});
    w.zero_grad();
    backward(7);
    CHECK(values(first) == Numbers{2, 2, 2});
    CHECK(values(part) == Numbers{5, 5});
    CHECK(values(w.grad()) == Numbers{7, 7, 7});
    step();
    w.zero_grad();
    step();  // a step without any gradient takes zeros, beside what is held
    CHECK(values(first) == Numbers{2, 2, 2});
    CHECK(values(part) == Numbers{5, 5});
  }
}

TEST_CASE("backward: while nobody holds gradients, an optimiser's buffer is where they are made") {
  Tensor w = leaf({1, 2, 3});
  Optimizer optimizer({{"w", w, ParameterKind::dense}}, {.dense = {.name = "sgd", .lr = 0.5}});
  const void* place = nullptr;
  for (int i = 0; i < 3; ++i) {
    (w * 2.0).backward(ones({3}, f64));
    if (!place) place = w.grad().raw_data();
    CHECK(w.grad().raw_data() == place);
    optimizer.step();
    optimizer.zero_grad();
  }
}

TEST_CASE("backward: writing one parameter of a flat buffer leaves what others saved") {
  Tensor a = leaf({1, 2}), b = leaf({3, 4});
  Tensor x = leaf({5, 6});
  Optimizer optimizer({{"a", a, ParameterKind::dense}, {"b", b, ParameterKind::dense}},
                      {.dense = {.name = "sgd", .lr = 1}});
  const Tensor y = x * a;
  b.fill(0);
  y.backward(ones({2}, f64));
  CHECK(values(x.grad()) == Numbers{1, 2});
  const Tensor z = x * b;
  b.copy_from(a);
  CHECK(contains(message_of([&] { z.backward(ones({2}, f64)); }), "changed in place"));
  // A step writes all of them.
  const Tensor again = x * a;
  optimizer.step();
  CHECK(contains(message_of([&] { again.backward(ones({2}, f64)); }), "changed in place"));
}

TEST_CASE("backward: the same of parameters that are read in bf16") {
  Rng rng(1);
  Linear first(4, 4, rng, {.bias = false}), second(4, 4, rng, {.bias = false});
  Optimizer optimizer({{"a", first.weight, ParameterKind::dense}, {"b", second.weight, ParameterKind::dense}},
                      {.dense = {.name = "sgd", .lr = 0.1}});
  Tensor x = full({2, 4}, 1, bf16).requires_grad();
  const auto run = [&] { return first.forward(x) + second.forward(x); };
  run().backward(ones({2, 4}, bf16));
  optimizer.step(), optimizer.zero_grad();  // from here on shadows lie in one buffer
  const Tensor y = first.forward(x);
  second.weight.fill(0);
  second.forward(x);
  CHECK(message_of([&] { y.backward(ones({2, 4}, bf16)); }).empty());
}

TEST_CASE("backward: a hook is called once, when the last use has been added, recomputed ones included") {
  using Function = std::function<Tensor(const std::vector<Tensor>&)>;
  Tensor x = leaf({2}), w = leaf({3});
  const Function times_w = [&](const std::vector<Tensor>& in) { return in[0] * w; };
  const Function twice_w = [&](const std::vector<Tensor>& in) {
    return in[0] * w + checkpoint(times_w, {in[0]});
  };
  const Function rows_w = [&](const std::vector<Tensor>& in) {
    return checkpoint_rows([&](const Tensor& row) { return row * w; }, in[0], 1);
  };
  const std::pair<const char*, std::function<Tensor()>> graphs[] = {
      {"inside only", [&] { return checkpoint(times_w, {x}); }},
      {"inside, several times", [&] { return checkpoint(times_w, {x}) + checkpoint(times_w, {x * 2.0}); }},
      {"nested", [&] { return checkpoint(twice_w, {x}); }},
      {"by rows", [&] { return rows_w({x}) + x * w; }},
      {"outside after", [&] { return checkpoint(times_w, {x}) * w; }},
      {"outside before", [&] { return checkpoint(times_w, {x * w}); }},
      {"both, several times",
       [&] { return checkpoint(twice_w, {checkpoint(times_w, {x * w})}) * w + w + x * 1.0; }},
      {"outside only", [&] { return x * w * w + w; }},
      {"the leaf itself", [&] { return w; }}};
  for (const auto& [name, graph] : graphs) {
    CAPTURE(name);
    x.zero_grad(), w.zero_grad();
    graph().backward();
    const Numbers expected = values(w.grad());
    x.zero_grad(), w.zero_grad();
    std::vector<double> seen;
    autograd::on_gradient_final(w, [&] { seen.push_back(w.grad().item()); });
    graph().backward();
    graph();  // a forward alone calls nothing
    autograd::on_gradient_final(w, nullptr);
    CHECK(seen == expected);
  }
}

TEST_CASE("backward: a hook is called where a gradient of zero ends the graph early, and for tables") {
  Tensor w = leaf({3}), x = leaf({2});
  int calls = 0;
  autograd::on_gradient_final(w, [&] { ++calls; });
  const Tensor inner = w * 2.0;
  const Tensor cut =
      record(inner.clone(), {inner}, [] { return [](const Tensor&) -> Grads { return {Tensor()}; }; });
  (cut + x).backward();
  CHECK(calls == 1);
  autograd::on_gradient_final(w, nullptr);

  Tensor table = Tensor::from({1., 2., 3., 4.}, {2, 2}).requires_grad();
  const Tensor ids = Tensor::from<int64_t>({0, 1, 1}, {3});
  int64_t lookups = -1;
  calls = 0;
  autograd::on_gradient_final(table,
                              [&] { ++calls, lookups = static_cast<int64_t>(table.meta()->lookups.size()); });
  (embedding(table, ids) + checkpoint([&](const std::vector<Tensor>&) { return embedding(table, ids); }, {x}))
      .backward(ones({3, 2}, f64));
  autograd::on_gradient_final(table, nullptr);
  CHECK(calls == 1);
  CHECK(lookups == 2);
}

TEST_CASE("backward: a hook of a late layer is called before the early layers are differentiated") {
  Tensor early = leaf({2}), late = leaf({3});
  bool early_known = true;
  autograd::on_gradient_final(late, [&] { early_known = early.grad().defined(); });
  (early * early * late).backward();
  autograd::on_gradient_final(late, nullptr);
  CHECK(!early_known);
}
