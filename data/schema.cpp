#include "mixrec/data/schema.h"

#include "mixrec/core/error.h"

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

namespace mixrec {

const FeatureRule* Schema::find_feature(const std::string& name) const {
  for (const auto& feature : features)
    if (feature.spec.name == name) return &feature;
  return nullptr;
}

std::vector<std::string> Schema::source_files() const {
  std::vector<std::string> all = files;
  for (const auto& table : tables) all.insert(all.end(), table.files.begin(), table.files.end());
  for (const auto& history : histories)
    for (const auto& source : history.sources)
      all.insert(all.end(), source.files.begin(), source.files.end());
  std::vector<std::string> unique;
  std::set<std::string> seen;
  for (auto& file : all)
    if (seen.insert(file).second) unique.push_back(std::move(file));
  return unique;
}

Schema load_schema(const std::string& path) {
  std::ifstream in(path);
  MR_CHECK(in, "cannot open the schema ", path);
  std::stringstream text;
  text << in.rdbuf();
  return parse_schema(text.str(), path);
}

Schema find_schema(const std::string& folder, const std::vector<std::string>& candidates) {
  namespace fs = std::filesystem;
  MR_CHECK(fs::is_directory(folder), "there is no data folder ", folder);
  const fs::path own = fs::path(folder) / "schema.json";
  if (fs::exists(own)) return load_schema(own);
  std::string lacks;
  for (const auto& candidate : candidates) {
    Schema schema = load_schema(candidate);
    std::string missing;
    for (const auto& file : schema.source_files())
      if (!fs::exists(fs::path(folder) / file)) missing += (missing.empty() ? "" : ", ") + file;
    if (missing.empty()) return schema;
    lacks += "; for " + candidate + " it lacks " + missing;
  }
  MR_FAIL(folder, " holds no schema.json", lacks);
}

}  // namespace mixrec
