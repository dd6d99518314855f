// A stable parallel sort of integers that lie below a known bound.
#pragma once

#include <cstdint>
#include <vector>

namespace mixrec::optim {

struct KeyedIndex {
  uint64_t key;
  int64_t index;
};

// Sorts `items` by key; equal keys keep their order, so the outcome does not depend on the threads.  Keys
// must be below `limit`.  `scratch` is overwritten.  O(n) for each eleven bits of `limit`.
void radix_sort(std::vector<KeyedIndex>& items, std::vector<KeyedIndex>& scratch, uint64_t limit);

}  // namespace mixrec::optim
