// User sides by key, the least recently used forgotten first.
#pragma once

#include "mixrec/models/model.h"

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

namespace mixrec {

// Thread-safe.  Entries, their keys and bookkeeping stay within `bytes`; what is larger alone is not kept.
class UserCache {
 public:
  explicit UserCache(size_t bytes) : limit_(bytes) {}

  using Unknown = std::map<std::string, int64_t>;  // EncodeNotes::unknown_of_user

  struct Kept {
    std::shared_ptr<const UserSide> side;  // null: not there
    Unknown unknown;
  };
  Kept find(const std::string& key);
  void keep(const std::string& key, std::shared_ptr<const UserSide> side, const Unknown& unknown = {});

  struct Stats {
    int64_t hits = 0, misses = 0, entries = 0;
    size_t bytes = 0;
  };
  Stats stats() const;

 private:
  struct Entry {
    std::string key;
    Kept kept;
    size_t bytes;
  };

  const size_t limit_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // the newest first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
  Stats stats_;
};

}  // namespace mixrec
