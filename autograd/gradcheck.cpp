#include "mixrec/autograd/gradcheck.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"
#include "mixrec/core/rng.h"

#include <cmath>

namespace mixrec {
namespace {

double dot(const Tensor& a, const std::vector<double>& y) {
  const auto x = a.to_vector<double>();
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

void set(const Tensor& x, int64_t element, double value) {
  if (x.device().is_cpu()) {
    x.data<double>()[element] = value;
  } else {
    x.detach().reshape({-1}).narrow(0, element, 1).fill(value);
  }
}

// Relative error of the whole input, and its worst element.
struct Comparison {
  double difference = 0, size = 0, worst = -1;
  int64_t worst_at = 0;
  double worst_analytic = 0, worst_numeric = 0;

  void add(int64_t at, double analytic, double numeric) {
    const double gap = std::abs(analytic - numeric);
    difference += gap * gap;
    size += analytic * analytic + numeric * numeric;
    // A NaN is the worst there is.
    if (gap > worst || std::isnan(gap))
      worst = gap, worst_at = at, worst_analytic = analytic, worst_numeric = numeric;
  }
  // Gradients that vanish exactly on both sides agree; below 1e-8 the differences are rounding noise.
  double error() const {
    return difference == 0 ? 0 : std::sqrt(difference) / std::max(std::sqrt(size), 1e-8);
  }
};

}  // namespace

GradcheckResult gradcheck(const std::function<Tensor(const std::vector<Tensor>&)>& fn,
                          const std::vector<Tensor>& inputs, const GradcheckOptions& options) {
  std::vector<Tensor> leaves = inputs;
  for (Tensor& x : leaves) x.zero_grad();
  const Tensor y = fn(leaves);
  MR_CHECK(y.dtype() == f64, "gradcheck needs f64, the result is ", y.dtype());
  Tensor random = empty(y.shape(), f64);
  Rng(options.seed).fill_normal(random, 0, 1);
  y.backward(random.to(y.device()));
  const auto upstream = random.to_vector<double>();

  GradcheckResult result;
  const NoGrad off;
  for (size_t i = 0; i < leaves.size(); ++i) {
    const Tensor& x = leaves[i];
    if (!x.defined() || !x.needs_grad()) continue;
    MR_CHECK(x.dtype() == f64 && x.is_contiguous(), "gradcheck needs dense f64 leaves, input ", i, " is ",
             x.dtype());
    const std::vector<double> analytic = x.grad().defined()
                                             ? x.grad().to_vector<double>()
                                             : std::vector<double>(static_cast<size_t>(x.numel()));
    const std::vector<double> values = x.to_vector<double>();
    Comparison comparison;
    const int64_t stride = (x.numel() + options.max_elements - 1) / options.max_elements;
    for (int64_t e = 0; e < x.numel(); e += stride) {
      const double original = values[static_cast<size_t>(e)];
      const double step = options.step * std::max(1.0, std::abs(original));
      set(x, e, original + step);
      const double above = dot(fn(leaves), upstream);
      set(x, e, original - step);
      const double below = dot(fn(leaves), upstream);
      set(x, e, original);
      comparison.add(e, analytic[static_cast<size_t>(e)], (above - below) / (2 * step));
    }
    const double error = comparison.error();
    if (error > result.error || std::isnan(error)) result.error = error;
    if (!(error <= options.tolerance)) {
      result.passed = false;
      result.message += concat_message(
          "input ", i, " ", x.shape(), ": relative error ", error, ", worst at element ", comparison.worst_at,
          ": analytic ", comparison.worst_analytic, ", numeric ", comparison.worst_numeric, "\n");
    }
  }
  return result;
}

}  // namespace mixrec
