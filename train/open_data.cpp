#include "mixrec/train/open_data.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/core/files/json_text.h"

#include <nlohmann/json.hpp>

namespace mixrec {

namespace {

using nlohmann::ordered_json;

std::string merged(const std::string& text, const std::string& overrides, const std::string& path) {
  auto schema = parse_json_text<ordered_json>(text, path);
  schema.merge_patch(parse_json_text<ordered_json>(overrides, "data.overrides"));
  return schema.dump();
}

}  // namespace

Schema open_schema(const DataConfig& config) {
  MR_CHECK(!config.path.empty(), "no data folder is named: give --data or data.path");
  const std::string path =
      config.schema.size() == 1
          ? config.schema.front()
          : find_schema_file(config.path, config.schema.empty() ? bundled_schemas() : config.schema);
  if (config.overrides.text == "{}") return load_schema(path);
  return parse_schema(merged(read_text_file(path), config.overrides.text, path),
                      path + " with data.overrides");
}

Dataset open_data(const DataConfig& config, const std::function<void(const std::string&)>& report, bool again,
                  const std::function<void(const std::string& stage, double share)>& progress) {
  PrepareOptions options;
  options.again = again;
  options.outside = config.outside;
  options.report = report;
  options.progress = progress;
  Schema schema = open_schema(config);
  schema.outside_files = schema.outside_files || config.outside;
  return Dataset::open(schema, config.path, options, config.tasks);
}

}  // namespace mixrec
