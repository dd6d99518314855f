// The files of a packed data set: one array a file, written in one stream and read through a memory map.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace mixrec {

// Appends bytes to a file through a small buffer.  Errors (a full disk) name the file.
class FileWriter {
 public:
  explicit FileWriter(std::string path, size_t buffer_bytes = 1 << 16);
  ~FileWriter();  // closes; what was not flushed by close() is lost
  FileWriter(FileWriter&& other) noexcept;
  FileWriter& operator=(FileWriter&&) = delete;

  void write(const void* bytes, size_t count);
  template <class T>
  void append(const T& value) {
    write(&value, sizeof(T));
  }
  // Flushes, and with `sync` waits until the bytes are on the disk.
  void close(bool sync);
  const std::string& path() const { return path_; }

 private:
  void flush();

  std::string path_;
  int file_ = -1;
  std::vector<char> buffer_;
  size_t used_ = 0;
};

// The path of the mapped file that holds an address; nullptr when none does.  Makes no calls that a signal
// handler may not make.
const char* mapped_file_at(const void* address);

namespace detail {
[[noreturn]] void fail_outside(const void* data, size_t index, size_t size);
}

// A read-only array in a file.  Pages come and go with the page cache and are not private memory.
template <class T>
class MappedArray {
 public:
  MappedArray() = default;
  explicit MappedArray(const std::string& path);
  ~MappedArray();
  MappedArray(MappedArray&& other) noexcept { *this = std::move(other); }
  MappedArray& operator=(MappedArray&& other) noexcept {
    std::swap(data_, other.data_), std::swap(size_, other.size_);
    return *this;
  }

  // `i` must be below size().
  const T& operator[](size_t i) const { return data_[i]; }
  // The same for an index that comes out of a file; throws, naming this file, when it is not below size().
  const T& at(size_t i) const {
    if (i >= size_) [[unlikely]]
      detail::fail_outside(data_, i, size_);
    return data_[i];
  }
  const T* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const T* data_ = nullptr;
  size_t size_ = 0;
};

// Writes a whole array.
template <class T>
void write_array(const std::string& path, const std::vector<T>& values) {
  FileWriter out(path);
  out.write(values.data(), values.size() * sizeof(T));
  out.close(true);
}

// A folder that is locked as long as this lives, by flock: shared by readers, or by a writer alone.  The lock goes with
// the process, wherever it runs.
class FolderLock {
 public:
  FolderLock() = default;
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FolderLock& operator=(FolderLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  // Do not wait; false when the folder is gone or somebody's lock is in the way.
  bool share(const std::string& path);
  bool take(const std::string& path);

 private:
  bool lock(const std::string& path, int operation);

  int fd_ = -1;
};

// Removes the folders PATH.tmp-* in `parent` that no living process writes.
void remove_leftovers(const std::string& parent);

// A folder that appears under `path` complete or not at all: files are written to folder(), and commit()
// syncs them and renames it.  Without a commit everything is removed.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::string path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::string& folder() const { return temporary_; }
  // What lies under `path` is replaced.
  void commit();

 private:
  std::string path_, temporary_;
  FolderLock lock_;  // tells others that the temporary folder is being written
  bool committed_ = false, made_parent_ = false;
};

}  // namespace mixrec
