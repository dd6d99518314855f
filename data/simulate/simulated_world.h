// The planted truth behind a simulated log: who the users and items are, and how likely a click is.
//
// Everything is a function of the seed and of ids, through a counter-based generator, so nothing has to be
// stored but the items.
#pragma once

#include "mixrec/core/rng.h"
#include "mixrec/data/simulate/simulate.h"

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace mixrec::simulated {

inline constexpr std::array<std::string_view, 4> kUserFields{"segment", "age", "region", "device"};
inline constexpr std::array<std::string_view, 8> kItemAttributes{"category", "style",  "mood", "format",
                                                                 "language", "length", "era",  "origin"};
inline constexpr std::array<std::string_view, 5> kTerms{"popularity", "context", "taste", "match", "joint"};

inline constexpr int64_t kHours = 24;
inline constexpr int64_t kChannels = 6;
inline constexpr int64_t kPlacements = 5;
inline constexpr int64_t kSegments = 28;        // pairs out of 8 attributes
inline constexpr int64_t kAttributeValues = 6;  // of every attribute but the category
inline constexpr std::array<int64_t, 4> kUserValues{kSegments, 8, 32, 6};

using UserFields = std::array<int32_t, kUserFields.size()>;
using ItemAttributes = std::array<int32_t, kItemAttributes.size()>;
using Terms = std::array<double, kTerms.size()>;

struct Event {
  int32_t item;
  int32_t sign;  // +1 liked, -1 not
};

struct Request {
  int64_t user;
  int64_t time;  // seconds since 1970, UTC
  int32_t hour;
  int32_t channel;
};

struct Candidate {
  int64_t item;
  int32_t placement;
  int32_t liked;     // signal of this row as a later event: a fair coin
  double threshold;  // uniform in [0, 1): clicked where it lies below the probability
};

// A stream of random numbers that is a function of (seed, kind, index) alone.
class Draws {
 public:
  enum Kind : uint32_t { item, user, history, lag, request, candidate, effects };
  Draws(uint64_t seed, Kind kind, uint64_t index) : philox_(seed), kind_(kind), index_(index) {}

  uint32_t bits();
  double uniform() { return (bits() + 0.5) * 0x1p-32; }  // in (0, 1)
  int32_t below(int64_t n) { return static_cast<int32_t>((bits() * static_cast<uint64_t>(n)) >> 32); }
  double normal();

 private:
  Philox philox_;
  uint32_t kind_, blocks_ = 0;
  uint64_t index_;
  Philox::Block block_{};
  int left_ = 0;
};

class World {
 public:
  explicit World(const SimulateOptions& options);

  int64_t users() const { return users_; }
  int64_t requests() const { return requests_; }
  int64_t start_time() const { return kStart; }
  // Days since 1970 of the first test day.
  int64_t first_test_day() const { return kStart / kDay + options_.days - options_.test_days; }

  UserFields user(int64_t id) const;
  const ItemAttributes& item(int64_t id) const { return items_[id].attributes; }
  Request request(int64_t index) const;  // in the order of time
  // The items that a request shows, all different.
  void candidates(int64_t request, std::vector<Candidate>& candidates) const;

  // Events of a user before the log, oldest first, at most history_length; `lags` in seconds before
  // start_time().
  void history(int64_t user, std::vector<Event>& events) const;
  void history_lags(int64_t user, size_t events, std::vector<int64_t>& lags) const;

  Terms terms(const Request& request, const Candidate& candidate, const UserFields& user,
              std::span<const Event> events) const;
  // Logit of the terms before `count`; all of them by default.
  double logit(const Terms& terms, size_t count = kTerms.size()) const;

  static constexpr int64_t kDay = 86'400;

 private:
  static constexpr int64_t kStart = 1'767'225'600;  // 2026-01-01 00:00 UTC
  static constexpr int kTastes = 8;

  struct Item {
    ItemAttributes attributes;
    double popularity;
  };
  struct Taste {
    size_t user_field, item_field;
    std::vector<double> of_user, of_item;
  };

  int64_t draw_item(Draws& draws) const;
  Terms raw_terms(const Request&, const Candidate&, const UserFields&, std::span<const Event>) const;
  void draw_effects();
  void standardise();  // sets mean_, scale_ and bias_ from a sample of rows

  SimulateOptions options_;
  int64_t users_, requests_;
  std::vector<Item> items_;
  std::vector<double> hour_, channel_, placement_;
  std::vector<Taste> tastes_;
  std::array<std::array<uint8_t, 2>, kSegments> pairs_{};
  Terms mean_{}, scale_{}, strength_{};
  double bias_ = 0;
};

}  // namespace mixrec::simulated
