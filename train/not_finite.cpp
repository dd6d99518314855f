#include "mixrec/train/not_finite.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

namespace mixrec {

namespace {

// Row of the first value that is not finite, counted along dimension 0; none when all are.
std::optional<int64_t> bad_row(const Tensor& x) {
  if (!x.defined() || !is_floating(x.dtype()) || x.numel() == 0) return std::nullopt;
  const std::vector<double> values = x.detach().to_vector<double>();
  const auto bad = std::find_if(values.begin(), values.end(), [](double v) { return !std::isfinite(v); });
  if (bad == values.end()) return std::nullopt;
  const int64_t row_size = x.ndim() > 0 ? x.numel() / x.dim(0) : 1;
  return (bad - values.begin()) / row_size;
}

// The first candidate that a row of an intermediate tensor belongs to, told by the number of its rows; none
// when the tensor is not laid out by candidate, request or event.
std::optional<int64_t> candidate_of(const RequestBatch& batch, int64_t rows, int64_t row) {
  if (rows == batch.candidates) return row;
  const auto request_start = [&](int64_t request) { return batch.offsets.data<const int64_t>()[request]; };
  if (rows == batch.requests) return request_start(row);
  for (const HistoryBatch& history : batch.histories) {
    const auto* offsets = history.offsets.data<const int64_t>();
    if (rows != offsets[batch.requests]) continue;
    const auto after = std::upper_bound(offsets, offsets + batch.requests + 1, row);
    return request_start(after - offsets - 1);
  }
  return std::nullopt;
}

// Found in a tensor; `where` names it.
struct Found {
  std::string where;
  std::optional<int64_t> candidate;
};

std::optional<Found> in_inputs(const FeatureSet& spec, const RequestBatch& batch) {
  for (size_t f = 0; f < spec.features.size(); ++f) {
    const Tensor& values = batch.features[f].values;
    if (const auto row = bad_row(values))
      return Found{"the feature " + spec.features[f].name, candidate_of(batch, values.dim(0), *row)};
  }
  if (const auto row = bad_row(batch.labels)) return Found{"the labels", row};
  if (const auto row = bad_row(batch.weights)) return Found{"the sample weights", row};
  return std::nullopt;
}

std::optional<Found> in_weights(RankingModel& model) {
  for (const Parameter& parameter : model.parameters())
    if (const auto row = bad_row(parameter.value))
      return Found{concat_message("the weight ", parameter.name, " in row ", *row), std::nullopt};
  return std::nullopt;
}

std::optional<Found> in_forward(RankingModel& model, const RequestBatch& batch, Pass& pass,
                                std::optional<int64_t>& bad_logit) {
  const NoGrad no_grad;
  const RequestBatch placed = batch.to(device_of(model.parameters()));
  std::optional<Found> found;
  std::string last_tap;
  const auto look = [&](const std::string& name, const Tensor& x) {
    if (found) return;
    if (const auto row = bad_row(x))
      found =
          Found{concat_message(name, " ", x.shape(), last_tap.empty() ? "" : ", computed from " + last_tap),
                candidate_of(batch, x.ndim() > 0 ? x.dim(0) : 0, *row)};
  };
  pass.listener = [&](const std::string& name, const Tensor& x) { look(name, x), last_tap = name; };
  const autograd::OutputWatch watch(
      [&](const char* op, const Tensor& y) { look("the output of " + std::string(op), y); });
  const Tensor logits = model.forward(placed, pass);
  look("the logits", logits);
  bad_logit = bad_row(logits);
  return found;
}

}  // namespace

std::string first_not_finite(RankingModel& model, const FeatureSet& spec, const RequestBatch& batch,
                             Pass& pass) {
  std::optional<int64_t> bad_logit;
  std::optional<Found> found = in_inputs(spec, batch);
  if (!found) found = in_weights(model);
  const std::optional<Found> computed = in_forward(model, batch, pass, bad_logit);
  if (!found) found = computed;
  if (!found) return "";
  const int64_t candidate = found->candidate.value_or(bad_logit.value_or(0));
  return concat_message("the first tensor that is not is ", found->where, ", at row ",
                        batch.row.at(static_cast<size_t>(candidate)), " of the data set");
}

}  // namespace mixrec
