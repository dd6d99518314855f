#include "mixrec/ops/layout.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/reference.h"
#include "mixrec/ops/softmax.h"

#include <cmath>

namespace mixrec::reference {
namespace {

// One candidate: q [1, N, D] over k, v [T, N, D] -> [1, N, D].
Tensor attend_one(const Tensor& q, const Tensor& k, const Tensor& v) {
  const int64_t events = k.dim(0), heads = q.dim(1), width = q.dim(2);
  if (events == 0) return q * 0.0;
  const Tensor scores = sum(k * q, 2) / std::sqrt(static_cast<double>(width));     // [T, N]
  const Tensor weights = reference::softmax(scores.transpose(0, 1).contiguous());  // [N, T]
  return sum(weights.transpose(0, 1).reshape({events, heads, 1}) * v, 0).reshape({1, heads, width});
}

// Every candidate over the events of its request: q [C, N, D], k, v [E, N, D] -> [C, N, D].
Tensor attend_each(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& history_offsets,
                   const Tensor& candidate_offsets) {
  const auto history = history_offsets.to_vector<int64_t>(),
             candidates = candidate_offsets.to_vector<int64_t>();
  std::vector<Tensor> rows;
  for (size_t r = 0; r + 1 < history.size(); ++r) {
    const int64_t first = history[r], count = history[r + 1] - first;
    for (int64_t c = candidates[r]; c < candidates[r + 1]; ++c)
      rows.push_back(attend_one(q.narrow(0, c, 1), k.narrow(0, first, count), v.narrow(0, first, count)));
  }
  return rows.empty() ? q : concat(rows, 0);
}

}  // namespace

Tensor cross_attention(const Tensor& q, const Tensor& key, const Tensor& value, const Tensor& h,
                       const Tensor& history_offsets, const Tensor& candidate_offsets,
                       const Tensor& residual) {
  const Tensor events = h.reshape({h.dim(0), key.dim(0), key.dim(1)});
  const Tensor k = per_head_matmul(events, key), v = per_head_matmul(events, value);
  const Tensor z = attend_each(q, k, v, history_offsets, candidate_offsets);
  return residual.defined() ? z + residual : z;
}

Tensor sequence_attention(const Tensor& u, const Tensor& s, const Tensor& gain, const Tensor& gate_up,
                          const Tensor& down, const Tensor& history_offsets, const Tensor& candidate_offsets,
                          double eps) {
  const Tensor h =
      reference::residual_ffn(s, gain, gate_up, down, eps).reshape({s.dim(0), u.dim(1), u.dim(2)});
  // attend_each() divides scores by the root of the width.
  return attend_each(u * std::sqrt(static_cast<double>(u.dim(2))), h, h, history_offsets, candidate_offsets);
}

}  // namespace mixrec::reference
