#include "mixrec/data/packing/packed_files.h"

#include "mixrec/core/error.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <mutex>
#include <signal.h>
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

// "<path>.tmp-<process>": the process tells whether the folder is still being written.
void remove_leftovers(const fs::path& path) {
  const std::string prefix = path.filename().string() + ".tmp-";
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path.parent_path(), ignored)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(prefix)) continue;
    const pid_t process = static_cast<pid_t>(std::atoll(name.c_str() + prefix.size()));
    if (process > 0 && process != ::getpid() && ::kill(process, 0) == 0) continue;
    fs::remove_all(entry.path(), ignored);
  }
}

}  // namespace

AtomicFolder::AtomicFolder(std::string path)
    : path_(std::move(path)), temporary_(concat_message(path_, ".tmp-", ::getpid())) {
  std::error_code error;
  made_parent_ = fs::create_directories(fs::path(path_).parent_path(), error);
  remove_leftovers(path_);
  MR_CHECK(!error && fs::create_directory(temporary_, error), "cannot make the folder ", temporary_, ": ",
           error.message());
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
  const std::string old = temporary_ + ".old";
  if (fs::exists(path_)) fs::rename(path_, old, error);
  fs::rename(temporary_, path_, error);
  MR_CHECK(!error, "cannot rename ", temporary_, " to ", path_, ": ", error.message());
  committed_ = true;
  sync_folder(fs::path(path_).parent_path());
  fs::remove_all(old, error);
}

}  // namespace mixrec
