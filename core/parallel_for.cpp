// The threads behind parallel_for().
//
// OpenMP provides them, so that OMP_NUM_THREADS, OMP_PROC_BIND and OMP_PLACES mean what they always mean; but
// the work is handed out here.  The barrier at the end of an OpenMP region waits for every thread of the team,
// also for one that another process keeps off its core, and a training step has hundreds of regions: on a busy
// machine two threads were eight times slower than one.  Here the members of one team, started once, claim
// chunks, the caller claims too, and nobody waits for a thread that has claimed nothing.
#include "mixrec/core/parallel_for.h"

#include "mixrec/core/error.h"

#include <atomic>
#include <exception>
#include <mutex>
#include <omp.h>
#include <thread>
#include <vector>

namespace mixrec {

namespace {

// Handing out work costs about as much as this many elementary operations.
constexpr int64_t kWorkPerThread = 1 << 14;
// A reduction has enough chunks to keep many cores busy, and few enough for their partials to stay in cache.
constexpr int64_t kReduceChunks = 64;

// OpenMP keeps its own setting per thread; ours holds for all of them.
std::atomic<int>& thread_count() {
  static std::atomic<int> count{omp_get_max_threads()};
  return count;
}

thread_local bool inside_loop = false;

// The error that comes first by position, however the threads were timed.
class FirstError {
 public:
  void capture(int64_t position) {
    const std::lock_guard lock(mutex_);
    if (!error_ || position < position_) error_ = std::current_exception(), position_ = position;
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
  int64_t position_ = 0;
};

// One loop: [0, n) in `chunks` chunks.
struct Loop {
  int64_t n = 0, chunks = 0;
  const detail::RangeFunction* f = nullptr;
  FirstError* error = nullptr;
  const char* op = "";

  void run(int64_t chunk) const {
    const detail::OpScope scope(op);
    const int64_t begin = n / chunks * chunk + std::min(chunk, n % chunks);
    try {
      (*f)(begin, begin + n / chunks + (chunk < n % chunks));
    } catch (...) {
      error->capture(begin);
    }
  }
};

// Throws unless so many more threads can be started: OpenMP would end the process.  Threads that have ended
// leave their stacks to the next ones.
void check_threads_start(int count) {
  std::atomic<bool> go{false};
  std::vector<std::thread> probes;
  const auto join = [&] {
    go = true;
    go.notify_all();
    for (std::thread& probe : probes) probe.join();
  };
  try {
    probes.reserve(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) probes.emplace_back([&] { go.wait(false); });
  } catch (const std::exception& error) {
    const size_t started = probes.size();
    join();
    MR_FAIL("only ", started + 1, " of ", count + 1, " threads can be started: ", error.what(),
            "; ask for fewer (train.threads, OMP_NUM_THREADS)");
  }
  join();
}

// The team.  `ticket_` says which loop is on and which chunk is next: generation, chunks, next chunk.  Whoever
// raises the last field by compare-and-swap owns that chunk, and with it the right to read `loop_`, which
// stays until all chunks are done.
class Team {
 public:
  // False when the team is in use by another thread.
  bool run(const Loop& loop) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    grow(static_cast<int>(loop.chunks) - 1);
    loop_ = loop;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t generation = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store(generation << 32 | static_cast<uint64_t>(loop.chunks) << 16);
    bell_.fetch_add(1);
    bell_.notify_all();
    inside_loop = true;
    while (run_one()) {
    }
    inside_loop = false;
    for (int spins = 0; done_.load(std::memory_order_acquire) != loop.chunks; ++spins) {
      if (spins < kSpins) {
        __builtin_ia32_pause();
      } else {
        std::this_thread::yield();
      }
    }
    return true;
  }

 private:
  static constexpr int kSpins = 2000;  // some tens of microseconds: the next loop of a step is seldom later

  // Claims and runs a chunk of the loop that is on; false when none is left.
  bool run_one() {
    uint64_t ticket = ticket_.load();
    do {
      if ((ticket & 0xffff) >= (ticket >> 16 & 0xffff)) return false;
    } while (!ticket_.compare_exchange_weak(ticket, ticket + 1));
    loop_.run(static_cast<int64_t>(ticket & 0xffff));
    done_.fetch_add(1, std::memory_order_release);
    return true;
  }

  [[noreturn]] void work() {
    inside_loop = true;
    for (;;) {
      const uint32_t bell = bell_.load();
      while (run_one()) {
      }
      for (int spins = 0; spins < kSpins && bell_.load(std::memory_order_relaxed) == bell; ++spins) {
        __builtin_ia32_pause();
      }
      bell_.wait(bell);
    }
  }

  // Members live as long as the process: they hold nothing that has to be given back.
  void grow(int members) {
    if (members <= members_) return;
    const int more = members - members_;
    check_threads_start(more + 1);
    std::thread([this, more] {
#pragma omp parallel num_threads(more)
      work();
    }).detach();
    members_ = members;
  }

  std::mutex mutex_;
  Loop loop_;
  int members_ = 0;
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<uint32_t> bell_{0};
};

// Never destroyed: its threads outlive static destructors.
Team& team() {
  static auto* it = new Team;
  return *it;
}

}  // namespace

int num_threads() { return thread_count(); }

void set_num_threads(int count) {
  MR_CHECK(count >= 1 && count <= kMostThreads, "the number of threads must be from 1 to ", kMostThreads,
           ", got ", count);
  thread_count() = count;
}

namespace detail {

void parallel_run(int64_t n, int64_t work_per_item, RangeFunction f) {
  if (n <= 0) return;
  const int64_t threads = inside_loop ? 1 : std::min(num_threads(), 0x7fff);
  const double work = static_cast<double>(n) * static_cast<double>(work_per_item);
  const auto useful = static_cast<int64_t>(std::min(work / kWorkPerThread, 1e6));
  const int64_t chunks = std::min({threads, n, useful});
  FirstError error;
  if (chunks <= 1 || !team().run({n, chunks, &f, &error, current_op()})) return f(0, n);
  error.rethrow();
}

int64_t reduce_chunk(int64_t n, int64_t work_per_row) {
  const int64_t worthwhile = kWorkPerThread / std::max<int64_t>(work_per_row, 1) + 1;
  return std::max(worthwhile, (n + kReduceChunks - 1) / kReduceChunks);
}

}  // namespace detail

}  // namespace mixrec
