// Digests of the files of a packed form: `digests` in its folder has a line for each, "hash bytes name", the manifest
// among them.
//
// They are compared whenever a form is opened: every file is read once.  A file that cannot be trusted is
// never mapped.
#pragma once

#include <string>

namespace mixrec {

// Writes the digests of all files that lie in `folder`, durably; nothing may be written there afterwards.
void write_packed_digests(const std::string& folder);

// Throws, naming the file, when one is missing or is not as it was written.
void check_packed_files(const std::string& folder);
// The same for one file, before it is parsed.
void check_packed_file(const std::string& path);

}  // namespace mixrec
