// The rules that keep an evaluation honest, on logs small enough to check by eye.
#include "mixrec/core/error.h"
#include "mixrec/data/loader.h"
#include "mixrec/data/time_format.h"
#include "mixrec/tests/data_files.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <map>
#include <set>
#include <string>
#include <vector>

using namespace mixrec;
using mixrec::test::DataFolder;
using mixrec::test::message_of;

namespace {

// Eight days; user u sees item 10u + d on day d and again item 5 (all users) at the end of the day.
std::string small_log() {
  std::string text = "user,item,time,label\n";
  for (int day = 1; day <= 8; ++day)
    for (int user = 1; user <= 3; ++user) {
      const auto second = [&](int n) { return std::to_string((day - 1) * 86'400 + n); };
      text += std::to_string(user) + "," + std::to_string(10 * user + day) + "," + second(user) + "," +
              std::to_string((day + user) % 2) + "\n";
      text += std::to_string(user) + ",5," + second(1000 + user) + ",1\n";
    }
  return text;
}

std::string small_schema(const std::string& log_extra = "", const std::string& extra = "", int length = 64) {
  return R"({"log": {"files": "log.csv", "user": "user", "item": "item", "time": "time")" + log_extra + R"(},
    "tasks": {"label": "label == 1"},
    "features": {"user": ["user"], "item": ["item"]},
    "histories": {"seen": {"length": )" +
         std::to_string(length) + R"(, "from": [{"log": true, "signals": {"label": "label"}}],
                           "features": ["item"], "gap": true, "position": true}},
    "split": {"by": "date", "test_days": 2, "validation_days": 1})" +
         extra + "}";
}

Dataset open(const DataFolder& folder, const std::string& schema) {
  return Dataset::open(parse_schema(schema), folder.path());
}

std::vector<std::string> vocabulary(const Dataset& data, const std::string& table) {
  const auto& tables = data.manifest().tables;
  for (size_t t = 0; t < tables.size(); ++t) {
    if (tables[t].name != table) continue;
    std::ifstream in(data.packed_folder() + "/encoders/vocabulary." + std::to_string(t) + ".txt");
    std::vector<std::string> rows{"(unknown)"};
    for (std::string line; std::getline(in, line);) rows.push_back(line);
    return rows;
  }
  return {};
}

// One candidate and its request's history, as texts.
struct Shown {
  int64_t row;
  std::string item;
  std::vector<std::string> history;
  std::vector<int64_t> signal, gap, position;
};

std::vector<Shown> shown(const Dataset& data, Split split, Shuffle shuffle = Shuffle::none) {
  std::vector<Shown> all;
  const auto items = vocabulary(data, "item");
  Loader loader(data, split, {.batch_size = 3, .shuffle = shuffle, .workers = 0});
  while (const auto batch = loader.next()) {
    batch->validate(data.spec());
    const auto offsets = batch->offsets.to_vector<int64_t>();
    const auto item = batch->features[1].ids.to_vector<int64_t>();
    const HistoryBatch& history = batch->histories[0];
    const auto events = history.offsets.to_vector<int64_t>();
    for (int64_t r = 0; r < batch->requests; ++r)
      for (int64_t c = offsets[r]; c < offsets[r + 1]; ++c) {
        Shown one{batch->row[c], items[item[c]], {}, {}, {}, {}};
        for (int64_t e = events[r]; e < events[r + 1]; ++e) {
          one.history.push_back(items[history.columns[0].ids.data<int64_t>()[e]]);
          one.signal.push_back(history.columns[1].ids.data<int64_t>()[e]);
          one.gap.push_back(history.columns[2].ids.data<int64_t>()[e]);
          one.position.push_back(history.columns[3].ids.data<int64_t>()[e]);
        }
        all.push_back(std::move(one));
      }
  }
  std::sort(all.begin(), all.end(), [](const Shown& a, const Shown& b) { return a.row < b.row; });
  return all;
}

}  // namespace

TEST_SUITE("data protocol") {
  TEST_CASE("histories end the day before, and with the last training day") {
    DataFolder folder;
    folder.write("log.csv", small_log());
    const Dataset data = open(folder, small_schema());
    CHECK(data.stats(Split::train).rows == 30);
    CHECK(data.stats(Split::validation).last_day == "1970-01-06");
    CHECK(data.stats(Split::test).first_day == "1970-01-07");
    CHECK(data.stats(Split::refit).rows == 36);
    // Rows 6 (day - 1) + 2 (user - 1) + {0, 1}: brute force over the rule itself.
    for (const Split split : {Split::train, Split::validation, Split::refit, Split::test}) {
      const int frozen = split == Split::train || split == Split::validation ? 5 : 6;
      for (const auto& one : shown(data, split)) {
        const int day = static_cast<int>(one.row / 6) + 1, user = static_cast<int>(one.row / 2 % 3) + 1;
        std::vector<std::string> expected;
        for (int d = 1; d < day && d <= frozen; ++d) {
          const std::string item = std::to_string(10 * user + d);
          // Known to the vocabulary of the part that the model is trained on.
          expected.push_back(item), expected.push_back("5");
        }
        CHECK(one.history == expected);
        CHECK(one.position.size() == expected.size());
        for (size_t p = 0; p < one.position.size(); ++p)
          CHECK(one.position[p] == static_cast<int64_t>(expected.size() - p));
      }
    }
  }

  TEST_CASE("the newest events are kept, oldest first") {
    DataFolder folder;
    folder.write("log.csv", small_log());
    const auto last = shown(open(folder, small_schema("", "", 3)), Split::test).back();
    CHECK(last.history == std::vector<std::string>{"5", "36", "5"});
    CHECK(last.position == std::vector<int64_t>{3, 2, 1});
  }

  TEST_CASE("a snapshot by time sees earlier events of the day, never its own row") {
    DataFolder folder;
    folder.write("log.csv", small_log());
    const auto rows = shown(open(folder, small_schema("", R"(, "snapshot": "time")")), Split::train);
    CHECK(rows[0].history.empty());
    CHECK(rows[1].history == std::vector<std::string>{"11"});
    CHECK(rows[6].history == std::vector<std::string>{"11", "5"});
  }

  TEST_CASE("without a freeze, histories run up to the request") {
    DataFolder folder;
    folder.write("log.csv", small_log());
    CHECK(shown(open(folder, small_schema("", R"(, "freeze": false)")), Split::test).back().history.size() ==
          14);
    CHECK(shown(open(folder, small_schema()), Split::test).back().history.size() == 12);
  }

  TEST_CASE("each row is its own request when rows are shuffled, with the same history") {
    DataFolder folder;
    folder.write("log.csv", small_log());
    const Dataset data = open(folder, small_schema());
    const auto together = shown(data, Split::refit), apart = shown(data, Split::refit, Shuffle::rows);
    REQUIRE(together.size() == apart.size());
    for (size_t i = 0; i < apart.size(); ++i) CHECK(together[i].history == apart[i].history);
  }

  TEST_CASE("duplicates go before the split: the first in the log stays") {
    DataFolder folder;
    folder.write("log.csv", small_log() + "1,11,1,1\n1,11,1,0\n");
    const Dataset data = open(folder, small_schema(R"(, "duplicates": ["user", "item", "time"])"));
    CHECK(data.manifest().duplicates == 2);
    CHECK(data.manifest().rows == 48);
    CHECK(shown(data, Split::train).front().row == 0);
  }

  TEST_CASE("no part, day or share counts a row that duplicates drops") {
    const auto parts = [](const std::string& log, const std::string& split) {
      DataFolder folder;
      folder.write("log.csv", log);
      const Dataset data = Dataset::open(
          parse_schema(
              R"({"log": {"files": "log.csv", "user": "user", "item": "item", "duplicates": ["user", "item"],
            "time": {"column": "day", "unit": "day"}}, "tasks": {"label": "label"}, "features": {"item": ["item"]},
            "split": )" +
              split + "}"),
          folder.path());
      std::vector<int64_t> rows;
      for (const auto& part : data.manifest().splits) rows.push_back(part.rows);
      return rows;
    };
    std::string log = "user,item,day,label\n";
    for (int k = 0; k < 20; ++k)
      log += "u" + std::to_string(k % 2) + ",i" + std::to_string(k) + "," + std::to_string(k) + "," +
             std::to_string(k / 2 % 2) + "\n";
    std::string repeated = log;
    for (int k = 0; k < 20; ++k) repeated += "u1,i19,19,1\n";
    // The item was there before: this row does not make day 40 the last one.
    const std::string later = log + "u0,i0,40,1\nu1,i1,33,0\n";
    using Rows = std::vector<int64_t>;
    const std::string fraction = R"({"by": "fraction", "test": 0.2, "validation": 0.2})",
                      days = R"({"by": "date", "test_days": 2, "validation_days": 3})";
    for (const std::string& one : {log, repeated, later}) {
      CHECK(parts(one, fraction) == Rows{12, 4, 4});
      CHECK(parts(one, days) == Rows{15, 3, 2});
    }
  }

  TEST_CASE("vocabularies come from the training rows; selection knows only its own part") {
    DataFolder folder;
    folder.write("log.csv", small_log());
    const Dataset data = open(folder, small_schema());
    const auto items = vocabulary(data, "item");
    CHECK(std::set<std::string>(items.begin(), items.end()).count("16") == 1);
    CHECK(std::set<std::string>(items.begin(), items.end()).count("17") == 0);
    CHECK(shown(data, Split::validation)[0].item == "(unknown)");
    CHECK(shown(data, Split::refit)[30].item == "16");
    CHECK(shown(data, Split::test)[0].item == "(unknown)");
  }

  TEST_CASE("rare values share the unknown row") {
    DataFolder folder;
    folder.write("log.csv", small_log());
    auto schema = small_schema();
    schema.replace(schema.find(R"("item": ["item"])"), 16, R"("item": [{"column": "item", "min_count": 2}])");
    CHECK(vocabulary(open(folder, schema), "item") == std::vector<std::string>{"(unknown)", "5"});
  }

  TEST_CASE("gaps are counted to the request's first row in powers of two") {
    DataFolder folder;
    folder.write("log.csv", small_log());
    const auto rows = shown(open(folder, small_schema()), Split::train);
    // Row 6 is day 2, second 1; its events are day 1, seconds 1 and 1001: 86400 and 85400 seconds ago.
    CHECK(rows[6].gap == std::vector<int64_t>{17, 17});
    CHECK(rows[6].signal == std::vector<int64_t>{1, 2});
  }
}
