#include "mixrec/data/simulate/simulate.h"

#include "mixrec/core/error.h"
#include "mixrec/data/loader.h"
#include "mixrec/tests/temporary_folder.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <map>
#include <signal.h>
#include <sstream>
#include <sys/resource.h>

namespace {

using namespace mixrec;
using mixrec::test::read_file;
using mixrec::test::TemporaryFolder;

// Columns of a CSV file by name, as text.
struct Table {
  std::map<std::string, std::vector<std::string>> columns;

  explicit Table(const std::string& path) {
    std::istringstream in(read_file(path));
    std::string line, cell;
    std::vector<std::string> names;
    while (std::getline(in, line)) {
      std::istringstream cells(line + ',');
      const bool header = names.empty();
      for (size_t c = 0; std::getline(cells, cell, ','); ++c) {
        header ? names.push_back(cell) : columns[names.at(c)].push_back(cell);
      }
    }
  }
  std::vector<double> numbers(const std::string& name) const {
    std::vector<double> values;
    for (const auto& cell : columns.at(name)) values.push_back(std::stod(cell));
    return values;
  }
};

std::vector<int> integers(const std::string& list) {
  std::istringstream in(list);
  std::vector<int> values;
  for (int value; in >> value;) values.push_back(value);
  return values;
}

double auc_over_all_pairs(const std::vector<double>& score, const std::vector<double>& label) {
  double pairs = 0, right = 0;
  for (size_t i = 0; i < score.size(); ++i) {
    for (size_t j = 0; j < score.size(); ++j) {
      if (label[i] == 0 || label[j] == 1) continue;
      ++pairs;
      right += score[i] > score[j] ? 1 : score[i] == score[j] ? 0.5 : 0;
    }
  }
  return right / pairs;
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const double n = static_cast<double>(a.size());
  double ma = 0, mb = 0, aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.size(); ++i) ma += a[i] / n, mb += b[i] / n;
  for (size_t i = 0; i < a.size(); ++i) {
    aa += (a[i] - ma) * (a[i] - ma), bb += (b[i] - mb) * (b[i] - mb), ab += (a[i] - ma) * (b[i] - mb);
  }
  return ab / std::sqrt(aa * bb);
}

SimulateOptions small(const TemporaryFolder& folder) {
  SimulateOptions options;
  options.out = folder / "log";
  options.rows = 4'001;
  options.candidates_per_request = 3;
  options.items = 300;
  options.users = 150;
  options.history_length = 20;
  options.joint = 1.0;
  return options;
}

// What the log says about one past event.
struct Seen {
  int item, sign;
};

// Σ sign / √n over the events that agree with `item` in both attributes.
double agreement(const Table& items, const std::vector<Seen>& events, int item, const std::string& a,
                 const std::string& b) {
  const auto& left = items.columns.at(a);
  const auto& right = items.columns.at(b);
  double n = 0, sum = 0;
  for (const Seen& event : events) {
    if (left[event.item] == left[item] && right[event.item] == right[item]) ++n, sum += event.sign;
  }
  return n > 0 ? sum / std::sqrt(n) : 0;
}

}  // namespace

TEST_SUITE_BEGIN("simulate");

TEST_CASE("the files depend on the options alone") {
  const TemporaryFolder first, second, third;
  SimulateOptions options = small(first);
  simulate(options);
  options.out = second / "log";
  simulate(options);
  options.out = third / "log", options.seed = 2;
  simulate(options);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(first / "log")) {
    const std::string name = entry.path().filename();
    ++files;
    const std::string text = read_file(first / ("log/" + name));
    CHECK_MESSAGE(text == read_file(second / ("log/" + name)), name);
    if (name != "schema.json") CHECK_MESSAGE(text != read_file(third / ("log/" + name)), name);
  }
  CHECK(files == 7);
}

TEST_CASE("requests are ordered by time and hold different candidates") {
  const TemporaryFolder folder;
  const SimulateOptions options = small(folder);
  simulate(options);
  const Table log(folder / "log/log.csv");
  const auto request = log.numbers("request_id"), time = log.numbers("time"), item = log.numbers("item_id");
  REQUIRE(request.size() == 4'001);
  CHECK(std::is_sorted(time.begin(), time.end()));
  for (size_t row = 1; row < request.size(); ++row) {
    REQUIRE(request[row] == std::floor(row / 3));
    if (request[row] == request[row - 1]) {
      REQUIRE(log.columns.at("user_id")[row] == log.columns.at("user_id")[row - 1]);
      REQUIRE(item[row] != item[row - 1]);
    }
  }
  CHECK(log.columns.at("date").front() == "2026-01-01");
  CHECK(log.columns.at("date").back() == "2026-01-10");
}

TEST_CASE("logits are the weighted sum of unit-variance terms, and clicks follow the probability") {
  const TemporaryFolder folder;
  SimulateOptions options = small(folder);
  options.rows = 20'000;
  simulate(options);
  const Table truth(folder / "log/truth.csv"), log(folder / "log/log.csv");
  const auto logit = truth.numbers("logit"), probability = truth.numbers("probability"),
             click = log.numbers("click");
  std::vector<double> rest = logit;
  const std::map<std::string, double> strengths{{"popularity", options.popularity},
                                                {"context", options.context},
                                                {"taste", options.taste},
                                                {"match", options.match},
                                                {"joint", options.joint}};
  for (const auto& [term, strength] : strengths) {
    const auto z = truth.numbers(term);
    double mean = 0, square = 0;
    for (size_t row = 0; row < z.size(); ++row) {
      mean += z[row] / z.size(), square += z[row] * z[row] / z.size();
      rest[row] -= strength * z[row];
    }
    CHECK(std::abs(mean) < 0.1);
    CHECK(std::abs(square - mean * mean - 1) < 0.1);
  }
  double surplus = 0, variance = 0, rate = 0;
  for (size_t row = 0; row < logit.size(); ++row) {
    REQUIRE(std::abs(rest[row] - rest[0]) < 1e-5);
    REQUIRE(std::abs(std::log(probability[row] / (1 - probability[row])) - logit[row]) < 1e-4);
    surplus += click[row] - probability[row];
    variance += probability[row] * (1 - probability[row]);
    rate += probability[row] / logit.size();
  }
  CHECK(std::abs(surplus) < 4 * std::sqrt(variance));
  CHECK(std::abs(rate - options.click_rate) < 0.02);
}

TEST_CASE("match and joint can be recomputed from the history file") {
  const TemporaryFolder folder;
  simulate(small(folder));
  const Table log(folder / "log/log.csv"), truth(folder / "log/truth.csv"), items(folder / "log/items.csv"),
      users(folder / "log/users.csv"), history(folder / "log/history.csv");
  std::vector<std::pair<std::string, std::string>> pairs;
  const std::vector<std::string> names{"category", "style",  "mood", "format",
                                       "language", "length", "era",  "origin"};
  for (size_t a = 0; a < names.size(); ++a) {
    for (size_t b = a + 1; b < names.size(); ++b) pairs.emplace_back(names[a], names[b]);
  }
  std::vector<double> match, joint;
  size_t empty = 0;
  for (size_t row = 0; row < log.columns.at("user_id").size(); ++row) {
    const size_t user = std::stoul(log.columns.at("user_id")[row]);
    const int item = std::stoi(log.columns.at("item_id")[row]);
    const auto seen = integers(history.columns.at("items")[user]),
               liked = integers(history.columns.at("liked")[user]),
               times = integers(history.columns.at("times")[user]);
    REQUIRE(seen.size() == liked.size());
    REQUIRE(std::is_sorted(times.begin(), times.end()));
    REQUIRE((times.empty() || times.back() < 1'767'225'600));
    std::vector<Seen> events;
    for (size_t t = 0; t < seen.size(); ++t) events.push_back({seen[t], 2 * liked[t] - 1});
    empty += events.empty();
    match.push_back(agreement(items, events, item, "category", "category"));
    const auto& [a, b] = pairs[std::stoul(users.columns.at("segment")[user])];
    joint.push_back(agreement(items, events, item, a, b));
  }
  CHECK(empty > 0);
  CHECK(correlation(match, truth.numbers("match")) == doctest::Approx(1).epsilon(1e-6));
  CHECK(correlation(joint, truth.numbers("joint")) == doctest::Approx(1).epsilon(1e-6));
}

TEST_CASE("in log mode events are earlier rows, from before the day, none from the test days") {
  const TemporaryFolder folder;
  SimulateOptions options = small(folder);
  options.history = SimulatedHistory::log;
  options.joint = 0;
  simulate(options);
  CHECK_FALSE(std::filesystem::exists(folder / "log/history.csv"));
  const Table log(folder / "log/log.csv"), truth(folder / "log/truth.csv"), items(folder / "log/items.csv");
  const auto& user = log.columns.at("user_id");
  const auto& date = log.columns.at("date");
  const auto item = log.numbers("item_id"), liked = log.numbers("liked");
  std::vector<double> match;
  for (size_t row = 0; row < user.size(); ++row) {
    std::vector<Seen> events;
    for (size_t past = row; past-- > 0 && events.size() < 20;) {
      if (user[past] != user[row] || date[past] == date[row] || date[past] > "2026-01-08") continue;
      events.push_back({static_cast<int>(item[past]), liked[past] == 1 ? 1 : -1});
    }
    match.push_back(agreement(items, events, static_cast<int>(item[row]), "category", "category"));
  }
  CHECK(correlation(match, truth.numbers("match")) == doctest::Approx(1).epsilon(1e-6));
}

// z_match as a model could compute it from its batches, beside the one that decided the labels.
std::pair<std::vector<double>, std::vector<double>> match_in_batches(const SimulateOptions& options,
                                                                     Split split) {
  const Dataset data = Dataset::open(load_schema(options.out + "/schema.json"), options.out);
  const auto truth = Table(options.out + "/truth.csv").numbers("match");
  const auto ids_of = [](const std::vector<FeatureSpec>& features, const std::vector<FeatureColumn>& columns,
                         const std::string& name) {
    const auto named = [&](const FeatureSpec& feature) { return feature.name == name; };
    const auto found = std::find_if(features.begin(), features.end(), named);
    REQUIRE(found != features.end());
    return columns[found - features.begin()].ids.to_vector<int64_t>();
  };
  std::vector<double> seen, planted;
  Loader loader(data, split);
  while (const auto batch = loader.next()) {
    const HistoryBatch& history = batch->histories.at(0);
    const auto& event_features = data.spec().histories[0].features;
    const auto wanted = ids_of(data.spec().features, batch->features, "category");
    const auto category = ids_of(event_features, history.columns, "category");
    const auto liked = ids_of(event_features, history.columns, "liked");
    const auto candidates = batch->offsets.to_vector<int64_t>(),
               events = history.offsets.to_vector<int64_t>();
    for (int64_t r = 0; r < batch->requests; ++r) {
      for (int64_t c = candidates[r]; c < candidates[r + 1]; ++c) {
        double n = 0, sum = 0;
        for (int64_t t = events[r]; t < events[r + 1]; ++t) {
          if (category[t] == wanted[c]) ++n, sum += liked[t] == 2 ? 1 : -1;  // row 1 is the signal 0
        }
        seen.push_back(n > 0 ? sum / std::sqrt(n) : 0);
        planted.push_back(truth.at(batch->row[c]));
      }
    }
  }
  return {seen, planted};
}

TEST_CASE("the schema brings every model the events that decided the labels") {
  for (const auto history : {SimulatedHistory::file, SimulatedHistory::log}) {
    const TemporaryFolder folder;
    SimulateOptions options = small(folder);
    options.history = history;
    simulate(options);
    for (const Split split : {Split::train, Split::test}) {
      const auto [seen, planted] = match_in_batches(options, split);
      CHECK(seen.size() > 500);
      CHECK(correlation(seen, planted) == doctest::Approx(1).epsilon(1e-6));
    }
  }
}

TEST_CASE("the bounds are the AUCs of the first terms on the test days") {
  const TemporaryFolder folder;
  const SimulateOptions options = small(folder);
  const SimulateReport report = simulate(options);
  const Table log(folder / "log/log.csv"), truth(folder / "log/truth.csv");
  const auto click = log.numbers("click"), p = truth.numbers("probability"), z = truth.numbers("popularity");
  std::vector<double> label, bayes, popularity;
  for (size_t row = 0; row < click.size(); ++row) {
    if (log.columns.at("date")[row] < "2026-01-09") continue;
    label.push_back(click[row]), bayes.push_back(p[row]), popularity.push_back(z[row]);
  }
  REQUIRE(report.test.rows == static_cast<int64_t>(label.size()));
  CHECK(report.train.rows + report.test.rows == options.rows);
  CHECK(report.test.bayes_auc() == doctest::Approx(auc_over_all_pairs(bayes, label)).epsilon(1e-3));
  CHECK(report.test.floor_auc() == doctest::Approx(auc_over_all_pairs(popularity, label)).epsilon(1e-3));
  const auto& bounds = report.train.bounds;
  REQUIRE(bounds.size() == 5);
  for (size_t k = 1; k < bounds.size(); ++k) CHECK(bounds[k].expected_auc > bounds[k - 1].expected_auc);
}

TEST_CASE("impossible options and failed writes say why and leave nothing behind") {
  const TemporaryFolder folder;
  SimulateOptions options = small(folder);
  options.rows = 0;
  CHECK_THROWS_WITH_AS(simulate(options), doctest::Contains("[simulate] rows must be at least 1, got 0"),
                       Error);
  options = small(folder);
  options.items = 5;
  CHECK_THROWS_WITH_AS(simulate(options), doctest::Contains("items must be at least 6, got 5"), Error);
  CHECK_FALSE(std::filesystem::exists(options.out));

  // Stands in for a full disk: no file of this process may grow beyond this size.
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit tight{100'000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &tight);
  options = small(folder);
  std::string message;
  try {
    simulate(options);
  } catch (const Error& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  CHECK(message.find("cannot write " + options.out) != std::string::npos);
  CHECK(message.find(std::strerror(EFBIG)) != std::string::npos);
  CHECK(std::filesystem::is_empty(options.out));
}

TEST_SUITE_END();
