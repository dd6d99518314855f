#include "mixrec/data/packing/manifest.h"

#include "mixrec/core/error.h"
#include "mixrec/data/packing/packed_digests.h"
#include "mixrec/data/packing/packed_files.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

namespace mixrec {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TableInfo, name, rows, rows_training)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TaskStats, rows, weight, positives)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(JoinStats, key, file, what, found, of)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SplitStats, rows, requests, first_day, last_day, tasks)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Manifest, packed_key, encoders, given_encoders, rows_read, rows_filtered,
                                   duplicates, rows, requests, users, items, splits, tables, feature_rows,
                                   signal_rows, event_counts, joins, warnings)

const char* split_name(Split split) {
  constexpr const char* kNames[] = {"train", "validation", "test", "refit", "all"};
  return kNames[static_cast<int>(split)];
}

void write_manifest(const Manifest& manifest, const std::string& path) {
  nlohmann::json json = manifest;
  json["version"] = Manifest::kVersion;
  json["content"] = nlohmann::json::parse(fingerprint_text(manifest.content));
  const std::string text = json.dump(1) + "\n";
  FileWriter out(path);
  out.write(text.data(), text.size());
  out.close(true);
}

Manifest read_manifest(const std::string& path) {
  std::ifstream in(path);
  MR_CHECK(in, "cannot open ", path, ": ", std::strerror(errno));
  try {
    const auto json = nlohmann::json::parse(in);
    Manifest manifest;
    // Another version is simply no form of this schema: it is prepared again.
    if (json.value("version", 0) != Manifest::kVersion) return manifest;
    check_packed_file(path);
    manifest = json.get<Manifest>();
    manifest.content = parse_fingerprint(json.at("content").dump());
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    MR_FAIL(path, " is damaged (", error.what(), "); remove its folder");
  }
}

}  // namespace mixrec
