// A file that is read once, from its beginning: as it lies, or decompressed on the way (gzip, Zstandard).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace mixrec {

// What a file is by its first bytes, whatever its name.
enum class Packed : uint8_t { plain, gzip, zstd };

class InputFile {
 public:
  // Throws when the file cannot be opened, is no regular file (a pipe would be waited for for ever), is named .gz or
  // .zst and is none, or is compressed in a way that this build cannot read.
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  // Writes up to `most` bytes and returns how many; 0 at the end.  Memory is bounded whatever the file holds.  Throws,
  // naming the file, when it is damaged or cut short.
  size_t read(char* to, size_t most);

  // On the disk: all bytes, and those that were read.
  int64_t bytes() const { return bytes_; }
  int64_t bytes_read() const { return read_; }
  Packed packed() const { return packed_; }

  // About how many bytes the file at `path` unpacks to, for sizing buffers.
  static int64_t estimated_bytes(const std::string& path);

  class Decoder;

 private:
  size_t read_raw(char* to, size_t most);

  std::string path_;
  int file_ = -1;
  int64_t bytes_ = 0, read_ = 0;
  Packed packed_ = Packed::plain;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace mixrec
