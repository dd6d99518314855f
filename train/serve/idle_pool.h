// Things of several kinds that are kept while nobody uses them: those that were used last.
#pragma once

#include <cstddef>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <utility>

namespace mixrec {

// Thread-safe; things are destroyed outside its lock.
template <class Kind, class Thing>
class IdlePool {
 public:
  // At most `limit` things are kept.
  explicit IdlePool(size_t limit) : limit_(limit) {}

  // The thing of this kind that was given back last; null when none is there.
  std::unique_ptr<Thing> take(const Kind& kind) {
    const std::lock_guard lock(mutex_);
    for (auto at = idle_.begin(); at != idle_.end(); ++at) {
      if (at->first != kind) continue;
      std::unique_ptr<Thing> thing = std::move(at->second);
      idle_.erase(at);
      return thing;
    }
    return nullptr;
  }

  // Drops the thing that was given back longest ago where that is one too many.
  void give_back(const Kind& kind, std::unique_ptr<Thing> thing) {
    std::list<std::pair<Kind, std::unique_ptr<Thing>>> dropped;  // before the lock: destroyed after it
    const std::lock_guard lock(mutex_);
    idle_.emplace_front(kind, std::move(thing));
    if (idle_.size() > limit_) dropped.splice(dropped.begin(), idle_, std::prev(idle_.end()));
  }

  size_t size() {
    const std::lock_guard lock(mutex_);
    return idle_.size();
  }

 private:
  const size_t limit_;
  std::mutex mutex_;
  std::list<std::pair<Kind, std::unique_ptr<Thing>>> idle_;  // newest first
};

}  // namespace mixrec
