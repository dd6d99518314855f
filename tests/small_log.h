// A schema whose parts a test sets, over one log.csv, and what the packed data set says of it.
#pragma once

#include "mixrec/data/loader.h"
#include "mixrec/tests/data_files.h"

#include <doctest/doctest.h>
#include <optional>
#include <string>
#include <vector>

namespace mixrec::test {

// A log of ten days, one row each; features given as JSON lists.
struct Small {
  std::string user_features = R"("user")", item_features = R"("item")", context_features;
  std::string tasks = R"("label": "label == 1")", tables, histories,
              split = R"("by": "date", "test_days": 2)";
  std::string log_options = R"(, "time": {"column": "day", "unit": "day"})";

  std::string schema() const {
    return R"({"log": {"files": "log.csv", "user": "user", "item": "item")" + log_options +
           R"(}, "tables": {)" + tables + R"(}, "tasks": {)" + tasks + R"(}, "features": {"user": [)" +
           user_features + R"(], "item": [)" + item_features + R"(], "context": [)" + context_features +
           R"(]}, "histories": {)" + histories + R"(}, "split": {)" + split + "}}";
  }
  Dataset open(const DataFolder& folder) const {
    return Dataset::open(parse_schema(schema()), folder.path());
  }
};

// All rows of a split as one batch, in the order of the log.
inline RequestBatch all_rows(const Dataset& data, Split split,
                             std::optional<TrainedOn> trained_on = std::nullopt) {
  Loader loader(data, split,
                {.batch_size = 1000, .shuffle = Shuffle::none, .workers = 0, .trained_on = trained_on});
  auto batch = loader.next();
  batch->validate(data.spec());
  return std::move(*batch);
}

inline size_t feature(const Dataset& data, const std::string& name) {
  for (size_t f = 0; f < data.spec().features.size(); ++f)
    if (data.spec().features[f].name == name) return f;
  FAIL("no feature " << name);
  return 0;
}

inline std::vector<int64_t> ids(const Dataset& data, Split split, const std::string& name) {
  return all_rows(data, split).features[feature(data, name)].ids.to_vector<int64_t>();
}
inline std::vector<float> values(const Dataset& data, Split split, const std::string& name) {
  return all_rows(data, split).features[feature(data, name)].values.to_vector<float>();
}

inline std::string days(const std::vector<std::string>& cells) {
  std::string text = "user,item,day,x,label\n";
  for (size_t d = 0; d < cells.size(); ++d)
    text += "u,i" + std::to_string(d) + "," + std::to_string(d) + "," + cells[d] + "," +
            std::to_string(d % 2) + "\n";
  return text;
}

}  // namespace mixrec::test
