// Features of every kind, and random batches for them.
#pragma once

#include "mixrec/core/request_batch.h"
#include "mixrec/core/rng.h"

#include <string>
#include <vector>

namespace mixrec::test {

inline Tensor offsets_of(const std::vector<int64_t>& lengths) {
  std::vector<int64_t> offsets{0};
  for (const int64_t length : lengths) offsets.push_back(offsets.back() + length);
  return Tensor::from(offsets);
}

inline FeatureSpec a_feature(const std::string& name, FeatureScope scope,
                             FeatureKind kind = FeatureKind::categorical, int64_t width = 4) {
  const FeatureGroup group = scope == FeatureScope::request     ? FeatureGroup::user
                             : scope == FeatureScope::candidate ? FeatureGroup::item
                                                                : FeatureGroup::event;
  return {.name = name,
          .group = group,
          .scope = scope,
          .kind = kind,
          .rows = kind == FeatureKind::numeric ? 0 : 7,
          .width = width};
}

// Categorical, list and numeric features of requests and candidates, `histories` histories of items with a signal, two
// tasks.
inline FeatureSet mixed_features(int histories = 1) {
  using enum FeatureScope;
  FeatureSet set;
  set.features = {a_feature("user", request),
                  a_feature("interests", request, FeatureKind::list),
                  a_feature("age", request, FeatureKind::numeric),
                  a_feature("item", candidate),
                  a_feature("tags", candidate, FeatureKind::list),
                  a_feature("price", candidate, FeatureKind::numeric)};
  for (int h = 0; h < histories; ++h) {
    const std::string name = h == 0 ? "seen" : "liked" + std::to_string(h);
    FeatureSpec signal = a_feature("signal", event);
    signal.table = name + ".signal";
    FeatureSpec item = a_feature("item", event), tags = a_feature("tags", event, FeatureKind::list);
    set.histories.push_back({name, 8, {item, tags, signal}});
  }
  set.tasks = {{.name = "click"}, {.name = "buy"}};
  return set;
}

inline FeatureColumn random_column(const FeatureSpec& feature, int64_t cells, Rng& rng) {
  const auto ids = [&](int64_t count) {
    Tensor some = empty({count}, i64);
    for (int64_t i = 0; i < count; ++i)
      some.data<int64_t>()[i] = static_cast<int64_t>(rng.below(static_cast<uint64_t>(feature.rows)));
    return some;
  };
  if (feature.kind == FeatureKind::numeric) {
    Tensor values = empty({cells});
    for (int64_t i = 0; i < cells; ++i) values.data<float>()[i] = static_cast<float>(2 * rng.uniform() - 1);
    return {.values = values};
  }
  if (feature.kind == FeatureKind::categorical) return {.ids = ids(cells)};
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < cells; ++i) lengths.push_back(static_cast<int64_t>(rng.below(4)));
  const Tensor offsets = offsets_of(lengths);
  return {.ids = ids(offsets.data<int64_t>()[cells]), .offsets = offsets};
}

// Requests with so many candidates and, in every history, so many events.
inline RequestBatch random_requests(const FeatureSet& set, const std::vector<int64_t>& candidates,
                                    const std::vector<int64_t>& events, Rng& rng) {
  RequestBatch batch;
  batch.requests = static_cast<int64_t>(candidates.size());
  batch.offsets = offsets_of(candidates);
  batch.candidates = batch.offsets.data<int64_t>()[batch.requests];
  for (const FeatureSpec& feature : set.features) {
    const bool of_request = feature.scope == FeatureScope::request;
    batch.features.push_back(random_column(feature, of_request ? batch.requests : batch.candidates, rng));
  }
  for (const HistorySpec& history : set.histories) {
    HistoryBatch& jagged = batch.histories.emplace_back();
    jagged.offsets = offsets_of(events);
    for (const FeatureSpec& feature : history.features)
      jagged.columns.push_back(random_column(feature, jagged.offsets.data<int64_t>()[batch.requests], rng));
  }
  const int64_t tasks = static_cast<int64_t>(set.tasks.size());
  batch.labels = zeros({batch.candidates, tasks}), batch.weights = ones({batch.candidates, tasks});
  for (int64_t i = 0; i < batch.labels.numel(); ++i)
    batch.labels.data<float>()[i] = rng.uniform() < .4 ? 1.f : 0.f;
  return batch;
}

}  // namespace mixrec::test
