#include "mixrec/nn/inputs.h"

#include "mixrec/core/error.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/request.h"

#include <algorithm>

namespace mixrec {
namespace {

constexpr int kRequest = 0, kCandidate = 1;

FeatureSet with_width(FeatureSet spec, int64_t width) {
  for (FeatureSpec& feature : spec.features) feature.width = width;
  spec.histories.clear();
  return spec;
}

}  // namespace

InputShape InputShape::with_field(int64_t width, bool of_request) const {
  InputShape shape = *this;
  (of_request ? shape.request_width : shape.candidate_width) += width;
  if (field_width > 0 && width == field_width) ++shape.fields;
  return shape;
}

InputLayer::InputLayer(const FeatureSet& spec, const InputOptions& options, Rng& rng)
    : options_(options), embedding_(spec, rng, {options.table_deviation}) {
  if (options.first_order > 0)
    first_order_.emplace(with_width(spec, options.first_order), rng, FeatureEmbeddingOptions{1e-4});
  int64_t common = options.fields ? options.field_width : 0;
  for (size_t i = 0; i < spec.features.size(); ++i) {
    const FeatureSpec& feature = spec.features[i];
    const int part = feature.scope == FeatureScope::request ? kRequest : kCandidate;
    names_[part].push_back(feature.name);
    widths_[part].push_back(feature.width);
    if (feature.kind == FeatureKind::numeric) numerics_[part].push_back(i);
    if (options.fields && options.field_width == 0) common = feature.width;
  }
  if (options.fields) check_fields();
  for (const int part : {kRequest, kCandidate}) {
    for (const int64_t width : widths_[part]) {
      auto& projection = projections_[part].emplace_back();
      if (common > 0 && width != common) projection.emplace(width, common, rng, LinearOptions{.bias = false});
    }
  }
  shape_.request_width = embedding_.request_width();
  shape_.candidate_width = embedding_.candidate_width();
  shape_.fields = options.fields ? static_cast<int64_t>(spec.features.size()) : 0;
  shape_.field_width = common;
  shape_.numerics = static_cast<int64_t>(numerics_[kRequest].size() + numerics_[kCandidate].size());
  shape_.first_order = options.first_order;
  for (size_t h = 0; h < spec.histories.size(); ++h) {
    const HistorySpec& history = spec.histories[h];
    shape_.histories.push_back(
        {history.name, embedding_.event_width(h), embedding_.target_width(h), history.max_length});
    if (options.pooled_history) shape_.request_width += embedding_.event_width(h);
  }
}

void InputLayer::check_fields() const {
  std::string first;
  int64_t width = 0;
  for (const int part : {kRequest, kCandidate}) {
    for (size_t i = 0; i < names_[part].size(); ++i) {
      if (first.empty()) first = names_[part][i], width = widths_[part][i];
      MR_CHECK(options_.field_width > 0 || widths_[part][i] == width, "fields have one width: feature '",
               first, "' is ", width, " wide, feature '", names_[part][i], "' ", widths_[part][i],
               "; give them one width, or set field_width to project them");
    }
  }
  MR_CHECK(!first.empty(), "fields need a feature");
}

void InputLayer::visit(Visitor& v) {
  embedding_.visit(v);
  for (const int part : {kRequest, kCandidate})
    for (size_t i = 0; i < names_[part].size(); ++i)
      if (projections_[part][i]) v.module("field_projections." + names_[part][i], *projections_[part][i]);
  if (first_order_) v.module("first_order", *first_order_);
}

Inputs::Inputs(const InputLayer& layer, const RequestBatch& batch, Pass& pass)
    : layer_(&layer),
      batch_(&batch),
      pass_(&pass),
      shape_(layer.shape()),
      histories_(std::make_shared<std::vector<std::optional<History>>>(batch.histories.size())) {}

Tensor Inputs::dropped(const Tensor& x) const {
  return dropout(x, layer_->options_.dropout, pass_->rng, pass_->training);
}

Tensor Inputs::for_candidates(const Tensor& of_requests) const {
  return expand_by_request(of_requests, batch_->offsets, batch_->candidates);
}

std::vector<Tensor> Inputs::request_parts() const {
  std::vector<Tensor> parts{layer_->embedding_.requests(*batch_, pass_->compute)};
  for (size_t h = 0; layer_->options_.pooled_history && h < shape_.histories.size(); ++h)
    parts.push_back(segment_mean(history(h).events, batch_->histories[h].offsets));
  for (const Added& field : added_)
    if (field.of_request) parts.push_back(field.value);
  return parts;
}

Tensor Inputs::flat(int64_t width) const {
  std::vector<Tensor> behind;
  for (const Added& field : added_)
    if (!field.of_request) behind.push_back(field.value);
  return dropped(layer_->embedding_.candidates(*batch_, request_parts(), behind, width, pass_->compute));
}

Tensor Inputs::tokens(int64_t n) const {
  const int64_t width = shape_.token_width(n);
  return flat(n * width).reshape({batch_->candidates, n, width});
}

Tensor Inputs::of_requests() const { return dropped(concat(request_parts(), 1)); }

Tensor Inputs::of_candidates() const {
  std::vector<Tensor> behind;
  for (const Added& field : added_)
    if (!field.of_request) behind.push_back(field.value);
  return dropped(layer_->embedding_.candidates(*batch_, {}, behind, 0, pass_->compute));
}

// [R or C, features of that part, field_width]
Tensor Inputs::field_part(int part) const {
  const FeatureEmbedding& embedding = layer_->embedding_;
  const Tensor flat = part == kRequest ? embedding.requests(*batch_, pass_->compute)
                                       : embedding.candidates(*batch_, pass_->compute);
  const int64_t count = static_cast<int64_t>(layer_->widths_[part].size());
  const auto& projections = layer_->projections_[part];
  const bool as_they_are =
      std::none_of(projections.begin(), projections.end(), [](const auto& map) { return map.has_value(); });
  if (as_they_are) return flat.reshape({flat.dim(0), count, shape_.field_width});
  const std::vector<Tensor> features = split(flat, 1, layer_->widths_[part]);
  std::vector<Tensor> fields;
  for (size_t i = 0; i < features.size(); ++i) {
    const Tensor field = projections[i] ? projections[i]->forward(features[i]) : features[i];
    fields.push_back(field.reshape({field.dim(0), 1, shape_.field_width}));
  }
  return concat(fields, 1);
}

Tensor Inputs::fields() const {
  MR_CHECK(layer_->options_.fields, "this input was made without fields");
  std::vector<Tensor> parts;
  if (!layer_->widths_[kRequest].empty()) parts.push_back(for_candidates(field_part(kRequest)));
  if (!layer_->widths_[kCandidate].empty()) parts.push_back(field_part(kCandidate));
  for (const Added& field : added_) {
    if (field.value.dim(1) != shape_.field_width) continue;
    const Tensor value = field.of_request ? for_candidates(field.value) : field.value;
    parts.push_back(value.reshape({batch_->candidates, 1, shape_.field_width}));
  }
  return dropped(parts.size() == 1 ? parts[0] : concat(parts, 1));
}

Tensor Inputs::first_order() const {
  MR_CHECK(layer_->first_order_, "this input has no first-order weights");
  const auto summed = [&](const Tensor& e) {
    const Tensor wide = e.dtype() == bf16 ? cast(e, f32) : e;
    return sum(wide.reshape({wide.dim(0), wide.dim(1) / shape_.first_order, shape_.first_order}), 1);
  };
  return for_candidates(summed(layer_->first_order_->requests(*batch_, pass_->compute))) +
         summed(layer_->first_order_->candidates(*batch_, pass_->compute));
}

Tensor Inputs::numerics() const {
  std::vector<Tensor> columns;
  for (const int part : {kRequest, kCandidate}) {
    for (const size_t feature : layer_->numerics_[part]) {
      const Tensor& values = batch_->features[feature].values;
      const Tensor column = values.reshape({values.dim(0), 1});
      columns.push_back(part == kRequest ? for_candidates(column) : column);
    }
  }
  if (columns.empty()) return empty({batch_->candidates, 0}, f32, batch_->offsets.device());
  return columns.size() == 1 ? columns[0] : concat(columns, 1);
}

const Inputs::History& Inputs::history(size_t h) const {
  auto& kept = histories_->at(h);
  if (!kept) {
    kept = History{layer_->embedding_.events(*batch_, h, pass_->compute), batch_->histories[h].offsets, {}};
    if (shape_.histories[h].target_width > 0)
      kept->target = layer_->embedding_.targets(*batch_, h, pass_->compute);
  }
  return *kept;
}

Inputs Inputs::with_field(const Tensor& field, bool of_request) const {
  const int64_t rows = of_request ? batch_->requests : batch_->candidates;
  MR_CHECK(field.ndim() == 2 && field.dim(0) == rows, "a field of ", of_request ? "requests" : "candidates",
           " is [", rows, ", width], got ", field.shape());
  Inputs more = *this;
  more.shape_ = shape_.with_field(field.dim(1), of_request);
  more.added_.push_back({field, of_request});
  return more;
}

}  // namespace mixrec
