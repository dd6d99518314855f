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
  std::vector<int64_t> widths = {};
  void visit(OptionVisitor& v) {
    v.number("layers", layers, between(1, 100), "");
    v.number("rate", rate, below(0, 1), "");
    v.choice("name", name, {"x", "yes"}, "");
    v.list("widths", widths, between(1, 512), "");
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

TEST_CASE("options: types, ranges and unknown keys are named with their path") {
  const auto error = [](const std::string& text) {
    Sizes sizes;
    return message_of([&] { read_options({"mine", "model"}, text, sizes); });
  };
  const std::pair<const char*, const char*> refused[] = {
      {R"({"layers": 3, "rat": 1})", "mine: unknown key model.rat; did you mean model.rate?"},
      {R"({"layers": "three"})", "mine: model.layers needs a whole number, got \"three\""},
      {R"({"layers": 2.5})", "mine: model.layers needs a whole number, got 2.5"},
      {R"({"layers": 1e9})", "mine: model.layers is 1000000000.0, it must be between 1 and 100"},
      {R"({"layers": 4294967297})", "mine: model.layers is 4294967297, it must be between 1 and 100"},
      {R"({"layers": 1e300})", "it must be between 1 and 100"},
      {R"({"layers": 18446744073709551617})", "it must be between 1 and 100"},
      {R"({"rate": 1})", "mine: model.rate is 1, it must be at least 0 and below 1"},
      {R"({"rate": true})", "mine: model.rate needs a number, got true"},
      {R"({"name": "yex"})", "model.name is \"yex\", known are x, yes; did you mean yes?"},
      {R"({"widths": [8, 0]})", "mine: model.widths.1 is 0, it must be between 1 and 512"},
      {R"({"widths": 8})", "model.widths needs a list of whole numbers, got 8"},
      {R"({"rate": 0, "rate": 0.5})", "mine: 'rate' stands twice in it"},
      {R"([1])", "mine: model needs an object, got [1]"},
      {R"({"layers": )", "mine is not valid JSON: line 1, column"}};
  for (const auto& [text, message] : refused) {
    CAPTURE(text);
    CAPTURE(error(text));
    CHECK(error(text).find(message) != std::string::npos);
    CHECK(error(text).find(".cpp:") == std::string::npos);
  }
  const std::string deep = R"({"name": )" + std::string(200000, '[') + std::string(200000, ']') + "}";
  CHECK(error(deep).find("nested more than 64 levels deep") != std::string::npos);

  Sizes sizes;
  read_options({"mine", "model"}, R"({"layers": 1e2, "rate": 5e-1, "widths": [8, 1.6e1]})", sizes);
  CHECK(sizes.layers == 100);
  CHECK(write_options(sizes) == R"({"layers":100,"rate":0.5,"name":"x","widths":[8,16]})");
}
