// The data that the training and serving benches share: features, and batches of random ids and labels.
#pragma once

#include "mixrec/core/request_batch.h"
#include "mixrec/core/rng.h"

#include <string>
#include <vector>

namespace mixrec::bench {

// Fields of width 32 in one table of `rows`, the first `user_fields` of the request and the others of the candidate; a
// history of items of width 64 in a table of as many rows; two tasks.
inline FeatureSet feature_set(int64_t user_fields, int64_t item_fields, int64_t rows, int64_t length) {
  FeatureSet set;
  for (int64_t i = 0; i < user_fields + item_fields; ++i) {
    const bool user = i < user_fields;
    set.features.push_back({.name = "field" + std::to_string(i),
                            .group = user ? FeatureGroup::user : FeatureGroup::item,
                            .scope = user ? FeatureScope::request : FeatureScope::candidate,
                            .table = "fields",
                            .rows = rows,
                            .width = 32});
  }
  const FeatureSpec item{
      .name = "item", .group = FeatureGroup::event, .scope = FeatureScope::event, .rows = rows, .width = 64};
  set.histories.push_back({"clicks", length, {item}});
  set.tasks = {{.name = "click"}, {.name = "like"}};
  return set;
}

inline Tensor random_ids(int64_t count, int64_t rows, Rng& rng) {
  Tensor ids = empty({count}, i64);
  for (int64_t i = 0; i < count; ++i)
    ids.data<int64_t>()[i] = static_cast<int64_t>(rng.below(static_cast<uint64_t>(rows)));
  return ids;
}

inline Tensor offsets_of(const std::vector<int64_t>& lengths) {
  std::vector<int64_t> offsets{0};
  for (const int64_t length : lengths) offsets.push_back(offsets.back() + length);
  return Tensor::from(offsets);
}

// Requests with histories of these lengths and `candidates_each` candidates, for a set that feature_set() made.
inline RequestBatch random_batch(const FeatureSet& set, const std::vector<int64_t>& lengths,
                                 int64_t candidates_each, Rng& rng) {
  RequestBatch batch;
  batch.requests = static_cast<int64_t>(lengths.size());
  batch.candidates = batch.requests * candidates_each;
  batch.offsets = offsets_of(std::vector<int64_t>(lengths.size(), candidates_each));
  for (const FeatureSpec& field : set.features) {
    const int64_t cells = field.scope == FeatureScope::request ? batch.requests : batch.candidates;
    batch.features.push_back({.ids = random_ids(cells, field.rows, rng)});
  }
  const Tensor offsets = offsets_of(lengths);
  const int64_t events = offsets.data<int64_t>()[batch.requests];
  batch.histories.push_back({offsets, {{.ids = random_ids(events, set.histories[0].features[0].rows, rng)}}});
  batch.labels = zeros({batch.candidates, 2});
  for (int64_t i = 0; i < batch.labels.numel(); ++i)
    batch.labels.data<float>()[i] = rng.uniform() < .3 ? 1.f : 0.f;
  return batch;
}

}  // namespace mixrec::bench
