#include "mixrec/train/run_lock.h"

#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace mixrec {

namespace {

std::string holder(int fd) {
  std::array<char, 256> text{};
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  const std::string_view all(text.data(), got > 0 ? static_cast<size_t>(got) : 0);
  const std::string line = printable(all.substr(0, all.find('\n')));
  return line.empty() ? "another process" : line;
}

void sign(int fd) {
  std::array<char, 128> host{};
  ::gethostname(host.data(), host.size() - 1);
  const std::string text = concat_message("process ", ::getpid(), " on ", host.data(), "\n");
  // Only a message is worse off without it.
  if (::ftruncate(fd, 0) == 0 && ::pwrite(fd, text.data(), text.size(), 0) < 0) return;
}

}  // namespace

RunLock::RunLock(const std::string& folder) {
  const std::string path = folder + "/" + kName;
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  MR_CHECK(fd_ >= 0, "cannot write ", path, ": ", std::strerror(errno));
  const bool locked = ::flock(fd_, LOCK_EX | LOCK_NB) == 0;
  if (locked) sign(fd_);
  if (locked || errno != EWOULDBLOCK) return;
  const std::string who = holder(fd_);
  ::close(fd_);
  MR_FAIL(folder, " is being trained by ", who, "; wait for it, or stop it, and try again");
}

RunLock::~RunLock() { ::close(fd_); }

}  // namespace mixrec
