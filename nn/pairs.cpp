#include "mixrec/nn/pairs.h"

#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/request.h"
#include "mixrec/ops/softmax.h"

#include <algorithm>

namespace mixrec {
namespace {

constexpr double kNowhere =
    -1e30;  // a score whose exponential is zero beside any other; not infinite: rows of it alone

Tensor widened(const Tensor& x) { return x.dtype() == bf16 ? cast(x, f32) : x; }

// Row numbers, on the device.
Tensor placed(const std::vector<int64_t>& values, Device device) { return Tensor::from(values).to(device); }

}  // namespace

Pairs::Pairs(const Inputs& in, size_t h, const Pass& pass)
    : candidates_(in.candidates()),
      events_(in.history(h).events.dim(0)),
      device_(in.offsets().device()),
      grid_(!pass.training && in.requests() <= 2 && events_ > 0) {
  const Tensor &of_candidates = in.offsets(), &of_events = in.history(h).offsets;
  if (grid_) {
    size_ = candidates_ * events_;
    if (in.requests() == 2) mask_ = same_request(of_events, of_candidates);
    return;
  }
  const std::vector<Tensor>& host = in.batch().host_offsets;
  if (host.empty()) {
    list(of_candidates.to(kCpu), of_events.to(kCpu));
  } else {
    list(host[0], host[h + 1]);
  }
}

void Pairs::list(const Tensor& candidate_offsets, const Tensor& event_offsets) {
  const auto of_candidates = candidate_offsets.to_vector<int64_t>();
  const auto of_events = event_offsets.to_vector<int64_t>();
  std::vector<int64_t> event;
  ends_ = {0};
  for (size_t r = 0; r + 1 < of_candidates.size(); ++r) {
    for (int64_t c = of_candidates[r]; c < of_candidates[r + 1]; ++c) {
      for (int64_t t = of_events[r]; t < of_events[r + 1]; ++t) event.push_back(t);
      ends_.push_back(static_cast<int64_t>(event.size()));
    }
  }
  size_ = ends_.back();
  offsets_ = placed(ends_, device_), event_ = placed(event, device_);
}

Tensor Pairs::same_request(const Tensor& event_offsets, const Tensor& candidate_offsets) const {
  const Tensor number = concat({zeros({1, 1}, f32, device_), ones({1, 1}, f32, device_)}, 0);
  const Tensor c = expand_by_request(number, candidate_offsets, candidates_);
  const Tensor e = expand_by_request(number, event_offsets, events_).reshape({1, events_});
  return c * e + affine(c, -1, 1) * affine(e, -1, 1);
}

Tensor Pairs::of_events(const Tensor& x) const {
  if (!grid_) return gather_rows(x, event_);
  const int64_t width = x.dim(1);
  return broadcast_to(x.reshape({1, events_, width}), {candidates_, events_, width}).reshape({size_, width});
}

Tensor Pairs::of_candidates(const Tensor& x) const {
  if (!grid_) return expand_by_request(x, offsets_, size_);
  const int64_t width = x.dim(1);
  return broadcast_to(x.reshape({candidates_, 1, width}), {candidates_, events_, width})
      .reshape({size_, width});
}

Tensor Pairs::softmax(const Tensor& given) const {
  const Tensor scores = widened(given);
  if (size_ == 0) return scores;
  if (grid_) {
    Tensor rows = scores.reshape({candidates_, events_});
    if (mask_) rows = rows + cast(affine(mask_, -kNowhere, kNowhere), rows.dtype());
    return mixrec::softmax(rows).reshape({size_, 1});
  }
  // A row per candidate, as long as the longest, filled up with scores that weigh nothing.
  int64_t longest = 0;
  for (size_t c = 0; c + 1 < ends_.size(); ++c) longest = std::max(longest, ends_[c + 1] - ends_[c]);
  std::vector<int64_t> slots(static_cast<size_t>(candidates_ * longest), size_), back;
  for (size_t c = 0; c + 1 < ends_.size(); ++c) {
    for (int64_t p = ends_[c]; p < ends_[c + 1]; ++p) {
      back.push_back(static_cast<int64_t>(c) * longest + p - ends_[c]);
      slots[static_cast<size_t>(back.back())] = p;
    }
  }
  const Tensor filler = full({1, 1}, kNowhere, scores.dtype(), device_);
  const Tensor rows = gather_rows(concat({scores, filler}, 0), placed(slots, device_));
  const Tensor shares = mixrec::softmax(rows.reshape({candidates_, longest}));
  return gather_rows(shares.reshape({candidates_ * longest, 1}), placed(back, device_));
}

Tensor Pairs::weighted_sum(const Tensor& weights, const Tensor& events) const {
  if (!grid_) return segment_sum(of_events(events) * cast(weights, events.dtype()), offsets_);
  Tensor rows = widened(weights).reshape({candidates_, events_});
  if (mask_) rows = rows * cast(mask_, rows.dtype());
  return matmul(cast(rows, events.dtype()), events);
}

}  // namespace mixrec
