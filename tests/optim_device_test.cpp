// Optimisers where numbers stay on a device: refused steps, recorded steps, bf16 shadows and gradients, and the
// CPU's step as the reference.
#include "mixrec/autograd/meta.h"
#include "mixrec/autograd/shadow.h"
#include "mixrec/core/error.h"
#include "mixrec/tests/optim_model.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <string>

using namespace mixrec;
using namespace mixrec::test;

TEST_CASE("optim: a loss that is not finite refuses the step") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Device device : devices()) {
    for (const DType dtype : {f32, bf16, f64}) {
      Model model{device};
      Optimizer optimizer(model.parameters(), {});
      model.backward(1);
      const auto before = model.values();
      const StepReport refused = take_step(optimizer, {.loss = full({}, nan, dtype, device)});
      CHECK(!refused.applied);
      CHECK(refused.refused == 1);
      CHECK(refused.not_finite == "");
      CHECK(model.values() == before);
      CHECK(take_step(optimizer, {.loss = full({}, 2, dtype, device)}).applied);
      CHECK(optimizer.steps() == 1);
      CHECK(model.values() != before);
    }
  }
}

TEST_CASE("optim: on a device steps after a refused one wait for report()") {
  const Device device = devices().back();
  if (device.is_cpu()) return;
  Model model{device};
  Optimizer optimizer(model.parameters(), {});
  train(model, optimizer, 0, 2);
  const auto before = model.values();
  optimizer.zero_grad();
  model.bias.backward(full({5}, std::numeric_limits<double>::infinity(), f32, device));
  CHECK(optimizer.step().pending);
  train(model, optimizer, 2, 4);
  CHECK(model.values() == before);
  const StepReport report = optimizer.report();
  CHECK(!report.applied);
  CHECK(report.refused == 3);
  CHECK(report.not_finite == "head.bias");
  train(model, optimizer, 4, 5);
  CHECK(optimizer.report().applied);
  CHECK(optimizer.steps() == 3);
}

TEST_CASE("optim: replays of a recorded step are steps") {
  const Device device = devices().back();
  if (device.is_cpu()) return;
  for (const char* rule : {"sgd", "adagrad", "row_wise_adagrad", "lazy_adam"}) {
    CAPTURE(rule);
    const OptimizerOptions options{.tables = {.name = rule, .lr = 0.1}, .clip_norm = 1, .average_decay = 0.9};
    Model eager{device}, recorded{device};
    Optimizer a(eager.parameters(), options), b(recorded.parameters(), options);
    train(eager, a, 0, 2);
    train(recorded, b, 0, 2);
    eager.backward(7);
    recorded.backward(7);
    cuda::Graph graph([&] { b.step(); });
    CHECK(eager.values() == recorded.values());
    for (int i = 1; i < 4; ++i) {
      const StepOptions numbers{.lr_factor = 1.0 / i, .gradient_scale = 0.5 * i};
      a.step(numbers);
      b.prepare(numbers);
      graph.replay();
    }
    CHECK(eager.values() == recorded.values());
    CHECK(b.steps() == 5);
    CHECK(b.report().gradient_norm == a.report().gradient_norm);
    const AveragedWeights of_a(a), of_b(b);
    CHECK(eager.values() == recorded.values());
  }
}

TEST_CASE("optim: a recorded step refreshes shadows that were made before any step") {
  const Device device = devices().back();
  if (device.is_cpu()) return;
  Model model{device};
  Optimizer optimizer(model.parameters(), {});
  const Tensor shadow = shadow_of(model.gate, bf16);
  model.backward(1);
  cuda::Graph graph([&] { optimizer.step(); });
  graph.replay();
  Tensor narrow = empty(shadow.shape(), bf16, device);
  narrow.copy_from(model.gate);
  CHECK(shadow.to_vector() == narrow.to_vector());
}

TEST_CASE("optim: a step writes the shadows of the parameters that have one") {
  const auto narrow = [](const Tensor& x) {
    Tensor y = empty(x.shape(), bf16, x.device());
    y.copy_from(x);
    return y.to_vector();
  };
  for (const Device device : devices()) {
    Model model{device};
    Optimizer optimizer(model.parameters(), {.average_decay = 0.5});
    const auto check = [&] {
      CHECK(shadow_of(model.gate, bf16).to_vector() == narrow(model.gate));
      CHECK(shadow_of(model.bias, bf16).to_vector() == narrow(model.bias));
    };
    check();
    train(model, optimizer, 0, 2);
    const Tensor gate = shadow_of(model.gate, bf16), bias = shadow_of(model.bias, bf16);
    CHECK(bias.data<bfloat16>() == gate.data<bfloat16>() + 16);  // in one buffer
    check();
    train(model, optimizer, 2, 3);
    CHECK(shadow_of(model.gate, bf16).id() == gate.id());  // still the same memory
    check();
    {
      const AveragedWeights averaged(optimizer);
      check();
    }
    check();
    CHECK(shadow_of(model.bias, bf16).id() == bias.id());
    // Changed behind the optimiser's back, also in a step that is refused.
    model.gate.fill(3);
    optimizer.zero_grad();
    model.bias.backward(full({5}, std::numeric_limits<double>::quiet_NaN(), f32, device));
    CHECK(!take_step(optimizer).applied);
    check();
    train(model, optimizer, 3, 5);
    check();
  }
}

TEST_CASE("optim: a step on a device is the CPU's") {
  const Device card = devices().back();
  if (card.is_cpu()) return;
  for (const char* rule : {"sgd", "adagrad", "row_wise_adagrad", "lazy_adam"}) {
    // Rows that are read four floats at a time by parts of a warp, by a whole one, and others.
    for (const auto& widths : {std::vector<int64_t>{64, 8}, {512}, {4}, {7, 100}}) {
      std::vector<std::vector<double>> values[2];
      StepReport reports[2];
      for (const Device device : {kCpu, card}) {
        Rng rng(12);
        std::vector<Parameter> parameters;
        for (const int64_t width : widths) {
          parameters.push_back({"table" + std::to_string(width),
                                normal({300, width}, rng, f32).to(device).requires_grad(),
                                ParameterKind::table});
        }
        Optimizer optimizer(parameters, {.tables = {.name = rule, .lr = 0.1, .weight_decay = 0.05},
                                         .clip_norm = 3,
                                         .average_decay = 0.9});
        const auto which = static_cast<size_t>(device.is_cuda());
        for (const int64_t count : {10, 30000, 500}) {
          optimizer.zero_grad();
          for (const Parameter& p : parameters) look_up(p.value, count, rng);
          reports[which] = take_step(optimizer);
        }
        for (const Parameter& p : parameters) values[which].push_back(p.value.to_vector<double>());
        const AveragedWeights averaged(optimizer);
        for (const Parameter& p : parameters) values[which].push_back(p.value.to_vector<double>());
      }
      CAPTURE(rule);
      CAPTURE(widths[0]);
      CHECK(reports[0].table_rows == reports[1].table_rows);
      CHECK(reports[0].gradient_norm == doctest::Approx(reports[1].gradient_norm).epsilon(1e-5));
      for (size_t p = 0; p < values[0].size(); ++p) {
        double largest = 0;
        for (size_t i = 0; i < values[0][p].size(); ++i)
          largest = std::max(largest, std::abs(values[0][p][i] - values[1][p][i]));
        CHECK(largest < 1e-4);
      }
    }
  }
}

TEST_CASE("optim: a bf16 gradient of an f32 table counts as its numbers in f32") {
  for (const Device device : devices()) {
    for (const int64_t width : {7, 8}) {
      std::vector<std::vector<float>> values;
      for (const DType dtype : {bf16, f32}) {
        Rng rng(9);
        Tensor table = normal({40, width}, rng, f32).to(device).requires_grad();
        Optimizer optimizer({{"table", table, ParameterKind::table}}, {.tables = {.name = "sgd", .lr = 0.1}});
        for (const bool weighted : {false, true}) {
          autograd::Lookup lookup;
          lookup.ids = random_ids(500, 40, rng).to(device);
          Tensor dy = empty({20, width}, bf16), weights = empty({500}, bf16);
          dy.copy_from(normal({20, width}, rng, f32));
          weights.copy_from(normal({500}, rng, f32));
          const auto given = [&](const Tensor& x) {
            Tensor out = empty(x.shape(), dtype, device);
            out.copy_from(x);
            return out;
          };
          lookup.dy = given(dy);
          lookup.rows = random_ids(500, 20, rng).to(device);
          if (weighted) lookup.weights = given(weights);
          autograd::leaf_meta(table)->lookups.push_back(lookup);
        }
        CHECK(take_step(optimizer).table_rows > 0);
        values.push_back(table.to_vector());
      }
      CHECK(values[0] == values[1]);
    }
  }
}

TEST_CASE("optim: on a device a look-up outside its table is left out and reported") {
  const Device device = devices().back();
  if (device.is_cpu()) return;
  Tensor table = zeros({4, 2}, f32, device).requires_grad();
  Optimizer optimizer({{"item", table, ParameterKind::table}}, {.tables = {.name = "sgd", .lr = 1}});
  autograd::leaf_meta(table)->lookups.push_back(
      {Tensor::from(std::vector<int64_t>{4, 1, -1}).to(device), ones({3, 2}, f32, device), {}, {}});
  optimizer.step();
  CHECK_THROWS_WITH_AS(optimizer.report(), doctest::Contains("2 look-ups"), Error);
  CHECK(table.to_vector() == std::vector<float>{0, 0, -1, -1, 0, 0, 0, 0});
}
