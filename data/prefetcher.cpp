#include "mixrec/data/prefetcher.h"

#include "mixrec/core/cuda.h"
#include "mixrec/core/storage.h"

#include <cstring>
#include <utility>

namespace mixrec {

namespace {

// Where a tensor begins in the block of a batch: any kernel may then load it in vectors.
constexpr size_t kAlignment = 256;

size_t bytes_of(const Tensor& x) { return static_cast<size_t>(x.numel()) * size_of(x.dtype()); }
size_t room_for(const Tensor& x) { return (bytes_of(x) + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

// Two page-locked blocks take turns: one is being copied to the device while the next batch is packed into the
// other.
//
// The device memory of a batch belongs to the stream that computes, as all tensors do, so it may be dropped
// and reused at any time in the order of that stream.  The copy waits until the stream has come to where the
// memory was taken, and whoever computes waits for the copy.
class Prefetcher::Uploader {
 public:
  explicit Uploader(Device device)
      : device_(device), stream_((cuda::current_stream(device.index), device.index)) {}

  ~Uploader() {
    for (Block& block : blocks_) {
      try {
        if (block.busy) block.copied.synchronize();
      } catch (...) {  // the error that ends the run is on its way already
      }
      if (block.data) cuda::free_pinned(block.data);
    }
  }

  // Queues the copy of a batch.
  RequestBatch upload(const RequestBatch& host) {
    std::swap(newest_, oldest_);
    if (newest_->busy) newest_->copied.synchronize();
    RequestBatch batch = host;
    size_t bytes = 0;
    for_each_tensor(batch, [&](const Tensor& x) { bytes += x.defined() ? room_for(x) : 0; });
    newest_->reserve(bytes);
    const auto storage = std::make_shared<Storage>(bytes, device_);
    newest_->taken.record();
    size_t at = 0;
    for_each_tensor(batch, [&](Tensor& x) {
      if (!x.defined()) return;
      const Tensor dense = x.contiguous();
      std::memcpy(newest_->data + at, dense.raw_data(), bytes_of(dense));
      x = Tensor::part(storage, at, dense.shape(), x.dtype());
      at += room_for(dense);
    });
    batch.keep_offsets_of(host);
    const cuda::StreamScope copies(stream_);
    newest_->taken.wait();
    cuda::copy(storage->data(), device_, newest_->data, kCpu, bytes);
    newest_->copied.record();
    newest_->busy = true;
    return batch;
  }

  // The current stream goes on after the newest copy.
  void wait() const { newest_->copied.wait(); }

 private:
  struct Block {
    std::byte* data = nullptr;
    size_t bytes = 0;
    bool busy = false;  // a copy was queued
    cuda::Event taken, copied;

    void reserve(size_t wanted) {
      if (wanted <= bytes) return;
      if (data) cuda::free_pinned(std::exchange(data, nullptr));
      bytes = wanted + wanted / 4;
      data = cuda::allocate_pinned(bytes);
    }
  };

  Device device_;
  cuda::Stream stream_;
  Block blocks_[2];
  Block *newest_ = &blocks_[0], *oldest_ = &blocks_[1];
};

Prefetcher::Prefetcher(Loader loader, Device device) : loader_(std::move(loader)) {
  if (device.is_cuda()) uploader_ = std::make_unique<Uploader>(device);
}

Prefetcher::~Prefetcher() {
  try {
    if (ahead_) uploader_->wait();  // its memory goes back to the stream that computes
  } catch (...) {
  }
}

std::optional<PlacedBatch> Prefetcher::next() {
  const auto take = [&]() -> std::optional<PlacedBatch> {
    auto host = loader_.next();
    if (!host) return std::nullopt;
    RequestBatch placed = uploader_ ? uploader_->upload(*host) : *host;
    return PlacedBatch{std::move(placed), std::move(*host)};
  };
  if (!uploader_) return take();
  if (failed_) std::rethrow_exception(failed_);
  std::optional<PlacedBatch> now = ahead_ ? std::exchange(ahead_, std::nullopt) : take();
  if (!now) return now;
  uploader_->wait();
  try {
    ahead_ = take();
  } catch (...) {
    failed_ = std::current_exception();  // of the batch after this one
  }
  return now;
}

void Prefetcher::start(int64_t epoch, int64_t batch) {
  if (ahead_) uploader_->wait();
  ahead_.reset();
  failed_ = nullptr;
  loader_.start(epoch, batch);
}

int64_t Prefetcher::batches() const { return loader_.batches(); }

LoaderPosition Prefetcher::position() const {
  LoaderPosition position = loader_.position();
  if (ahead_) --position.batch;
  return position;
}

}  // namespace mixrec
