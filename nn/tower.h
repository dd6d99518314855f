// Layers on top of each other: Linear, norm, activation, dropout.
#pragma once

#include "mixrec/core/options.h"
#include "mixrec/nn/activation.h"
#include "mixrec/nn/linear.h"
#include "mixrec/nn/norm.h"
#include "mixrec/nn/pass.h"

#include <optional>
#include <string>
#include <vector>

namespace mixrec {

struct TowerOptions {
  std::vector<int64_t> widths = {128, 128};  // of the layers; {} = none, x is returned
  std::string activation = "silu";           // see activation_names()
  std::string norm = "none";                 // none | layer | rms | batch: before the activation
  double dropout = 0;                        // behind the activation, in training

  void visit(OptionVisitor& v);
};

// x [rows, in] -> [rows, out()], in x's dtype.
struct Tower : Module {
  Tower(int64_t in, const TowerOptions& options, Rng& rng);

  // `counts`: how often each row counts in statistics of the batch (nn/batch_norm.h).
  Tensor forward(const Tensor& x, Pass& pass, const RowCounts& counts = {}) const;

  // forward() of x = [shared, own], the first columns of which belong to a candidate's request: shared [R, A], own
  // [C, B], offsets i64 [R + 1] -> [C, out()].  The first layer multiplies `shared` once per request.
  Tensor forward_by_request(const Tensor& shared, const Tensor& own, const Tensor& offsets, Pass& pass) const;

  int64_t out() const { return out_; }
  size_t size() const { return layers_.size(); }
  void visit(Visitor& v);  // 0.weight, 0.bias, 0.norm.…, 0.activation.…, 1.…

 private:
  struct Layer : Module {
    Linear linear;
    std::optional<RMSNorm> rms;
    std::optional<LayerNorm> layer;
    std::optional<BatchNorm> batch;
    Activation activation;

    Layer(int64_t in, int64_t out, const TowerOptions& options, Rng& rng);
    Tensor behind_product(Tensor y, double dropout, Pass& pass, const RowCounts& counts) const;
    void visit(Visitor& v);
  };

  int64_t out_;
  double dropout_;
  std::vector<Layer> layers_;
};

}  // namespace mixrec
