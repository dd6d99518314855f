#include "mixrec/ops/attention/cross_attention.h"

#include "mixrec/core/error.h"
#include "mixrec/ops/attention/attend.h"
#include "mixrec/ops/matmul.h"

#include <cmath>

namespace mixrec {

Tensor cross_attention(const Tensor& q, const Tensor& key, const Tensor& value, const Tensor& h,
                       const Tensor& history_offsets, const Tensor& candidate_offsets,
                       const Tensor& residual) {
  MR_OP("cross_attention");
  MR_CHECK(q.ndim() == 3, "needs queries [candidates, heads, width], got ", q.shape());
  MR_CHECK(key.ndim() == 3 && key.dim(0) == q.dim(1) && key.dim(2) == q.dim(2), "key weights ", key.shape(),
           " do not fit queries ", q.shape(), ": need [heads, event width, query width]");
  MR_CHECK(value.shape() == key.shape(), "value weights are ", value.shape(), ", key weights ", key.shape());
  const double scale = 1 / std::sqrt(static_cast<double>(q.dim(2)));
  const Tensor u = per_head_matmul(q, key, {.transpose_w = true, .scale = scale});
  return per_head_matmul(attend(u, h, history_offsets, candidate_offsets), value, {.residual = residual});
}

}  // namespace mixrec
