#include "mixrec/data/loader.h"

#include "mixrec/core/error.h"
#include "mixrec/data/batch_builder.h"
#include "mixrec/data/dictionary.h"
#include "mixrec/data/packing/packed_data.h"

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace mixrec {

namespace {

// Random numbers for shuffling: the k-th draw is a hash of (seed, epoch, k).
class Draws {
 public:
  Draws(uint64_t seed, int64_t epoch) : key_{seed, static_cast<uint64_t>(epoch), 0} {}
  // Uniform in [0, bound), up to a bias of bound / 2^32.
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>(((bits() >> 32) * bound) >> 32); }
  uint64_t bits() {
    ++key_[2];
    return hash_text({reinterpret_cast<const char*>(key_), sizeof key_});
  }
  void shuffle(std::vector<uint32_t>& values) {
    for (size_t i = values.size(); i > 1; --i)
      std::swap(values[i - 1], values[below(static_cast<uint32_t>(i))]);
  }

 private:
  uint64_t key_[3];
};

}  // namespace

class Loader::Impl {
 public:
  Impl(const Dataset& data, Split split, LoaderOptions options)
      : dataset_(data), data_(dataset_.packed()), split_(split), options_(options) {
    MR_CHECK(options_.batch_size > 0, "the batch size must be above 0, got ", options_.batch_size);
    MR_CHECK(options_.world > 0 && options_.rank >= 0 && options_.rank < options_.world, "rank ",
             options_.rank, " is not in a world of ", options_.world);
    MR_CHECK(options_.workers >= 0 && options_.event_cap >= 0, "workers and event_cap must not be negative");
    rule_.training = options_.training;
    rule_.by_request = options_.shuffle != Shuffle::rows;
    rule_.trained_on = options_.trained_on.value_or(split == Split::train || split == Split::validation
                                                        ? TrainedOn::training_part
                                                        : TrainedOn::whole_period);
    start(options_.epoch, 0);
  }

  ~Impl() { stop(); }

  void start(int64_t epoch, int64_t batch) {
    stop();
    failed_ = nullptr;
    try {
      begin(epoch, batch);
    } catch (...) {
      failed_ = std::current_exception();
      throw;
    }
  }

  std::optional<RequestBatch> next() {
    if (failed_) std::rethrow_exception(failed_);
    if (next_ == batches()) return std::nullopt;
    try {
      return options_.workers == 0 ? made() : taken();
    } catch (...) {
      failed_ = std::current_exception();
      throw;
    }
  }

  int64_t batches() const {
    const auto all = static_cast<int64_t>(starts_.size()) - 1;
    return (all + options_.world - 1) / options_.world;
  }
  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }
  LoaderPosition position() const { return {epoch_, next_}; }

 private:
  struct Ready {
    bool done = false;
    RequestBatch batch;
    std::exception_ptr error;
  };

  void begin(int64_t epoch, int64_t batch) {
    if (epoch != epoch_) {
      epoch_ = -1;  // until its order is made
      order(epoch);
      epoch_ = epoch;
    }
    MR_CHECK(batch >= 0 && batch <= batches(), "epoch ", epoch, " has no batch ", batch, ": it has ",
             batches());
    next_ = asked_ = batch;
    ready_.assign(options_.workers > 0 ? static_cast<size_t>(2 * options_.workers + 1) : 0, {});
    stopping_ = false;
    start_workers();
  }

  RequestBatch made() {
    RequestBatch batch = build(next_);
    ++next_;
    return batch;
  }

  // The next batch, once a worker has made it.
  RequestBatch taken() {
    std::unique_lock lock(mutex_);
    Ready& slot = ready_[static_cast<size_t>(next_) % ready_.size()];
    changed_.wait(lock, [&] { return slot.done; });
    Ready ready = std::exchange(slot, {});
    if (ready.error) std::rethrow_exception(ready.error);
    ++next_;
    lock.unlock();
    changed_.notify_all();
    return std::move(ready.batch);
  }

  bool counts(uint32_t row) const {
    if (!rule_.training) return true;
    for (size_t t = 0; t < data_.labels.size(); ++t)
      if (label_weight(data_, t, row, true) > 0) return true;
    return false;
  }

  // One past the last row of a request; what a damaged file says must not be counted up to.
  uint64_t rows_end(uint32_t request) const {
    const uint64_t end = data_.request_rows.at(request + size_t{1});
    if (end > 0) static_cast<void>(data_.row_request.at(end - 1));
    return end;
  }

  // Row numbers of an epoch in order, and where its batches start.
  void order(int64_t epoch) {
    Draws draws(options_.seed, epoch);
    rule_.salt = draws.bits();
    rows_.clear();
    std::vector<uint32_t> requests;
    for (size_t r = 0; r < data_.request_split.size(); ++r)
      if (data_.has(split_, static_cast<Split>(data_.request_split[r])))
        requests.push_back(static_cast<uint32_t>(r));
    if (options_.shuffle == Shuffle::requests) draws.shuffle(requests);
    for (const uint32_t request : requests)
      for (uint64_t row = data_.request_rows[request]; row < rows_end(request); ++row)
        if (counts(static_cast<uint32_t>(row))) rows_.push_back(static_cast<uint32_t>(row));
    MR_CHECK(!rows_.empty(), "the split '", split_name(split_), "' of ", data_.schema.files.front(),
             " has no rows");
    if (options_.shuffle == Shuffle::rows) draws.shuffle(rows_);
    cut();
  }

  void cut() {
    starts_.assign(1, 0);
    int64_t events = 0;
    for (size_t begin = 0, end = 0; begin < rows_.size(); begin = end) {
      const uint32_t request = data_.row_request.at(rows_[begin]);
      end = begin + 1;
      while (rule_.by_request && end < rows_.size() && data_.row_request[rows_[end]] == request) ++end;
      int64_t more = 0;
      for (size_t h = 0; options_.event_cap > 0 && h < data_.histories.size(); ++h)
        more += history_events(data_, h, request, rule_.trained_on);
      const bool full = static_cast<int64_t>(end - starts_.back()) > options_.batch_size ||
                        (options_.event_cap > 0 && events + more > options_.event_cap);
      if (full && begin > starts_.back()) starts_.push_back(begin), events = 0;
      events += more;
    }
    starts_.push_back(rows_.size());
  }

  RequestBatch build(int64_t batch) const {
    const auto global = static_cast<size_t>(batch * options_.world + options_.rank);
    std::span<const uint32_t> rows;
    if (global + 1 < starts_.size())
      rows = std::span(rows_).subspan(starts_[global], starts_[global + 1] - starts_[global]);
    return build_batch(data_, rows, rule_);
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] {
        return stopping_ || (asked_ < batches() && asked_ - next_ < static_cast<int64_t>(ready_.size()));
      });
      if (stopping_) return;
      const int64_t batch = asked_++;
      lock.unlock();
      Ready made;
      try {
        made.batch = build(batch);
      } catch (...) {
        made.error = std::current_exception();
      }
      made.done = true;
      lock.lock();
      ready_[static_cast<size_t>(batch) % ready_.size()] = std::move(made);
      changed_.notify_all();
    }
  }

  void start_workers() {
    try {
      while (threads_.size() < static_cast<size_t>(options_.workers))
        threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      const size_t started = threads_.size();
      stop();
      MR_FAIL("only ", started, " of data.workers = ", options_.workers,
              " threads can be started: ", error.what());
    } catch (...) {
      stop();
      throw;
    }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

  const Dataset dataset_;
  const PackedData& data_;
  const Split split_;
  const LoaderOptions options_;
  BatchRule rule_;
  int64_t epoch_ = -1;
  std::vector<uint32_t> rows_;
  std::vector<size_t> starts_;

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Ready> ready_;
  int64_t next_ = 0, asked_ = 0;  // first batch that was not taken; first that no worker has begun
  bool stopping_ = false;
  std::exception_ptr failed_;  // of a batch or of start(): what every next() gives until start() succeeds
};

Loader::Loader(const Dataset& data, Split split, LoaderOptions options)
    : impl_(std::make_unique<Impl>(data, split, options)) {}
Loader::~Loader() = default;
Loader::Loader(Loader&&) noexcept = default;
Loader& Loader::operator=(Loader&&) noexcept = default;

std::optional<RequestBatch> Loader::next() { return impl_->next(); }
void Loader::start(int64_t epoch, int64_t batch) { impl_->start(epoch, batch); }
int64_t Loader::batches() const { return impl_->batches(); }
int64_t Loader::rows() const { return impl_->rows(); }
LoaderPosition Loader::position() const { return impl_->position(); }

}  // namespace mixrec
