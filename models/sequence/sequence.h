// Sequence modules: what a history is made into before features interact.
//
// A module is a plain struct
//
//   struct MeanPooling : Module {
//     MeanPooling(const SequenceInput& input, const MeanPoolingOptions& options, Rng& rng);
//     Tensor forward(const Inputs& in, Pass& pass) const;   // [C, width()]; [R, width()] when of_request()
//     int64_t width() const;
//     bool of_request() const;                              // optional: it reads no candidate.  Default false
//     void visit(Visitor& v);
//   };
//
// and its source ends with `SequenceEntry mean_pooling_entry()`, which models/sequence/list.cpp names.
#pragma once

#include "mixrec/models/entry.h"
#include "mixrec/nn/inputs.h"

#include <memory>
#include <string>
#include <vector>

namespace mixrec {

// Which history a module reads, and the sizes of what there is.
struct SequenceInput {
  const InputShape& shape;
  size_t history = 0;

  const InputShape::History& of() const { return shape.histories[history]; }
  // Width of the candidate's values of the columns that events begin with; throws when there are none.
  int64_t target_width() const;
};

class SequenceModule {
 public:
  virtual ~SequenceModule() = default;
  virtual Tensor forward(const Inputs& in, Pass& pass) const = 0;
  virtual int64_t width() const = 0;
  virtual bool of_request() const = 0;
  virtual void visit(Visitor& v) = 0;
};

using SequenceEntry = Entry<SequenceModule, const SequenceInput&>;

template <class M>
class SequenceHolder final : public SequenceModule {
 public:
  explicit SequenceHolder(M module) : module_(std::move(module)) {}
  Tensor forward(const Inputs& in, Pass& pass) const override { return module_.forward(in, pass); }
  int64_t width() const override { return module_.width(); }
  bool of_request() const override {
    if constexpr (requires { module_.of_request(); }) return module_.of_request();
    return false;
  }
  void visit(Visitor& v) override { module_.visit(v); }

 private:
  M module_;
};

// The entry of a module M(const SequenceInput&, const Options&, Rng&).
template <class M, class Options>
SequenceEntry sequence_entry(std::string name, std::string help) {
  return make_entry<SequenceModule, SequenceHolder<M>, M, Options, const SequenceInput&>(std::move(name),
                                                                                         std::move(help));
}

const std::vector<SequenceEntry>& sequence_list();

}  // namespace mixrec
