#include "mixrec/data/input_file.h"

#include "mixrec/compression.h"
#include "mixrec/core/error.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>
#if MIXREC_ZLIB
#include <zlib.h>
#endif
#if MIXREC_ZSTD
#include <zstd.h>
#endif

namespace mixrec {

// Turns compressed bytes into plain ones, piece by piece.
class InputFile::Decoder {
 public:
  explicit Decoder(std::string path) : path_(std::move(path)), input_(1 << 17) {}
  virtual ~Decoder() = default;

  // Plain bytes written to `to`; 0 at the end.
  size_t read(InputFile& file, char* to, size_t most) {
    while (true) {
      if (begin_ == end_ && !at_end_) {
        begin_ = 0, end_ = file.read_raw(input_.data(), input_.size());
        at_end_ = end_ == 0;
      }
      const size_t wrote = decode(to, most);
      if (wrote > 0) return wrote;
      if (at_end_ && begin_ == end_) {
        MR_CHECK(complete_, path_, " is cut short: its ", name(), " data ends before it should");
        return 0;
      }
    }
  }

 protected:
  virtual const char* name() const = 0;
  // Takes from the input and writes; sets complete_ to whether the input may end here.
  virtual size_t decode(char* to, size_t most) = 0;
  [[noreturn]] void damaged(const char* why) const {
    MR_FAIL(path_, " is damaged: ", name(), " says: ", why ? why : "not its data");
  }

  std::string path_;
  std::vector<char> input_;
  size_t begin_ = 0, end_ = 0;
  bool at_end_ = false, complete_ = false;
};

namespace {

#if MIXREC_ZLIB
class Gzip : public InputFile::Decoder {
 public:
  explicit Gzip(std::string path) : Decoder(std::move(path)) {
    constexpr int kGzipOnly = 15 + 16;
    MR_CHECK(::inflateInit2(&stream_, kGzipOnly) == Z_OK, "zlib cannot be started");
  }
  ~Gzip() override { ::inflateEnd(&stream_); }

 private:
  const char* name() const override { return "gzip"; }
  size_t decode(char* to, size_t most) override {
    if (complete_ && begin_ < end_) next_member();
    if (complete_ || begin_ == end_) return 0;
    stream_.next_in = reinterpret_cast<Bytef*>(input_.data() + begin_);
    stream_.avail_in = static_cast<uInt>(end_ - begin_);
    stream_.next_out = reinterpret_cast<Bytef*>(to);
    const auto room = static_cast<uInt>(std::min<size_t>(most, 1 << 30));
    stream_.avail_out = room;
    const int result = ::inflate(&stream_, Z_NO_FLUSH);
    begin_ = end_ - stream_.avail_in;
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) damaged(stream_.msg);
    complete_ = result == Z_STREAM_END;
    return room - stream_.avail_out;
  }
  // Members may follow each other, and zeros fill up the last block of a tape.
  void next_member() {
    if (input_[begin_] == 0) {
      const auto other =
          std::find_if(input_.begin() + static_cast<std::ptrdiff_t>(begin_),
                       input_.begin() + static_cast<std::ptrdiff_t>(end_), [](char c) { return c != 0; });
      if (other != input_.begin() + static_cast<std::ptrdiff_t>(end_)) damaged("bytes follow its end");
      begin_ = end_;
      return;
    }
    ::inflateReset(&stream_);
    complete_ = false;
  }

  z_stream stream_{};
};
#endif

#if MIXREC_ZSTD
class Zstandard : public InputFile::Decoder {
 public:
  explicit Zstandard(std::string path) : Decoder(std::move(path)), stream_(::ZSTD_createDStream()) {
    MR_CHECK(stream_, "libzstd cannot be started");
  }
  ~Zstandard() override { ::ZSTD_freeDStream(stream_); }

 private:
  const char* name() const override { return "Zstandard"; }
  size_t decode(char* to, size_t most) override {
    // Called without input too: what was read may not be written out yet.
    ZSTD_inBuffer in{input_.data() + begin_, end_ - begin_, 0};
    ZSTD_outBuffer out{to, most, 0};
    if (in.size == 0 && complete_) return 0;
    const size_t result = ::ZSTD_decompressStream(stream_, &out, &in);
    begin_ += in.pos;
    if (::ZSTD_isError(result)) damaged(::ZSTD_getErrorName(result));
    complete_ = result == 0;
    return out.pos;
  }

  ZSTD_DStream* stream_;
};
#endif

Packed packed_as(std::string_view first) {
  if (first.starts_with("\x1f\x8b")) return Packed::gzip;
  // Either a frame or one that is to be skipped.
  const bool skipped = first.size() >= 4 && (first[0] & 0xf0) == 0x50 && first.substr(1, 3) == "\x2a\x4d\x18";
  return skipped || first.starts_with("\x28\xb5\x2f\xfd") ? Packed::zstd : Packed::plain;
}

std::unique_ptr<InputFile::Decoder> decoder_for(Packed packed, const std::string& path) {
  if (packed == Packed::gzip) {
#if MIXREC_ZLIB
    return std::make_unique<Gzip>(path);
#else
    MR_FAIL(path,
            " is compressed with gzip, and this build has no zlib: install zlib1g-dev and build again, or "
            "unpack ",
            "the file");
#endif
  }
  if (packed == Packed::zstd) {
#if MIXREC_ZSTD
    return std::make_unique<Zstandard>(path);
#else
    MR_FAIL(
        path,
        " is compressed with Zstandard, and this build has no libzstd: install libzstd-dev and build again, ",
        "or unpack the file");
#endif
  }
  return nullptr;
}

}  // namespace

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  MR_CHECK(file_ >= 0, "cannot open ", path_, ": ", std::strerror(errno));
  try {
    struct stat status {};
    MR_CHECK(::fstat(file_, &status) == 0 && S_ISREG(status.st_mode), path_, " is not a file");
    bytes_ = status.st_size;
    char first[4];
    const ssize_t got = ::pread(file_, first, sizeof first, 0);
    packed_ = packed_as({first, static_cast<size_t>(std::max<ssize_t>(got, 0))});
    const std::string extension = std::filesystem::path(path_).extension();
    MR_CHECK(bytes_ == 0 || extension != ".gz" || packed_ == Packed::gzip, path_,
             " is no gzip file, although its name says so");
    MR_CHECK(bytes_ == 0 || extension != ".zst" || packed_ == Packed::zstd, path_,
             " is no Zstandard file, although its name says so");
    decoder_ = decoder_for(packed_, path_);
  } catch (...) {
    ::close(file_);
    throw;
  }
}

InputFile::~InputFile() { ::close(file_); }

size_t InputFile::read_raw(char* to, size_t most) {
  while (true) {
    const ssize_t got = ::read(file_, to, most);
    if (got < 0 && errno == EINTR) continue;
    MR_CHECK(got >= 0, "cannot read ", path_, ": ", std::strerror(errno));
    read_ += got;
    return static_cast<size_t>(got);
  }
}

size_t InputFile::read(char* to, size_t most) {
  return decoder_ ? decoder_->read(*this, to, most) : read_raw(to, most);
}

int64_t InputFile::estimated_bytes(const std::string& path) {
  constexpr int64_t kOften = 6;  // logs are often that much smaller when compressed
  const InputFile file(path);
  return file.bytes() * (file.packed() == Packed::plain ? 1 : kOften);
}

}  // namespace mixrec
