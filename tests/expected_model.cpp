// Plain numbers: norms, products, networks, requests, attention, losses.
#include "mixrec/tests/expected.h"

#include <cmath>

namespace mixrec::test::expected {

Plain softmax(const Plain& x) {
  Plain y = x;
  const int64_t cols = x.cols();
  for (int64_t r = 0; r < x.rows(); ++r) {
    double all = 0;
    for (int64_t k = 0; k < cols; ++k) all += std::exp(x.values[static_cast<size_t>(r * cols + k)]);
    for (int64_t k = 0; k < cols; ++k) {
      const auto at = static_cast<size_t>(r * cols + k);
      y.values[at] = std::exp(x.values[at]) / all;
    }
  }
  return y;
}

Plain logsumexp(const Plain& x) {
  Plain y = Plain::zeros({x.shape.begin(), x.shape.end() - 1});
  const int64_t cols = x.cols();
  for (int64_t r = 0; r < x.rows(); ++r) {
    double all = 0;
    for (int64_t k = 0; k < cols; ++k) all += std::exp(x.values[static_cast<size_t>(r * cols + k)]);
    y.values[static_cast<size_t>(r)] = std::log(all);
  }
  return y;
}

namespace {

Plain normalised(const Plain& x, const Plain* gain, const Plain* bias, double eps, bool centred) {
  Plain y = x;
  const auto cols = static_cast<size_t>(x.cols());
  for (size_t r = 0; r < static_cast<size_t>(x.rows()); ++r) {
    const double* row = x.values.data() + r * cols;
    double mean = 0, square = 0;
    for (size_t k = 0; k < cols; ++k) mean += row[k] / static_cast<double>(cols);
    if (!centred) mean = 0;
    for (size_t k = 0; k < cols; ++k) square += (row[k] - mean) * (row[k] - mean) / static_cast<double>(cols);
    for (size_t k = 0; k < cols; ++k) {
      y.values[r * cols + k] = (row[k] - mean) / std::sqrt(square + eps) * (gain ? gain->values[k] : 1) +
                               (bias ? bias->values[k] : 0);
    }
  }
  return y;
}

double silu(double x) { return x / (1 + std::exp(-x)); }

}  // namespace

Plain rms_norm(const Plain& x, const Plain* gain, double eps) {
  return normalised(x, gain, nullptr, eps, false);
}
Plain layer_norm(const Plain& x, const Plain* gain, const Plain* bias, double eps) {
  return normalised(x, gain, bias, eps, true);
}

Plain product(const Plain& a, const Plain& b) {
  const bool batched = b.shape.size() == 3;
  const int64_t inner = a.cols(), cols = b.cols(), rows = a.rows();
  const int64_t rows_of_item = batched ? a.shape[1] : rows;
  std::vector<int64_t> shape = a.shape;
  shape.back() = cols;
  Plain y = Plain::zeros(shape);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t k = 0; k < inner; ++k) {
        const int64_t item = batched ? r / rows_of_item : 0;
        y.values[static_cast<size_t>(r * cols + c)] +=
            a.values[static_cast<size_t>(r * inner + k)] *
            b.values[static_cast<size_t>((item * inner + k) * cols + c)];
      }
  return y;
}

Plain per_head(const Plain& x, const Plain& w) {
  Plain y = Plain::zeros({x.shape[0], x.shape[1], w.shape[2]});
  for (int64_t b = 0; b < x.shape[0]; ++b)
    for (int64_t n = 0; n < x.shape[1]; ++n)
      for (int64_t f = 0; f < w.shape[2]; ++f)
        for (int64_t k = 0; k < x.shape[2]; ++k) y(b, n, f) += x(b, n, k) * w(n, k, f);
  return y;
}

Plain swiglu(const Plain& gate, const Plain& up) {
  return combine(gate, up, [](double g, double u) { return silu(g) * u; });
}
Plain swiglu(const Plain& gate_up) {
  const int64_t half = gate_up.cols() / 2;
  return swiglu(slice(gate_up, -1, 0, half), slice(gate_up, -1, half, half));
}

Plain ffn(const Plain& x, const Plain& gate_up, const Plain& down) {
  const auto multiply = gate_up.shape.size() == 3 ? per_head : product;
  return multiply(swiglu(multiply(x, gate_up)), down);
}

Plain expanded(const Plain& x, const Offsets& offsets) {
  Plain ids = Plain::zeros({offsets.back()});
  for (size_t r = 0; r + 1 < offsets.size(); ++r)
    for (int64_t c = offsets[r]; c < offsets[r + 1]; ++c) ids(c) = static_cast<double>(r);
  return taken(x, ids);
}

Plain segment_sums(const Plain& x, const Offsets& offsets, bool mean) {
  std::vector<int64_t> shape = x.shape;
  shape[0] = static_cast<int64_t>(offsets.size()) - 1;
  Plain y = Plain::zeros(shape);
  size_t inner = 1;
  for (size_t d = 1; d < x.shape.size(); ++d) inner *= static_cast<size_t>(x.shape[d]);
  for (size_t r = 0; r + 1 < offsets.size(); ++r) {
    const int64_t length = offsets[r + 1] - offsets[r];
    for (int64_t c = offsets[r]; c < offsets[r + 1]; ++c)
      for (size_t i = 0; i < inner; ++i)
        y.values[r * inner + i] +=
            x.values[static_cast<size_t>(c) * inner + i] / (mean ? static_cast<double>(length) : 1);
  }
  return y;
}

Plain head_mixing(const Plain& x, int64_t user_heads) {
  Plain y = Plain::zeros(x.shape);
  const int64_t heads = x.shape[1], chunk = x.shape[2] / heads;
  for (int64_t b = 0; b < x.shape[0]; ++b)
    for (int64_t c = 0; c < heads; ++c)
      for (int64_t r = 0; r < heads; ++r)
        for (int64_t k = 0; k < chunk; ++k)
          if (!(c < user_heads && user_heads <= r)) y(b, c, r * chunk + k) = x(b, r, c * chunk + k);
  return y;
}

Plain side_mixing(const Plain& own, const Plain& residual, const Plain* shared, const Offsets& offsets) {
  Plain y = residual;
  const int64_t heads = own.shape[1], chunk = own.shape[2] / heads, others = shared ? shared->shape[1] : 0;
  const Plain repeated = shared ? expanded(*shared, offsets) : Plain{};
  for (int64_t c = 0; c < own.shape[0]; ++c)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t k = 0; k < chunk; ++k) {
        for (int64_t i = 0; i < others; ++i) y(c, h, i * chunk + k) += repeated(c, i, h * chunk + k);
        for (int64_t i = 0; i < heads; ++i) y(c, h, (others + i) * chunk + k) += own(c, i, h * chunk + k);
      }
  return y;
}

Plain attend(const Plain& u, const Plain& h, const Offsets& events, const Offsets& candidates) {
  const int64_t heads = u.shape[1], width = u.shape[2];
  Plain m = Plain::zeros(u.shape);
  for (size_t r = 0; r + 1 < events.size(); ++r)
    for (int64_t c = candidates[r]; c < candidates[r + 1]; ++c)
      for (int64_t n = 0; n < heads; ++n) {
        double all = 0;
        for (int64_t t = events[r]; t < events[r + 1]; ++t) {
          double score = 0;
          for (int64_t k = 0; k < width; ++k) score += u(c, n, k) * h(t, n * width + k);
          all += std::exp(score);
          for (int64_t k = 0; k < width; ++k) m(c, n, k) += std::exp(score) * h(t, n * width + k);
        }
        for (int64_t k = 0; all > 0 && k < width; ++k) m(c, n, k) /= all;
      }
  return m;
}

Plain cross_attention(const Plain& q, const Plain& key, const Plain& value, const Plain& h,
                      const Offsets& events, const Offsets& candidates) {
  const int64_t heads = q.shape[1], width = q.shape[2], event_width = key.shape[1];
  Plain z = Plain::zeros(q.shape);
  const auto projected = [&](const Plain& w, int64_t t, int64_t n, int64_t k) {
    double v = 0;
    for (int64_t s = 0; s < event_width; ++s) v += h(t, n * event_width + s) * w(n, s, k);
    return v;
  };
  for (size_t r = 0; r + 1 < events.size(); ++r)
    for (int64_t c = candidates[r]; c < candidates[r + 1]; ++c)
      for (int64_t n = 0; n < heads; ++n) {
        double all = 0;
        for (int64_t t = events[r]; t < events[r + 1]; ++t) {
          double score = 0;
          for (int64_t k = 0; k < width; ++k) score += q(c, n, k) * projected(key, t, n, k);
          const double weight = std::exp(score / std::sqrt(static_cast<double>(width)));
          all += weight;
          for (int64_t k = 0; k < width; ++k) z(c, n, k) += weight * projected(value, t, n, k);
        }
        for (int64_t k = 0; all > 0 && k < width; ++k) z(c, n, k) /= all;
      }
  return z;
}

namespace {

double cross_entropy(double logit, double label) {
  const double p = 1 / (1 + std::exp(-logit));
  return -label * std::log(p) - (1 - label) * std::log(1 - p);
}

}  // namespace

double bce(const Plain& logits, const Plain& labels, const Plain* weights, double normaliser) {
  double loss = 0, count = 0;
  for (size_t i = 0; i < logits.values.size(); ++i) {
    const double weight = weights ? weights->values[i] : 1;
    if (weight == 0) continue;
    loss += weight * cross_entropy(logits.values[i], labels.values[i]);
    count += weight;
  }
  if (normaliser == 0) normaliser = count;
  return normaliser == 0 ? 0 : loss / normaliser;
}

Plain bce_per_task(const Plain& logits, const Plain& labels, const Plain* weights) {
  Plain y = Plain::zeros({logits.cols()});
  for (int64_t k = 0; k < logits.cols(); ++k) {
    const Plain column = weights ? slice(*weights, 1, k, 1) : Plain{};
    y(k) = bce(slice(logits, 1, k, 1), slice(labels, 1, k, 1), weights ? &column : nullptr, 0);
  }
  return y;
}

double mse(const Plain& prediction, const Plain& target, double normaliser) {
  double all = 0;
  for (size_t i = 0; i < prediction.values.size(); ++i)
    all += std::pow(prediction.values[i] - target.values[i], 2);
  return all / (normaliser == 0 ? static_cast<double>(prediction.values.size()) : normaliser);
}

double softmax_cross_entropy(const Plain& logits, const Plain& labels) {
  const Plain p = softmax(logits);
  double all = 0;
  for (int64_t i = 0; i < logits.shape[0]; ++i) all -= std::log(p(i, static_cast<int64_t>(labels(i))));
  return all / static_cast<double>(logits.shape[0]);
}

}  // namespace mixrec::test::expected
