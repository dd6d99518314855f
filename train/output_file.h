// Files that a command writes must not be those that it reads: they would be lost.
#pragma once

#include <string>
#include <vector>

namespace mixrec {

// Throws when `out` is a folder, one of the files `inputs` (by any path or link), or a file by which the run folder
// `run` knows itself, whether it is there already or not.
void check_output(const std::string& out, const std::string& run, const std::vector<std::string>& inputs);

}  // namespace mixrec
