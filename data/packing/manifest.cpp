#include "mixrec/data/packing/manifest.h"

#include "mixrec/core/error.h"
#include "mixrec/data/dictionary.h"
#include "mixrec/data/packing/packed_files.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

namespace mixrec {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SourceFile, name, bytes, modified_ns, hash)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TableInfo, name, rows, rows_training)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TaskStats, rows, weight, positives)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SplitStats, rows, requests, first_day, last_day, tasks)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Manifest, packed_key, sources, rows_read, rows_filtered, duplicates, rows,
                                   requests, users, items, splits, tables, feature_rows, signal_rows,
                                   event_counts)

const char* split_name(Split split) {
  constexpr const char* kNames[] = {"train", "validation", "test", "refit", "all"};
  return kNames[static_cast<int>(split)];
}

void write_manifest(const Manifest& manifest, const std::string& path) {
  nlohmann::json json = manifest;
  json["version"] = Manifest::kVersion;
  const std::string text = json.dump(1) + "\n";
  FileWriter out(path);
  out.write(text.data(), text.size());
  out.close(true);
}

Manifest read_manifest(const std::string& path) {
  std::ifstream in(path);
  MR_CHECK(in, "cannot open ", path);
  try {
    const auto json = nlohmann::json::parse(in);
    Manifest manifest;
    // Another version is simply no form of this schema: it is prepared again.
    if (json.value("version", 0) == Manifest::kVersion) manifest = json.get<Manifest>();
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    MR_FAIL(path, " is damaged (", error.what(), "); remove its folder");
  }
}

namespace {

uint64_t hash_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  MR_CHECK(file >= 0, "cannot open ", path, ": ", std::strerror(errno));
  std::vector<char> buffer(1 << 20);
  uint64_t hash = 0;
  ssize_t got;
  while ((got = ::read(file, buffer.data(), buffer.size())) > 0)
    hash = hash_text({buffer.data(), static_cast<size_t>(got)}, hash);
  ::close(file);
  MR_CHECK(got == 0, "cannot read ", path, ": ", std::strerror(errno));
  return hash;
}

}  // namespace

SourceFile describe_source(const std::string& folder, const std::string& name, bool with_hash) {
  const std::string path = folder + "/" + name;
  struct stat status {};
  MR_CHECK(::stat(path.c_str(), &status) == 0, "the data folder ", folder, " has no file '", name, "'");
  return {name, status.st_size, status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec,
          with_hash ? hash_file(path) : 0};
}

std::string stale_because(const Manifest& manifest, const std::string& packed_key,
                          const std::vector<std::string>& sources, const std::string& folder) {
  if (manifest.packed_key != packed_key) return "the schema has changed";
  if (manifest.sources.size() != sources.size()) return "the schema names other files";
  for (const auto& known : manifest.sources) {
    const SourceFile now = describe_source(folder, known.name, false);
    if (now.bytes != known.bytes) return known.name + " has changed";
    if (now.modified_ns != known.modified_ns && hash_file(folder + "/" + known.name) != known.hash)
      return known.name + " has changed";
  }
  return "";
}

}  // namespace mixrec
