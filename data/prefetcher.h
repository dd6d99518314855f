// Batches of a loader where the step needs them: on a device, one ahead of the step.
//
//   Prefetcher batches(Loader(data, Split::train, options), device);
//   while (auto batch = batches.next()) model.forward(batch->placed, pass);
//
// All tensors of a batch travel in one copy, from page-locked memory, on a stream of their own, while the
// device still works on the batch before.  A batch may be kept for as long as one likes.  On the host nothing
// is copied.
#pragma once

#include "mixrec/core/device.h"
#include "mixrec/data/loader.h"

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>

namespace mixrec {

struct PlacedBatch {
  RequestBatch placed;  // on the device; its numbers of rows, users and row numbers stay on the host
  RequestBatch host;    // as the loader made it: for metrics and messages
};

class Prefetcher {
 public:
  Prefetcher(Loader loader, Device device);
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // As those of Loader: an error is given in place of its batch, and again by every later next().  The current stream waits for the copy of the batch that next() gives, the host does
  // not.
  std::optional<PlacedBatch> next();
  void start(int64_t epoch, int64_t batch = 0);
  int64_t batches() const;
  LoaderPosition position() const;

 private:
  class Uploader;

  Loader loader_;
  std::unique_ptr<Uploader> uploader_;  // null on the host
  std::optional<PlacedBatch> ahead_;    // its copy is queued
  std::exception_ptr failed_;           // of the batch ahead: what every next() gives until start()
};

}  // namespace mixrec
