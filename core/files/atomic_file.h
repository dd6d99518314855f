// A file that is either the old one or the whole new one, whatever happens in between.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mixrec {

// Writes to `path` + ".tmp"; commit() makes it durable and puts it in the place of `path`.  Without a commit
// (an error, a full disk) the old file stays as it was and the temporary is removed.  A link stays one: what it names
// is replaced.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);  // throws for a device, and when it cannot write
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Appends; throws with the path and the reason ("No space left on device").
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }

  // Writes over bytes that were written before.
  void write_at(size_t offset, std::string_view text);

  // fsync, rename, fsync of the folder.
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
};

// Replaces the content of `path` in one atomic step.
void write_file_atomically(const std::string& path, std::string_view text);

// Whole content of a text file; throws when it cannot be read.
std::string read_text_file(const std::string& path);

}  // namespace mixrec
