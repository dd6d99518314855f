// Texts and their numbers, in order of first appearance.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mixrec {

// About 30 bytes a text above the text itself: tables of many millions of values fit in memory.
class Dictionary {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  uint32_t add(std::string_view text);         // its number; a new one when it was never seen
  uint32_t find(std::string_view text) const;  // kNone when it was never added
  std::string_view text(uint32_t number) const {
    return {arena_.data() + starts_[number], starts_[number + 1] - starts_[number]};
  }
  uint32_t size() const { return static_cast<uint32_t>(starts_.size() - 1); }

 private:
  // Half of the hash beside the number spares most looks at texts that differ.
  struct Slot {
    uint32_t number = kNone, tag = 0;
  };
  uint32_t find_or_add(std::string_view text);
  size_t slot_of(std::string_view text, uint64_t hash) const;
  void grow();

  uint32_t last_ = kNone;  // neighbouring rows often repeat a cell
  std::vector<char> arena_;
  std::vector<uint64_t> starts_{0};
  std::vector<Slot> slots_ = std::vector<Slot>(64);  // open addressing; size is a power of two
};

// 64 well-mixed bits of a text, the same on every machine and in every run.
uint64_t hash_text(std::string_view text, uint64_t seed = 0);

}  // namespace mixrec
