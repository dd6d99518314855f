// Which files a schema may name: a schema may come from somebody else, and a data folder holds its own files.
#pragma once

#include <string>
#include <vector>

namespace mixrec {

// Throws, naming the file, unless every name is a regular file (no folder, FIFO or device, which would be waited for)
// that lies in `folder`: neither `..` nor an absolute path nor a link leads out of it, unless `outside` allows that.
// A name that does not exist is left to whoever opens it.
void check_source_files(const std::string& folder, const std::vector<std::string>& names, bool outside);

}  // namespace mixrec
