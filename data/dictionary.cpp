#include "mixrec/data/dictionary.h"

#include "mixrec/core/error.h"

#include <cstring>

namespace mixrec {

namespace {

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93ULL;
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93ULL;
  return x ^ (x >> 32);
}

}  // namespace

uint64_t hash_text(std::string_view text, uint64_t seed) {
  uint64_t hash = mix(seed + 0x9E3779B97F4A7C15ULL + text.size());
  while (!text.empty()) {
    uint64_t word = 0;
    const size_t taken = text.size() < 8 ? text.size() : 8;
    std::memcpy(&word, text.data(), taken);
    hash = mix(hash ^ word) + 0x9E3779B97F4A7C15ULL;
    text.remove_prefix(taken);
  }
  return mix(hash);
}

size_t Dictionary::slot_of(std::string_view wanted, uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  const auto tag = static_cast<uint32_t>(hash >> 32);
  size_t slot = hash & mask;
  while (slots_[slot].number != kNone && (slots_[slot].tag != tag || text(slots_[slot].number) != wanted))
    slot = (slot + 1) & mask;
  return slot;
}

uint32_t Dictionary::find(std::string_view text) const {
  return slots_[slot_of(text, hash_text(text))].number;
}

uint32_t Dictionary::add(std::string_view wanted) {
  if (last_ == kNone || text(last_) != wanted) last_ = find_or_add(wanted);
  return last_;
}

uint32_t Dictionary::find_or_add(std::string_view text) {
  const uint64_t hash = hash_text(text);
  const size_t slot = slot_of(text, hash);
  if (slots_[slot].number != kNone) return slots_[slot].number;
  MR_CHECK(size() < kNone - 1, "a column has more than ", size(),
           " different values; give it a \"hash\" encoding");
  const uint32_t number = size();
  arena_.insert(arena_.end(), text.begin(), text.end());
  starts_.push_back(arena_.size());
  slots_[slot] = {number, static_cast<uint32_t>(hash >> 32)};
  if (2 * starts_.size() > slots_.size()) grow();
  return number;
}

void Dictionary::grow() {
  slots_.assign(2 * slots_.size(), {});
  for (uint32_t number = 0; number < size(); ++number) {
    const uint64_t hash = hash_text(text(number));
    slots_[slot_of(text(number), hash)] = {number, static_cast<uint32_t>(hash >> 32)};
  }
}

}  // namespace mixrec
