// A data set that is ready to be read: its packed form, mapped into memory, and what models need to know
// about it.
//
//   Dataset data = Dataset::open("ml-1m");  // the folder holds a schema.json
//   MixFormer model(data.spec(), options);
//   Loader loader(data, Split::train, {.batch_size = 1024});
//   while (auto batch = loader.next()) ...
#pragma once

#include "mixrec/core/feature_spec.h"
#include "mixrec/data/packing/manifest.h"
#include "mixrec/data/packing/prepare.h"
#include "mixrec/data/schema.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mixrec {

// Which rows the model was fitted on.  It decides how far histories reach and which values have a row of
// their own: nothing from the validation rows reaches a model that is chosen by them.
enum class TrainedOn : uint8_t { training_part, whole_period };

struct PackedData;  // data/packing/packed_data.h

class Dataset {
 public:
  // Prepares the folder's files when needed and maps the result.  `tasks` keeps only the named tasks, in that
  // order.  With options.encoders (RUN/encoders) the data is encoded as that run was trained, whatever it holds: values
  // that the run does not know are row 0.
  static Dataset open(const Schema& schema, const std::string& folder, const PrepareOptions& options = {},
                      const std::vector<std::string>& tasks = {});
  // By the folder's schema.json, or the bundled schema whose files it holds.
  static Dataset open(const std::string& folder) {
    return open(find_schema(folder, bundled_schemas()), folder);
  }

  const FeatureSet& spec() const;
  const Schema& schema() const;
  const Manifest& manifest() const;
  const std::string& packed_folder() const;
  // What its values are encoded with, and what its files held when it was opened.
  const Encoders& encoders() const;
  const Fingerprint& fingerprint() const;
  const std::string& folder() const;

  // Counts and label rates; `refit` is train and validation together.  Tasks are those of spec().
  SplitStats stats(Split split) const;

  const PackedData& packed() const { return *packed_; }

 private:
  std::shared_ptr<const PackedData> packed_;
};

}  // namespace mixrec
