// What the tests of optimisers train.
#pragma once

#include "mixrec/core/rng.h"
#include "mixrec/ops/embedding.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/tests/devices.h"

#include <vector>

namespace mixrec::test {

inline std::vector<Device> devices() { return devices("optimisers"); }

// A step and what came of it.
inline StepReport take_step(Optimizer& optimizer, const StepOptions& options = {}) {
  const StepReport report = optimizer.step(options);
  return report.pending ? optimizer.report() : report;
}

inline Tensor normal(const Shape& shape, Rng& rng, DType dtype) {
  Tensor x = empty(shape, dtype);
  rng.fill_normal(x, 0, 1);
  return x;
}

inline Tensor normal(const Shape& shape, uint64_t seed, DType dtype = f32) {
  Tensor x = empty(shape, dtype);
  Rng(seed).fill_normal(x, 0, 1);
  return x;
}

// A model of two weights and a table, small enough to train in a test.
struct Model {
  Device device = kCpu;
  Tensor gate = normal({3, 5}, 1).to(device).requires_grad();
  Tensor bias = normal({5}, 2).to(device).requires_grad();
  Tensor table = normal({20, 4}, 3).to(device).requires_grad();

  std::vector<Parameter> parameters() const {
    return {{"head.gate", gate, ParameterKind::dense},
            {"head.bias", bias, ParameterKind::dense},
            {"item.table", table, ParameterKind::table}};
  }
  // Gradients that depend on nothing but `seed`.
  void backward(uint64_t seed) const {
    gate.backward(normal({3, 5}, 10 * seed + 1).to(device));
    bias.backward(normal({5}, 10 * seed + 2).to(device));
    std::vector<int64_t> ids;
    Rng rng(10 * seed + 3);
    for (int i = 0; i < 12; ++i) ids.push_back(static_cast<int64_t>(rng.below(20)));
    look_up(ids, normal({12, 4}, 10 * seed + 4));
  }
  void look_up(const std::vector<int64_t>& ids, const Tensor& dy) const {
    embedding(table, Tensor::from(ids).to(device)).backward(dy.to(device));
  }
  std::vector<std::vector<float>> values() const {
    return {gate.to_vector(), bias.to_vector(), table.to_vector()};
  }
};

inline void train(const Model& model, Optimizer& optimizer, uint64_t first, uint64_t last) {
  for (uint64_t s = first; s < last; ++s) {
    optimizer.zero_grad();
    model.backward(s);
    optimizer.step();
  }
}

inline Tensor random_ids(int64_t count, uint64_t rows, Rng& rng) {
  std::vector<int64_t> ids;
  // Squared, so that low ids are looked up often: row 0 by far more than one piece of a long sum.
  for (int64_t i = 0; i < count; ++i) {
    const double u = rng.uniform();
    ids.push_back(static_cast<int64_t>(u * u * static_cast<double>(rows)));
  }
  return Tensor::from(ids);
}

// Look-ups of all kinds, over two backwards.
inline void look_up(const Tensor& table, int64_t count, Rng& rng) {
  const DType dtype = table.dtype();
  const Device device = table.device();
  const int64_t width = table.dim(1);
  const auto rows = static_cast<uint64_t>(table.dim(0));
  const auto ids = [&](int64_t n) { return random_ids(n, rows, rng).to(device); };
  const auto dy = [&](const Shape& shape) { return normal(shape, rng, dtype).to(device); };
  const Tensor all = ids(count);
  embedding(table, all).backward(dy({count, width}));
  const Tensor few = ids(3);
  embedding(table, few).backward(dy({3, 2 * width}).narrow(1, width, width));
  const Tensor offsets = Tensor::from(std::vector<int64_t>{0, 4, 4, count}).to(device);
  for (const BagMode mode : {BagMode::sum, BagMode::mean}) {
    const Tensor bags = ids(count);
    embedding_bag(table, bags, offsets, mode).backward(dy({3, width}));
  }
}

}  // namespace mixrec::test
