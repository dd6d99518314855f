#include "mixrec/data/packing/packed_digests.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/core/hash.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/printable.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sstream>
#include <unistd.h>
#include <vector>

namespace mixrec {

namespace {

namespace fs = std::filesystem;

constexpr const char* kName = "digests";
constexpr const char* kAdvice = "; remove the folder to prepare the data again";
constexpr int64_t kWorkPerFile = int64_t{1} << 20;

struct Digest {
  std::string hash, name;
  int64_t bytes = 0;
};

Digest digest_of(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  MR_CHECK(file >= 0, "cannot open ", path, ": ", std::strerror(errno));
  std::vector<char> buffer(1 << 20);
  Hasher hasher;
  Digest digest{"", fs::path(path).filename(), 0};
  ssize_t got = 0;
  while ((got = ::read(file, buffer.data(), buffer.size())) > 0 || (got < 0 && errno == EINTR)) {
    if (got < 0) continue;
    hasher.update(buffer.data(), static_cast<size_t>(got));
    digest.bytes += got;
  }
  const int error = errno;
  ::close(file);
  MR_CHECK(got == 0, "cannot read ", path, ": ", std::strerror(error));
  digest.hash = hash_digits(hasher.digest());
  return digest;
}

std::vector<Digest> read_digests(const std::string& folder) {
  const std::string path = folder + "/" + kName;
  MR_CHECK(fs::is_regular_file(path), folder, " is no whole packed form: it has no file ", kName, kAdvice);
  std::istringstream lines(read_text_file(path));
  std::vector<Digest> digests;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    Digest one;
    MR_CHECK(words >> one.hash >> one.bytes >> one.name, path, " is damaged: '", printable(line),
             "' is no line of it", kAdvice);
    digests.push_back(std::move(one));
  }
  return digests;
}

void check(const std::string& folder, const Digest& written) {
  const std::string path = folder + "/" + written.name;
  MR_CHECK(fs::is_regular_file(path), path, ", which ", kName, " names, is missing", kAdvice);
  const Digest now = digest_of(path);
  MR_CHECK(now.bytes == written.bytes, path, " is damaged: it has ", now.bytes, " bytes where ",
           written.bytes, " were written", kAdvice);
  MR_CHECK(now.hash == written.hash, path, " is damaged: its content has the hash ", now.hash, ", not ",
           printable(written.hash), " as when it was written", kAdvice);
}

}  // namespace

void write_packed_digests(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file()) names.push_back(entry.path());
  std::sort(names.begin(), names.end());
  std::vector<Digest> digests(names.size());
  parallel_for(static_cast<int64_t>(names.size()), kWorkPerFile, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      digests[i] = digest_of(names[i]);
  });
  std::string text;
  for (const Digest& one : digests) text += concat_message(one.hash, ' ', one.bytes, ' ', one.name, '\n');
  write_file_atomically(folder + "/" + kName, text);
}

void check_packed_files(const std::string& folder) {
  const std::vector<Digest> digests = read_digests(folder);
  parallel_for(static_cast<int64_t>(digests.size()), kWorkPerFile, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) check(folder, digests[i]);
  });
  // What no digest vouches for is not read.
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    const bool known =
        name == kName || !entry.is_regular_file() ||
        std::any_of(digests.begin(), digests.end(), [&](const Digest& one) { return one.name == name; });
    MR_CHECK(known, folder, "/", name, " has no digest in ", kName, kAdvice);
  }
}

void check_packed_file(const std::string& path) {
  const std::string folder = fs::path(path).parent_path(), name = fs::path(path).filename();
  for (const Digest& one : read_digests(folder))
    if (one.name == name) return check(folder, one);
  MR_FAIL(path, " has no digest in ", folder, "/", kName, kAdvice);
}

}  // namespace mixrec
