// Every op of the table, checked in every way, on the host and on a card.
#include "mixrec/autograd/gradcheck.h"
#include "mixrec/autograd/record.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/storage.h"
#include "mixrec/ops/cast.h"
#include "mixrec/tests/card.h"
#include "mixrec/tests/op_cases.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

using namespace mixrec;
using namespace mixrec::test;

namespace {

// All tolerances of the op table, in one place; each is relative to the largest element of a row.
struct Tolerance {
  double forward, gradient;
};

// How often a bf16 result is rounded on its way, where that is more than once: with one rounding it is within half a
// unit in the last place of the exact value.
Tolerance roundings(const std::string& op) {
  static const std::map<std::string, Tolerance> several = {
      // Saved results are rounded: half a unit of a logsumexp of about 5 is an exponent's error of 4 of them.
      {"logsumexp", {1, 5}},
      {"log_softmax", {1, 2}},
      // Plain ops in a row: products, the gate, the norm, a sum of gradients.
      {"ffn", {3, 4}},
      {"residual_ffn", {3, 4}},
      {"cross_attention", {2, 4}},
      {"attend", {2, 1}},              // tensor cores take rounded weights
      {"sequence_attention", {3, 8}},  // those of residual_ffn and attend, of folded weights, of queries
      {"linear_by_request", {2, 2}},
      {"mse", {1, 2}},
      {"checkpoint", {2, 2}},
      {"checkpoint_rows", {2, 2}},
      {"sum", {2, 1}},        // a mean is a sum and a product
      {"embedding", {1, 2}},  // "twice one table" is a product
      // Gradients of a tensor with several uses are added in bf16, one use after the other.
      {"embedding_columns", {1, 4}},
      // Rounded between its two runs, and measured where a single element cancels.
      {"sum_to", {5, 1}},
  };
  const auto found = several.find(op);
  return found == several.end() ? Tolerance{1, 1} : found->second;
}

Tolerance tolerance(const std::string& op, DType dtype) {
  constexpr double kHalfUnit = 1. / 256,
                   kSums = 1.02;  // what is summed in f32 on the way is not exact either
  if (dtype == bf16)
    return {roundings(op).forward * kHalfUnit * kSums, roundings(op).gradient * kHalfUnit * kSums};
  if (dtype == f32) return {2e-6, 1e-5};
  return {1e-12, 1e-11};
}

// One op alone, where the environment names it: make test-ops OP=softmax.
const std::string& chosen_op() {
  static const std::string name = std::getenv("MIXREC_OP") ? std::getenv("MIXREC_OP") : "";
  return name;
}

std::vector<Tensor> on(Device device, std::vector<Tensor> tensors) {
  for (Tensor& x : tensors)
    if (x.defined()) x = x.to(device);
  return tensors;
}

std::vector<Tensor> inputs_of(const OpCase& row) {
  Rng rng(derive_seed(17, (row.op + row.label).c_str()));
  return row.inputs(rng);
}

void require_gradients(std::vector<Tensor>& inputs) {
  for (Tensor& x : inputs) {
    if (x.defined() && is_floating(x.dtype())) x.requires_grad();
  }
}

struct Outcome {
  Tensor y;
  std::vector<Tensor> grads;  // of floating inputs, in order
};

// Forward and backward with a fixed upstream gradient.
Outcome evaluate(const OpCase& row, std::vector<Tensor> inputs) {
  require_gradients(inputs);
  for (Tensor& x : inputs)
    if (x.defined()) x.zero_grad();  // of an earlier call with the same tensors
  Outcome out{row.run(inputs), {}};
  if (!row.no_gradient.empty()) return out;
  // Every dtype holds the upstream gradient exactly, so that only the op's own rounding is measured.
  Tensor upstream = empty(out.y.shape(), bf16);
  Rng(5).fill_normal(upstream, 0, 1);
  out.y.backward(cast(upstream, out.y.dtype()).to(out.y.device()));
  for (const Tensor& x : inputs) {
    if (!x.defined() || !is_floating(x.dtype())) continue;
    out.grads.push_back(x.grad().defined() ? x.grad() : zeros_like(x));
  }
  out.y = out.y.detach();
  return out;
}

std::vector<Tensor> converted(const std::vector<Tensor>& inputs, DType dtype) {
  std::vector<Tensor> out;
  for (const Tensor& x : inputs) out.push_back(x.defined() && is_floating(x.dtype()) ? cast(x, dtype) : x);
  return out;
}

// Frobenius distance, relative; NaN never passes.
double distance(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double gap = 0, size = 0;
  for (size_t i = 0; i < x.size(); ++i) gap += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
  return std::sqrt(gap) / std::max(std::sqrt(size), 1e-6);
}

// Largest element-wise distance, relative to the largest element of its row.
double row_distance(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  const auto cols = static_cast<size_t>(a.ndim() ? std::max<int64_t>(a.dim(-1), 1) : 1);
  double worst = 0, overall = 0;
  for (const double v : y) overall = std::max(overall, std::abs(v));
  for (size_t r = 0; r < x.size(); r += cols) {
    double gap = 0, size = 0;
    for (size_t i = r; i < r + cols; ++i) {
      gap = std::max(gap, std::isnan(x[i]) ? INFINITY : std::abs(x[i] - y[i]));
      size = std::max(size, std::abs(y[i]));
    }
    // Rows that cancel to almost nothing are measured against the tensor's scale.
    worst = std::max(worst, gap / std::max({size, 0.05 * overall, 1e-6}));
  }
  return worst;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (!(a.shape() == b.shape()) || a.dtype() != b.dtype()) return false;
  const Tensor x = a.contiguous().to(kCpu), y = b.contiguous().to(kCpu);
  const size_t bytes = static_cast<size_t>(x.numel()) * size_of(x.dtype());
  return bytes == 0 || std::memcmp(x.raw_data(), y.raw_data(), bytes) == 0;
}

void check_same_bits(const Outcome& a, const Outcome& b) {
  CHECK(same_bits(a.y, b.y));
  REQUIRE(a.grads.size() == b.grads.size());
  for (size_t i = 0; i < a.grads.size(); ++i) CHECK(same_bits(a.grads[i], b.grads[i]));
}

// The same numbers as a slice of wider, misaligned rows.
Tensor strided(const Tensor& x) {
  if (!x.defined() || !is_floating(x.dtype()) || x.ndim() < 2) return x;
  Shape wide = x.shape();
  wide.set(-1, x.dim(-1) + 5);
  wide.set(-2, x.dim(-2) + 1);
  const Tensor buffer = full(wide, NAN, x.dtype(), x.device());
  const Tensor view = buffer.narrow(-1, 3, x.dim(-1)).narrow(-2, 1, x.dim(-2));
  copy_into(view, x);
  return view;
}

struct Guards {
  Guards() : before(memory_guard_violations()) { set_memory_guards(true); }
  ~Guards() { set_memory_guards(false); }
  int64_t violations() const { return memory_guard_violations() - before; }
  int64_t before;
};

template <class F>
void for_all_cases(F f) {
  int rows = 0;
  for (const OpCase& row : op_cases()) {
    if (!chosen_op().empty() && row.op != chosen_op()) continue;
    ++rows;
    CAPTURE(row.op);
    CAPTURE(row.label);
    try {
      f(row);
    } catch (const Error& error) {
      FAIL_CHECK(error.what());
    }
  }
  CHECK_MESSAGE(rows > 0, "the table has no op '", chosen_op(), "'");
}

Plain plain(const Tensor& x) {
  return x.defined() ? Plain{{x.shape().begin(), x.shape().end()}, x.to_vector<double>()} : Plain{};
}

// Against central differences, over a sample of the elements of large inputs: they are there for the reductions
// that they are cut into.
void check_gradients(Device device, int64_t elements) {
  for_all_cases([&](const OpCase& row) {
    if (!row.no_gradient.empty()) return;
    auto inputs = on(device, inputs_of(row));
    require_gradients(inputs);
    const auto result = gradcheck(row.run, inputs, {.max_elements = elements});
    CHECK_MESSAGE(result.passed, result.message);
  });
}

// Against f64 on the host.
void check_precision(Device device, const std::vector<DType>& dtypes) {
  for_all_cases([&](const OpCase& row) {
    for (const DType dtype : dtypes) {
      if (dtype != f64 && !row.no_low_precision.empty()) continue;
      const std::string dtype_name = name_of(dtype);
      CAPTURE(dtype_name);
      const auto low = converted(inputs_of(row), dtype);
      // The reference sees the rounded inputs: what is measured is the op, not the rounding of its operands.
      const Outcome expected = evaluate(row, converted(low, f64)), got = evaluate(row, on(device, low));
      const Tolerance limit = tolerance(row.op, dtype);
      CHECK(got.y.dtype() == dtype);
      CHECK(got.y.device() == device);
      CHECK(distance(got.y, expected.y) <= limit.forward);
      CHECK(row_distance(got.y, expected.y) <= limit.forward);
      for (size_t i = 0; i < expected.grads.size(); ++i) {
        CAPTURE(i);
        CHECK(distance(got.grads[i], expected.grads[i]) <= limit.gradient);
        CHECK(row_distance(got.grads[i], expected.grads[i]) <= limit.gradient);
      }
    }
  });
}

void check_strides(Device device) {
  for_all_cases([&](const OpCase& row) {
    if (!row.dense_only.empty()) return;
    const auto dense = on(device, inputs_of(row));
    std::vector<Tensor> views;
    for (const Tensor& x : dense) views.push_back(strided(x));
    const Outcome expected = evaluate(row, dense), got = evaluate(row, views);
    CHECK(distance(got.y, expected.y) <= 1e-12);
    for (size_t i = 0; i < expected.grads.size(); ++i)
      CHECK(distance(got.grads[i], expected.grads[i]) <= 1e-12);
  });
}

}  // namespace

TEST_CASE("ops: values are those of loops over plain numbers") {
  for_all_cases([](const OpCase& row) {
    if (!row.expected) return;
    const auto inputs = inputs_of(row);
    Plains numbers;
    for (const Tensor& x : inputs) numbers.push_back(plain(x));
    const Plain expected = row.expected(numbers);
    const Tensor y = row.run(inputs).detach().contiguous();
    REQUIRE(plain(y).shape == expected.shape);
    const Tensor wanted = Tensor::from(expected.values, y.shape());
    CHECK(distance(y, wanted) <= 1e-13);
    CHECK(row_distance(y, wanted) <= 1e-12);
  });
}

TEST_CASE("ops: gradients agree with finite differences in f64") {
  // Thousands of tiny calls: on a busy machine threads would mostly wait for each other.
  const int threads = num_threads();
  set_num_threads(1);
  check_gradients(kCpu, 750);
  set_num_threads(threads);
}

TEST_CASE("ops: f32 and bf16 agree with f64") { check_precision(kCpu, {f32, bf16}); }

TEST_CASE(
    "ops: bits do not change from run to run, with threads, or over poisoned memory; nothing is written "
    "outside") {
  for_all_cases([](const OpCase& row) {
    const auto inputs = converted(inputs_of(row), f32);
    const auto fresh = [&] { return converted(converted(inputs, f64), f32); };
    const int threads = num_threads();
    set_num_threads(1);
    const Outcome serial = evaluate(row, fresh());
    set_num_threads(3);
    check_same_bits(evaluate(row, fresh()), serial);
    set_num_threads(threads);
    const Guards guards;
    check_same_bits(evaluate(row, fresh()), serial);
    CHECK(guards.violations() == 0);
  });
}

TEST_CASE("ops: row strides and misaligned rows give the numbers of dense tensors") { check_strides(kCpu); }

TEST_CASE("cuda: ops: gradients agree with finite differences in f64") {
  if (has_card("gradients of the op table on a card")) check_gradients(kCard, 60);
}

TEST_CASE("cuda: ops: f32, bf16 and f64 agree with f64 on the host") {
  if (has_card("numbers of the op table on a card")) check_precision(kCard, {f32, bf16, f64});
}

TEST_CASE(
    "cuda: ops: bits do not change from run to run or over poisoned memory; nothing is written outside") {
  if (!has_card("bits and guard bands of the op table on a card")) return;
  for_all_cases([](const OpCase& row) {
    for (const DType dtype : {f32, bf16}) {
      const auto inputs = converted(inputs_of(row), dtype);
      const auto fresh = [&] { return on(kCard, inputs); };
      const Outcome once = evaluate(row, fresh());
      check_same_bits(evaluate(row, fresh()), once);
      const Guards guards;
      check_same_bits(evaluate(row, fresh()), once);
      CHECK(guards.violations() == 0);
    }
  });
}

TEST_CASE("cuda: ops: row strides and misaligned rows give the numbers of dense tensors") {
  if (has_card("row strides of the op table on a card")) check_strides(kCard);
}

namespace {

std::string text_of(const std::filesystem::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// The names in MR_OP under a folder.
std::set<std::string> named_ops(const std::string& folder) {
  std::set<std::string> names;
  const std::string mark = "MR_OP(\"";
  for (const auto& file : std::filesystem::recursive_directory_iterator(folder)) {
    if (file.path().extension() != ".cpp") continue;
    const std::string text = text_of(file.path());
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at)) {
      at += mark.size();
      names.insert(text.substr(at, text.find('"', at) - at));
    }
  }
  return names;
}

}  // namespace

TEST_CASE("op table: every op has a row whose values are known without the library") {
  std::set<std::string> rows, known;
  for (const OpCase& row : op_cases()) {
    rows.insert(row.op);
    if (row.expected) known.insert(row.op);
  }
  const auto ops = named_ops("ops");
  CHECK(ops.size() > 50);
  for (const std::string& op : ops) CHECK_MESSAGE(rows.contains(op), op, " has no row");
  for (const std::string& op : rows) CHECK_MESSAGE(known.contains(op), "no row of ", op, " has `expected`");
}

TEST_CASE("op table: what it expects is computed without the library") {
  const std::string mark = "#include \"mixrec/";
  for (const auto& file : std::filesystem::directory_iterator("tests")) {
    const std::string name = file.path().filename().string();
    if (!name.starts_with("expected")) continue;
    const std::string text = text_of(file.path());
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1))
      CHECK_MESSAGE(text.substr(at).starts_with(mark + "tests/expected.h\""), name);
  }
}
