// Interaction modules: what the features of a candidate, and what a sequence was made into, say together.
//
// A module is a plain struct
//
//   struct Fm : Module {
//     Fm(const InteractionInput& input, const FmOptions& options, Rng& rng);
//     Interaction forward(const Inputs& in, Pass& pass) const;
//     int64_t width() const;                                // of Interaction::x; 0: there is none
//     static void ask(const FmOptions&, InputOptions& of);  // optional: what it wants of its inputs
//     void visit(Visitor& v);
//   };
//
// and its source ends with `InteractionEntry fm_entry()`, which models/interaction/list.cpp names.
#pragma once

#include "mixrec/models/entry.h"
#include "mixrec/nn/inputs.h"

#include <memory>
#include <string>
#include <vector>

namespace mixrec {

struct InteractionInput {
  const InputShape& shape;
  int64_t tasks = 1;
};

// What the task heads read, and what is added to their logits as it is.
struct Interaction {
  Tensor x = {};       // [C, width] or undefined
  Tensor logits = {};  // f32 [C, 1], for all tasks, or [C, tasks]; or undefined
};

class InteractionModule {
 public:
  virtual ~InteractionModule() = default;
  virtual Interaction forward(const Inputs& in, Pass& pass) const = 0;
  virtual int64_t width() const = 0;
  virtual void visit(Visitor& v) = 0;
};

struct InteractionEntry : Entry<InteractionModule, const InteractionInput&> {
  // Sets what a module with these options (JSON) wants of its inputs: first-order weights of `tasks` outputs.
  std::function<void(const std::string& options, int64_t tasks, InputOptions& of)> ask;
};

template <class M>
class InteractionHolder final : public InteractionModule {
 public:
  explicit InteractionHolder(M module) : module_(std::move(module)) {}
  Interaction forward(const Inputs& in, Pass& pass) const override { return module_.forward(in, pass); }
  int64_t width() const override { return module_.width(); }
  void visit(Visitor& v) override { module_.visit(v); }

 private:
  M module_;
};

// The entry of a module M(const InteractionInput&, const Options&, Rng&).
template <class M, class Options>
InteractionEntry interaction_entry(std::string name, std::string help) {
  const auto ask = [name](const std::string& text, int64_t tasks, InputOptions& of) {
    if constexpr (requires(const Options& o) { M::ask(o, tasks, of); }) {
      Options options;
      read_options({"", "model.interaction"}, text, options);
      M::ask(options, tasks, of);
    }
  };
  return {make_entry<InteractionModule, InteractionHolder<M>, M, Options, const InteractionInput&>(
              std::move(name), std::move(help)),
          ask};
}

const std::vector<InteractionEntry>& interaction_list();

}  // namespace mixrec
