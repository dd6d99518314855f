#include "mixrec/data/packing/prepare.h"

#include "mixrec/core/error.h"
#include "mixrec/data/packing/packing.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <unistd.h>

namespace mixrec {

namespace {

namespace fs = std::filesystem;

bool writable(const fs::path& folder) { return ::access(folder.c_str(), W_OK) == 0; }

// One packed form per data folder and schema.
fs::path packed_path(const Schema& schema, const std::string& folder, const std::string& cache) {
  const fs::path data = fs::canonical(folder);
  char name[40];
  fs::path base = cache;
  uint64_t seed = 0;
  if (cache.empty() && writable(data)) {
    base = data / ".mixrec";
  } else {
    seed = hash_text(data.string());
    if (cache.empty()) {
      const char* home = std::getenv("HOME");
      const char* shared = std::getenv("XDG_CACHE_HOME");
      MR_CHECK(shared || home, "cannot write into ", folder,
               " and HOME is not set; name a folder for the packed data");
      base = shared ? fs::path(shared) / "mixrec" : fs::path(home) / ".cache" / "mixrec";
    }
  }
  std::snprintf(name, sizeof name, "packed-%016llx",
                static_cast<unsigned long long>(hash_text(schema.packed_key, seed)));
  return base / name;
}

// Sources first: a missing file is reported before anything is read.
std::vector<SourceFile> describe_sources(const Schema& schema, const std::string& folder) {
  std::vector<SourceFile> sources;
  for (const auto& file : schema.source_files()) sources.push_back(describe_source(folder, file, true));
  return sources;
}

}  // namespace

std::string prepare(const Schema& schema, const std::string& folder, const PrepareOptions& options) {
  const auto report = [&](const std::string& line) {
    if (options.report) options.report(line);
  };
  MR_CHECK(fs::is_directory(folder), "there is no data folder ", folder);
  const fs::path path = packed_path(schema, folder, options.cache);
  if (!options.again && fs::exists(path / "manifest.json")) {
    const std::string reason = stale_because(read_manifest(path / "manifest.json"), schema.packed_key,
                                             schema.source_files(), folder);
    if (reason.empty()) return path;
    report("preparing again: " + reason);
  }
  const auto start = std::chrono::steady_clock::now();
  std::vector<SourceFile> sources = describe_sources(schema, folder);
  AtomicFolder out(path);
  packing::Packing packing(schema, folder, out.folder());
  packing.progress = options.progress;
  report("reading " + schema.files.front());
  read_tables(packing);
  read_log(packing);
  place_split(packing);
  read_events(packing);
  report(concat_message("grouping ", packing.rows_read, " rows"));
  group(packing);
  encode(packing);

  Manifest& manifest = packing.manifest;
  manifest.packed_key = schema.packed_key;
  manifest.sources = std::move(sources);
  manifest.rows_read = packing.rows_read;
  manifest.users = packing.users.size();
  manifest.items = packing.items.size();
  write_manifest(manifest, packing.out_path("manifest.json"));
  out.commit();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  char rounded[32];
  std::snprintf(rounded, sizeof rounded, "%.1f s", seconds);
  report(concat_message(
      "prepared ", manifest.rows, " rows, ", manifest.requests, " requests in ", rounded,
      manifest.duplicates ? concat_message("; dropped ", manifest.duplicates, " duplicates") : ""));
  return path;
}

}  // namespace mixrec
