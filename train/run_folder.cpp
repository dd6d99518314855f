#include "mixrec/train/run_folder.h"

#include "mixrec/core/error.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

namespace mixrec {

namespace fs = std::filesystem;

namespace {

// A file descriptor that closes itself.
struct Descriptor {
  Descriptor(const std::string& path, int flags) : fd(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    MR_CHECK(fd >= 0, "cannot open ", path, ": ", std::strerror(errno));
  }
  ~Descriptor() { ::close(fd); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
};

// Whether a run that was killed while it began may have left this; config.json comes last.
bool is_leftover(const std::string& name) {
  return name == RunLock::kName || name == "config.json.tmp" || name == "run.json" ||
         name == "run.json.tmp" || name == "encoders" || name.starts_with("encoders.tmp-");
}

bool is_free(const std::string& path) {
  const fs::directory_iterator entries(path);
  return std::all_of(begin(entries), end(entries),
                     [](const auto& entry) { return is_leftover(entry.path().filename()); });
}

}  // namespace

std::string RunFolder::encoders_path() const {
  const bool old = !fs::exists(path_ + "/encoders") && fs::exists(path_ + "/features");
  return path_ + (old ? "/features" : "/encoders");
}

void RunFolder::check_free(const std::string& path) {
  MR_CHECK(!fs::exists(path) || fs::is_directory(path), path, " is a file; the run needs a folder");
  MR_CHECK(!fs::exists(path) || is_free(path), path,
           fs::exists(path + "/config.json")
               ? " already holds a run; continue it with --resume, or choose another --out"
               : " is not empty; choose another --out");
}

RunFolder RunFolder::create(const std::string& path) {
  check_free(path);
  std::error_code error;
  fs::create_directories(path, error);
  MR_CHECK(!error, "cannot create the run folder ", path, ": ", error.message());
  RunFolder folder(path);
  folder.lock();
  check_free(path);  // another process may have been quicker
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.path().filename() != RunLock::kName) fs::remove_all(entry);
  return folder;
}

RunFolder RunFolder::resume(const std::string& path) {
  MR_CHECK(fs::is_directory(path), "there is no run folder ", path);
  RunFolder folder(path);
  MR_CHECK(fs::exists(folder.config_path()), path, " is no run folder: it holds no config.json");
  return folder;
}

void RunFolder::lock() {
  if (!lock_) lock_ = std::make_shared<const RunLock>(path_);
}

bool RunFolder::has_checkpoint() const { return fs::exists(checkpoint_path()); }

bool RunFolder::has_metrics() const {
  std::error_code error;
  const auto bytes = fs::file_size(metrics_path(), error);
  return !error && bytes > 0;
}

void RunFolder::log(std::string_view json_line) {
  const Descriptor file(metrics_path(), O_WRONLY | O_CREAT | O_APPEND);
  const std::string line = std::string(json_line) + "\n";
  // One write a line: a kill leaves whole lines.
  MR_CHECK(::write(file.fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()), "cannot write ",
           metrics_path(), ": ", std::strerror(errno));
}

int64_t RunFolder::sync_metrics() {
  const Descriptor file(metrics_path(), O_WRONLY | O_CREAT);
  MR_CHECK(::fsync(file.fd) == 0, "cannot flush ", metrics_path(), ": ", std::strerror(errno));
  return static_cast<int64_t>(::lseek(file.fd, 0, SEEK_END));
}

bool RunFolder::cut_metrics(int64_t bytes) {
  const Descriptor file(metrics_path(), O_WRONLY | O_CREAT);
  const auto now = static_cast<int64_t>(::lseek(file.fd, 0, SEEK_END));
  if (now < bytes) {
    // A half line at the end would spoil the next one.
    if (now > 0)
      MR_CHECK(::pwrite(file.fd, "\n", 1, now) == 1, "cannot write ", metrics_path(), ": ",
               std::strerror(errno));
    return false;
  }
  MR_CHECK(::ftruncate(file.fd, bytes) == 0, "cannot cut ", metrics_path(), ": ", std::strerror(errno));
  return true;
}

}  // namespace mixrec
