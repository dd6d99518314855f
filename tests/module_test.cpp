#include "mixrec/nn/module.h"

#include "mixrec/core/error.h"
#include "mixrec/models/options.h"
#include "mixrec/nn/linear.h"
#include "mixrec/tests/message_of.h"

#include <doctest/doctest.h>

using namespace mixrec;
using mixrec::test::message_of;

namespace {

struct Pair : Module {
  Linear first, second;
  explicit Pair(Rng& rng) : first(3, 4, rng), second(4, 1, rng, {.bias = false}) {}
  Tensor forward(const Tensor& x) const { return second.forward(first.forward(x)); }
  void visit(Visitor& v) { v.module("first", first), v.module("second", second); }
};

struct Tied : Module {
  Tensor weight;
  void visit(Visitor& v) { v.parameter("a", weight), v.parameter("b", weight); }
};

struct Sizes {
  int64_t layers = 2;
  double rate = .5;
  std::string name = "x";
  template <class V>
  void visit(V& v) {
    v("layers", layers), v("rate", rate), v("name", name);
  }
};

}  // namespace

TEST_CASE("modules: visit names every tensor, in order") {
  Rng rng(1);
  Pair pair(rng);
  std::vector<std::string> names;
  for (const Parameter& p : parameters(pair)) names.push_back(p.name);
  CHECK(names == std::vector<std::string>{"first.weight", "first.bias", "second.weight"});
  CHECK(summary(pair).find("20") != std::string::npos);
  Tied tied;
  tied.weight = zeros({2});
  CHECK(message_of([&] { parameters(tied); }).find("'b' and 'a' are one tensor") != std::string::npos);
}

TEST_CASE("modules: freezing by name and moving to f64") {
  Rng rng(1);
  Pair pair(rng);
  CHECK(freeze(parameters(pair), "first.*") == 2);
  to_dtype(pair, f64);
  pair.forward(ones({2, 3}, f64)).backward(ones({2, 1}, f64));
  CHECK(!pair.first.weight.grad().defined());
  CHECK(pair.second.weight.grad().defined());
}

TEST_CASE("options: types and unknown keys are named with their path") {
  Sizes sizes;
  OptionReader reader("model.mine", R"({"layers": 3, "rat": 1})");
  sizes.visit(reader);
  CHECK(sizes.layers == 3);
  CHECK(message_of([&] { reader.finish(); }).find("model.mine.rat, did you mean 'rate'?") !=
        std::string::npos);
  OptionReader wrong("model.mine", R"({"layers": "three"})");
  CHECK(message_of([&] { sizes.visit(wrong); }).find("model.mine.layers must be a whole number") !=
        std::string::npos);
  OptionWriter writer;
  sizes.visit(writer);
  CHECK(writer.text() == R"({"layers":3,"rate":0.5,"name":"x"})");
}
