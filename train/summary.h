// What a training run says at its end.
#pragma once

#include "mixrec/train/fit.h"

#include <string>
#include <vector>

namespace mixrec {

// Lines of at most 80 characters where names are short: what was trained, the test metrics of each task, in a
// simulated log beside what is reachable, and what the files of the run folder `out` are.
std::string summary_text(const Config& config, const std::vector<TaskSpec>& tasks, const FitResult& result,
                         const std::string& out);

}  // namespace mixrec
