#include "mixrec/data/packing/prepare.h"

#include "mixrec/core/error.h"
#include "mixrec/data/feature_export.h"
#include "mixrec/data/packing/packed_digests.h"
#include "mixrec/data/packing/packing.h"
#include "mixrec/data/source_files.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <unistd.h>

namespace mixrec {

namespace {

namespace fs = std::filesystem;

bool writable(const fs::path& folder) { return ::access(folder.c_str(), W_OK) == 0; }

std::string hexadecimal(uint64_t hash) {
  char text[24];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

fs::path shared_cache(const std::string& folder) {
  const auto named = [](const char* variable) {
    const char* value = std::getenv(variable);
    return fs::path(value ? value : "");
  };
  if (const fs::path shared = named("XDG_CACHE_HOME"); shared.is_absolute()) return shared / "mixrec";
  const fs::path home = named("HOME");
  MR_CHECK(home.is_absolute(), "the packed form of ", folder,
           " needs a folder, and neither HOME nor XDG_CACHE_HOME names one");
  return home / ".cache" / "mixrec";
}

// Where the packed forms of a data folder are.
struct Cache {
  Cache(const std::string& folder, const PrepareOptions& options) : data(fs::canonical(folder)) {
    own = data / ".mixrec";
    if (!options.cache.empty()) {
      base = options.cache;
    } else if (options.encoders.empty() ? writable(data) : fs::is_directory(own) && writable(own)) {
      base = own;
    } else {
      base = shared_cache(folder);
    }
    if (base != own) seed = hash_text(data.string());
  }

  // Forms of one group are the same but for the content of the files.
  std::string group(const std::string& packed_key, const std::string& encoders, uint64_t of_seed) const {
    return "packed-" + hexadecimal(hash_text(encoders, hash_text(packed_key, of_seed))) + "-";
  }
  std::string trusted() const {
    return base / (seed == 0 ? "contents.json" : "contents-" + hexadecimal(seed) + ".json");
  }

  fs::path data, own, base;
  uint64_t seed = 0;  // tells data folders apart where they share a cache
};

// Takes hold of the form in `folder` when it is there, whole and encoded with `encoders` ("": its own).
bool open_form(const fs::path& folder, const Schema& schema, const std::string& encoders, PackedForm& form) {
  if (!fs::exists(folder / "manifest.json") || !form.lock.share(folder)) return false;
  const Manifest manifest = read_manifest(folder / "manifest.json");
  if (manifest.packed_key != schema.packed_key || (!encoders.empty() && manifest.encoders != encoders))
    return false;
  form.folder = folder;
  return true;
}

// Removes forms of the group whose files are no longer so, but for those that somebody reads.
void remove_others(const fs::path& base, const std::string& group, const fs::path& kept) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(base, ignored)) {
    if (!entry.path().filename().string().starts_with(group) || entry.path() == kept) continue;
    FolderLock lock;
    if (!lock.take(entry.path())) continue;
    const fs::path leftover = entry.path().string() + ".tmp-old";
    fs::rename(entry.path(), leftover, ignored);
    fs::remove_all(leftover, ignored);
  }
}

// What has changed since a form of the group was made; "" when there is none.
std::string changes(const fs::path& base, const std::string& group, const Fingerprint& content) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(base, ignored)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(group) || name.find(".tmp-") != std::string::npos) continue;
    try {
      const Manifest before = read_manifest(entry.path() / "manifest.json");
      const auto sentences = differences(before.content, content);
      if (!before.packed_key.empty() && !sentences.empty()) return "the data has changed: " + sentences[0];
    } catch (const Error&) {
      // Somebody else's form that is being removed.
    }
  }
  return "";
}

void pack(const Schema& schema, const std::string& folder, const fs::path& path, const Fingerprint& content,
          const std::function<Fingerprint()>& content_now, const Encoders* given,
          const PrepareOptions& options) {
  const auto report = [&](const std::string& line) {
    if (options.report) options.report(line);
  };
  const auto start = std::chrono::steady_clock::now();
  AtomicFolder out(path);
  packing::Packing packing(schema, folder, out.folder(), given);
  packing.progress = options.progress;
  packing.labels_optional = options.labels_optional;
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
  manifest.content = content;
  manifest.encoders = packing.encoders.id;
  manifest.given_encoders = given != nullptr;
  manifest.rows_read = packing.rows_read;
  manifest.users = packing.users.size();
  manifest.items = packing.items.size();
  write_manifest(manifest, packing.out_path("manifest.json"));
  write_packed_digests(out.folder());
  const auto changed = differences(content, content_now());
  MR_CHECK(changed.empty(), folder, " changes while it is read: ", changed.front());
  out.commit();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  char rounded[32];
  std::snprintf(rounded, sizeof rounded, "%.1f s", seconds);
  report(concat_message(
      "prepared ", manifest.rows, " rows, ", manifest.requests, " requests in ", rounded,
      manifest.duplicates ? concat_message("; dropped ", manifest.duplicates, " duplicates") : ""));
  for (const auto& warning : manifest.warnings) report("warning: " + warning);
}

}  // namespace

Fingerprint content_of(const Schema& schema, const std::string& folder, const PrepareOptions& options) {
  MR_CHECK(fs::is_directory(folder), "there is no data folder ", folder);
  check_source_files(folder, schema.source_files(), true);
  return fingerprint_of(folder, schema.source_files(), Cache(folder, options).trusted());
}

PackedForm prepare(const Schema& schema, const std::string& folder, const PrepareOptions& options) {
  const auto report = [&](const std::string& line) {
    if (options.report) options.report(line);
  };
  MR_CHECK(fs::is_directory(folder), "there is no data folder ", folder);
  check_source_files(folder, schema.source_files(), options.outside || schema.outside_files);
  PackedForm form;
  const bool given = !options.encoders.empty();
  if (given) form.encoders = read_run_encoders(options.encoders);
  const Cache cache(folder, options);
  remove_leftovers(cache.base);
  const auto content_now = [&] { return fingerprint_of(folder, schema.source_files(), cache.trusted()); };
  form.content = content_now();
  const std::string content = form.content.digest();
  const std::string group = cache.group(schema.packed_key, form.encoders.id, cache.seed);
  const fs::path path = cache.base / (group + content);
  // Data that the encoders were counted from has a form with them already.
  const auto find = [&] {
    const auto in = [&](const fs::path& folder) { return open_form(folder, schema, form.encoders.id, form); };
    return in(path) ||
           (given && (in(cache.base / (cache.group(schema.packed_key, "", cache.seed) + content)) ||
                      in(cache.own / (cache.group(schema.packed_key, "", 0) + content))));
  };
  // Another process may remove or replace what was just made.
  for (int attempt = 0; attempt < 3; ++attempt) {
    if ((attempt > 0 || !options.again) && find()) {
      if (!given) form.encoders = read_encoders(form.folder + "/encoders");
      return form;
    }
    if (const std::string reason = changes(cache.base, group, form.content); !reason.empty())
      report("preparing again: " + reason);
    pack(schema, folder, path, form.content, content_now, given ? &form.encoders : nullptr, options);
    remove_others(cache.base, group, path);
  }
  MR_FAIL("the packed form ", path.string(), " disappears as soon as it is made");
}

}  // namespace mixrec
