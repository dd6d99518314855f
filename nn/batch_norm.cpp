#include "mixrec/nn/batch_norm.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"
#include "mixrec/nn/init.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/ops/reduce.h"

namespace mixrec {
namespace {

// running + momentum (batch - running), in place.
void move_towards(const Tensor& running, const Tensor& batch, double momentum) {
  running.detach().copy_from(affine(running, 1 - momentum, 0) + affine(batch, momentum, 0));
}

}  // namespace

ColumnStatistics::ColumnStatistics(int64_t width, double eps, double momentum)
    : mean(zeros({width})), variance(ones({width})), momentum(momentum), eps(eps) {}

Tensor ColumnStatistics::normalise(const Tensor& given, Pass& pass, const RowCounts& counts) const {
  MR_CHECK(given.ndim() == 2 && given.dim(1) == mean.dim(0), "normalises [rows, ", mean.dim(0), "], got ",
           given.shape());
  const Tensor x = given.dtype() == bf16 ? cast(given, f32) : given;
  const DType dtype = x.dtype();
  const auto scale = [&](const Tensor& of) { return pow(affine(of, 1, eps), -.5); };
  if (!pass.training) return (x - cast(mean, dtype)) * scale(cast(variance, dtype));

  const int64_t rows = x.dim(0), n = counts.each.defined() ? counts.total : rows;
  MR_CHECK(n > 1, "statistics of a batch need at least two rows, got ", n);
  const double total = static_cast<double>(n);
  Tensor share;  // [rows, 1], of sum 1
  if (counts.each.defined()) share = affine(cast(counts.each, dtype).reshape({rows, 1}), 1 / total, 0);
  const auto averaged = [&](const Tensor& of) {
    return share.defined() ? sum(of * share, 0) : mixrec::mean(of, 0);
  };
  const Tensor mu = averaged(x), centred = x - mu, sigma2 = averaged(square(centred));
  {
    const NoGrad guard;
    move_towards(mean, cast(mu.detach(), mean.dtype()), momentum);
    move_towards(variance, affine(cast(sigma2.detach(), variance.dtype()), total / (total - 1), 0), momentum);
  }
  return centred * scale(sigma2);
}

BatchNorm::BatchNorm(int64_t width, double eps, double momentum)
    : gain(constant_parameter({width}, 1)),
      bias(constant_parameter({width}, 0)),
      statistics(width, eps, momentum) {}

Tensor BatchNorm::forward(const Tensor& x, Pass& pass, const RowCounts& counts) const {
  const Tensor y = statistics.normalise(x, pass, counts) * gain + bias;
  return x.dtype() == bf16 ? cast(y, bf16) : y;
}

}  // namespace mixrec
