#include "mixrec/data/simulate/simulate.h"

#include "mixrec/core/error.h"
#include "mixrec/data/simulate/simulated_report.h"
#include "mixrec/data/simulate/simulated_world.h"
#include "mixrec/data/text_output.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>

namespace mixrec {
namespace {

using namespace simulated;

// The newest events of every user among the rows of days that are over: a ring per user.
class EventsFromLog {
 public:
  EventsFromLog(int64_t users, int64_t length) : length_(length), ring_(users * length), seen_(users) {}

  void append(int64_t user, const Candidate& candidate) {
    today_.push_back({user, {static_cast<int32_t>(candidate.item), 2 * candidate.liked - 1}});
  }
  void end_day(bool keep) {
    for (const auto& [user, event] : today_) {
      if (keep) ring_[user * length_ + seen_[user]++ % length_] = event;
    }
    today_.clear();
  }
  std::span<const Event> of(int64_t user) const {
    return {ring_.data() + user * length_, static_cast<size_t>(std::min(seen_[user], length_))};
  }

 private:
  int64_t length_;
  std::vector<Event> ring_;
  std::vector<int64_t> seen_;
  std::vector<std::pair<int64_t, Event>> today_;
};

template <class Names>
void write_header(TextFile& file, std::string_view first, const Names& names) {
  file << first;
  for (const auto& name : names) file << ',' << name;
  file << '\n';
}

void write_tables(const World& world, const SimulateOptions& options, OutputFolder& folder) {
  TextFile users(folder.add("users.csv")), items(folder.add("items.csv"));
  write_header(users, "user_id", kUserFields);
  for (int64_t id = 0; id < world.users(); ++id) {
    users << id;
    for (const int32_t value : world.user(id)) users << ',' << value;
    users << '\n';
  }
  write_header(items, "item_id", kItemAttributes);
  for (int64_t id = 0; id < options.items; ++id) {
    items << id;
    for (const int32_t value : world.item(id)) items << ',' << value;
    items << '\n';
  }
  users.close();
  items.close();
}

void write_history(const World& world, OutputFolder& folder) {
  TextFile file(folder.add("history.csv"));
  file << "user_id,items,liked,times\n";
  std::vector<Event> events;
  std::vector<int64_t> lags;
  for (int64_t user = 0; user < world.users(); ++user) {
    world.history(user, events);
    world.history_lags(user, events.size(), lags);
    file << user << ',';
    for (size_t t = 0; t < events.size(); ++t) (t > 0 ? file << ' ' : file) << events[t].item;
    file << ',';
    for (size_t t = 0; t < events.size(); ++t) (t > 0 ? file << ' ' : file) << (events[t].sign + 1) / 2;
    file << ',';
    for (size_t t = 0; t < events.size(); ++t) (t > 0 ? file << ' ' : file) << world.start_time() - lags[t];
    file << '\n';
  }
  file.close();
}

std::string date_text(int64_t day) {
  const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(day))};
  char text[16];
  std::snprintf(text, sizeof text, "%04d-%02u-%02u", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
  return text;
}

// Writes log.csv and truth.csv, one pass in the order of time.
class LogWriter {
 public:
  LogWriter(const World& world, const SimulateOptions& options, OutputFolder& folder)
      : world_(world),
        from_log_(options.history == SimulatedHistory::log),
        past_(from_log_ ? world.users() : 0, options.history_length),
        train_(world),
        test_(world),
        log_(folder.add("log.csv")),
        truth_(folder.add("truth.csv")) {
    log_ << "request_id,user_id,item_id,time,date,hour,channel,placement,click"
         << (from_log_ ? ",liked\n" : "\n");
    write_header(truth_, "row,probability,logit", kTerms);
  }

  SimulateReport write() {
    for (int64_t index = 0; index < world_.requests(); ++index) write_request(index);
    log_.close();
    truth_.close();
    return {train_.result(), test_.result()};
  }

 private:
  void write_request(int64_t index) {
    const Request request = world_.request(index);
    start_day(request.time / World::kDay);
    const UserFields user = world_.user(request.user);
    if (!from_log_) world_.history(request.user, events_);
    const std::span<const Event> events =
        from_log_ ? past_.of(request.user) : std::span<const Event>(events_);
    world_.candidates(index, candidates_);
    for (const Candidate& candidate : candidates_) {
      const Terms terms = world_.terms(request, candidate, user, events);
      const double logit = world_.logit(terms), probability = 1 / (1 + std::exp(-logit));
      const bool clicked = candidate.threshold < probability;
      log_ << index << ',' << request.user << ',' << candidate.item << ',' << request.time << ',' << date_
           << ',' << request.hour << ',' << request.channel << ',' << candidate.placement << ','
           << int{clicked};
      if (from_log_) log_ << ',' << candidate.liked;
      log_ << '\n';
      truth_ << row_++ << ',' << probability << ',' << logit;
      for (const double term : terms) truth_ << ',' << term;
      truth_ << '\n';
      (day_ < world_.first_test_day() ? train_ : test_).add(terms, probability, clicked);
      if (from_log_) past_.append(request.user, candidate);
    }
  }
  void start_day(int64_t day) {
    if (day == day_) return;
    past_.end_day(day_ < world_.first_test_day());
    day_ = day;
    date_ = date_text(day);
  }

  const World& world_;
  const bool from_log_;
  EventsFromLog past_;
  BoundsOfPart train_, test_;
  TextFile log_, truth_;
  std::vector<Event> events_;
  std::vector<Candidate> candidates_;
  int64_t row_ = 0, day_ = -1;
  std::string date_;
};

void check(const SimulateOptions& o) {
  MR_CHECK(!o.out.empty(), "needs a folder to write: out is empty");
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    MR_CHECK(value >= least, name, " must be at least ", least, ", got ", value);
  };
  at_least("rows", o.rows, 1);
  at_least("candidates_per_request", o.candidates_per_request, 1);
  at_least("users", o.users, 0);
  at_least("items", o.items, 2 * o.candidates_per_request);
  at_least("categories", o.categories, 2);
  at_least("history_length", o.history_length, 1);
  at_least("test_days", o.test_days, 1);
  at_least("days", o.days, o.test_days + 1);
  const auto at_most = [](const char* name, int64_t value, int64_t most) {
    MR_CHECK(value <= most, name, " must be at most ", most, ", got ", value);
  };
  at_most("rows", o.rows, 100'000'000'000);
  at_most("candidates_per_request", o.candidates_per_request, 100'000);
  at_most("categories", o.categories, 1'000'000);
  at_most("history_length", o.history_length, 100'000);
  at_most("days", o.days, 36'500);
  MR_CHECK(o.items < int64_t{1} << 31 && o.users < int64_t{1} << 31, "ids must fit 31 bits, got ", o.items,
           " items and ", o.users, " users");
  MR_CHECK(o.click_rate > 0 && o.click_rate < 1, "click_rate must lie between 0 and 1, got ", o.click_rate);
  for (const double s : {o.popularity, o.context, o.taste, o.match, o.joint}) {
    MR_CHECK(s >= 0 && s <= 10, "strengths of effects must lie between 0 and 10, got ", s);
  }
}

// A log of a user's is never overwritten.
void check_free(const SimulateOptions& options) {
  namespace fs = std::filesystem;
  const fs::path out = options.out;
  MR_CHECK(!fs::exists(out) || fs::is_directory(out), options.out, " is a file; the log needs a folder");
  if (!fs::exists(out) || fs::is_empty(out)) return;
  const bool simulated = fs::exists(out / "bounds.json") && fs::exists(out / "truth.csv");
  MR_CHECK(simulated, options.out, " is not empty and holds no simulated log; choose another folder");
  MR_CHECK(options.again, options.out, " already holds a simulated log; replace it with --again");
}

}  // namespace

SimulateReport simulate(const SimulateOptions& options) {
  MR_OP("simulate");
  check(options);
  check_free(options);
  const World world(options);
  OutputFolder folder(options.out);
  write_tables(world, options, folder);
  if (options.history == SimulatedHistory::file) write_history(world, folder);
  const SimulateReport report = LogWriter(world, options, folder).write();
  TextFile schema(folder.add("schema.json")), bounds(folder.add("bounds.json"));
  write_schema(schema, options);
  write_bounds(bounds, options, report);
  schema.close();
  bounds.close();
  folder.commit();
  return report;
}

}  // namespace mixrec
