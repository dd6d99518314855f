// Any sequence module with any interaction module, from configuration alone.
//
//   stacked  (A -> B)   what A makes of each history is one more field that B reads
//   parallel (A + B)    what A makes stands beside what B makes; B does not see it
//
//   "model": {"name": "stack", "compose": "stacked",
//             "sequence":    {"name": "target_attention", "width": 32},
//             "interaction": {"name": "mlp", "widths": [128, 128]},
//             "heads":       {"kind": "towers", "tower": {"widths": [64]}}}
//
// Each history has an A of its own.  An A whose width is not that of B's fields is projected to it, where B reads
// fields.  A classic's name ("mlp") is a stack with other defaults: model_list() says which.
#pragma once

#include "mixrec/models/interaction/interaction.h"
#include "mixrec/models/model.h"
#include "mixrec/models/sequence/sequence.h"
#include "mixrec/nn/heads.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace mixrec {

// A module by its name, with the options that it reads itself.
struct NamedModule {
  std::string name;
  std::string options = "{}";  // JSON

  void visit(OptionVisitor& v);
};

struct StackOptions {
  NamedModule sequence = {"mean_pooling"};  // "none": histories are not read
  NamedModule interaction = {"mlp"};
  std::string compose = "stacked";
  TaskHeadsOptions heads = {.tower = {.widths = {}}};
  int64_t field_width = 0;  // see InputOptions
  double dropout = 0;
  double table_deviation = 0.005;

  void visit(OptionVisitor& v);
};

class Stack : public Module {
 public:
  Stack(const FeatureSet& spec, const StackOptions& options, Rng& rng);

  Tensor forward(const RequestBatch& batch, Pass& pass) const;  // logits f32 [C, tasks]
  void visit(Visitor& v);

 private:
  struct Encoder {  // of one history
    std::string history;
    std::unique_ptr<SequenceModule> module;
    std::optional<Linear> projection;
    int64_t width;
  };

  bool stacked_;
  int64_t tasks_;
  InputLayer input_;
  std::vector<Encoder> encoders_;
  std::unique_ptr<InteractionModule> interaction_;
  std::optional<TaskHeads> heads_;
};

// Modules of a program's own: while this lives, stacks find them before the bundled ones.  One at a time; made before
// models are built on other threads (cli() does, train/cli.h).
class OwnModules {
 public:
  OwnModules(std::vector<SequenceEntry> sequences, std::vector<InteractionEntry> interactions);
  ~OwnModules();
  OwnModules(const OwnModules&) = delete;
  OwnModules& operator=(const OwnModules&) = delete;
};

// Every module that a stack can name, those of the program first.
std::vector<SequenceEntry> sequence_modules();
std::vector<InteractionEntry> interaction_modules();

// A stack with other defaults, under a name of its own.
ModelEntry stack_entry(std::string name, std::string help, const StackOptions& defaults);

}  // namespace mixrec
