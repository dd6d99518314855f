#include "mixrec/data/simulate/simulated_world.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mixrec::simulated {
namespace {

constexpr double kShortestLag = 60, kLongestLag = 90.0 * World::kDay;
constexpr double kNewUsers = 0.02;  // share of users without history

// n effects of mean 0 and variance 1.
std::vector<double> draw_table(Draws& draws, int64_t n) {
  std::vector<double> table(n);
  double mean = 0, square = 0;
  for (double& value : table) mean += (value = draws.normal()) / n;
  for (double& value : table) value -= mean, square += value * value / n;
  for (double& value : table) value /= std::sqrt(square);
  return table;
}

// Signed count of the events that `fits` accepts, over the root of their number: variance 1 where there is
// any.
template <class Fits>
double signed_match(std::span<const Event> events, Fits fits) {
  int64_t n = 0, sum = 0;
  for (const Event& event : events) {
    if (fits(event)) ++n, sum += event.sign;
  }
  return n == 0 ? 0.0 : sum / std::sqrt(static_cast<double>(n));
}

}  // namespace

uint32_t Draws::bits() {
  if (left_ == 0) {
    block_ = philox_(uint64_t{kind_} << 32 | blocks_++, index_);
    left_ = 4;
  }
  return block_.word[--left_];
}

double Draws::normal() {
  const double radius = std::sqrt(-2 * std::log(uniform()));
  return radius * std::cos(2 * std::numbers::pi * uniform());
}

World::World(const SimulateOptions& options)
    : options_(options),
      users_(options.users > 0 ? options.users : std::max<int64_t>(100, options.rows / 25)),
      requests_((options.rows + options.candidates_per_request - 1) / options.candidates_per_request),
      strength_{options.popularity, options.context, options.taste, options.match, options.joint} {
  items_.resize(options_.items);
  for (size_t id = 0; id < items_.size(); ++id) {
    Draws draws(options_.seed, Draws::item, id);
    ItemAttributes& attributes = items_[id].attributes;
    attributes[0] = draws.below(options_.categories);
    for (size_t a = 1; a < attributes.size(); ++a) attributes[a] = draws.below(kAttributeValues);
    items_[id].popularity = draws.normal();
  }
  draw_effects();
  standardise();
}

void World::draw_effects() {
  Draws draws(options_.seed, Draws::effects, 0);
  hour_ = draw_table(draws, kHours);
  channel_ = draw_table(draws, kChannels);
  placement_ = draw_table(draws, kPlacements);
  for (size_t r = 0; r < kTastes; ++r) {
    Taste taste{r % kUserFields.size(), (3 * r + 1) % kItemAttributes.size(), {}, {}};
    taste.of_user = draw_table(draws, kUserValues[taste.user_field]);
    taste.of_item = draw_table(draws, taste.item_field == 0 ? options_.categories : kAttributeValues);
    tastes_.push_back(std::move(taste));
  }
  size_t segment = 0;
  for (uint8_t a = 0; a < kItemAttributes.size(); ++a) {
    for (uint8_t b = a + 1; b < kItemAttributes.size(); ++b) pairs_[segment++] = {a, b};
  }
}

UserFields World::user(int64_t id) const {
  Draws draws(options_.seed, Draws::user, id);
  UserFields fields;
  for (size_t f = 0; f < fields.size(); ++f) fields[f] = draws.below(kUserValues[f]);
  return fields;
}

int64_t World::draw_item(Draws& draws) const {
  // Density falls as 1/√id: some items are shown far more often than others.
  const double u = draws.uniform();
  return static_cast<int64_t>(u * u * static_cast<double>(items_.size()));
}

Request World::request(int64_t index) const {
  Draws draws(options_.seed, Draws::request, index);
  Request request;
  request.user = draws.below(users_);
  const double position = (index + draws.uniform()) / static_cast<double>(requests_);
  request.time = kStart + static_cast<int64_t>(position * options_.days * kDay);
  request.hour = static_cast<int32_t>(request.time % kDay / 3600);
  request.channel = draws.below(kChannels);
  return request;
}

void World::candidates(int64_t request, std::vector<Candidate>& candidates) const {
  Draws draws(options_.seed, Draws::candidate, request);
  const size_t count =
      std::min(options_.candidates_per_request, options_.rows - request * options_.candidates_per_request);
  candidates.clear();
  while (candidates.size() < count) {
    Candidate next;
    next.item = draw_item(draws);
    next.placement = draws.below(kPlacements);
    next.liked = draws.below(2);
    next.threshold = draws.uniform();
    const auto same = [&](const Candidate& shown) { return shown.item == next.item; };
    if (std::none_of(candidates.begin(), candidates.end(), same)) candidates.push_back(next);
  }
}

void World::history(int64_t user, std::vector<Event>& events) const {
  Draws draws(options_.seed, Draws::history, user);
  const int64_t longest = options_.history_length, shortest = (longest + 1) / 2;
  const bool is_new = draws.uniform() < kNewUsers;
  const int64_t length = is_new ? 0 : shortest + draws.below(longest - shortest + 1);
  events.clear();
  for (int64_t t = 0; t < length; ++t) {
    const int64_t item = draw_item(draws);
    events.push_back({static_cast<int32_t>(item), 2 * draws.below(2) - 1});
  }
}

void World::history_lags(int64_t user, size_t events, std::vector<int64_t>& lags) const {
  Draws draws(options_.seed, Draws::lag, user);
  lags.clear();
  for (size_t t = 0; t < events; ++t) {
    lags.push_back(
        static_cast<int64_t>(kShortestLag * std::pow(kLongestLag / kShortestLag, draws.uniform())));
  }
  std::sort(lags.rbegin(), lags.rend());
}

Terms World::raw_terms(const Request& request, const Candidate& candidate, const UserFields& user,
                       std::span<const Event> events) const {
  const Item& item = items_[candidate.item];
  Terms terms{};
  terms[0] = item.popularity;
  terms[1] = hour_[request.hour] + channel_[request.channel] + placement_[candidate.placement];
  for (size_t r = 0; r < tastes_.size(); ++r) {
    const Taste& taste = tastes_[r];
    const double interaction =
        taste.of_user[user[taste.user_field]] * taste.of_item[item.attributes[taste.item_field]];
    terms[2] += interaction / static_cast<double>(r + 1);
  }
  const ItemAttributes& wanted = item.attributes;
  terms[3] = signed_match(events, [&](const Event& e) { return items_[e.item].attributes[0] == wanted[0]; });
  const auto [a, b] = pairs_[user[0]];
  terms[4] = signed_match(events, [&, a = a, b = b](const Event& e) {
    const ItemAttributes& seen = items_[e.item].attributes;
    return seen[a] == wanted[a] && seen[b] == wanted[b];
  });
  return terms;
}

Terms World::terms(const Request& request, const Candidate& candidate, const UserFields& user,
                   std::span<const Event> events) const {
  Terms terms = raw_terms(request, candidate, user, events);
  for (size_t k = 0; k < terms.size(); ++k) terms[k] = (terms[k] - mean_[k]) * scale_[k];
  return terms;
}

double World::logit(const Terms& terms, size_t count) const {
  double logit = bias_;
  for (size_t k = 0; k < count; ++k) logit += strength_[k] * terms[k];
  return logit;
}

void World::standardise() {
  const int64_t sample = std::min<int64_t>(requests_, 20'000);
  std::vector<Terms> rows(sample);
  std::vector<Event> events;
  std::vector<Candidate> shown;
  Terms square{};
  for (int64_t i = 0; i < sample; ++i) {
    const int64_t index = i * requests_ / sample;
    const Request drawn = request(index);
    history(drawn.user, events);
    candidates(index, shown);
    rows[i] = raw_terms(drawn, shown.front(), user(drawn.user), events);
    for (size_t k = 0; k < mean_.size(); ++k) {
      mean_[k] += rows[i][k] / sample;
      square[k] += rows[i][k] * rows[i][k] / sample;
    }
  }
  for (size_t k = 0; k < mean_.size(); ++k) {
    const double variance = square[k] - mean_[k] * mean_[k];
    scale_[k] = variance > 1e-12 ? 1 / std::sqrt(variance) : 0;
  }
  double low = -30, high = 30;
  for (int step = 0; step < 60; ++step) {
    bias_ = (low + high) / 2;
    double rate = 0;
    for (const Terms& row : rows) {
      double logit = bias_;
      for (size_t k = 0; k < row.size(); ++k) logit += strength_[k] * (row[k] - mean_[k]) * scale_[k];
      rate += 1 / (1 + std::exp(-logit)) / sample;
    }
    (rate < options_.click_rate ? low : high) = bias_;
  }
}

}  // namespace mixrec::simulated
