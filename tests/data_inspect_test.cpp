// What inspect finds in a log that has one of everything that bites.
#include "mixrec/data/inspect/inspect.h"
#include "mixrec/tests/data_files.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <random>
#include <string>

using namespace mixrec;
using mixrec::test::DataFolder;

TEST_SUITE("data inspect") {
  TEST_CASE("a report names duplicates, outcomes, constants, unknown values and users with one class") {
    DataFolder folder;
    std::mt19937_64 random(5);
    std::string text = "user,item,time,fixed,seconds,is_like,noise,label\n";

    for (int i = 0; i < 3000; ++i) {
      const int user = i % 30;
      // Users below 10 never have a positive label.
      const bool label = user >= 10 && random() % 2 == 0, like = random() % 40 == 0;
      text += std::to_string(user) + "," + std::to_string(i < 2400 ? i % 50 : 1000 + i) + "," +
              std::to_string(86'400LL * (i / 300) + i) + ",7," +
              std::to_string(label ? 10 + random() % 50 : random() % 12) + "," + (like ? "1" : "0") + "," +
              std::to_string(random() % 100) + "," + (label ? "1" : "0") + "\n";
    }
    text += text.substr(text.find('\n') + 1, text.find('\n', text.find('\n') + 1) - text.find('\n'));
    folder.write("log.csv", text);
    const Schema schema = parse_schema(R"({
      "log": {"files": "log.csv", "user": "user", "item": "item", "time": "time"},
      "tasks": {"label": "label == 1"},
      "features": {"user": ["user"], "item": ["item"], "context": ["fixed", "noise", {"column": "seconds", "quantiles": 4}]},
      "histories": {"h": {"length": 4, "from": [{"log": true}], "features": ["item"]}},
      "split": {"by": "date", "test_days": 2}})");
    const InspectReport report = inspect(Dataset::open(schema, folder.path()), folder.path());
    CHECK(report.repeated_rows == 1);
    CHECK(report.repeated_events == 1);
    CHECK(report.manifest.rows_read == 3001);
    const auto column = [&](const std::string& name) {
      return *std::find_if(report.columns.begin(), report.columns.end(),
                           [&](const auto& c) { return c.name == name; });
    };
    CHECK(column("fixed").constant);
    CHECK(column("seconds").auc > 0.9);
    CHECK(column("seconds").input);
    CHECK(column("noise").auc < 0.6);
    CHECK(column("label").label);
    CHECK(report.users[0].users == 30);
    CHECK(report.users[0].both_classes == 20);
    CHECK(report.features[1].unknown_test == 1);
    CHECK(report.histories[0].test_lengths == std::vector<int64_t>(7, 4));
    CHECK(report.histories[0].train_lengths.front() == 0);

    const std::string all = report.text();
    for (const char* part :
         {"3,001 rows, 30 users", "repeated  1 whole rows, 1 of", "train       2,401",
          "of whom 10 have a single class", "'seconds' is an INPUT and looks like an outcome",
          "rightly no inputs: is_like (its name says feedback)", "the feature 'fixed' has a single value",
          "'item' is unknown in 100 % of the test cells", "1 rows repeat an earlier (user, item, time)"}) {
      INFO("text: ", all, " lacks: ", part);
      CHECK(all.find(part) != std::string::npos);
    }
    const std::string json = report.json();
    CHECK(std::count(json.begin(), json.end(), '{') == std::count(json.begin(), json.end(), '}'));
    CHECK(json.find("\"both_classes\": 20") != std::string::npos);
  }

  TEST_CASE("labels that take turns with the rows make no column an outcome") {
    for (const int period : {2, 3}) {
      const DataFolder folder;
      std::string text = "user,item,time,fixed,slow,label\n";
      for (int i = 0; i < 400; ++i)
        text += std::to_string(i % 7) + "," + std::to_string(i % 5) + "," +
                std::to_string(86'400 * (i / 40)) + ",show,s" + std::to_string(i / 100) + "," +
                (i % period == 0 ? "1\n" : "0\n");
      folder.write("log.csv", text);
      const Schema schema = parse_schema(R"({
        "log": {"files": "log.csv", "user": "user", "item": "item",
                "time": {"column": "time", "years": [1950, 2100]}},
        "tasks": {"label": "label == 1"}, "features": {"item": ["item"]},
        "split": {"by": "date", "test_days": 2}})");
      const InspectReport report = inspect(Dataset::open(schema, folder.path()), folder.path());
      for (const auto& column : report.columns)
        if (column.name == "fixed" || column.name == "slow") CHECK(column.auc < 0.6);
      CHECK(report.text().find("look like outcomes") == std::string::npos);
    }
  }
}
