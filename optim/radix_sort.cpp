#include "mixrec/optim/radix_sort.h"

#include "mixrec/core/parallel_for.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace mixrec::optim {

namespace {

constexpr int kMaxDigit = 11;     // bits: the counts of a chunk stay in the first-level cache
constexpr int64_t kChunk = 8192;  // items a chunk at least
constexpr int64_t kMaxChunks = 64;
constexpr int64_t kWork = 8;  // of one item, as parallel_for counts

// One pass of the sort: by the bits [shift, shift + bits).
void sort_digit(const std::vector<KeyedIndex>& from, std::vector<KeyedIndex>& to, int shift, int bits) {
  const auto n = static_cast<int64_t>(from.size());
  const int64_t chunks = std::clamp<int64_t>(n / kChunk, 1, kMaxChunks);
  const int64_t buckets = int64_t{1} << bits;
  const auto digit = [&](const KeyedIndex& item) {
    return static_cast<int64_t>(item.key >> shift) & (buckets - 1);
  };
  std::vector<int64_t> places(static_cast<size_t>(chunks * buckets));
  const auto each = [&](int64_t begin, int64_t end, auto&& visit) {
    for (int64_t c = begin; c < end; ++c) {
      int64_t* const place = places.data() + c * buckets;
      for (int64_t i = n * c / chunks; i < n * (c + 1) / chunks; ++i) {
        visit(from[static_cast<size_t>(i)], place);
      }
    }
  };
  const int64_t work = n / chunks * kWork;
  parallel_for(chunks, work, [&](int64_t begin, int64_t end) {
    each(begin, end, [&](const KeyedIndex& item, int64_t* count) { ++count[digit(item)]; });
  });
  // Counts become first places: by digit, and within a digit by chunk.
  int64_t next = 0;
  for (int64_t b = 0; b < buckets; ++b) {
    for (int64_t c = 0; c < chunks; ++c) {
      int64_t& place = places[static_cast<size_t>(c * buckets + b)];
      next += std::exchange(place, next);
    }
  }
  parallel_for(chunks, work, [&](int64_t begin, int64_t end) {
    each(begin, end, [&](const KeyedIndex& item, int64_t* place) {
      to[static_cast<size_t>(place[digit(item)]++)] = item;
    });
  });
}

}  // namespace

void radix_sort(std::vector<KeyedIndex>& items, std::vector<KeyedIndex>& scratch, uint64_t limit) {
  const int bits = limit > 1 ? std::bit_width(limit - 1) : 0;
  const int passes = (bits + kMaxDigit - 1) / kMaxDigit;
  scratch.resize(items.size());
  for (int pass = 0; pass < passes; ++pass) {
    const int from = bits * pass / passes, to = bits * (pass + 1) / passes;
    sort_digit(items, scratch, from, to - from);
    items.swap(scratch);
  }
}

}  // namespace mixrec::optim
