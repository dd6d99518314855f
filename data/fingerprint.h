// What a data set's files hold, whatever they are called and whenever they were written.
//
//   Fingerprint before = Dataset::open("log").fingerprint();
//   ... log.csv grows ...
//   differences(before, Dataset::open("log").fingerprint());
//       -> {"log.csv: equal to the first 1048576 bytes, then grown by 700 bytes"}
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mixrec {

struct SourceContent {
  std::string name;  // as in the schema
  int64_t bytes = 0;
  std::vector<uint64_t> blocks;  // hashes of 1 MiB each, the last one of what is left
  std::string path = {};         // where it lies; not part of the content

  bool same_content(const SourceContent& other) const {
    return bytes == other.bytes && blocks == other.blocks;
  }
};

struct Fingerprint {
  std::vector<SourceContent> sources;  // in the order of the schema's files

  // One hash of all contents, names left out: 16 hexadecimal digits.
  std::string digest() const;
};

// One sentence for every file whose content differs; none when all are equal.  A file of `now` is compared with the one
// of the same name, else with the one in the same place.  Where it has grown it is read up to the old size.
std::vector<std::string> differences(const Fingerprint& before, const Fingerprint& now);

// Hashes of a file's blocks.
SourceContent read_content(const std::string& path, const std::string& name);

// The fingerprint of a folder's files.  `trusted` is a file that remembers contents: what it says of a file holds
// while size, times of change and inode are as they were; it is written anew when it may be.  "" remembers nothing.
Fingerprint fingerprint_of(const std::string& folder, const std::vector<std::string>& names,
                           const std::string& trusted = "");

// As a text, and back; throws on a text of another kind.
std::string fingerprint_text(const Fingerprint& fingerprint);
Fingerprint parse_fingerprint(const std::string& text);

}  // namespace mixrec
