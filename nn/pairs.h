// Every event of a history with every candidate of its request: P = Σ_r C_r T_r pairs, a candidate's events side by side.
//
// A training batch lists them: which event each pair has, and where a candidate's pairs begin, follow from the host's
// offsets (RequestBatch::host_offsets) and are copied to a device; without those the device is asked.  One or two
// requests, as in scoring, are a grid of all candidates and all events, P = C E, in which pairs across requests weigh
// nothing: its sizes do not depend on offsets, so a graph that was recorded stays right (train/serve/recorded_pass.h).
#pragma once

#include "mixrec/nn/inputs.h"

namespace mixrec {

class Pairs {
 public:
  // The pairs of history h.  A pass in training lists them always: statistics of a batch would count pairs of a grid.
  Pairs(const Inputs& in, size_t h, const Pass& pass);

  int64_t size() const { return size_; }
  Tensor of_events(const Tensor& x) const;      // [E, w] -> [P, w]
  Tensor of_candidates(const Tensor& x) const;  // [C, w] -> [P, w]

  // Softmax of scores [P, 1] over the events of each candidate, in f32 (f64 for f64).
  Tensor softmax(const Tensor& scores) const;

  // Σ of weight times event over the events of each candidate: weights [P, 1], events [E, w] -> [C, w] in the events'
  // dtype; zero without events.
  Tensor weighted_sum(const Tensor& weights, const Tensor& events) const;

 private:
  void list(const Tensor& candidate_offsets, const Tensor& event_offsets);
  // 1 where candidate and event are of one request, else 0; undefined where there is one request.
  Tensor same_request(const Tensor& event_offsets, const Tensor& candidate_offsets) const;

  int64_t candidates_, events_, size_ = 0;
  Device device_;
  bool grid_;
  Tensor mask_;                // grid of two requests: f32 [C, E]
  std::vector<int64_t> ends_;  // list: a candidate's pairs are ends_[c] .. ends_[c + 1]
  Tensor offsets_, event_;     // list: i64 [C + 1], the same on the device; i64 [P], each pair's event
};

}  // namespace mixrec
