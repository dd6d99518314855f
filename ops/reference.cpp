#include "mixrec/ops/reference.h"

#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/ffn/swiglu.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/ops/reduce.h"

#include <cmath>

namespace mixrec::reference {
namespace {

// A statistic of rows, [...], as [..., 1]: ready to broadcast over the rows.
Tensor column(const Tensor& statistic) {
  Shape shape = statistic.shape();
  shape.append(1);
  return statistic.reshape(shape);
}

// x minus its row's maximum.  The shift cancels in every use, so it takes no part in the gradient.
Tensor shifted(const Tensor& x) { return x - column(max(x.detach(), -1)); }

Tensor from_host(const Tensor& values, const Tensor& like) {
  return cast(values, like.dtype()).to(like.device());
}

}  // namespace

Tensor swiglu(const Tensor& gate, const Tensor& up) { return gate * sigmoid(gate) * up; }

Tensor swiglu(const Tensor& gate_up) {
  const int64_t width = gate_up.dim(-1) / 2;
  return reference::swiglu(gate_up.narrow(-1, 0, width), gate_up.narrow(-1, width, width));
}

Tensor ffn(const Tensor& x, const Tensor& gate_up, const Tensor& down, const Tensor& residual) {
  const Tensor y = gate_up.ndim() == 3 ? per_head_matmul(mixrec::swiglu(per_head_matmul(x, gate_up)), down)
                                       : linear(mixrec::swiglu(linear(x, gate_up)), down);
  return residual ? y + residual : y;
}

// With a gain (or bias) wider than x, everything up to the result is computed in its dtype.
Tensor rms_norm(const Tensor& x, const Tensor& gain, double eps) {
  if (gain && gain.dtype() != x.dtype())
    return cast(reference::rms_norm(cast(x, gain.dtype()), gain, eps), x.dtype());
  const Tensor y = x / column(sqrt(mean(square(x), -1) + eps));
  return gain ? y * gain : y;
}

Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double eps) {
  const auto wider = [&](const Tensor& v) { return v && v.dtype() != x.dtype(); };
  if (wider(gain) || wider(bias)) {
    const auto wide = [](const Tensor& v) { return v ? cast(v, f32) : v; };
    return cast(reference::layer_norm(wide(x), wide(gain), wide(bias), eps), x.dtype());
  }
  const Tensor centred = x - column(mean(x, -1));
  Tensor y = centred / column(sqrt(mean(square(centred), -1) + eps));
  if (gain) y = y * gain;
  return bias ? y + bias : y;
}

Tensor residual_ffn(const Tensor& x, const Tensor& gain, const Tensor& gate_up, const Tensor& down,
                    double eps) {
  return reference::ffn(reference::rms_norm(x, gain, eps), gate_up, down, x);
}

Tensor softmax(const Tensor& x) {
  const Tensor e = exp(shifted(x));
  return e / column(sum(e, -1));
}

Tensor log_softmax(const Tensor& x) {
  const Tensor z = shifted(x);
  return z - column(log(sum(exp(z), -1)));
}

Tensor logsumexp(const Tensor& x) { return log(sum(exp(shifted(x)), -1)) + max(x.detach(), -1); }

Tensor bce_with_logits(const Tensor& logits, const Tensor& labels, const Tensor& weights, double normaliser) {
  const Tensor w = weights ? weights : ones(logits.shape(), logits.dtype(), logits.device());
  const double count = normaliser ? normaliser : sum(w).item();
  return sum(w * (softplus(logits) - logits * labels)) * (count ? 1 / count : 0);
}

Tensor bce_with_logits_per_task(const Tensor& logits, const Tensor& labels, const Tensor& weights,
                                const std::vector<double>& normalisers) {
  const Tensor w = weights ? weights : ones(logits.shape(), logits.dtype(), logits.device());
  std::vector<double> factors = normalisers.empty() ? sum(w, 0).to_vector<double>() : normalisers;
  const auto tasks = static_cast<int64_t>(factors.size());
  for (double& factor : factors) factor = factor ? 1 / factor : 0;
  const Tensor terms = w * (softplus(logits) - logits * labels);
  return sum(terms, 0) * from_host(Tensor::from(factors, {tasks}), logits);
}

Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels, double normaliser) {
  const int64_t rows = logits.dim(0);
  const auto ids = labels.to_vector<int64_t>();
  Tensor one_hot = zeros(logits.shape(), f64);
  for (int64_t i = 0; i < rows; ++i)
    one_hot.narrow(0, i, 1).narrow(1, ids[static_cast<size_t>(i)], 1).fill(1);
  const double count = normaliser ? normaliser : static_cast<double>(rows);
  return -sum(reference::log_softmax(logits) * from_host(one_hot, logits)) * (1 / count);
}

Tensor dropout(const Tensor& x, double rate, Rng& rng, bool training) {
  if (!training || rate == 0) return x;
  std::vector<double> factors(static_cast<size_t>(x.numel()));
  const Philox philox(rng.seed());
  const uint64_t first = rng.advance((factors.size() + 3) / 4);
  for (size_t i = 0; i < factors.size(); ++i) {
    const uint32_t word = philox(first + i / 4).word[i % 4];
    factors[i] = word >= rate * 0x1p32 ? 1 / (1 - rate) : 0;
  }
  return x * from_host(Tensor::from(factors, x.shape()), x);
}

}  // namespace mixrec::reference
