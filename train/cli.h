// The command line, for programs that bring models of their own:
//
//   int main(int argc, char** argv) {
//     return mixrec::cli(argc, argv, {mixrec::model_entry<MyModel, MyOptions>("mine", "what it is")});
//   }
//
// Modules of their own stand in the lists that a stack chooses from, "model": {"name": "stack", "sequence": {"name": "mine"}}:
//
//   return mixrec::cli(argc, argv, {.sequences = {mixrec::sequence_entry<MyModule, MyOptions>("mine", "what it is")}});
#pragma once

#include "mixrec/models/interaction/interaction.h"
#include "mixrec/models/model.h"
#include "mixrec/models/sequence/sequence.h"

#include <vector>

namespace mixrec {

// What a program adds; a name that is bundled too means the program's.
struct OwnParts {
  std::vector<ModelEntry> models = {};
  std::vector<SequenceEntry> sequences = {};
  std::vector<InteractionEntry> interactions = {};
};

// Runs `mixrec COMMAND ...` and returns the exit code: 0, 1 after an error (one sentence on stderr), 2 on wrong usage,
// as without arguments, which prints the help; 130 or 143 after SIGINT or SIGTERM.
int cli(int argc, const char* const* argv, const OwnParts& own);
int cli(int argc, const char* const* argv, const std::vector<ModelEntry>& own_models = {});

}  // namespace mixrec
