#include "mixrec/data/text_output.h"

#include "mixrec/core/error.h"

#include <filesystem>

namespace mixrec {

namespace fs = std::filesystem;

OutputFolder::OutputFolder(const std::string& path) : path_(path) {
  std::error_code error;
  fs::create_directories(path_, error);
  MR_CHECK(fs::is_directory(path_), "cannot make the folder ", path, ": ", error.message());
}

AtomicFile& OutputFolder::add(const std::string& name) {
  return *files_.emplace_back(std::make_unique<AtomicFile>(path_ + "/" + name));
}

void OutputFolder::commit() {
  for (const auto& file : files_) file->commit();
  files_.clear();
}

}  // namespace mixrec
