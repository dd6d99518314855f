// The command line, for programs that bring models of their own:
//
//   int main(int argc, char** argv) {
//     return mixrec::cli(argc, argv, {mixrec::model_entry<MyModel, MyOptions>("mine", "what it is")});
//   }
#pragma once

#include "mixrec/models/model.h"

#include <vector>

namespace mixrec {

// Runs `mixrec COMMAND ...` and returns the exit code: 0, 1 after an error (one sentence on stderr), 2 on wrong usage,
// as without arguments, which prints the help; 130 or 143 after SIGINT or SIGTERM.
int cli(int argc, const char* const* argv, const std::vector<ModelEntry>& own_models = {});

}  // namespace mixrec
