#include "mixrec/data/text_output.h"

#include "mixrec/core/error.h"

namespace mixrec {

namespace fs = std::filesystem;

OutputFolder::OutputFolder(const std::string& path) : path_(path) {
  std::error_code error;
  fs::create_directories(path_, error);
  MR_CHECK(fs::is_directory(path_), "cannot make the folder ", path, ": ", error.message());
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  for (const auto& name : names_) fs::remove(partial(name), ignored);
}

fs::path OutputFolder::add(const std::string& name) { return partial(names_.emplace_back(name)); }

void OutputFolder::commit() {
  for (const auto& name : names_) fs::rename(partial(name), path_ / name);
  names_.clear();
}

TextFile::TextFile(const fs::path& path) : path_(path), file_(std::fopen(path.c_str(), "wb"), &std::fclose) {
  MR_CHECK(file_, "cannot write ", path.string());
}

void TextFile::close() {
  flush();
  MR_CHECK(std::fflush(file_.get()) == 0, "cannot write ", path_.string(), ": is the disk full?");
  file_.reset();
}

void TextFile::flush() {
  const bool written = std::fwrite(text_.data(), 1, text_.size(), file_.get()) == text_.size();
  MR_CHECK(written, "cannot write ", path_.string(), ": is the disk full?");
  text_.clear();
}

}  // namespace mixrec
