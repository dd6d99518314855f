// What a batch looks like to a model, written once for all models.
//
//   InputLayer input(spec, {.pooled_history = true}, rng);    // tables and the learned vectors of numeric features
//   const Inputs in(input, batch, pass);                      // one batch; a tensor is computed when it is asked for
//   tower.forward(in.flat(), pass);   fm(in.fields());   mixer(in.tokens(16));   attention(in.history(0));
//
//   flat()        MixFormer eq 1: e = [features of requests | pooled histories | features of candidates | added fields]
//   tokens(n)     eq 2's slices: e, zero-padded to n ⌈W / n⌉, cut into n
//   fields()      a row per feature, all of one width, as factorisation machines and their kin read them
//   first_order() Σ_i w_i[value of feature i]: a weight per value and output
//
// What belongs to the request is computed once per request and repeated for its candidates; of_requests() and
// of_candidates() give the two parts of flat() as they are.
#pragma once

#include "mixrec/core/request_batch.h"
#include "mixrec/nn/embedding.h"
#include "mixrec/nn/linear.h"
#include "mixrec/nn/pass.h"

#include <optional>
#include <string>
#include <vector>

namespace mixrec {

struct InputOptions {
  bool pooled_history = false;  // the mean of each history's events is a part of flat()
  double dropout = 0;           // on flat(), fields(), of_requests() and of_candidates(), in training
  double table_deviation = 0.005;
  bool fields = false;  // fields() is read: checked when the layer is made, not in the first batch
  int64_t field_width =
      0;  // features of another width are projected to it for fields(); 0: all must have one
  int64_t first_order = 0;  // outputs of first_order(); 0: there is none
};

// The sizes of what a model reads, known before there is a batch.
struct InputShape {
  struct History {
    std::string name;
    int64_t width = 0;         // of an event
    int64_t target_width = 0;  // of the candidate's values in the events' first columns; 0: it has none
    int64_t max_length = 0;
  };

  int64_t request_width = 0, candidate_width = 0;  // of of_requests() and of_candidates()
  int64_t fields = 0, field_width = 0;             // of fields(), where they are read
  int64_t numerics = 0, first_order = 0;
  std::vector<History> histories;

  int64_t flat_width() const { return request_width + candidate_width; }
  // Width of one of n slices of flat().
  int64_t token_width(int64_t n) const { return (flat_width() + n - 1) / n; }
  // With one more field of that width behind the others; a field of another width than fields() is in flat() alone.
  InputShape with_field(int64_t width, bool of_request) const;
};

class InputLayer : public Module {
 public:
  // Throws when fields are wanted of features whose widths differ.
  InputLayer(const FeatureSet& spec, const InputOptions& options, Rng& rng);

  const InputShape& shape() const { return shape_; }
  const InputOptions& options() const { return options_; }
  void visit(Visitor& v);  // tables.…, numeric.…, field_projections.…, first_order.…

 private:
  friend class Inputs;
  // Throws unless the features have one width, or are projected to one; names two whose widths differ.
  void check_fields() const;

  InputOptions options_;
  FeatureEmbedding embedding_;
  std::optional<FeatureEmbedding> first_order_;
  std::vector<std::string> names_[2];  // of features, per request and per candidate, in order
  std::vector<int64_t> widths_[2];     // the same
  std::vector<size_t> numerics_[2];    // numbers in RequestBatch::features
  std::vector<std::optional<Linear>>
      projections_[2];  // parallel to names_; none where the width is the common one
  InputShape shape_;
};

// One batch in one pass.  Keep it no longer than either.
class Inputs {
 public:
  Inputs(const InputLayer& layer, const RequestBatch& batch, Pass& pass);

  const InputShape& shape() const { return shape_; }
  int64_t requests() const { return batch_->requests; }      // R
  int64_t candidates() const { return batch_->candidates; }  // C
  const RequestBatch& batch() const { return *batch_; }
  const Tensor& offsets() const { return batch_->offsets; }  // i64 [R + 1], of candidates

  // [C, flat_width()], or with zeros up to `width`.
  Tensor flat(int64_t width = 0) const;
  Tensor tokens(int64_t n) const;  // [C, n, token_width(n)]
  Tensor fields() const;           // [C, fields, field_width]
  Tensor of_requests() const;      // [R, request_width]
  Tensor of_candidates() const;    // [C, candidate_width]
  Tensor first_order() const;      // [C, first_order], f32
  Tensor numerics() const;         // [C, numerics], f32, as the batch has them

  struct History {
    Tensor events;   // [E, width], oldest first
    Tensor offsets;  // i64 [R + 1]
    Tensor target;   // [C, target_width]: what an event with this candidate would have in its first columns
  };
  // Computed once, however often it is asked for.
  const History& history(size_t h) const;

  // The same with `field` [C, w] or, of_request, [R, w] behind the others: what a sequence was made into.
  Inputs with_field(const Tensor& field, bool of_request) const;
  // [R, w] -> [C, w]
  Tensor for_candidates(const Tensor& of_requests) const;

 private:
  struct Added {
    Tensor value;
    bool of_request;
  };

  std::vector<Tensor> request_parts() const;
  Tensor dropped(const Tensor& x) const;
  Tensor field_part(int part) const;

  const InputLayer* layer_;
  const RequestBatch* batch_;
  Pass* pass_;
  InputShape shape_;
  std::vector<Added> added_;
  std::shared_ptr<std::vector<std::optional<History>>> histories_;
};

}  // namespace mixrec
