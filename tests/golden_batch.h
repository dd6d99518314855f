// The features and the batch of the golden models: tests/oracle/mixformer_golden.py.
#pragma once

#include "mixrec/core/request_batch.h"
#include "mixrec/tests/golden.h"

#include <string>

namespace mixrec::test {

inline FeatureSpec golden_feature(const char* name, FeatureScope scope, int64_t rows, int64_t width,
                                  FeatureKind kind = FeatureKind::categorical) {
  return {.name = name, .scope = scope, .kind = kind, .rows = rows, .width = width};
}

inline FeatureSet golden_spec() {
  using enum FeatureScope;
  FeatureSet spec;
  spec.features = {golden_feature("user", request, 6, 2),
                   golden_feature("country", request, 4, 3),
                   golden_feature("age", request, 0, 2, FeatureKind::numeric),
                   golden_feature("hour", request, 5, 3),
                   golden_feature("item", candidate, 9, 7),
                   golden_feature("genres", candidate, 6, 3, FeatureKind::list),
                   golden_feature("position", candidate, 4, 2)};
  spec.histories = {{"seen",
                     4,
                     {golden_feature("item", event, 9, 7), golden_feature("liked", event, 3, 2),
                      golden_feature("gap", event, 4, 2)}}};
  spec.tasks = {{.name = "click"}, {.name = "long_view"}};
  return spec;
}

inline RequestBatch golden_batch(const Golden& golden, const FeatureSet& spec) {
  RequestBatch batch;
  batch.requests = 3, batch.candidates = 5;
  batch.offsets = golden["batch.offsets"];
  for (const FeatureSpec& f : spec.features) {
    const std::string name = "batch.features." + f.name;
    if (f.kind == FeatureKind::numeric) {
      batch.features.push_back({.values = golden[name + ".values"]});
    } else if (f.kind == FeatureKind::list) {
      batch.features.push_back({.ids = golden[name + ".ids"], .offsets = golden[name + ".offsets"]});
    } else {
      batch.features.push_back({.ids = golden[name + ".ids"]});
    }
  }
  HistoryBatch history{golden["batch.histories.seen.offsets"], {}};
  for (const FeatureSpec& f : spec.histories[0].features) {
    history.columns.push_back({.ids = golden["batch.histories.seen." + f.name + ".ids"]});
  }
  batch.histories.push_back(history);
  batch.labels = golden["batch.labels"];
  batch.weights = golden["batch.weights"];
  return batch;
}

}  // namespace mixrec::test
