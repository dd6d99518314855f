// Tensors in one file, in the safetensors format: 8 bytes of header length, a JSON header, then raw
// little-endian values.
//
//   {"__metadata__": {"step": "100"}, "blocks.0.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets":
//   [0, 24]}}
//
// Any tool that reads the format reads these files.  The reader is strict: whatever does not add up is an
// error that names the file and the tensor.
//
// What is written here carries digests (XXH64) in its metadata: "mixrec.tensors" holds one of every tensor's
// bytes, in the order of the data, "mixrec.header" one of the header, in which it counts as sixteen zeros.  The
// header is compared when a file is opened, a tensor when it is read, so that a flipped bit is found.  A file
// without digests (another tool's, an older release's) is read as it is.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace mixrec {

// What the header says of one tensor.  dtype is F64, F32, BF16, I64, I32 or U8.
struct TensorHeader {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;

  int64_t bytes() const;  // throws on an unknown dtype or a size that overflows
};

// A tensor to write: dense, row-major, `header.bytes()` long.
struct TensorToWrite {
  TensorHeader header;
  const void* data = nullptr;
};

// Writes all or nothing (see AtomicFile), straight from the tensors' memory.  Names must be distinct; names of
// metadata that begin with "mixrec." are the digests'.
void write_safetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {});

// The same with values that are asked for one tensor at a time: values(i) must stay until the next call.
void write_safetensors(const std::string& path, std::span<const TensorHeader> headers,
                       const std::function<const void*(size_t)>& values,
                       const std::map<std::string, std::string>& metadata = {});

// An open file whose header was checked against its size: offsets in bounds, no overlap, no hole, no trailing
// bytes.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(std::string path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // without digests
  const std::vector<TensorHeader>& tensors() const { return tensors_; }  // in the order of their data

  const TensorHeader* find(const std::string& name) const;  // nullptr when absent

  // Reads one tensor into `to`.  Throws when it is absent (with the nearest name), has another dtype or shape,
  // or when its bytes are not those that were written.
  void read(const TensorHeader& expected, void* to) const;

  // Compares all tensors with their digests, before anything is made of them; throws as read() does.
  void check_values() const;

 private:
  void parse_header(const std::string& text, uint64_t data_bytes);
  void take_digests(const std::string& text);
  void check_digest(size_t tensor, uint64_t hash) const;

  std::string path_;
  int fd_ = -1;
  uint64_t data_start_ = 0;
  std::map<std::string, std::string> metadata_;
  std::vector<TensorHeader> tensors_;
  std::map<std::string, size_t> index_;  // name -> place in tensors_
  std::vector<uint64_t> begins_;         // parallel to tensors_
  std::vector<std::string> digests_;     // parallel to tensors_, or empty
};

// "[2, 3]"
std::string shape_text(std::span<const int64_t> shape);

}  // namespace mixrec
