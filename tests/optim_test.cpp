// Dense rules against PyTorch, groups, clipping, skipped steps, saved state, schedules.
#include "mixrec/core/error.h"
#include "mixrec/core/files/safetensors.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/optim_model.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <limits>
#include <map>
#include <string>

using namespace mixrec;
using namespace mixrec::test;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// tests/golden/optim.safetensors, cast to the dtype of a test, on its device.
class Golden {
 public:
  explicit Golden(DType dtype, Device device = kCpu)
      : file_("tests/golden/optim.safetensors"), dtype_(dtype), device_(device) {}

  Tensor read(const std::string& name) const {
    const TensorHeader* header = file_.find(name);
    REQUIRE(header);
    Shape shape;
    for (const int64_t size : header->shape) shape.append(size);
    Tensor stored = empty(shape, header->dtype == "I64" ? i64 : f64);
    file_.read(*header, stored.raw_data());
    if (stored.dtype() == i64) return stored.to(device_);
    Tensor out = empty(shape, dtype_, device_);
    out.copy_from(stored);
    return out;
  }
  Tensor leaf(const std::string& name) const { return read(name).requires_grad(); }

 private:
  SafetensorsFile file_;
  DType dtype_;
  Device device_;
};

// Largest difference, relative to the largest expected magnitude.
double relative_error(const Tensor& got, const Tensor& want) {
  const auto a = got.to_vector<double>(), b = want.to_vector<double>();
  REQUIRE(a.size() == b.size());
  double error = 0, scale = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error = std::max(error, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error / scale;
}

double tolerance(DType dtype) { return dtype == f64 ? 1e-12 : 2e-6; }

// The second begins at the next multiple of 64 bytes.
bool next_to_each_other(const Tensor& a, const Tensor& b) {
  const auto end =
      reinterpret_cast<uintptr_t>(a.raw_data()) + static_cast<uintptr_t>(a.numel()) * size_of(a.dtype());
  return reinterpret_cast<uintptr_t>(b.raw_data()) == (end + 63) / 64 * 64;
}

}  // namespace

TEST_CASE("optim: ten steps of every dense rule are PyTorch's") {
  const std::map<std::string, RuleOptions> rules{
      {"sgd", {.name = "sgd", .lr = 0.1, .weight_decay = 0.03}},
      {"momentum", {.name = "sgd", .lr = 0.1, .momentum = 0.8, .weight_decay = 0.03}},
      {"nesterov", {.name = "sgd", .lr = 0.1, .momentum = 0.8, .nesterov = true}},
      {"rmsprop", {.name = "rmsprop", .lr = 0.02, .decay = 0.9, .eps = 1e-6, .weight_decay = 0.03}},
      {"adagrad",
       {.name = "adagrad", .lr = 0.1, .eps = 1e-10, .weight_decay = 0.03, .initial_accumulator = 0.2}},
      {"adam", {.name = "adam", .lr = 0.05, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.03}},
      {"adamw",
       {.name = "adamw", .lr = 0.05, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.3}}};
  for (const Device device : devices())
    for (const DType dtype : {f64, f32}) {
      const Golden golden(dtype, device);
      const auto factors = golden.read("lr_factor").to_vector<double>();
      for (const auto& [name, rule] : rules) {
        CAPTURE(name);
        std::vector<Parameter> parameters;
        for (const char* p : {"a", "b", "c"})
          parameters.push_back({p, golden.leaf(std::string("start.") + p)});
        Optimizer optimizer(parameters, {.dense = rule});
        for (int64_t step = 0; step < 10; ++step) {
          optimizer.zero_grad();
          for (const Parameter& p : parameters) {
            if (p.name == "b" && step == 4) continue;
            p.value.backward(golden.read("gradient." + p.name).select(0, step));
          }
          CHECK(take_step(optimizer, {.lr_factor = factors[static_cast<size_t>(step)]}).applied);
        }
        for (const Parameter& p : parameters) {
          CAPTURE(p.name);
          CHECK(relative_error(p.value, golden.read(name + "." + p.name)) < tolerance(dtype));
        }
      }
    }
}

TEST_CASE("optim: ten steps of sparse sgd and adagrad are PyTorch's") {
  const std::map<std::string, RuleOptions> rules{
      {"table_sgd", {.name = "sgd", .lr = 0.1}},
      {"table_adagrad", {.name = "adagrad", .lr = 0.1, .eps = 1e-10}}};
  for (const Device device : devices())
    for (const DType dtype : {f64, f32}) {
      const Golden golden(dtype, device);
      const auto factors = golden.read("lr_factor").to_vector<double>();
      for (const auto& [name, rule] : rules) {
        CAPTURE(name);
        const Tensor table = golden.leaf("start.table");
        Optimizer optimizer({{"table", table, ParameterKind::table}}, {.tables = rule});
        for (int64_t step = 0; step < 10; ++step) {
          optimizer.zero_grad();
          embedding(table, golden.read("ids").select(0, step))
              .backward(golden.read("gradient.table").select(0, step));
          take_step(optimizer, {.lr_factor = factors[static_cast<size_t>(step)]});
        }
        CHECK(relative_error(table, golden.read(name)) < tolerance(dtype));
      }
    }
}

TEST_CASE("optim: parameters and gradients lie in one buffer, aligned") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    const Model model{device};
    const auto before = model.values();
    Optimizer optimizer(model.parameters(), {});
    CHECK(model.values() == before);
    CHECK(next_to_each_other(model.gate, model.bias));
    model.backward(1);
    CHECK(next_to_each_other(model.gate.grad(), model.bias.grad()));
    for (const Tensor& x : {model.gate, model.bias, model.gate.grad(), model.bias.grad()}) {
      CHECK(reinterpret_cast<uintptr_t>(x.raw_data()) % 64 == 0);
    }
  }
}

TEST_CASE("optim: groups have their own learning rate and decay, and freeze") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    const Model model{device};
    Optimizer optimizer(model.parameters(), {.dense = {.name = "sgd", .lr = 0.5, .weight_decay = 0.1},
                                             .tables = {.name = "sgd", .lr = 0.5},
                                             .groups = {{.pattern = "head.*", .lr_scale = 0.5},
                                                        {.pattern = "*bias", .weight_decay = 0},
                                                        {.pattern = "item.t?ble", .freeze = true}}});
    CHECK(!model.table.needs_grad());
    const auto gate = model.gate.to_vector<double>(), bias = model.bias.to_vector<double>();
    const auto table = model.table.to_vector();
    model.gate.backward(ones({3, 5}).to(device));
    model.bias.backward(ones({5}).to(device));
    take_step(optimizer);
    for (size_t i = 0; i < gate.size(); ++i) {
      CHECK(model.gate.to_vector<double>()[i] == doctest::Approx(gate[i] - 0.25 * (1 + 0.1 * gate[i])));
    }
    // The last group that matches decides alone.
    for (size_t i = 0; i < bias.size(); ++i) {
      CHECK(model.bias.to_vector<double>()[i] == doctest::Approx(bias[i] - 0.5));
    }
    CHECK(model.table.to_vector() == table);
  }
}

TEST_CASE("optim: patterns") {
  CHECK(matches_pattern("blocks.0.gate", "*"));
  CHECK(matches_pattern("blocks.0.gate", "blocks.*.gate"));
  CHECK(matches_pattern("blocks.0.gate", "*gate*"));
  CHECK(matches_pattern("blocks.0.gate", "blocks.?.gate"));
  CHECK(matches_pattern("aab", "*ab"));
  CHECK(!matches_pattern("blocks.0.gate", "blocks"));
  CHECK(!matches_pattern("blocks.0.gate", "*.gat"));
  CHECK(!matches_pattern("", "?"));
  CHECK(matches_pattern("", "**"));
}

TEST_CASE("optim: clipping limits the norm over weights and tables, rows summed first") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    Model plain{device}, clipped{device};
    const RuleOptions sgd{.name = "sgd", .lr = 0.1};
    Optimizer a(plain.parameters(), {.dense = sgd, .tables = sgd});
    Optimizer b(clipped.parameters(), {.dense = sgd, .tables = sgd, .clip_norm = 0.75});
    plain.backward(5);
    clipped.backward(5);
    double square = 0;
    for (const Tensor& x : {plain.gate, plain.bias, plain.table}) {
      for (const double g : x.grad().to_vector<double>()) square += g * g;
    }
    const StepReport report = take_step(b, {.gradient_scale = 0.5});
    CHECK(report.gradient_norm == doctest::Approx(std::sqrt(square) / 2));
    CHECK(report.clip_factor == doctest::Approx(0.75 / report.gradient_norm));
    const StepReport same = take_step(a, {.gradient_scale = 0.5 * report.clip_factor});
    CHECK(same.gradient_norm == doctest::Approx(0.75));
    CHECK(same.clip_factor == 1);
    CHECK(plain.values() == clipped.values());

    // A gradient below the limit stays as it is.
    Optimizer c(clipped.parameters(), {.dense = sgd, .tables = sgd, .clip_norm = 100});
    b.zero_grad(), a.zero_grad();
    plain.backward(6);
    clipped.backward(6);
    take_step(a, {});
    CHECK(take_step(c, {}).clip_factor == 1);
    CHECK(plain.values() == clipped.values());
  }
}

TEST_CASE("optim: several backwards make one step of their sum") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    Model once{device}, often{device};
    Optimizer a(once.parameters(), {}), b(often.parameters(), {});
    for (const Model* model : {&once, &often}) {
      model->gate.backward(normal({3, 5}, 7).to(device));
      model->look_up(std::vector<int64_t>{3, 4, 3}, ones({3, 4}));
    }
    often.gate.backward(normal({3, 5}, 7).to(device));
    often.look_up(std::vector<int64_t>{3, 4, 3}, ones({3, 4}));
    take_step(a);
    CHECK(take_step(b, {.gradient_scale = 0.5}).table_rows == 2);
    CHECK(once.values() == often.values());
  }
}

TEST_CASE("optim: a bad batch leaves no trace") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    const double nan = std::numeric_limits<double>::quiet_NaN();
    Model clean{device}, troubled{device};
    const OptimizerOptions options{.clip_norm = 1, .average_decay = 0.9};
    Optimizer a(clean.parameters(), options), b(troubled.parameters(), options);
    train(clean, a, 0, 3);
    train(troubled, b, 0, 3);
    troubled.backward(99);
    CHECK(!take_step(b, {.loss = full({}, nan).to(device)}).applied);
    b.zero_grad();
    troubled.bias.backward(full({5}, nan).to(device));
    const StepReport dense = take_step(b);
    CHECK(!dense.applied);
    CHECK(dense.not_finite == "head.bias");
    b.zero_grad();
    troubled.look_up(std::vector<int64_t>{7}, full({1, 4}, nan));
    CHECK(take_step(b).not_finite == "item.table");
    CHECK(b.steps() == 3);
    train(clean, a, 3, 6);
    train(troubled, b, 3, 6);
    CHECK(clean.values() == troubled.values());
  }
}

TEST_CASE("optim: a restored optimiser goes on bit by bit") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    for (const char* rule : {"sgd", "adagrad", "row_wise_adagrad", "lazy_adam"}) {
      CAPTURE(rule);
      OptimizerOptions options{.tables = {.name = rule, .lr = 0.1}, .average_decay = 0.95};
      Model model{device};
      Optimizer whole(model.parameters(), options);
      train(model, whole, 0, 4);
      Model resumed{device};
      resumed.gate = model.gate.clone().requires_grad();
      resumed.bias = model.bias.clone().requires_grad();
      resumed.table = model.table.clone().requires_grad();
      std::vector<NamedTensor> saved;
      for (const NamedTensor& s : whole.state()) saved.push_back({s.name, s.value.clone()});
      Optimizer rest(resumed.parameters(), options);
      rest.load_state(saved);
      CHECK(rest.steps() == 4);
      train(model, whole, 4, 9);
      train(resumed, rest, 4, 9);
      CHECK(model.values() == resumed.values());
      const AveragedWeights of_whole(whole), of_rest(rest);
      CHECK(model.values() == resumed.values());
    }
  }
}

TEST_CASE("optim: state has stable names and is restored strictly") {
  Model model;
  Optimizer optimizer(model.parameters(), {.average_decay = 0.9});
  std::vector<std::string> names;
  for (const NamedTensor& s : optimizer.state()) names.push_back(s.name);
  CHECK(names == std::vector<std::string>{"optimizer.steps", "adamw.m.head.gate", "adamw.v.head.gate",
                                          "average.head.gate", "adamw.m.head.bias", "adamw.v.head.bias",
                                          "average.head.bias", "lazy_adam.m.item.table",
                                          "lazy_adam.v.item.table", "lazy_adam.steps.item.table",
                                          "average.item.table", "average_step.item.table"});
  auto saved = optimizer.state();
  saved.pop_back();
  CHECK(contains(message_of([&] { optimizer.load_state(saved); }), "lacks average_step.item.table"));
  saved = optimizer.state();
  saved[1].value = zeros({4, 5});
  CHECK(contains(message_of([&] { optimizer.load_state(saved); }), "adamw.m.head.gate is f32[4, 5]"));
  saved = optimizer.state();
  saved[1].name = "adam.m.head.gate";
  CHECK(contains(message_of([&] { optimizer.load_state(saved); }), "has adam.m.head.gate"));
}

TEST_CASE("optim: averages are the normalised exponential average of the weights after each step") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    for (const char* rule : {"sgd", "lazy_adam"}) {
      constexpr double kDecay = 0.8;
      Model model{device};
      Optimizer optimizer(model.parameters(), {.tables = {.name = rule, .lr = 0.1}, .average_decay = kDecay});
      std::vector<std::vector<double>> sums(3);
      double weight = 0;
      for (uint64_t s = 0; s < 12; ++s) {
        train(model, optimizer, s, s + 1);
        weight = kDecay * weight + 1;
        const auto values = model.values();
        for (size_t p = 0; p < sums.size(); ++p) {
          sums[p].resize(values[p].size());
          for (size_t i = 0; i < values[p].size(); ++i)
            sums[p][i] = kDecay * sums[p][i] + static_cast<double>(values[p][i]);
        }
        if (s % 4 != 3) continue;  // looked at several times: it must not disturb what follows
        const auto trained = model.values();
        {
          const AveragedWeights averaged(optimizer);
          CHECK(contains(message_of([&] { take_step(optimizer); }), "averaged weights are in use"));
          const auto average = model.values();
          for (size_t p = 0; p < sums.size(); ++p) {
            for (size_t i = 0; i < sums[p].size(); ++i) {
              CHECK(average[p][i] == doctest::Approx(sums[p][i] / weight).epsilon(1e-5));
            }
          }
        }
        CHECK(model.values() == trained);
      }
    }
  }
}

TEST_CASE("optim: mistakes are named") {
  const auto make = [](const OptimizerOptions& options) {
    const Model model;
    Optimizer(model.parameters(), options);
  };
  const auto message = [&](const OptimizerOptions& options) { return message_of([&] { make(options); }); };
  CHECK(contains(message({.dense = {.name = "adan"}}), "no rule 'adan'; did you mean adam?"));
  CHECK(contains(message({.tables = {.name = "row_wise_adagrid"}}), "did you mean row_wise_adagrad?"));
  CHECK(contains(message({.tables = {.name = "x"}}), "there are sgd, adagrad, row_wise_adagrad, lazy_adam"));
  CHECK(contains(message({.dense = {.name = "adam", .momentum = 0.9}}), "adam has no use for momentum"));
  CHECK(contains(message({.dense = {.name = "adam", .lr = -1}}),
                 "adam.lr is -1, it must be between 0 and 1000000"));
  CHECK(contains(message({.tables = {.name = "sgd", .momentum = 0.9}}), "tables have no momentum"));
  CHECK(contains(message({.groups = {{.pattern = "head.gatt"}}}),
                 "'head.gatt' matches no parameter; did you mean head.gate?"));
  CHECK(contains(message({.groups = {{.pattern = "*", .freeze = true}}}), "nothing to train"));

  Tensor x = ones({2}).requires_grad();
  CHECK(contains(message_of([&] { Optimizer({{"a", x}, {"b", x}}, {}); }), "a and b are one tensor"));
  CHECK(contains(message_of([&] {
                   Optimizer({{"a", x}, {"a", ones({2})}}, {});
                 }),
                 "two parameters are called a"));
  Tensor narrow = ones({2}, bf16).requires_grad();
  CHECK(contains(message_of([&] { Optimizer({{"a", narrow}}, {}); }), "f32"));

  Optimizer first({{"a", x}}, {}), second({{"a", x}}, {});
  CHECK(contains(message_of([&] { first.step(); }), "a was moved after the optimiser was made"));
}
