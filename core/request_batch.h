// A batch of requests: the one input type of every ranking model, in training, evaluation and scoring.
//
// R requests, each with user features and histories, and C >= R candidates with item features; an ordinary
// batch is the case C = R.  Work that belongs to the user is done once per request.
#pragma once

#include "mixrec/core/feature_spec.h"
#include "mixrec/core/tensor.h"

#include <cstdint>
#include <vector>

namespace mixrec {

// The cells of one feature, for `rows` requests, candidates or events.
struct FeatureColumn {
  Tensor ids = {};      // i64 [rows]: categorical; i64 [entries]: list; undefined: numeric
  Tensor offsets = {};  // i64 [rows + 1]: list only; entries of row r are ids[offsets[r] : offsets[r + 1]]
  Tensor values = {};   // f32 [rows]: numeric only
};

// Histories of all requests, jagged: events of request r are rows offsets[r] .. offsets[r + 1], oldest first.
struct HistoryBatch {
  Tensor offsets;                      // i64 [R + 1]
  std::vector<FeatureColumn> columns;  // [events]; parallel to HistorySpec::features
};

struct RequestBatch {
  int64_t requests = 0;    // R
  int64_t candidates = 0;  // C

  Tensor offsets;  // i64 [R + 1]: candidates of request r are offsets[r] .. offsets[r + 1]
  std::vector<FeatureColumn> features;  // parallel to FeatureSet::features; rows = R or C by their scope
  std::vector<HistoryBatch> histories;  // parallel to FeatureSet::histories
  // Of a batch on a device that came from the host: `offsets` and those of each history as the host has them, so that
  // sizes that depend on them are known without waiting for the device.  Empty otherwise.
  std::vector<Tensor> host_offsets;

  Tensor labels;  // f32 [C, tasks], 0 where the weight is 0; undefined when scoring
  // f32 [C, tasks]: sample weight times label mask (0 = this label does not count)
  Tensor weights;

  std::vector<int64_t> user;  // [C]: grouping key of UAUC
  std::vector<int64_t> row;   // [C]: row number in the data set, for messages and predictions

  // Throw when the batch has no such feature or history.
  const FeatureColumn& feature(size_t index) const;
  const HistoryBatch& history(size_t index) const;

  // Throws unless shapes, dtypes and offsets fit `spec` and every id is inside its table; names the feature,
  // the row and the value.  The loader's batches are valid by construction; call it on batches built by hand.
  void validate(const FeatureSet& spec) const;

  RequestBatch to(Device device) const;

  // host_offsets of `host`, which this batch is a copy of.
  void keep_offsets_of(const RequestBatch& host);

  // The same candidates as C requests of one candidate each: user features and histories repeated.
  RequestBatch expanded() const;
};

// Calls f on every tensor of a batch, defined or not, in a fixed order.
template <class Batch, class F>
void for_each_tensor(Batch& batch, const F& f) {
  const auto column = [&](auto& c) { f(c.ids), f(c.offsets), f(c.values); };
  f(batch.offsets);
  for (auto& c : batch.features) column(c);
  for (auto& history : batch.histories) {
    f(history.offsets);
    for (auto& c : history.columns) column(c);
  }
  f(batch.labels), f(batch.weights);
}

}  // namespace mixrec
