#include "mixrec/core/parallel_for.h"

#include "mixrec/core/error.h"

#include <atomic>
#include <exception>
#include <omp.h>

namespace mixrec {

namespace {

// Starting a team of threads costs a few microseconds, about as much as this many elementary operations.
constexpr int64_t kWorkPerThread = 1 << 14;
// A reduction has enough chunks to keep many cores busy, and few enough for their partials to stay in cache.
constexpr int64_t kReduceChunks = 64;

// OpenMP keeps its own setting per thread; ours holds for all of them.
std::atomic<int>& thread_count() {
  static std::atomic<int> count{omp_get_max_threads()};
  return count;
}

// The error that comes first by position, however the threads were timed.
class FirstError {
 public:
  void capture(int64_t position) {
#pragma omp critical(mixrec_first_error)
    if (!error_ || position < position_) error_ = std::current_exception(), position_ = position;
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::exception_ptr error_;
  int64_t position_ = 0;
};

}  // namespace

int num_threads() { return thread_count(); }

void set_num_threads(int count) {
  MR_CHECK(count >= 1, "the number of threads must be at least 1, got ", count);
  thread_count() = count;
}

namespace detail {

void parallel_run(int64_t n, int64_t work_per_item, RangeFunction f) {
  if (n <= 0) return;
  const int64_t threads = omp_in_parallel() ? 1 : num_threads();
  const double work = static_cast<double>(n) * static_cast<double>(work_per_item);
  const auto useful = static_cast<int64_t>(std::min(work / kWorkPerThread, 1e6));
  const int64_t chunks = std::min({threads, n, useful});
  if (chunks <= 1) return f(0, n);

  FirstError error;
  const char* op = current_op();
#pragma omp parallel num_threads(static_cast <int>(chunks))
  {
    const OpScope scope(op);
    // The team may come out smaller than asked for; the chunks stay the same.
    for (int64_t c = omp_get_thread_num(); c < chunks; c += omp_get_num_threads()) {
      const int64_t begin = n / chunks * c + std::min(c, n % chunks);
      const int64_t end = begin + n / chunks + (c < n % chunks);
      try {
        f(begin, end);
      } catch (...) {
        error.capture(begin);
      }
    }
  }
  error.rethrow();
}

int64_t reduce_chunk(int64_t n, int64_t work_per_row) {
  const int64_t worthwhile = kWorkPerThread / std::max<int64_t>(work_per_row, 1) + 1;
  return std::max(worthwhile, (n + kReduceChunks - 1) / kReduceChunks);
}

}  // namespace detail

}  // namespace mixrec
