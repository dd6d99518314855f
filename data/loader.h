// Batches of a data set, made by worker threads ahead of the step that uses them.
//
// Which rows a batch holds depends only on the seed, the epoch and the options below, never on threads or
// timing; so a position is just (epoch, batch), and a run that resumes there sees the same batches as one
// that never stopped.
#pragma once

#include "mixrec/core/request_batch.h"
#include "mixrec/data/dataset.h"

#include <cstdint>
#include <memory>
#include <optional>

namespace mixrec {

enum class Shuffle : uint8_t {
  none,      // in the packed order: by user, request and time; candidates of a request together
  requests,  // requests in random order; candidates of a request together
  rows,      // rows in random order; each is a request of its own (C = R)
};

struct LoaderOptions {
  int64_t batch_size = 1024;  // candidates; a single larger request is a batch by itself
  int64_t event_cap = 0;      // events of all histories in a batch, 0 = no limit; likewise
  Shuffle shuffle = Shuffle::requests;
  uint64_t seed = 1;
  int64_t epoch = 0;
  int64_t rank = 0, world = 1;  // this process takes batches rank, rank + world, ...
  int workers = 1;              // threads; 0 makes each batch when it is asked for
  // Default: train and validation see the training part, refit and test the whole training period.
  std::optional<TrainedOn> trained_on = std::nullopt;
  // What belongs to an optimiser and never to an evaluation: negatives are thinned out to a task's kept_negatives,
  // cells are forgotten at a feature's unknown_rate, and rows whose labels all count nothing are left out.
  bool training = false;
};

struct LoaderPosition {
  int64_t epoch = 0, batch = 0;  // the next batch of this rank

  bool operator==(const LoaderPosition&) const = default;
};

class Loader {
 public:
  // Every row of the split is in exactly one batch of an epoch, unless options.training leaves it out.  Throws when
  // no row is left.
  Loader(const Dataset& data, Split split, LoaderOptions options = {});
  ~Loader();
  Loader(Loader&&) noexcept;
  Loader& operator=(Loader&&) noexcept;

  // The next batch; none at the end of the epoch.  The last batch of an epoch may be smaller.  With world > 1
  // every rank gets the same number of batches, the last one of some perhaps without rows.
  std::optional<RequestBatch> next();

  // Goes to an epoch and a batch in it.
  void start(int64_t epoch, int64_t batch = 0);

  int64_t batches() const;  // of this epoch and rank
  int64_t rows() const;     // of this epoch, all ranks
  LoaderPosition position() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mixrec
