// Text files of one run that appear together or not at all.
#pragma once

#include "mixrec/core/files/atomic_file.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mixrec {

// A folder of files that get their names by commit(), once all are written.
class OutputFolder {
 public:
  // Makes the folder when it is missing.
  explicit OutputFolder(const std::string& path);

  // The file `name`, to be written.
  AtomicFile& add(const std::string& name);
  void commit();

 private:
  std::string path_;
  std::vector<std::unique_ptr<AtomicFile>> files_;
};

// Buffered text output.  Numbers are written the same under every locale.
class TextFile {
 public:
  explicit TextFile(AtomicFile& file) : file_(file) {}
  // Writes what is still in memory; call it before OutputFolder::commit.
  void close() { flush(); }

  TextFile& operator<<(std::string_view text) {
    text_ += text;
    if (text_.size() > kBuffer) flush();
    return *this;
  }
  TextFile& operator<<(char c) { return *this << std::string_view(&c, 1); }
  TextFile& operator<<(int64_t value) { return number(value); }
  TextFile& operator<<(int32_t value) { return number(value); }
  TextFile& operator<<(uint64_t value) { return number(value); }
  TextFile& operator<<(double value) { return number(value, std::chars_format::general, 8); }

 private:
  static constexpr size_t kBuffer = 1 << 16;

  template <class... Value>
  TextFile& number(Value... value) {
    std::array<char, 40> digits;
    const char* end = std::to_chars(digits.data(), digits.data() + digits.size(), value...).ptr;
    return *this << std::string_view(digits.data(), end);
  }
  void flush() {
    file_.write(text_);
    text_.clear();
  }

  AtomicFile& file_;
  std::string text_;
};

}  // namespace mixrec
