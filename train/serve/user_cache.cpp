#include "mixrec/train/serve/user_cache.h"

namespace mixrec {

UserCache::Kept UserCache::find(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return ++stats_.misses, Kept{};
  ++stats_.hits;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->kept;
}

void UserCache::keep(const std::string& key, std::shared_ptr<const UserSide> side, const Unknown& unknown) {
  // Both copies of the key, the nodes that hold them, and the entry.
  size_t bytes = side->bytes() + 2 * key.size() + sizeof(Entry) + 128;
  for (const auto& [name, _] : unknown) bytes += name.size() + 96;
  const std::lock_guard lock(mutex_);
  if (bytes > limit_ || by_key_.count(key)) return;
  while (stats_.bytes + bytes > limit_) {
    stats_.bytes -= entries_.back().bytes;
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
  entries_.push_front({key, {std::move(side), unknown}, bytes});
  by_key_[key] = entries_.begin();
  stats_.bytes += bytes;
}

UserCache::Stats UserCache::stats() const {
  const std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.entries = static_cast<int64_t>(entries_.size());
  return stats;
}

}  // namespace mixrec
