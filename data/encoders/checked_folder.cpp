#include "mixrec/data/encoders/checked_folder.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/data/dictionary.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

namespace mixrec {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CheckedFile, bytes, lines, hash)

namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = "/index.json";

std::string hexadecimal(uint64_t hash) {
  char text[24];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

void check_file(const std::string& path, const CheckedFile& written) {
  if (!fs::is_regular_file(path)) MR_FAIL(path, " is missing");
  const CheckedFile now = describe_file(path);
  if (now.hash == written.hash && now.bytes == written.bytes) return;
  if (now.lines != written.lines)
    MR_FAIL(path, " has been changed: it has ", now.lines, " lines where ", written.lines, " were written");
  MR_FAIL(path, " has been changed: its ", now.bytes, " bytes have the hash ", now.hash, " where ",
          written.bytes, " bytes with the hash ", written.hash, " were written");
}

}  // namespace

CheckedFile describe_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  MR_CHECK(in, "cannot open ", path, ": ", std::strerror(errno));
  std::vector<char> block(1 << 20);
  CheckedFile file;
  uint64_t hash = 0;
  while (in) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    const auto got = static_cast<size_t>(in.gcount());
    if (got == 0) break;
    hash = hash_text({block.data(), got}, hash);
    file.bytes += static_cast<int64_t>(got);
    file.lines += std::count(block.begin(), block.begin() + static_cast<std::ptrdiff_t>(got), '\n');
  }
  MR_CHECK(in.eof(), "cannot read ", path);
  file.hash = hexadecimal(hash);
  return file;
}

std::string hash_of(const std::string& text) { return hexadecimal(hash_text(text)); }

bool has_index(const std::string& folder) { return fs::exists(folder + kIndex); }

void write_index(const std::string& folder, int64_t format,
                 const std::map<std::string, std::string>& labels) {
  nlohmann::json json;
  json["format"] = format;
  json["labels"] = labels;
  std::map<std::string, CheckedFile> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename() != "index.json")
      files[entry.path().filename()] = describe_file(entry.path());
  json["files"] = files;
  const std::string text = json.dump(1);
  json["hash"] = hash_of(text);
  write_file_atomically(folder + kIndex, json.dump(1) + "\n");
}

FolderIndex check_folder(const std::string& folder, int64_t newest_format) {
  const std::string path = folder + kIndex;
  FolderIndex index;
  try {
    auto json = nlohmann::json::parse(read_text_file(path));
    index.format = json.at("format");
    if (index.format < 1 || index.format > newest_format)
      MR_FAIL(path, " is of format ", index.format, "; this program reads formats up to ", newest_format,
              ": a newer release of mixrec reads it");
    const std::string hash = json.at("hash");
    json.erase("hash");
    if (hash_of(json.dump(1)) != hash) MR_FAIL(path, " has been changed: its hash does not fit");
    index.labels = json.at("labels").get<std::map<std::string, std::string>>();
    index.files = json.at("files").get<std::map<std::string, CheckedFile>>();
  } catch (const nlohmann::json::exception&) {
    MR_FAIL(path, " is damaged: it is not the index that was written");
  }
  for (const auto& [name, written] : index.files) check_file(folder + "/" + name, written);
  return index;
}

}  // namespace mixrec
