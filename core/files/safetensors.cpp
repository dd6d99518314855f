#include "mixrec/core/files/safetensors.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/core/files/json_text.h"
#include "mixrec/core/hash.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <limits>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <tuple>
#include <unistd.h>

namespace mixrec {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

namespace {

using nlohmann::json;

// As in the format's reference implementation: a longer header is taken for a damaged file.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

// Digests in the metadata.
constexpr const char *kTensorDigests = "mixrec.tensors", *kHeaderDigest = "mixrec.header";
constexpr size_t kDigits = 16;
const std::string kNoDigest(kDigits, '0');

// Where the value of the header's own digest is in the header; npos when it has none.
size_t header_digest_place(const std::string& text) {
  const std::string key = concat_message('"', kHeaderDigest, "\":\"");
  const size_t at = text.find(key);
  return at == std::string::npos ? at : at + key.size();
}

int64_t element_bytes(const TensorHeader& tensor) {
  static const std::map<std::string, int64_t> sizes = {{"F64", 8}, {"I64", 8},  {"F32", 4},
                                                       {"I32", 4}, {"BF16", 2}, {"U8", 1}};
  const auto found = sizes.find(tensor.dtype);
  MR_CHECK(found != sizes.end(), "tensor ", tensor.name, " has dtype ", tensor.dtype,
           ", known are F64, F32, BF16, I64, I32 and U8");
  return found->second;
}

void read_exactly(int fd, const std::string& path, void* to, uint64_t bytes, uint64_t offset) {
  constexpr uint64_t kChunk = uint64_t{1} << 30;
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = ::pread(fd, at, std::min(bytes, kChunk), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    MR_CHECK(got >= 0, "cannot read ", path, ": ", std::strerror(errno));
    MR_CHECK(got > 0, path, " is truncated: it ends at byte ", offset, ", ", bytes, " bytes early");
    at += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<uint64_t>(got);
  }
}

std::string describe(const TensorHeader& tensor) { return tensor.dtype + " " + shape_text(tensor.shape); }

struct Entry {
  TensorHeader header;
  uint64_t begin = 0, end = 0;
};

Entry parse_entry(const std::string& path, const std::string& name, const json& value) {
  const auto is_list_of_sizes = [](const json& list) {
    return list.is_array() &&
           std::all_of(list.begin(), list.end(), [](const json& n) { return n.is_number_unsigned(); });
  };
  MR_CHECK(value.is_object() && value.size() == 3 && value.contains("dtype") && value.contains("shape") &&
               value.contains("data_offsets"),
           path, ": tensor ", name, " needs exactly dtype, shape and data_offsets");
  MR_CHECK(value["dtype"].is_string(), path, ": tensor ", name, ": dtype is not a string");
  MR_CHECK(is_list_of_sizes(value["shape"]), path, ": tensor ", name,
           ": shape is not a list of sizes: ", shown_json(value["shape"]));
  MR_CHECK(is_list_of_sizes(value["data_offsets"]) && value["data_offsets"].size() == 2, path, ": tensor ",
           name, ": data_offsets are not two byte offsets: ", shown_json(value["data_offsets"]));
  Entry entry{{name, value["dtype"], value["shape"].get<std::vector<int64_t>>()},
              value["data_offsets"][0],
              value["data_offsets"][1]};
  int64_t bytes = 0;
  try {
    bytes = entry.header.bytes();
  } catch (const Error& error) {
    MR_FAIL(path, ": ", error.what());
  }
  MR_CHECK(entry.begin <= entry.end && entry.end - entry.begin == static_cast<uint64_t>(bytes), path,
           ": tensor ", name, ", ", describe(entry.header), ", needs ", bytes,
           " bytes, its data_offsets are ", shown_json(value["data_offsets"]));
  return entry;
}

}  // namespace

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

int64_t TensorHeader::bytes() const {
  int64_t bytes = element_bytes(*this);
  for (const int64_t size : shape) {
    MR_CHECK(size >= 0 && !__builtin_mul_overflow(bytes, size, &bytes), "tensor ", name,
             " has an impossible shape ", shape_text(shape));
  }
  return bytes;
}

void write_safetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorHeader> headers;
  for (const TensorToWrite& tensor : tensors) headers.push_back(tensor.header);
  write_safetensors(
      path, headers, [&](size_t i) { return tensors[i].data; }, metadata);
}

void write_safetensors(const std::string& path, std::span<const TensorHeader> headers,
                       const std::function<const void*(size_t)>& values,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  nlohmann::ordered_json& about = header["__metadata__"];
  // First, so that a text among the others cannot be taken for it.
  about[kHeaderDigest] = kNoDigest;
  about[kTensorDigests] = std::string(kDigits * headers.size(), '0');
  for (const auto& [key, value] : metadata) {
    MR_CHECK(!key.starts_with("mixrec."), "metadata of ", path, " cannot be named ", key);
    about[key] = value;
  }
  uint64_t end = 0;
  for (const TensorHeader& tensor : headers) {
    const auto& [name, dtype, shape] = tensor;
    MR_CHECK(name != "__metadata__" && !header.contains(name), "two tensors to write to ", path,
             " are named ", name);
    const uint64_t begin = end;
    end += static_cast<uint64_t>(tensor.bytes());
    header[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  // Values then start at a multiple of 8, so that the file can be mapped.
  text.resize((text.size() + 7) / 8 * 8, ' ');

  AtomicFile file(path);
  const uint64_t header_bytes = text.size();
  file.write(&header_bytes, sizeof header_bytes);
  file.write(text);
  std::string digests;
  for (size_t i = 0; i < headers.size(); ++i) {
    const void* data = values(i);
    const auto bytes = static_cast<size_t>(headers[i].bytes());
    file.write(data, bytes);
    digests += hash_digits(hash_bytes(data, bytes));
  }
  const size_t header_digest = header_digest_place(text);
  // Past the digest and the key and quotes that follow it.
  text.replace(text.find(kTensorDigests) + std::strlen(kTensorDigests) + 3, digests.size(), digests);
  text.replace(header_digest, kDigits, hash_digits(hash_bytes(text.data(), text.size())));
  file.write_at(sizeof header_bytes, text);
  file.commit();
}

SafetensorsFile::SafetensorsFile(std::string path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  MR_CHECK(fd_ >= 0, "cannot open ", path_, ": ", std::strerror(errno));
  try {
    struct stat info {};
    MR_CHECK(::fstat(fd_, &info) == 0 && S_ISREG(info.st_mode), path_, " is not a regular file");
    const auto file_bytes = static_cast<uint64_t>(info.st_size);
    MR_CHECK(file_bytes >= 8, path_, " is truncated: ", file_bytes,
             " bytes cannot hold a safetensors header");
    uint64_t header_bytes = 0;
    read_exactly(fd_, path_, &header_bytes, sizeof header_bytes, 0);
    MR_CHECK(header_bytes <= kMaxHeaderBytes, path_,
             " is not a safetensors file: its first 8 bytes give a header of ", header_bytes, " bytes");
    MR_CHECK(header_bytes <= file_bytes - 8, path_, " is truncated: the header has ", header_bytes,
             " bytes, the file ", file_bytes);
    std::string text(header_bytes, '\0');
    read_exactly(fd_, path_, text.data(), header_bytes, 8);
    data_start_ = 8 + header_bytes;
    parse_header(text, file_bytes - data_start_);
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() { ::close(fd_); }

void SafetensorsFile::parse_header(const std::string& text, uint64_t data_bytes) {
  const json header = parse_json_text<json>(text, path_ + ": the header");
  MR_CHECK(header.is_object(), path_, ": the header is not a JSON object");
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      entries.push_back(parse_entry(path_, name, value));
      continue;
    }
    MR_CHECK(value.is_object(), path_, ": __metadata__ is not an object");
    for (const auto& [key, text] : value.items()) {
      MR_CHECK(text.is_string(), path_, ": __metadata__.", key, " is not a string: ", shown_json(text));
      metadata_[key] = text.get<std::string>();
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.header.name) < std::tie(b.begin, b.end, b.header.name);
  });
  uint64_t end = 0;
  for (auto& entry : entries) {
    const std::string& name = entry.header.name;
    MR_CHECK(entry.begin >= end, path_, ": tensor ", name, " overlaps ", tensors_.back().name,
             ": it begins at byte ", entry.begin, ", the other ends at ", end);
    MR_CHECK(entry.begin == end, path_, ": ", entry.begin - end, " unused bytes before tensor ", name);
    MR_CHECK(entry.end <= data_bytes, path_, " is truncated: tensor ", name, " ends at byte ", entry.end,
             " of the data, the file has ", data_bytes);
    end = entry.end;
    index_[name] = tensors_.size();
    begins_.push_back(entry.begin);
    tensors_.push_back(std::move(entry.header));
  }
  MR_CHECK(end == data_bytes, path_, " has ", data_bytes - end, " bytes after its last tensor");
  take_digests(text);
}

void SafetensorsFile::take_digests(const std::string& text) {
  const auto header = metadata_.extract(kHeaderDigest), tensors = metadata_.extract(kTensorDigests);
  if (!header && !tensors) return;
  MR_CHECK(header && tensors, path_, " is damaged: its header has one of ", kHeaderDigest, " and ",
           kTensorDigests, " only");
  std::string zeroed = text;
  const size_t at = header_digest_place(text);
  MR_CHECK(at != std::string::npos && header.mapped().size() == kDigits, path_,
           " is damaged: the digest of its header is no digest");
  zeroed.replace(at, kDigits, kNoDigest);
  MR_CHECK(header.mapped() == hash_digits(hash_bytes(zeroed.data(), zeroed.size())), path_,
           " is damaged: its header is not the one that was written");
  MR_CHECK(tensors.mapped().size() == kDigits * tensors_.size(), path_, " is damaged: it has ",
           tensors_.size(), " tensors and digests of ", tensors.mapped().size() / kDigits);
  for (size_t i = 0; i < tensors_.size(); ++i)
    digests_.push_back(tensors.mapped().substr(kDigits * i, kDigits));
}

const TensorHeader* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void SafetensorsFile::check_values() const {
  std::vector<char> buffer(1 << 20);
  for (size_t i = 0; i < digests_.size(); ++i) {
    Hasher hasher;
    uint64_t at = data_start_ + begins_[i], left = static_cast<uint64_t>(tensors_[i].bytes());
    while (left > 0) {
      const uint64_t taken = std::min<uint64_t>(left, buffer.size());
      read_exactly(fd_, path_, buffer.data(), taken, at);
      hasher.update(buffer.data(), taken);
      at += taken, left -= taken;
    }
    check_digest(i, hasher.digest());
  }
}

void SafetensorsFile::check_digest(size_t i, uint64_t hash) const {
  MR_CHECK(digests_.empty() || digests_[i] == hash_digits(hash), path_, " is damaged: the values of ",
           tensors_[i].name, " are not those that were written");
}

void SafetensorsFile::read(const TensorHeader& expected, void* to) const {
  const auto found = index_.find(expected.name);
  if (found == index_.end()) {
    std::vector<std::string> names;
    for (const auto& tensor : tensors_) names.push_back(tensor.name);
    const std::string nearest = nearest_name(expected.name, names);
    MR_FAIL(path_, " has no tensor ", expected.name,
            nearest.empty() ? "" : "; did you mean " + nearest + "?");
  }
  const TensorHeader& stored = tensors_[found->second];
  MR_CHECK(stored.dtype == expected.dtype && stored.shape == expected.shape, path_, ": tensor ",
           expected.name, " is ", describe(stored), ", expected ", describe(expected));
  const auto bytes = static_cast<uint64_t>(expected.bytes());
  read_exactly(fd_, path_, to, bytes, data_start_ + begins_[found->second]);
  if (!digests_.empty()) check_digest(found->second, hash_bytes(to, bytes));
}

}  // namespace mixrec
