// A folder whose files are known by their hash: index.json names each with its bytes, lines and hash.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace mixrec {

struct CheckedFile {
  int64_t bytes = 0, lines = 0;
  std::string hash;  // 16 hexadecimal digits
};

// The index of a folder: `format` of what lies in it, labels that say whose it is, and its files.
struct FolderIndex {
  int64_t format = 0;
  std::map<std::string, std::string> labels;
  std::map<std::string, CheckedFile> files;
};

// Writes the index of all files that lie in `folder`, durably; nothing may be written there afterwards.
void write_index(const std::string& folder, int64_t format,
                 const std::map<std::string, std::string>& labels = {});

// Reads the index and every file that it names.  Throws, naming the file, when one is missing, was cut, or has
// another content than the index says, and when the format is above `newest_format`.
FolderIndex check_folder(const std::string& folder, int64_t newest_format);

bool has_index(const std::string& folder);

CheckedFile describe_file(const std::string& path);

// The hash of a text as the index writes it.
std::string hash_of(const std::string& text);

}  // namespace mixrec
