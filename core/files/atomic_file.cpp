#include "mixrec/core/files/atomic_file.h"

#include "mixrec/core/error.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <unistd.h>

namespace mixrec {

namespace {

namespace fs = std::filesystem;

// What is to be replaced: behind a link the file that it names, so that the link stays one.
std::string replaced(const std::string& path) {
  std::error_code error;
  if (!fs::is_symlink(fs::symlink_status(path, error))) return path;
  const fs::path target = fs::weakly_canonical(path, error);
  MR_CHECK(!error, "cannot write ", path, ": ", error.message());
  return target;
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(replaced(path)), temporary_(path_ + ".tmp") {
  std::error_code ignored;
  const fs::file_status there = fs::status(path_, ignored);
  MR_CHECK(!fs::is_directory(there), path_, " is a folder, a file to write was expected");
  // A rename would put a file into the place of /dev/null.
  MR_CHECK(!fs::exists(there) || fs::is_regular_file(there), path,
           " is a device or a pipe, a file to write was expected");
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  MR_CHECK(fd_ >= 0, "cannot write ", temporary_, ": ", std::strerror(errno));
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  // One write() moves at most 2 GiB.
  constexpr size_t kChunk = size_t{1} << 30;
  auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(fd_, at, std::min(bytes, kChunk));
    if (written < 0 && errno == EINTR) continue;
    MR_CHECK(written > 0, "cannot write ", path_, ": ", std::strerror(errno),
             "; the old file, if any, is untouched");
    at += written;
    bytes -= static_cast<size_t>(written);
  }
}

void AtomicFile::write_at(size_t offset, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::pwrite(fd_, text.data(), text.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    MR_CHECK(written > 0, "cannot write ", path_, ": ", std::strerror(errno));
    offset += static_cast<size_t>(written);
    text.remove_prefix(static_cast<size_t>(written));
  }
}

void AtomicFile::commit() {
  MR_CHECK(::fsync(fd_) == 0, "cannot flush ", path_, ": ", std::strerror(errno));
  MR_CHECK(::rename(temporary_.c_str(), path_.c_str()) == 0, "cannot rename ", temporary_, " to ", path_,
           ": ", std::strerror(errno));
  ::close(fd_);
  fd_ = -1;
  const auto parent = std::filesystem::path(path_).parent_path();
  const std::filesystem::path folder = parent.empty() ? "." : parent;
  // The new name survives a crash only once the folder is on disk; some file systems refuse to sync one.
  if (const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
}

void write_file_atomically(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_text_file(const std::string& path) {
  MR_CHECK(!std::filesystem::is_directory(path), path, " is a folder, a file was expected");
  std::ifstream in(path, std::ios::binary);
  MR_CHECK(in, "cannot read ", path, ": ", std::strerror(errno));
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace mixrec
