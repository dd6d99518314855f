#include "mixrec/data/fingerprint.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/data/dictionary.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

namespace mixrec {

using Json = nlohmann::json;

namespace {

constexpr int64_t kBlock = 1 << 20;
// A file may change twice between two ticks of the file system's clock: younger changes are not trusted.
constexpr int64_t kSettled = 2'000'000'000;

struct OpenFile {
  // A pipe would be waited for for ever.
  explicit OpenFile(const std::string& path) : fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (fd < 0) MR_FAIL("cannot open ", path, ": ", std::strerror(errno));
    struct stat status {};
    if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(fd);
      MR_FAIL(path, " is not a file");
    }
  }
  ~OpenFile() { ::close(fd); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd;
};

// Fills `block` up to its size or the end of the file.
size_t read_block(const OpenFile& file, std::vector<char>& block, const std::string& path) {
  size_t have = 0;
  while (have < block.size()) {
    const ssize_t got = ::read(file.fd, block.data() + have, block.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) MR_FAIL("cannot read ", path, ": ", std::strerror(errno));
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  return have;
}

int64_t nanoseconds(const timespec& time) { return time.tv_sec * 1'000'000'000LL + time.tv_nsec; }

// What must stay the same for a remembered content to hold.
struct Stamp {
  int64_t bytes = 0, modified = 0, changed = 0, inode = 0, device = 0;
  bool operator==(const Stamp&) const = default;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Stamp, bytes, modified, changed, inode, device)

Stamp stamp_of(const std::string& folder, const std::string& name) {
  struct stat status {};
  if (::stat((folder + "/" + name).c_str(), &status) != 0)
    MR_FAIL("the data folder ", folder, " has no file '", name, "'");
  return {status.st_size, nanoseconds(status.st_mtim), nanoseconds(status.st_ctim),
          static_cast<int64_t>(status.st_ino), static_cast<int64_t>(status.st_dev)};
}

int64_t now() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return nanoseconds(time);
}

Json content_json(const SourceContent& content) {
  return {{"name", content.name}, {"bytes", content.bytes}, {"blocks", content.blocks}};
}
SourceContent parse_content(const Json& json) {
  return {json.at("name"), json.at("bytes"), json.at("blocks").get<std::vector<uint64_t>>()};
}

// Contents that were read before, by name.
class Memory {
 public:
  explicit Memory(const std::string& path) : path_(path) {
    if (path.empty() || !std::filesystem::exists(path)) return;
    // Whatever is wrong with it, files can be read instead.
    try {
      all_ = Json::parse(read_text_file(path));
      if (!all_.is_object()) all_ = Json::object();
    } catch (const std::exception&) {
      all_ = Json::object();
    }
  }
  bool find(const std::string& name, const Stamp& stamp, SourceContent& content) const {
    try {
      const auto found = all_.find(name);
      if (found == all_.end() || found->at("stamp").get<Stamp>() != stamp) return false;
      content = parse_content(found->at("content"));
      return content.bytes == stamp.bytes;
    } catch (const nlohmann::json::exception&) {
      return false;
    }
  }
  void keep(const std::string& name, const Stamp& stamp, const SourceContent& content) {
    all_[name] = Json{{"stamp", stamp}, {"content", content_json(content)}};
    changed_ = true;
  }
  void save() const {
    // The folder is another's matter: nothing is put where no packed form is.
    if (path_.empty() || !changed_ || !std::filesystem::exists(std::filesystem::path(path_).parent_path()))
      return;
    try {
      write_file_atomically(path_, all_.dump() + "\n");
    } catch (const std::exception&) {
      // A folder that cannot be written to costs a reading the next time, no more.
    }
  }

 private:
  std::string path_;
  Json all_ = Json::object();
  bool changed_ = false;
};

// Whether the first before.bytes bytes of the file are those of `before`.
bool begins_with(const SourceContent& file, const SourceContent& before) {
  const auto whole = static_cast<size_t>(before.bytes / kBlock);
  if (file.bytes < before.bytes || file.blocks.size() < whole) return false;
  if (!std::equal(before.blocks.begin(), before.blocks.begin() + static_cast<std::ptrdiff_t>(whole),
                  file.blocks.begin()))
    return false;
  const int64_t rest = before.bytes % kBlock;
  if (rest == 0) return true;
  if (file.path.empty() || !std::filesystem::is_regular_file(file.path)) return false;
  const OpenFile open(file.path);
  std::vector<char> block(static_cast<size_t>(rest));
  ::lseek(open.fd, static_cast<off_t>(whole) * kBlock, SEEK_SET);
  return static_cast<int64_t>(read_block(open, block, file.path)) == rest &&
         hash_text({block.data(), block.size()}) == before.blocks.back();
}

std::string difference(const SourceContent& before, const SourceContent& now) {
  const std::string name = now.name == before.name ? before.name : now.name + " (was " + before.name + ")";
  if (before.bytes > 0 && begins_with(now, before))
    return concat_message(name, ": equal to the first ", before.bytes, " bytes, then grown by ",
                          now.bytes - before.bytes, " bytes");
  size_t same = 0;
  while (same < std::min(before.blocks.size(), now.blocks.size()) && before.blocks[same] == now.blocks[same])
    ++same;
  return concat_message(name, ": ", before.bytes, " bytes, now ", now.bytes,
                        now.bytes == before.bytes ? " others" : "",
                        same > 0 ? concat_message("; the first ", same, " MiB are equal") : "");
}

}  // namespace

std::string Fingerprint::digest() const {
  uint64_t hash = 0;
  for (const SourceContent& source : sources) {
    hash = hash_text({reinterpret_cast<const char*>(&source.bytes), sizeof source.bytes}, hash);
    hash = hash_text({reinterpret_cast<const char*>(source.blocks.data()), 8 * source.blocks.size()}, hash);
  }
  char text[24];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

std::vector<std::string> differences(const Fingerprint& before, const Fingerprint& now) {
  std::vector<std::string> sentences;
  std::vector<bool> taken(now.sources.size(), false);
  std::vector<size_t> partner(before.sources.size(), SIZE_MAX);
  const auto pair_up = [&](const auto& fits) {
    for (size_t b = 0; b < before.sources.size(); ++b)
      for (size_t n = 0; n < now.sources.size() && partner[b] == SIZE_MAX; ++n)
        if (!taken[n] && fits(b, n)) partner[b] = n, taken[n] = true;
  };
  pair_up([&](size_t b, size_t n) { return before.sources[b].name == now.sources[n].name; });
  pair_up([&](size_t b, size_t n) { return before.sources[b].same_content(now.sources[n]); });
  pair_up([&](size_t b, size_t n) { return b == n; });
  for (size_t b = 0; b < before.sources.size(); ++b) {
    if (partner[b] == SIZE_MAX) {
      sentences.push_back(before.sources[b].name + ": is no longer there");
    } else if (const auto& file = now.sources[partner[b]]; !before.sources[b].same_content(file)) {
      sentences.push_back(difference(before.sources[b], file));
    }
  }
  for (size_t n = 0; n < now.sources.size(); ++n)
    if (!taken[n]) sentences.push_back(now.sources[n].name + ": is new");
  return sentences;
}

SourceContent read_content(const std::string& path, const std::string& name) {
  const OpenFile file(path);
  SourceContent content{name, 0, {}, path};
  std::vector<char> block(kBlock);
  while (const size_t got = read_block(file, block, path)) {
    content.blocks.push_back(hash_text({block.data(), got}));
    content.bytes += static_cast<int64_t>(got);
  }
  return content;
}

Fingerprint fingerprint_of(const std::string& folder, const std::vector<std::string>& names,
                           const std::string& trusted) {
  Memory memory(trusted);
  Fingerprint fingerprint;
  std::vector<Stamp> stamps;
  // A missing file is reported before anything is read.
  for (const std::string& name : names) stamps.push_back(stamp_of(folder, name));
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string path = folder + "/" + names[i];
    SourceContent content;
    if (!memory.find(names[i], stamps[i], content)) {
      content = read_content(path, names[i]);
      const Stamp after = stamp_of(folder, names[i]);
      if (after != stamps[i]) MR_FAIL(path, " changes while it is read");
      if (after.changed + kSettled < now()) memory.keep(names[i], after, content);
    }
    content.path = path;
    fingerprint.sources.push_back(std::move(content));
  }
  memory.save();
  return fingerprint;
}

std::string fingerprint_text(const Fingerprint& fingerprint) {
  Json list = Json::array();
  for (const SourceContent& source : fingerprint.sources) list.push_back(content_json(source));
  return list.dump();
}

Fingerprint parse_fingerprint(const std::string& text) {
  Fingerprint fingerprint;
  for (const Json& source : Json::parse(text)) fingerprint.sources.push_back(parse_content(source));
  return fingerprint;
}

}  // namespace mixrec
