#include "mixrec/data/schema.h"

#include "mixrec/core/error.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

namespace mixrec {

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
  MR_CHECK(!std::filesystem::is_directory(path), "the schema ", path, " is a folder, a file was expected");
  std::ifstream in(path);
  MR_CHECK(in, "cannot open the schema ", path, ": ", std::strerror(errno));
  std::stringstream text;
  text << in.rdbuf();
  return parse_schema(text.str(), path);
}

std::vector<std::string> bundled_schemas() {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  std::vector<std::string> found;
  for (const fs::path& base :
       {program / ".." / "examples" / "configs", program / ".." / "share" / "mixrec" / "configs"})
    // What cannot be listed offers no schema.
    for (fs::recursive_directory_iterator at(base, ignored), end; at != end; at.increment(ignored)) {
      const fs::path& path = at->path();
      if (path.filename().string().starts_with("schema") && path.extension() == ".json")
        found.push_back(fs::canonical(path, ignored));
    }
  std::sort(found.begin(), found.end());
  return found;
}

std::string find_schema_file(const std::string& folder, const std::vector<std::string>& candidates) {
  namespace fs = std::filesystem;
  MR_CHECK(fs::is_directory(folder), "there is no data folder ", folder);
  const fs::path own = fs::path(folder) / "schema.json";
  if (fs::exists(own)) return own;
  std::string lacks;
  for (const auto& candidate : candidates) {
    const Schema schema = load_schema(candidate);
    std::string missing;
    for (const auto& file : schema.source_files())
      if (!fs::exists(fs::path(folder) / file)) missing += (missing.empty() ? "" : ", ") + file;
    if (missing.empty()) return candidate;
    lacks += "; for " + candidate + " it lacks " + missing;
  }
  MR_FAIL(folder, " holds no schema.json", lacks);
}

Schema find_schema(const std::string& folder, const std::vector<std::string>& candidates) {
  return load_schema(find_schema_file(folder, candidates));
}

void detail::check_names(const Schema& schema, const std::string& called) {
  std::set<std::string> names, item_features, histories;
  std::map<std::string, int64_t> widths;
  for (const auto& feature : schema.features) {
    const FeatureSpec& spec = feature.spec;
    MR_CHECK(names.insert(spec.name).second, called, ": two features are named '", spec.name,
             "'; give one of them a \"name\"");
    const bool stored_by_item =
        spec.group == FeatureGroup::item && (!feature.joined.empty() || feature.rate ||
                                             feature.column == schema.item || !feature.item_values.empty());
    if (stored_by_item) item_features.insert(spec.name);
    if (spec.kind == FeatureKind::numeric || feature.matches) continue;
    const int64_t width = widths.emplace(spec.table_name(), spec.width).first->second;
    MR_CHECK(width == spec.width, called, ": features of the table '", spec.table_name(), "' have widths ",
             width, " and ", spec.width);
  }
  const auto known = [&](const std::string& name, const auto& set, const std::string& place,
                         const char* what) {
    if (std::find(set.begin(), set.end(), name) != set.end()) return;
    const auto near = nearest_name(name, set);
    MR_FAIL(called, ": ", place, ": there is no ", what, " '", name, "'",
            near.empty() ? "" : "; did you mean '" + near + "'?");
  };
  for (const auto& history : schema.histories) {
    histories.insert(history.name);
    for (const auto& name : history.features)
      known(name, item_features, "histories." + history.name + ".features", "stored item feature");
  }
  for (const auto& feature : schema.features) {
    if (!feature.rate && !feature.matches) continue;
    const std::string place = "feature '" + feature.spec.name + "'";
    const std::string& key = feature.rate ? feature.rate->key : feature.matches->key;
    const std::string& signal = feature.rate ? feature.rate->signal : feature.matches->signal;
    const std::string& name = feature.rate ? feature.rate->history : feature.matches->history;
    known(name, histories, place, "history");
    const auto history = std::find_if(schema.histories.begin(), schema.histories.end(),
                                      [&](const auto& one) { return one.name == name; });
    if (!signal.empty()) known(signal, history->signals, place, "signal");
    if (feature.spec.group != FeatureGroup::user || feature.matches)
      known(key, item_features, place, "stored item feature");
    MR_CHECK(!feature.rate || feature.spec.group != FeatureGroup::context, called, ": ", place,
             ": a rate belongs under features.item or features.user");
  }
}

}  // namespace mixrec
