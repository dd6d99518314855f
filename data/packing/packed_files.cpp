#include "mixrec/data/packing/packed_files.h"

#include "mixrec/core/error.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <mutex>
#include <random>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace mixrec {

namespace fs = std::filesystem;

FileWriter::FileWriter(std::string path, size_t buffer_bytes)
    : path_(std::move(path)), buffer_(buffer_bytes) {
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  MR_CHECK(file_ >= 0, "cannot write ", path_, ": ", std::strerror(errno));
}

FileWriter::~FileWriter() {
  if (file_ >= 0) ::close(file_);
}

FileWriter::FileWriter(FileWriter&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, -1)),
      buffer_(std::move(other.buffer_)),
      used_(std::exchange(other.used_, 0)) {}

void FileWriter::write(const void* bytes, size_t count) {
  const char* from = static_cast<const char*>(bytes);
  while (count > 0) {
    const size_t taken = std::min(count, buffer_.size() - used_);
    std::memcpy(buffer_.data() + used_, from, taken);
    used_ += taken, from += taken, count -= taken;
    if (used_ == buffer_.size()) flush();
  }
}

void FileWriter::flush() {
  for (size_t done = 0; done < used_;) {
    const ssize_t wrote = ::write(file_, buffer_.data() + done, used_ - done);
    if (wrote < 0 && errno == EINTR) continue;
    MR_CHECK(wrote > 0, "cannot write ", path_, ": ", std::strerror(errno));
    done += static_cast<size_t>(wrote);
  }
  used_ = 0;
}

void FileWriter::close(bool sync) {
  flush();
  MR_CHECK(!sync || ::fsync(file_) == 0, "cannot write ", path_, ": ", std::strerror(errno));
  MR_CHECK(::close(std::exchange(file_, -1)) == 0, "cannot write ", path_, ": ", std::strerror(errno));
}

namespace {

// Mapped files, for a signal handler: slots are taken and freed, their paths stay while they are taken.  Files
// beyond the last slot are not named.
struct MappedFile {
  std::atomic<const char*> begin{nullptr};
  size_t bytes = 0;
  char path[512] = {};
};
std::array<MappedFile, 1024> mapped_files;
std::mutex mapped_mutex;

void remember_mapped(const void* begin, size_t bytes, const std::string& path) {
  const std::lock_guard lock(mapped_mutex);
  for (MappedFile& file : mapped_files) {
    if (file.begin) continue;
    file.bytes = bytes;
    file.path[path.copy(file.path, sizeof file.path - 1)] = 0;
    file.begin = static_cast<const char*>(begin);
    return;
  }
}

void forget_mapped(const void* begin) {
  const std::lock_guard lock(mapped_mutex);
  for (MappedFile& file : mapped_files)
    if (file.begin == begin) file.begin = nullptr;
}

}  // namespace

const char* mapped_file_at(const void* address) {
  for (const MappedFile& file : mapped_files) {
    const char* begin = file.begin;
    if (begin && address >= begin && address < begin + file.bytes) return file.path;
  }
  return nullptr;
}

void detail::fail_outside(const void* data, size_t index, size_t size) {
  const char* path = data ? mapped_file_at(data) : nullptr;
  MR_FAIL("the packed data is damaged: another file of it names entry ", index, " of ",
          path ? path : "an empty file", ", which has ", size,
          "; remove the folder to prepare the data again");
}

template <class T>
MappedArray<T>::MappedArray(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  MR_CHECK(file >= 0, "cannot open ", path, ": ", std::strerror(errno));
  struct stat status {};
  const bool known = ::fstat(file, &status) == 0;
  const size_t bytes = known ? static_cast<size_t>(status.st_size) : 0;
  void* mapped = bytes > 0 ? ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0) : nullptr;
  ::close(file);
  MR_CHECK(known && mapped != MAP_FAILED, "cannot map ", path, ": ", std::strerror(errno));
  data_ = static_cast<const T*>(mapped);
  size_ = bytes / sizeof(T);
  if (mapped) remember_mapped(mapped, bytes, path);
}

template <class T>
MappedArray<T>::~MappedArray() {
  if (!data_) return;
  forget_mapped(data_);
  ::munmap(const_cast<T*>(data_), size_ * sizeof(T));
}

template class MappedArray<uint8_t>;
template class MappedArray<int32_t>;
template class MappedArray<uint32_t>;
template class MappedArray<int64_t>;
template class MappedArray<uint64_t>;
template class MappedArray<float>;
template class MappedArray<double>;

namespace {

void sync_folder(const std::string& path) {
  const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  ::fsync(folder);
  ::close(folder);
}

constexpr const char* kTemporary = ".tmp-";

// The name says nothing of its writer: process ids mean nothing to another container.
std::string temporary_name(const std::string& path) {
  std::random_device random;
  char name[24];
  std::snprintf(name, sizeof name, "%08x%08x", random(), random());
  return path + kTemporary + name;
}

}  // namespace

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

bool FolderLock::share(const std::string& path) { return lock(path, LOCK_SH); }
bool FolderLock::take(const std::string& path) { return lock(path, LOCK_EX); }

bool FolderLock::lock(const std::string& path, int operation) {
  FolderLock fresh;
  fresh.fd_ = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fresh.fd_ < 0 || ::flock(fresh.fd_, operation | LOCK_NB) != 0) return false;
  // The path may lead to another folder by now.
  struct stat locked {
  }, named{};
  if (::fstat(fresh.fd_, &locked) != 0 || ::stat(path.c_str(), &named) != 0 ||
      locked.st_ino != named.st_ino || locked.st_dev != named.st_dev)
    return false;
  std::swap(fd_, fresh.fd_);
  return true;
}

void remove_leftovers(const std::string& parent) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(parent, ignored)) {
    if (entry.path().filename().string().find(kTemporary) == std::string::npos) continue;
    FolderLock lock;
    if (entry.is_directory(ignored) && lock.take(entry.path())) fs::remove_all(entry.path(), ignored);
  }
}

AtomicFolder::AtomicFolder(std::string path) : path_(std::move(path)) {
  std::error_code error;
  made_parent_ = fs::create_directories(fs::path(path_).parent_path(), error);
  // Somebody who clears up may take a folder between its making and its locking.
  for (int attempt = 0; attempt < 100 && !error; ++attempt) {
    temporary_ = temporary_name(path_);
    if (fs::create_directory(temporary_, error) && lock_.take(temporary_)) return;
  }
  MR_FAIL("cannot make the folder ", temporary_, ": ", error ? error.message() : "it cannot be locked");
}

AtomicFolder::~AtomicFolder() {
  if (committed_) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  if (made_parent_) fs::remove(fs::path(path_).parent_path(), ignored);  // only when empty
}

void AtomicFolder::commit() {
  sync_folder(temporary_);
  std::error_code error;
  // In one step where the system can: whoever opens `path` finds the old folder or the new one.
  const bool replaced = fs::exists(path_) && ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD,
                                                         path_.c_str(), RENAME_EXCHANGE) == 0;
  const std::string old = replaced ? temporary_ : temporary_ + ".old";
  if (!replaced && fs::exists(path_)) fs::rename(path_, old, error);
  if (!replaced) fs::rename(temporary_, path_, error);
  MR_CHECK(!error, "cannot rename ", temporary_, " to ", path_, ": ", error.message());
  committed_ = true;
  sync_folder(fs::path(path_).parent_path());
  fs::remove_all(old, error);
}

}  // namespace mixrec
