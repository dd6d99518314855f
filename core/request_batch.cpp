#include "mixrec/core/request_batch.h"

#include "mixrec/core/error.h"

#include <cstring>
#include <string>

namespace mixrec {

namespace {

void check_shape(const Tensor& tensor, const Shape& shape, DType dtype, const std::string& what) {
  MR_CHECK(tensor.defined(), what, " is missing");
  MR_CHECK(tensor.dtype() == dtype && tensor.shape() == shape, what, " must be ", dtype, " of shape ", shape,
           ", got ", tensor.dtype(), " of shape ", tensor.shape());
}

// Offsets run from 0 to `last` and never fall.
void check_offsets(const Tensor& offsets, int64_t rows, int64_t last, const std::string& what) {
  check_shape(offsets, {rows + 1}, i64, what);
  const auto* at = offsets.data<const int64_t>();
  MR_CHECK(at[0] == 0 && at[rows] == last, what, " run from ", at[0], " to ", at[rows],
           "; they must run from 0 to ", last);
  for (int64_t r = 0; r < rows; ++r)
    MR_CHECK(at[r] <= at[r + 1], what, " fall from ", at[r], " to ", at[r + 1], " at row ", r);
}

void check_column(const FeatureColumn& column, const FeatureSpec& spec, int64_t rows,
                  const std::string& where) {
  const std::string what = where + "'" + spec.name + "'";
  if (spec.kind == FeatureKind::numeric) return check_shape(column.values, {rows}, f32, what + " values");
  int64_t entries = rows;
  if (spec.kind == FeatureKind::list) {
    MR_CHECK(column.ids.defined(), what, " ids are missing");
    entries = column.ids.numel();
    check_offsets(column.offsets, rows, entries, what + " offsets");
  }
  check_shape(column.ids, {entries}, i64, what + " ids");
  const auto* ids = column.ids.data<const int64_t>();
  for (int64_t i = 0; i < entries; ++i)
    MR_CHECK(ids[i] >= 0 && ids[i] < spec.rows, what, ": id ", ids[i], " at ",
             spec.kind == FeatureKind::list ? "entry " : "row ", i, " is outside its table of ", spec.rows,
             " rows");
}

Tensor moved(const Tensor& tensor, Device device) { return tensor.defined() ? tensor.to(device) : tensor; }

FeatureColumn moved(const FeatureColumn& column, Device device) {
  return {moved(column.ids, device), moved(column.offsets, device), moved(column.values, device)};
}

// Rows `at` of a one-dimensional tensor.
template <class T>
Tensor take(const Tensor& from, const std::vector<int64_t>& at) {
  Tensor to = empty({static_cast<int64_t>(at.size())}, from.dtype());
  for (size_t i = 0; i < at.size(); ++i) to.data<T>()[i] = from.data<const T>()[at[i]];
  return to;
}

// Numbers of all entries of rows `at` under `offsets`, and the offsets of the result.
struct Spread {
  std::vector<int64_t> entries, offsets{0};

  Spread(const Tensor& from, const std::vector<int64_t>& at) {
    const auto* offset = from.data<const int64_t>();
    for (const int64_t row : at) {
      for (int64_t e = offset[row]; e < offset[row + 1]; ++e) entries.push_back(e);
      offsets.push_back(static_cast<int64_t>(entries.size()));
    }
  }
};

FeatureColumn take(const FeatureColumn& column, const std::vector<int64_t>& at) {
  FeatureColumn taken;
  if (column.values.defined()) taken.values = take<float>(column.values, at);
  if (!column.ids.defined()) return taken;
  if (!column.offsets.defined()) return taken.ids = take<int64_t>(column.ids, at), taken;
  const Spread spread(column.offsets, at);
  taken.ids = take<int64_t>(column.ids, spread.entries);
  taken.offsets = Tensor::from(spread.offsets);
  return taken;
}

int64_t rows_of(const FeatureColumn& column) {
  if (column.values.defined()) return column.values.dim(0);
  return column.offsets.defined() ? column.offsets.dim(0) - 1 : column.ids.dim(0);
}

}  // namespace

const FeatureColumn& RequestBatch::feature(size_t index) const {
  MR_CHECK(index < features.size(), "there is no feature ", index, ": the batch has ", features.size());
  return features[index];
}

const HistoryBatch& RequestBatch::history(size_t index) const {
  MR_CHECK(index < histories.size(), "there is no history ", index, ": the batch has ", histories.size());
  return histories[index];
}

void RequestBatch::validate(const FeatureSet& spec) const {
  check_offsets(offsets, requests, candidates, "candidate offsets");
  for (int64_t r = 0; r < requests; ++r)
    MR_CHECK(offsets.data<const int64_t>()[r] < offsets.data<const int64_t>()[r + 1], "request ", r,
             " has no candidate");
  MR_CHECK(features.size() == spec.features.size(), "the batch has ", features.size(),
           " features, the model ", spec.features.size());
  for (size_t f = 0; f < features.size(); ++f)
    check_column(features[f], spec.features[f],
                 spec.features[f].scope == FeatureScope::request ? requests : candidates, "feature ");
  MR_CHECK(histories.size() == spec.histories.size(), "the batch has ", histories.size(),
           " histories, the model ", spec.histories.size());
  for (size_t h = 0; h < histories.size(); ++h) {
    const HistorySpec& history = spec.histories[h];
    const std::string where = "history '" + history.name + "', feature ";
    MR_CHECK(histories[h].offsets.defined() && histories[h].offsets.numel() == requests + 1, "history '",
             history.name, "' needs offsets for ", requests, " requests");
    const int64_t events = histories[h].offsets.data<const int64_t>()[requests];
    check_offsets(histories[h].offsets, requests, events, "history '" + history.name + "' offsets");
    MR_CHECK(histories[h].columns.size() == history.features.size(), "history '", history.name, "' has ",
             histories[h].columns.size(), " columns, the model ", history.features.size());
    for (size_t f = 0; f < history.features.size(); ++f)
      check_column(histories[h].columns[f], history.features[f], events, where);
  }
  const auto tasks = static_cast<int64_t>(spec.tasks.size());
  if (labels.defined()) {
    check_shape(labels, {candidates, tasks}, f32, "labels");
    check_shape(weights, {candidates, tasks}, f32, "weights");
  }
  for (const auto* keys : {&user, &row})
    MR_CHECK(keys->empty() || static_cast<int64_t>(keys->size()) == candidates, "the batch has ",
             keys->size(), keys == &user ? " users" : " row numbers", " for ", candidates, " candidates");
}

RequestBatch RequestBatch::to(Device device) const {
  RequestBatch batch = *this;
  batch.offsets = moved(offsets, device);
  for (auto& column : batch.features) column = moved(column, device);
  for (auto& history : batch.histories) {
    history.offsets = moved(history.offsets, device);
    for (auto& column : history.columns) column = moved(column, device);
  }
  batch.labels = moved(labels, device);
  batch.weights = moved(weights, device);
  if (device == kCpu) batch.host_offsets.clear();
  if (device != kCpu && offsets.defined() && offsets.device() == kCpu) batch.keep_offsets_of(*this);
  return batch;
}

void RequestBatch::keep_offsets_of(const RequestBatch& host) {
  host_offsets = {host.offsets.clone()};
  for (const HistoryBatch& history : host.histories) host_offsets.push_back(history.offsets.clone());
}

RequestBatch RequestBatch::expanded() const {
  if (requests == candidates) return *this;
  std::vector<int64_t> request(static_cast<size_t>(candidates)), starts(static_cast<size_t>(candidates) + 1);
  const auto* offset = offsets.data<const int64_t>();
  for (int64_t r = 0; r < requests; ++r)
    for (int64_t c = offset[r]; c < offset[r + 1]; ++c) request[static_cast<size_t>(c)] = r;
  for (int64_t c = 0; c <= candidates; ++c) starts[static_cast<size_t>(c)] = c;

  RequestBatch batch = *this;
  batch.requests = candidates;
  batch.host_offsets.clear();
  batch.offsets = Tensor::from(starts);
  // R < C here, so the number of rows tells the scope.
  for (auto& column : batch.features)
    if (rows_of(column) == requests) column = take(column, request);
  for (auto& history : batch.histories) {
    const Spread events(history.offsets, request);
    for (auto& column : history.columns) column = take(column, events.entries);
    history.offsets = Tensor::from(events.offsets);
  }
  return batch;
}

}  // namespace mixrec
