// Loops over the processor's cores.  All CPU threading in the library goes through this header.
//
// The number of threads never changes a result: `parallel_for` is for items that do not touch each other, and
// `chunked_reduce` sums over rows in chunks whose size depends on the shape alone, adding them up in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace mixrec {

// Threads that a parallel loop may use: OMP_NUM_THREADS or, when unset, the cores this process may run on.
int num_threads();

// No machine of today has more; a number above it is a slip.
inline constexpr int kMostThreads = 4096;

// Overrides it for the whole process; 1 .. kMostThreads.
void set_num_threads(int count);

namespace detail {

// A borrowed `void(int64_t begin, int64_t end)`, so that the threading itself is compiled once.
struct RangeFunction {
  void* target;
  void (*call)(void* target, int64_t begin, int64_t end);
  void operator()(int64_t begin, int64_t end) const { call(target, begin, end); }
};

// Cuts [0, n) into at most `num_threads()` contiguous chunks and calls `f` on each, every chunk on a thread
// of its own.
void parallel_run(int64_t n, int64_t work_per_item, RangeFunction f);

// Rows of one chunk of a reduction over n rows: a function of its arguments only.
int64_t reduce_chunk(int64_t n, int64_t work_per_row);

}  // namespace detail

// Calls f(begin, end) on contiguous chunks that cover [0, n), in parallel when there is enough work.
// `work_per_item` is the cost of one item, counted in elementary operations (a multiply-add, a load and
// store). Runs serially, as one call, when the work is small, inside another parallel loop, or with one
// thread. The first exception (by position) thrown in `f` is rethrown here after all chunks have ended.
template <class F>
void parallel_for(int64_t n, int64_t work_per_item, F&& f) {
  using Function = std::remove_reference_t<F>;
  detail::parallel_run(
      n, work_per_item,
      {const_cast<std::remove_const_t<Function>*>(std::addressof(f)),
       [](void* target, int64_t begin, int64_t end) { (*static_cast<Function*>(target))(begin, end); }});
}

// Adds a sum over n rows to sum[0 .. width): f(begin, end, partial) adds the rows [begin, end) to partial[0
// .. width). Every chunk starts from a partial of zeros, and partials are added to `sum` in the order of
// their rows, so the bits depend on n, width and `work_per_row` (as in parallel_for) only.
template <class T, class F>
void chunked_reduce(int64_t n, int64_t width, int64_t work_per_row, T* sum, F&& f) {
  if (n <= 0 || width <= 0) return;
  const int64_t rows = detail::reduce_chunk(n, work_per_row);
  const int64_t chunks = (n + rows - 1) / rows;
  const std::unique_ptr<T[]> partials(new T[chunks * width]());
  parallel_for(chunks, rows * work_per_row, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c)
      f(c * rows, std::min(n, (c + 1) * rows), partials.get() + c * width);
  });
  parallel_for(width, chunks, [&](int64_t begin, int64_t end) {
    for (int64_t c = 0; c < chunks; ++c)
      for (int64_t j = begin; j < end; ++j) sum[j] += partials[c * width + j];
  });
}

}  // namespace mixrec
