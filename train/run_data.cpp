#include "mixrec/train/run_data.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/data/feature_export.h"
#include "mixrec/data/packing/packed_data.h"
#include "mixrec/train/open_data.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace mixrec {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// Keys that say where a table of text lies and how it is cut into cells.
constexpr const char* kFileKeys[] = {"files", "file", "separator", "columns", "header", "quotes"};

void take_file_keys(ordered_json& to, const ordered_json& from) {
  if (!to.is_object() || !from.is_object()) return;
  for (const char* key : kFileKeys) {
    if (!from.contains(key)) to.erase(key);
    if (from.contains(key)) to[key] = from[key];
  }
}

// The run's schema with the files of another.
ordered_json with_files_of(ordered_json run, const ordered_json& own) {
  take_file_keys(run["log"], own.value("log", ordered_json()));
  if (run.contains("tables") && own.contains("tables"))
    for (auto& [name, table] : run["tables"].items())
      if (own["tables"].contains(name)) take_file_keys(table, own["tables"][name]);
  if (run.contains("histories") && own.contains("histories"))
    for (auto& [name, history] : run["histories"].items()) {
      const ordered_json sources = own["histories"].value(name, ordered_json()).value("from", ordered_json());
      for (size_t s = 0; s < history["from"].size() && sources.size() == history["from"].size(); ++s)
        take_file_keys(history["from"][s], sources[s]);
    }
  // A split by files names files.
  if (run["split"].value("by", "date") == "files" && own["split"].value("by", "date") == "files")
    run["split"] = own["split"];
  return run;
}

// Whether a difference changes what the cells of a row mean, and not only what is made of them.
bool changes_meaning(const std::string& difference) {
  return difference.starts_with("log.") || difference.starts_with("tables.") ||
         difference.find(".from[") != std::string::npos;
}

Schema schema_of_format_1(const RunFolder& folder, const DataConfig& config) {
  const FeatureExport features = read_feature_export(folder.encoders_path());
  Schema schema = open_schema(config);
  check_same_rules(features, schema, folder.path());
  // The rules of tasks are the run's as well.
  for (const TaskSpec& task : features.tasks) {
    const auto rule = std::find_if(schema.tasks.begin(), schema.tasks.end(),
                                   [&](const TaskRule& one) { return one.spec.name == task.name; });
    MR_CHECK(rule != schema.tasks.end(), "the schema has no task '", task.name, "', which the run in ",
             folder.path(), " was trained on");
    rule->spec = task;
  }
  return schema;
}

std::string listed(const std::vector<std::string>& sentences) {
  std::string all;
  for (const std::string& sentence : sentences) all += "\n  " + sentence;
  return all;
}

bool holds_run_data(const RunRecord& record, const Schema& schema, const std::string& path) {
  const auto names = schema.source_files();
  const bool whole = std::all_of(names.begin(), names.end(),
                                 [&](const std::string& name) { return fs::exists(fs::path(path) / name); });
  return whole && content_of(schema, path).digest() == record.data;
}

}  // namespace

std::string find_run_data(const RunFolder& folder, const RunRecord& record, const Config& config,
                          const std::string& data) {
  if (!data.empty()) return fs::absolute(data).lexically_normal();
  std::vector<std::string> places;
  if (!record.data_relative.empty())
    places.push_back(fs::weakly_canonical(fs::path(folder.path()) / record.data_relative));
  for (const std::string& path : {record.data_path, config.data.path})
    if (!path.empty() && std::find(places.begin(), places.end(), path) == places.end())
      places.push_back(path);
  std::string found;
  for (const std::string& place : places) {
    if (!fs::is_directory(place)) continue;
    if (found.empty()) found = place;
    if (record.format == 1) break;
    const Schema schema = parse_schema(read_text_file(folder.encoders_path() + "/schema.json"));
    if (holds_run_data(record, schema, place)) return place;
  }
  MR_CHECK(!found.empty(), "the data of ", folder.path(), " is in none of the places it was:", listed(places),
           "\ngive --data DIR");
  return found;
}

Schema run_schema(const RunFolder& folder, const RunRecord& record, const Config& config,
                  const std::string& path, const std::function<void(const std::string&)>& report) {
  DataConfig there = config.data;
  there.path = path;
  if (record.format == 1) return schema_of_format_1(folder, there);
  const std::string name = folder.encoders_path() + "/schema.json";
  const auto run = ordered_json::parse(read_text_file(name));
  const std::string own_name = path + "/schema.json";
  if (!fs::exists(own_name)) return parse_schema(run.dump(), name);
  there.schema = {own_name};
  const auto own = ordered_json::parse(open_schema(there).json);
  const ordered_json merged = with_files_of(run, own);
  const Schema schema = parse_schema(merged.dump(), own_name);
  std::vector<std::string> meaning, other;
  for (std::string& difference : json_differences(merged.dump(), own.dump()))
    (changes_meaning(difference) ? meaning : other).push_back(std::move(difference));
  MR_CHECK(meaning.empty() || holds_run_data(record, schema, path), own_name,
           " gives the columns another meaning than they had when ", folder.path(),
           " was trained:", listed(meaning));
  other.insert(other.end(), meaning.begin(), meaning.end());
  if (!other.empty() && report)
    report(own_name + " differs from the run's schema, which holds:" + listed(other));
  return schema;
}

Dataset open_run_data(const RunFolder& folder, const RunRecord& record, const Config& config,
                      const std::string& path, PrepareOptions options) {
  check_has_encoders(folder, record);
  Schema schema = run_schema(folder, record, config, path, options.report);
  schema.outside_files = schema.outside_files || config.data.outside;
  options.encoders = folder.encoders_path();
  options.labels_optional = true;
  options.outside = config.data.outside;
  return Dataset::open(schema, path, options, config.data.tasks);
}

std::vector<std::string> unknown_values(const Dataset& dataset, Split split, TrainedOn trained_on) {
  const PackedData& data = dataset.packed();
  std::vector<std::string> sentences;
  for (size_t f = 0; f < data.features.size(); ++f) {
    const PackedFeature& feature = data.features[f];
    const FeatureRule& rule = data.schema.features[f];
    const Encoders::Feature* counted = data.form.encoders.find_feature(rule.spec.name);
    if (rule.encoding != Encoding::vocabulary || feature.ids.size() == 0 || !rule.part.empty() || !counted)
      continue;
    const uint32_t known = trained_on == TrainedOn::training_part ? feature.known : UINT32_MAX;
    int64_t all = 0, unknown = 0;
    const auto count = [&](uint32_t id) { ++all, unknown += id == kUnknownRow || id >= known; };
    for (size_t row = 0; row < data.row_item.size(); ++row) {
      const uint32_t request = data.row_request[row];
      if (!data.has(split, static_cast<Split>(data.request_split[request]))) continue;
      const size_t cell = feature.by == Keyed::user      ? data.request_user[request]
                          : feature.by == Keyed::item    ? data.row_item[row]
                          : feature.by == Keyed::request ? request
                                                         : row;
      const uint32_t id = feature.ids[cell];
      if (rule.spec.kind != FeatureKind::list) {
        count(id);
        continue;
      }
      for (uint64_t e = feature.list_offsets[id]; e < feature.list_offsets[id + 1]; ++e)
        count(feature.list_elements[e]);
    }
    const double share = all > 0 ? static_cast<double>(unknown) / static_cast<double>(all) : 0;
    if (std::abs(share - counted->unknown) <= 1e-3) continue;
    char text[120];
    std::snprintf(text, sizeof text, ": %.3g %% of its values are unknown to the run, %.3g %% in training",
                  100 * share, 100 * counted->unknown);
    sentences.push_back(rule.spec.name + text);
  }
  return sentences;
}

}  // namespace mixrec
