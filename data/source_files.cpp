#include "mixrec/data/source_files.h"

#include "mixrec/core/error.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <sys/stat.h>
#include <utility>

namespace mixrec {

namespace fs = std::filesystem;

namespace {

bool lies_in(const fs::path& file, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), file.begin(), file.end()).first == folder.end();
}

}  // namespace

void check_source_files(const std::string& folder, const std::vector<std::string>& names, bool outside) {
  const fs::path home = fs::canonical(folder);
  constexpr const char* kOption =
      "; \"outside_files\": true in the schema, or --set data.outside=true (--outside), allows that";
  std::map<std::pair<uintmax_t, uintmax_t>, std::string> known;  // names of the files read so far
  for (const std::string& name : names) {
    const fs::path path = home / name;  // an absolute name replaces the folder
    MR_CHECK(outside || lies_in(path.lexically_normal(), home), "the file '", name,
             "' lies outside the data folder ", folder, kOption);
    std::error_code error;
    const fs::path real = fs::canonical(path, error);
    if (error) continue;
    MR_CHECK(outside || lies_in(real, home), "the file '", name, "' lies outside the data folder ", folder,
             ": it is a link to ", real.string(), kOption);
    MR_CHECK(fs::is_regular_file(real), folder, "/", name, " is ",
             fs::is_directory(real) ? "a folder"
             : fs::is_fifo(real)    ? "a FIFO"
                                    : "a device",
             ", a regular file was expected");
    // The same rows twice, by another spelling or a link, would be counted twice.
    struct ::stat there = {};
    if (::stat(real.c_str(), &there) != 0) continue;
    const auto [first, is_new] = known.try_emplace({there.st_dev, there.st_ino}, name);
    MR_CHECK(is_new, "'", first->second, "' and '", name, "' are the same file in ", folder,
             "; name it once, in the same way everywhere");
  }
}

}  // namespace mixrec
