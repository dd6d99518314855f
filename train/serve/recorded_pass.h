// Forward passes of one request on a card as recorded graphs: one launch instead of hundreds.
//
// A graph has fixed sizes.  Requests are padded to size buckets, at most an eighth larger, by a second request that holds
// the padding: true lengths are numbers on the device, and nothing of the padding reaches the first request.
#pragma once

#include "mixrec/core/cuda.h"
#include "mixrec/core/dtype.h"
#include "mixrec/core/request_batch.h"
#include "mixrec/models/model.h"
#include "mixrec/train/serve/idle_pool.h"

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace mixrec {

// The smallest bucket above `size`.
int64_t size_bucket(int64_t size);

// `batch`, of one request, with a second one that fills candidates, events and entries of lists up to their buckets.
// The model's logits of the first request stay the same, row by row.
RequestBatch padded_to_buckets(const RequestBatch& batch, const FeatureSet& spec);

// One graph with its inputs; used by one caller at a time.
class RecordedPass {
 public:
  RecordedPass(RankingModel& model, const RequestBatch& padded, Device device, DType compute);

  // Logits of a batch whose tensors have the sizes of the recorded one.
  std::vector<float> run(const RequestBatch& padded);

 private:
  void upload(const RequestBatch& batch);

  Device device_;
  cuda::Stream stream_;
  size_t bytes_ = 0;
  std::unique_ptr<std::byte, void (*)(std::byte*)> staged_{nullptr, cuda::free_pinned};  // inputs in one copy
  std::shared_ptr<Storage> block_;
  RequestBatch placed_;  // views of block_
  Tensor logits_;
  std::unique_ptr<cuda::Graph> graph_;
};

// Graphs by bucket, made when first needed; thread-safe.
class RecordedPasses {
 public:
  // At most `limit` graphs are kept while idle: those that were used last.
  RecordedPasses(RankingModel& model, const FeatureSet& spec, Device device, DType compute, size_t limit)
      : model_(model), spec_(spec), device_(device), compute_(compute), idle_(limit) {}

  // Logits of all candidates of a batch of one request, row by row.
  std::vector<float> logits(const RequestBatch& batch);

 private:
  using Sizes = std::vector<int64_t>;
  std::unique_ptr<RecordedPass> take(const Sizes& sizes, const RequestBatch& padded);

  RankingModel& model_;
  const FeatureSet& spec_;
  const Device device_;
  const DType compute_;
  std::mutex recording_;
  IdlePool<Sizes, RecordedPass> idle_;
};

}  // namespace mixrec
