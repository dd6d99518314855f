#include "mixrec/train/serve/recorded_pass.h"

#include "mixrec/core/error.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace mixrec {

namespace {

// Where a tensor begins in the block of a batch: any kernel may then load it in vectors.
constexpr size_t kAlignment = 256;

size_t bytes_of(const Tensor& x) { return static_cast<size_t>(x.numel()) * size_of(x.dtype()); }
size_t room_for(const Tensor& x) { return (bytes_of(x) + kAlignment - 1) / kAlignment * kAlignment; }

template <class T>
Tensor filled_up(const Tensor& x, int64_t size, T with) {
  Tensor longer = empty({size}, x.dtype());
  T* to = longer.data<T>();
  std::copy_n(x.data<const T>(), x.numel(), to);
  std::fill(to + x.numel(), to + size, with);
  return longer;
}

// Rows up to `rows`; the last of them takes the padding of a list.
FeatureColumn padded(const FeatureColumn& column, int64_t rows) {
  FeatureColumn to;
  if (column.values.defined()) to.values = filled_up<float>(column.values, rows, 0);
  if (!column.ids.defined()) return to;
  if (!column.offsets.defined()) return to.ids = filled_up<int64_t>(column.ids, rows, kUnknownRow), to;
  const int64_t entries = column.ids.numel();
  to.ids = filled_up<int64_t>(column.ids, size_bucket(entries), kUnknownRow);
  to.offsets = filled_up<int64_t>(column.offsets, rows + 1, entries);
  to.offsets.data<int64_t>()[rows] = to.ids.numel();
  return to;
}

std::vector<int64_t> sizes_of(const RequestBatch& batch) {
  std::vector<int64_t> sizes;
  for_each_tensor(batch, [&](const Tensor& x) { sizes.push_back(x.defined() ? x.numel() : 0); });
  return sizes;
}

}  // namespace

int64_t size_bucket(int64_t size) {
  const auto above = static_cast<uint64_t>(size + 1);
  const uint64_t step = std::max<uint64_t>(std::bit_floor(above) / 8, 8);
  return static_cast<int64_t>((above + step - 1) / step * step);
}

RequestBatch padded_to_buckets(const RequestBatch& batch, const FeatureSet& spec) {
  MR_CHECK(batch.requests == 1, "one request is padded, the batch has ", batch.requests);
  RequestBatch to;
  to.requests = 2;
  to.candidates = size_bucket(batch.candidates);
  to.offsets = Tensor::from({int64_t{0}, batch.candidates, to.candidates}, {3});
  for (size_t f = 0; f < batch.features.size(); ++f)
    to.features.push_back(
        padded(batch.features[f], spec.features[f].scope == FeatureScope::request ? 2 : to.candidates));
  for (const HistoryBatch& history : batch.histories) {
    const int64_t events = history.offsets.data<const int64_t>()[1], bucket = size_bucket(events);
    HistoryBatch longer{Tensor::from({int64_t{0}, events, bucket}, {3}), {}};
    for (const FeatureColumn& column : history.columns) longer.columns.push_back(padded(column, bucket));
    to.histories.push_back(std::move(longer));
  }
  return to;
}

RecordedPass::RecordedPass(RankingModel& model, const RequestBatch& batch, Device device, DType compute)
    : device_(device), stream_(device.index), placed_(batch) {
  const cuda::StreamScope here(stream_);
  for_each_tensor(placed_, [&](const Tensor& x) { bytes_ += x.defined() ? room_for(x) : 0; });
  block_ = std::make_shared<Storage>(bytes_, device);
  size_t at = 0;
  for_each_tensor(placed_, [&](Tensor& x) {
    if (!x.defined()) return;
    const size_t room = room_for(x);
    x = Tensor::view(block_, static_cast<int64_t>(at / size_of(x.dtype())), x.shape(), x.strides(),
                     x.dtype());
    at += room;
  });
  staged_.reset(cuda::allocate_pinned(bytes_));
  upload(batch);
  Pass pass;
  pass.compute = compute;
  // Once as it is: what is made at first use must not belong to the graph.
  model.forward(placed_, pass).to_vector();
  graph_ = std::make_unique<cuda::Graph>([&] { logits_ = model.forward(placed_, pass); }, device.index);
}

void RecordedPass::upload(const RequestBatch& batch) {
  size_t at = 0;
  for_each_tensor(batch, [&](const Tensor& x) {
    if (!x.defined()) return;
    std::memcpy(staged_.get() + at, x.raw_data(), bytes_of(x));
    at += room_for(x);
  });
  cuda::copy(block_->data(), device_, staged_.get(), kCpu, bytes_);
}

std::vector<float> RecordedPass::run(const RequestBatch& padded) {
  const cuda::StreamScope here(stream_);
  upload(padded);
  graph_->replay();
  return logits_.to_vector();  // waits, so that the next call may write the inputs
}

std::unique_ptr<RecordedPass> RecordedPasses::take(const Sizes& sizes, const RequestBatch& padded) {
  if (auto pass = idle_.take(sizes)) return pass;
  const std::lock_guard lock(recording_);
  try {
    return std::make_unique<RecordedPass>(model_, padded, device_, compute_);
  } catch (const Error& error) {
    throw Error(concat_message("the model could not be recorded as a graph (keep 0 graphs to do without): ",
                               error.what()));
  }
}

std::vector<float> RecordedPasses::logits(const RequestBatch& batch) {
  const RequestBatch padded = padded_to_buckets(batch, spec_);
  const Sizes sizes = sizes_of(padded);
  std::unique_ptr<RecordedPass> pass = take(sizes, padded);
  std::vector<float> logits = pass->run(padded);
  idle_.give_back(sizes, std::move(pass));
  logits.resize(static_cast<size_t>(batch.candidates) * spec_.tasks.size());
  return logits;
}

}  // namespace mixrec
