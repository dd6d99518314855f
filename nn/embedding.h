// Embedding tables: single look-ups, bags, and all features of a batch at once.
#pragma once

#include "mixrec/core/request_batch.h"
#include "mixrec/nn/module.h"
#include "mixrec/ops/embedding_columns.h"

namespace mixrec {

// Rows of a table: ids i64 [...] -> [..., width].
struct Embedding : Module {
  Tensor table;  // [rows, width]

  Embedding(int64_t rows, int64_t width, Rng& rng, double deviation = 0.005);
  Tensor forward(const Tensor& ids) const;
  void visit(Visitor& v) { v.table("table", table); }
};

// Means of rows: ids i64 [entries], offsets i64 [rows + 1] -> [rows, width]; an empty bag is zero.
struct EmbeddingBag : Module {
  Tensor table;  // [rows, width]

  EmbeddingBag(int64_t rows, int64_t width, Rng& rng, double deviation = 0.005);
  Tensor forward(const Tensor& ids, const Tensor& offsets) const;
  void visit(Visitor& v) { v.table("table", table); }
};

struct FeatureEmbeddingOptions {
  double table_deviation = 0.005;  // initial deviation of table rows; the unknown row starts at zero
};

// The feature layer of every ranking model: one table per feature, shared where the schema says so, and the
// concatenation of a row's embeddings (MixFormer eq 1).  A categorical feature is a table row, a list the
// mean of its rows, a numeric one x · v with a learned vector v.  Tables are f32; what they give is in the
// dtype `compute` of the pass (f64 where the tables are).
struct FeatureEmbedding : Module {
  FeatureEmbedding(const FeatureSet& spec, Rng& rng, const FeatureEmbeddingOptions& options = {});

  // Request-scope features: [R, request_width()].
  Tensor requests(const RequestBatch& batch, DType compute = f32) const;
  // Candidate-scope features: [C, candidate_width()].
  Tensor candidates(const RequestBatch& batch, DType compute = f32) const;
  // Behind those of its request, each [R, any], and before others of the candidates, each [C, any], and zeros up to
  // `width` (0: none).
  Tensor candidates(const RequestBatch& batch, const std::vector<Tensor>& of_requests,
                    const std::vector<Tensor>& behind, int64_t width, DType compute = f32) const;
  // [events, event_width(history)]
  Tensor events(const RequestBatch& batch, size_t history, DType compute = f32) const;
  // What an event of this history with the candidate would have in its first columns: [C, target_width(history)].
  // These are the leading event features that are features of candidates by name and table.
  Tensor targets(const RequestBatch& batch, size_t history, DType compute = f32) const;

  int64_t request_width() const { return requests_.width; }
  int64_t candidate_width() const { return candidates_.width; }
  int64_t event_width(size_t history) const { return events_of(history).width; }
  int64_t target_width(size_t history) const { return targets_of(history).width; }
  size_t histories() const { return histories_.size(); }

  void visit(Visitor& v);

 private:
  // One feature of a concatenation: where its numbers are in the batch, and which tensor embeds them.
  struct Column {
    size_t source;  // index into RequestBatch::features or HistoryBatch::columns
    size_t tensor;  // index into tensors_
    FeatureKind kind;
    int64_t width;
  };
  struct Concatenation {
    std::vector<Column> columns;
    int64_t width = 0;
  };
  struct Named {
    std::string name;
    Tensor value;
    ParameterKind kind;
  };

  // Both throw when there is no such history.
  const Concatenation& events_of(size_t history) const;
  const Concatenation& targets_of(size_t history) const;
  void add(Concatenation& to, const FeatureSpec& feature, size_t source, Rng& rng, double deviation);
  void add_target(const FeatureSet& spec, const HistorySpec& history);
  size_t tensor_of(const FeatureSpec& feature, Rng& rng, double deviation);
  // The dtype of a pass that asks for `compute`.
  DType compute_dtype(DType compute) const;
  EmbeddingColumn embedded(const Column& column, const FeatureColumn& cells) const;
  Tensor embed(const Concatenation& what, const std::vector<FeatureColumn>& columns, int64_t rows,
               DType compute) const;

  std::vector<Named> tensors_;
  Concatenation requests_, candidates_;
  std::vector<Concatenation> histories_, targets_;
};

}  // namespace mixrec
