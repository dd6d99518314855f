#include "mixrec/nn/embedding.h"

#include "mixrec/core/error.h"
#include "mixrec/nn/init.h"
#include "mixrec/ops/embedding.h"

#include <algorithm>

namespace mixrec {

namespace {

// A batch that was built by hand may lack columns that the model was made for.
const FeatureColumn& column_of(const std::vector<FeatureColumn>& columns, size_t source) {
  MR_CHECK(source < columns.size(), "the batch has ", columns.size(), " columns, the model reads column ",
           source, ": validate() names what is missing");
  return columns[source];
}

}  // namespace

Embedding::Embedding(int64_t rows, int64_t width, Rng& rng, double deviation)
    : table(normal_parameter({rows, width}, deviation, rng)) {}
Tensor Embedding::forward(const Tensor& ids) const { return embedding(table, ids); }

EmbeddingBag::EmbeddingBag(int64_t rows, int64_t width, Rng& rng, double deviation)
    : table(normal_parameter({rows, width}, deviation, rng)) {}
Tensor EmbeddingBag::forward(const Tensor& ids, const Tensor& offsets) const {
  return embedding_bag(table, ids, offsets, BagMode::mean);
}

FeatureEmbedding::FeatureEmbedding(const FeatureSet& spec, Rng& rng, const FeatureEmbeddingOptions& options) {
  for (size_t i = 0; i < spec.features.size(); ++i) {
    const FeatureSpec& feature = spec.features[i];
    MR_CHECK(feature.scope != FeatureScope::event, "feature '", feature.name,
             "' has event scope outside a history");
    add(feature.scope == FeatureScope::request ? requests_ : candidates_, feature, i, rng,
        options.table_deviation);
  }
  for (const HistorySpec& history : spec.histories) {
    Concatenation& events = histories_.emplace_back();
    for (size_t i = 0; i < history.features.size(); ++i)
      add(events, history.features[i], i, rng, options.table_deviation);
    add_target(spec, history);
  }
}

void FeatureEmbedding::add_target(const FeatureSet& spec, const HistorySpec& history) {
  Concatenation& target = targets_.emplace_back();
  for (size_t i = 0; i < history.features.size(); ++i) {
    const FeatureSpec& of_event = history.features[i];
    const auto same = std::find_if(spec.features.begin(), spec.features.end(), [&](const FeatureSpec& one) {
      return one.scope == FeatureScope::candidate && one.name == of_event.name && one.kind == of_event.kind &&
             one.table_name() == of_event.table_name();
    });
    if (same == spec.features.end()) break;
    const Column& column = histories_.back().columns[i];
    target.columns.push_back(
        {static_cast<size_t>(same - spec.features.begin()), column.tensor, column.kind, column.width});
    target.width += column.width;
  }
}

void FeatureEmbedding::add(Concatenation& to, const FeatureSpec& feature, size_t source, Rng& rng,
                           double deviation) {
  MR_CHECK(feature.width > 0, "feature '", feature.name, "' has width ", feature.width);
  to.columns.push_back({source, tensor_of(feature, rng, deviation), feature.kind, feature.width});
  to.width += feature.width;
}

size_t FeatureEmbedding::tensor_of(const FeatureSpec& feature, Rng& rng, double deviation) {
  const bool numeric = feature.kind == FeatureKind::numeric;
  const std::string name =
      (numeric ? "numeric." : "tables.") + (numeric ? feature.name : feature.table_name());
  const Shape shape{numeric ? 1 : feature.rows, feature.width};
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].name != name) continue;
    MR_CHECK(tensors_[i].value.shape() == shape, "feature '", feature.name, "' needs table '", name,
             "' of shape ", shape, ", which has ", tensors_[i].value.shape());
    return i;
  }
  Tensor value = normal_parameter(shape, deviation, rng);
  // Values that training never saw look like no value at all, until some row trains the unknown row.
  if (!numeric) value.detach().narrow(0, kUnknownRow, 1).fill(0);
  tensors_.push_back({name, value, numeric ? ParameterKind::dense : ParameterKind::table});
  return tensors_.size() - 1;
}

DType FeatureEmbedding::compute_dtype(DType compute) const {
  return !tensors_.empty() && tensors_[0].value.dtype() == f64 ? f64 : compute;
}

EmbeddingColumn FeatureEmbedding::embedded(const Column& column, const FeatureColumn& cells) const {
  const Tensor& source = tensors_[column.tensor].value;
  switch (column.kind) {
    case FeatureKind::list:
      return {
          .kind = EmbeddingColumn::Kind::mean, .source = source, .ids = cells.ids, .offsets = cells.offsets};
    case FeatureKind::numeric:
      return {.kind = EmbeddingColumn::Kind::product, .source = source, .values = cells.values};
    default:
      return {.kind = EmbeddingColumn::Kind::row, .source = source, .ids = cells.ids};
  }
}

Tensor FeatureEmbedding::embed(const Concatenation& what, const std::vector<FeatureColumn>& columns,
                               int64_t rows, DType compute) const {
  compute = compute_dtype(compute);
  std::vector<EmbeddingColumn> parts;
  for (const Column& column : what.columns)
    parts.push_back(embedded(column, column_of(columns, column.source)));
  if (parts.empty()) return empty({rows, 0}, compute, tensors_.empty() ? kCpu : tensors_[0].value.device());
  return embedding_columns(parts, rows, compute);
}

Tensor FeatureEmbedding::requests(const RequestBatch& batch, DType compute) const {
  return embed(requests_, batch.features, batch.requests, compute);
}

Tensor FeatureEmbedding::candidates(const RequestBatch& batch, DType compute) const {
  return embed(candidates_, batch.features, batch.candidates, compute);
}

Tensor FeatureEmbedding::candidates(const RequestBatch& batch, const std::vector<Tensor>& of_requests,
                                    const std::vector<Tensor>& behind, int64_t width, DType compute) const {
  std::vector<EmbeddingColumn> parts;
  for (const Tensor& x : of_requests)
    parts.push_back({.kind = EmbeddingColumn::Kind::repeat, .source = x, .offsets = batch.offsets});
  for (const Column& column : candidates_.columns)
    parts.push_back(embedded(column, column_of(batch.features, column.source)));
  for (const Tensor& x : behind) parts.push_back({.kind = EmbeddingColumn::Kind::repeat, .source = x});
  return embedding_columns(parts, batch.candidates, compute_dtype(compute), width);
}

const FeatureEmbedding::Concatenation& FeatureEmbedding::events_of(size_t history) const {
  MR_CHECK(history < histories_.size(), "there is no history ", history, ": the data set has ",
           histories_.size());
  return histories_[history];
}

const FeatureEmbedding::Concatenation& FeatureEmbedding::targets_of(size_t history) const {
  events_of(history);
  return targets_[history];
}

Tensor FeatureEmbedding::events(const RequestBatch& batch, size_t history, DType compute) const {
  const Concatenation& events = events_of(history);
  const std::vector<FeatureColumn>& columns = batch.history(history).columns;
  MR_CHECK(!events.columns.empty(), "the events of history ", history, " have no features");
  const Column& first = events.columns[0];
  const FeatureColumn& cells = column_of(columns, first.source);
  const int64_t rows = first.kind == FeatureKind::list      ? cells.offsets.dim(0) - 1
                       : first.kind == FeatureKind::numeric ? cells.values.dim(0)
                                                            : cells.ids.dim(0);
  return embed(events, columns, rows, compute);
}

Tensor FeatureEmbedding::targets(const RequestBatch& batch, size_t history, DType compute) const {
  return embed(targets_of(history), batch.features, batch.candidates, compute);
}

void FeatureEmbedding::visit(Visitor& v) {
  for (Named& tensor : tensors_) {
    if (tensor.kind == ParameterKind::table) {
      v.table(tensor.name, tensor.value);
    } else {
      v.parameter(tensor.name, tensor.value);
    }
  }
}

}  // namespace mixrec
