// Text files of one run that appear together or not at all.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mixrec {

// A folder of files: each is written as NAME.partial, renamed by commit(), and removed if that is never
// reached.
class OutputFolder {
 public:
  // Makes the folder when it is missing.
  explicit OutputFolder(const std::string& path);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  // The path to write the file `name` to.
  std::filesystem::path add(const std::string& name);
  void commit();

 private:
  std::filesystem::path partial(const std::string& name) const { return path_ / (name + ".partial"); }

  std::filesystem::path path_;
  std::vector<std::string> names_;
};

// Buffered text output that notices a full disk.  Numbers are written the same under every locale.
class TextFile {
 public:
  explicit TextFile(const std::filesystem::path& path);
  // Throws when something could not be written; call it before OutputFolder::commit.
  void close();

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
  void flush();

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  std::string text_;
};

}  // namespace mixrec
