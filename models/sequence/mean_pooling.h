// The mean of a history's events: once per request, zero for an empty history.
#pragma once

#include "mixrec/models/sequence/sequence.h"

namespace mixrec {

struct MeanPoolingOptions {
  void visit(OptionVisitor&) {}
};

// [R, width of an event].
struct MeanPooling : Module {
  MeanPooling(const SequenceInput& input, const MeanPoolingOptions&, Rng&)
      : history_(input.history), width_(input.of().width) {}
  Tensor forward(const Inputs& in, Pass& pass) const;
  int64_t width() const { return width_; }
  bool of_request() const { return true; }
  void visit(Visitor&) {}

 private:
  size_t history_;
  int64_t width_;
};

}  // namespace mixrec
