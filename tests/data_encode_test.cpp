// Encodings, joins, lists, rates, match counts, masks and splits, on logs small enough to check by hand.
#include "mixrec/core/error.h"
#include "mixrec/data/batch_builder.h"
#include "mixrec/data/loader.h"
#include "mixrec/tests/data_files.h"
#include "mixrec/tests/small_log.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <map>
#include <numeric>
#include <string>
#include <vector>

using namespace mixrec;
using namespace mixrec::test;

TEST_SUITE("data encodings") {
  TEST_CASE("quantile buckets are equal shares of the training rows, ties together, missing apart") {
    DataFolder folder;
    folder.write("log.csv", days({"1", "1", "1", "1", "2", "3", "", "4", "9", "0"}));
    Small small;
    small.context_features = R"({"column": "x", "quantiles": 4})";
    const Dataset data = small.open(folder);
    const auto train = ids(data, Split::train, "x"), test = ids(data, Split::test, "x");
    // Seven training values 1 1 1 1 2 3 4: the first quarter ends inside the ones, nearer to their begin, where nothing
    // is cut off; the half ends nearer to their end, so that 2 begins a bucket; the last quarter begins at 3.
    CHECK(train == std::vector<int64_t>{2, 2, 2, 2, 3, 4, 1, 4});
    CHECK(test == std::vector<int64_t>{4, 2});
    CHECK(data.spec().features[feature(data, "x")].rows == 5);
  }

  TEST_CASE("fixed buckets begin at their edges") {
    DataFolder folder;
    folder.write("log.csv", days({"-5", "17.9", "18", "24", "25", "99", "", "18", "18", "18"}));
    Small small;
    small.context_features = R"({"column": "x", "buckets": [18, 25], "missing": "20"})";
    CHECK(ids(small.open(folder), Split::train, "x") == std::vector<int64_t>{2, 2, 3, 3, 4, 4, 3, 3});
  }

  TEST_CASE("numeric columns have mean 0 and deviation 1 over the training rows; missing is the mean") {
    DataFolder folder;
    folder.write("log.csv", days({"0", "10", "-1000", "3", "", "7", "1", "20", "5", "1000000"}));
    Small small;
    small.context_features =
        R"({"column": "x", "numeric": "log1p"}, {"name": "plain", "column": "x", "numeric": "standard"})";
    const Dataset data = small.open(folder);
    for (const char* name : {"x", "plain"}) {
      const auto train = values(data, Split::train, name);
      double sum = 0, squares = 0;
      for (const float v : train) sum += v, squares += double{v} * v;
      CHECK(std::abs(sum) < 1e-5);
      CHECK(squares / 7 == doctest::Approx(1).epsilon(1e-5));
      CHECK(train[4] == 0);
    }
    const auto train = values(data, Split::train, "x"), test = values(data, Split::test, "x");
    // Equal ratios of the transformed values, by the definition.
    CHECK((test[1] - train[0]) / (train[1] - train[0]) ==
          doctest::Approx(std::log(1000001.0) / std::log(11.0)));
    CHECK((train[2] - train[0]) / (train[1] - train[0]) ==
          doctest::Approx(-std::log(1001.0) / std::log(11.0)));
  }

  TEST_CASE("hashes stay inside their table, a missing cell of a vocabulary has its own row") {
    DataFolder folder;
    folder.write("log.csv", days({"a", "", "b", "a", "", "c", "d", "e", "a", "new"}));
    Small small;
    small.context_features =
        R"({"column": "x", "hash": 3}, {"name": "v", "column": "x"}, {"name": "declared", "column": "x", "missing": "a"})";
    const Dataset data = small.open(folder);
    const auto hashed = ids(data, Split::train, "x");
    CHECK(*std::min_element(hashed.begin(), hashed.end()) >= 1);
    CHECK(data.spec().features[feature(data, "x")].rows == 4);
    CHECK(hashed[0] == hashed[3]);
    CHECK(ids(data, Split::train, "v") == std::vector<int64_t>{1, 2, 3, 1, 2, 4, 5, 6});
    CHECK(ids(data, Split::test, "v") == std::vector<int64_t>{1, kUnknownRow});
    CHECK(ids(data, Split::train, "declared") == std::vector<int64_t>{1, 1, 2, 1, 1, 3, 4, 5});
  }

  TEST_CASE("tables are joined by key; users without a row read as missing; tables may be shared") {
    DataFolder folder;
    folder.write("log.csv", "user,item,day,label\nb,x,0,1\na,y,1,0\nc,x,2,1\nb,z,3,0\n");
    folder.write("people.txt", "b::Paris::1\na::Rome::2\n");
    folder.write("items.csv", "item,city,note\nx,Rome,\"a, \"\"b\"\"\"\ny,Oslo,plain\n");
    Small small;
    small.tables = R"("users": {"file": "people.txt", "separator": "::", "columns": ["user", "city", "n"]},
                      "items": {"file": "items.csv"})";
    small.user_features = R"("user", {"column": "users.city", "name": "home", "table": "city"})";
    small.item_features = R"("item", {"column": "items.city", "table": "city"}, "items.note")";
    small.split = R"("by": "date", "test_days": 1, "validation_days": 0)";
    const Dataset data = small.open(folder);
    const auto home = ids(data, Split::train, "home"), city = ids(data, Split::train, "city");
    // In the packed order, by user: b (day 0), a, c; c and z are in no table.
    const auto rows = all_rows(data, Split::train).row;
    std::map<int64_t, size_t> at;
    for (size_t i = 0; i < rows.size(); ++i) at[rows[i]] = i;
    CHECK(home[at[1]] == city[at[0]]);
    CHECK(home[at[0]] != home[at[1]]);
    CHECK(home[at[2]] != kUnknownRow);
    CHECK(ids(data, Split::test, "city") == std::vector<int64_t>{home[at[2]]});
    CHECK(data.spec().features[feature(data, "home")].rows ==
          data.spec().features[feature(data, "city")].rows);
    std::ifstream notes(data.packed_folder() + "/encoders/vocabulary.3.txt");
    std::string first;
    std::getline(notes, first);
    CHECK(first == "a, \"b\"");
  }

  TEST_CASE("list columns keep every element, unknown ones too") {
    DataFolder folder;
    folder.write("log.csv", days({"a|b", "", "c", "b|b|a", "a", "a", "a", "a", "new|a", ""}));
    Small small;
    small.context_features =
        R"({"column": "x", "list": "|"}, {"name": "h", "column": "x", "list": "|", "hash": 5})";
    const Dataset data = small.open(folder);
    const RequestBatch train = all_rows(data, Split::train), test = all_rows(data, Split::test);
    const auto& column = train.features[feature(data, "x")];
    CHECK(column.offsets.to_vector<int64_t>() == std::vector<int64_t>{0, 2, 2, 3, 6, 7, 8, 9, 10});
    CHECK(column.ids.to_vector<int64_t>() == std::vector<int64_t>{1, 2, 3, 2, 2, 1, 1, 1, 1, 1});
    CHECK(test.features[feature(data, "x")].ids.to_vector<int64_t>() == std::vector<int64_t>{0, 1});
    CHECK(train.features[feature(data, "h")].offsets.to_vector<int64_t>().back() == 10);
  }

  TEST_CASE("hours and weekdays of the row's time") {
    DataFolder folder;
    folder.write("log.csv",
                 "user,item,when,label\nu,a,2022-05-02 00:30:00,1\nu,b,2022-05-03 23:59:59,0\nu,c,2022-05-08 "
                 "12:00:00,0\n");
    Small small;
    small.log_options = R"(, "time": {"column": "when", "format": "%Y-%m-%d %H:%M:%S"})";
    small.context_features = R"({"column": "when", "part": "hour"}, {"column": "when", "part": "weekday"})";
    small.split = R"("by": "date", "test_from": "2022-05-08")";
    const Dataset data = small.open(folder);
    CHECK(ids(data, Split::train, "hour") == std::vector<int64_t>{1, 24});
    CHECK(ids(data, Split::train, "weekday") == std::vector<int64_t>{1, 2});  // a Monday and a Tuesday
    CHECK(ids(data, Split::test, "weekday") == std::vector<int64_t>{7});
    CHECK(data.stats(Split::test).first_day == "2022-05-08");
  }

  TEST_CASE("rates are smoothed logits over the events before the log, by item, by feature and by user") {
    DataFolder folder;
    folder.write("log.csv", "user,item,day,label\nu,x,10,1\nv,y,10,0\nu,z,10,0\nu,x,11,1\n");
    folder.write("items.csv", "item,tags\nx,p q\ny,p\nz,r\n");
    folder.write("past.csv", "user,items,good\nu,x x y,110\nv,y y,01\n");
    Small small;
    small.tables = R"("items": {"file": "items.csv"})";
    small.user_features =
        R"("user", {"name": "ur", "rate": {"history": "h", "key": "user", "signal": "good", "k": 3}})";
    small.item_features = R"("item", {"column": "items.tags", "list": " "},
      {"name": "ir", "rate": {"history": "h", "key": "item", "signal": "good", "k": 2}},
      {"name": "tr", "rate": {"history": "h", "key": "tags", "signal": "good", "k": 2}})";
    small.histories =
        R"("h": {"from": [{"files": "past.csv", "items": "items", "signals": {"good": {"column": "good", "list": ""}}},
                               {"log": true, "signals": {"good": "label"}}], "features": ["item", "tags"]})";
    small.split = R"("by": "date", "test_days": 1)";
    const Dataset data = small.open(folder);
    const auto rows = all_rows(data, Split::train).row;
    std::map<int64_t, size_t> at;
    for (size_t i = 0; i < rows.size(); ++i) at[rows[i]] = i;
    const auto logit = [](double yes, double all, double k) {
      const double p = 3.0 / 5, share = (yes + k * p) / (all + k);
      return std::log(share / (1 - share));
    };
    // Items: x 2 of 2, y 1 of 3, z none.  Tags: p 3 of 5, q 2 of 2, r none.  Users: u 2 of 3, v 1 of 2.
    const std::map<std::string, std::vector<double>> expected{
        {"ir", {logit(2, 2, 2), logit(1, 3, 2), logit(0, 0, 2)}},
        {"tr", {(logit(3, 5, 2) + logit(2, 2, 2)) / 2, logit(3, 5, 2), logit(0, 0, 2)}},
        {"ur", {logit(2, 3, 3), logit(1, 2, 3), logit(2, 3, 3)}}};
    for (const auto& [name, raw] : expected) {
      double mean = 0, square = 0;
      for (const double v : raw) mean += v / 3, square += v * v / 3;
      const double deviation = std::sqrt(square - mean * mean);
      const RequestBatch batch = all_rows(data, Split::train);
      const auto got = batch.features[feature(data, name)].values.to_vector<float>();
      const auto offsets = batch.offsets.to_vector<int64_t>();
      for (int64_t row = 0; row < 3; ++row) {
        size_t place = at[row];
        if (name == "ur")  // stored by request
          place =
              static_cast<size_t>(std::upper_bound(offsets.begin(), offsets.end(), place) - offsets.begin()) -
              1;
        CHECK(got[place] == doctest::Approx((raw[row] - mean) / deviation).epsilon(1e-5));
      }
    }
  }

  TEST_CASE("match counts compare the candidate with its request's events") {
    DataFolder folder;
    folder.write("log.csv", "user,item,day,label\nu,x,10,1\nu,y,10,0\nu,z,10,0\nu,w,10,1\nu,x,11,1\n");
    folder.write("items.csv", "item,tags\nx,p q\ny,p\nz,r\nw,\n");
    folder.write("past.csv", "user,items,good\nu,x x y z,1001\n");
    Small small;
    small.tables = R"("items": {"file": "items.csv"})";
    small.item_features = R"("item", {"column": "items.tags", "list": " "})";
    small.histories =
        R"("h": {"from": [{"files": "past.csv", "items": "items", "signals": {"good": {"column": "good", "list": ""}}}],
                               "features": ["item", "tags"]})";
    small.context_features = R"({"name": "mi", "matches": {"history": "h", "key": "item"}},
                                {"name": "mt", "matches": {"history": "h", "key": "tags", "cap": 2}},
                                {"name": "mg", "matches": {"history": "h", "key": "item", "signal": "good"}})";
    small.split = R"("by": "date", "test_days": 1)";
    const Dataset data = small.open(folder);
    CHECK(ids(data, Split::train, "mi") == std::vector<int64_t>{3, 2, 2, 1});
    CHECK(ids(data, Split::train, "mt") == std::vector<int64_t>{3, 3, 2, 1});
    CHECK(ids(data, Split::train, "mg") == std::vector<int64_t>{2, 1, 2, 1});
    CHECK(data.spec().features[feature(data, "mt")].rows == 4);
  }

  TEST_CASE("an empty cell in a mask or a weight means that the label does not count; a text is an error") {
    DataFolder folder;
    const auto write = [&](const std::string& cell) {
      std::string text = "user,item,day,x,label\n";
      for (int day = 0; day < 8; ++day)
        text += "u,i," + std::to_string(day) + "," + (day % 3 == 1 ? cell : std::to_string(day)) + ",1\n";
      folder.write("log.csv", text);
    };
    for (const char* key : {"where", "weight", "log weight"}) {
      CAPTURE(key);
      Small small;
      const std::string in_log = R"(, "weight": "x + 1")";
      const std::string rule = key == std::string("where") ? "x >= 0" : "x + 1";
      if (key == std::string("log weight")) small.log_options += in_log;
      small.tasks =
          R"("click": {"label": "label")" +
          (key == std::string("log weight") ? "" : std::string(", \"") + key + "\": \"" + rule + "\"") +
          R"(}, "other": {"label": "label"})";
      write("");
      const Dataset data = small.open(folder);
      const RequestBatch all = all_rows(data, Split::all);
      const std::vector<float> weights = all.weights.to_vector();
      REQUIRE(weights.size() == 16);
      for (size_t day = 0; day < 8; ++day) {
        const float counted = key == std::string("where") ? 1 : static_cast<float>(day + 1);
        CHECK(weights[2 * day] == (day % 3 == 1 ? 0 : counted));
        CHECK(weights[2 * day + 1] == (key != std::string("log weight") ? 1 : day % 3 == 1 ? 0 : counted));
      }
      CHECK(data.stats(Split::all).tasks[0].rows == 5);
      write("much");
      const std::string said = message_of([&] { small.open(folder); });
      INFO(said);
      CHECK(said.starts_with("log.csv, line 3"));
      CHECK(said.find("'much'") != std::string::npos);
    }
  }

  TEST_CASE("masks, weights and several tasks; tasks can be chosen") {
    DataFolder folder;
    folder.write("log.csv", days({"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}));
    Small small;
    small.tasks =
        R"("a": "x >= 5", "b": {"label": "label == 1", "where": "x > 2", "weight": "x / 2", "loss_weight": 0.5})";
    small.log_options += R"(, "weight": "x * 2", "where": "x != 4")";
    const Dataset data = small.open(folder);
    const RequestBatch train = all_rows(data, Split::train);
    CHECK(train.labels.to_vector() == std::vector<float>{0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 0, 1, 1});
    CHECK(train.weights.to_vector() == std::vector<float>{2, 0, 4, 0, 6, 9, 10, 25, 12, 36, 14, 49, 16, 64});
    CHECK(data.manifest().rows_filtered == 1);
    CHECK(data.stats(Split::train).tasks[1].rate() == doctest::Approx((36.0 + 64) / (9 + 25 + 36 + 49 + 64)));
    const Dataset only = Dataset::open(parse_schema(small.schema()), folder.path(), {}, {"b"});
    CHECK(only.spec().tasks.size() == 1);
    CHECK(only.spec().tasks[0].loss_weight == 0.5);
    CHECK(all_rows(only, Split::train).labels.to_vector() == std::vector<float>{0, 0, 0, 0, 1, 0, 1});
    Loader training(only, Split::train, {.shuffle = Shuffle::none, .workers = 0, .training = true});
    CHECK(training.next()->labels.to_vector() == std::vector<float>{0, 0, 1, 0, 1});
  }

  TEST_CASE("kept negatives thin out what the optimiser sees and nothing else, always the same way") {
    DataFolder folder;
    std::string text = "user,item,day,label\n";
    for (int i = 0; i < 4000; ++i)
      text += "u" + std::to_string(i % 50) + ",i," + std::to_string(i / 1000) + "," +
              (i % 4 == 0 ? "1" : "0") + "\n";
    folder.write("log.csv", text);
    Small small;
    small.tasks = R"("label": {"label": "label == 1", "kept_negatives": 0.25})";
    small.split = R"("by": "date", "test_days": 1)";
    const Dataset data = small.open(folder);
    Loader train(data, Split::train, {.training = true}),
        again(data, Split::train, {.seed = 9, .training = true}), whole(data, Split::train, {});
    CHECK(train.rows() == again.rows());
    CHECK(whole.rows() == 3000);
    CHECK(train.rows() == doctest::Approx(750 + 2250 * 0.25).epsilon(0.05));
  }

  TEST_CASE("splits by fraction, by column and by files") {
    DataFolder folder;
    folder.write("log.csv", days({"t", "t", "v", "e", "t", "t", "v", "e", "t", "t"}));
    Small small;
    small.split = R"("by": "fraction", "test": 0.2, "validation": 0.3)";
    const Dataset fraction = small.open(folder);
    CHECK(all_rows(fraction, Split::train).row == std::vector<int64_t>{0, 1, 2, 3, 4});
    CHECK(all_rows(fraction, Split::validation).row == std::vector<int64_t>{5, 6, 7});
    CHECK(all_rows(fraction, Split::test).row == std::vector<int64_t>{8, 9});

    small.split = R"("by": "column", "column": "x", "train": "t", "validation": "v", "test": "e")";
    const Dataset column = small.open(folder);
    CHECK(all_rows(column, Split::validation).row == std::vector<int64_t>{2, 6});
    CHECK(all_rows(column, Split::test).row == std::vector<int64_t>{3, 7});
    small.split =
        R"("by": "column", "column": "x", "train": ["t", "v"], "test": "e", "validation_fraction": 0.25)";
    CHECK(all_rows(small.open(folder), Split::validation).row == std::vector<int64_t>{8, 9});

    folder.write("test.csv", "user,item,day,x,label\nu,i1,3,t,1\n");
    small.split = R"("by": "files", "train": "log.csv", "test": "test.csv", "validation_fraction": 0.1)";
    auto schema = small.schema();
    schema.replace(schema.find("\"log.csv\""), 9, R"(["log.csv", "test.csv"])");
    const Dataset files = Dataset::open(parse_schema(schema), folder.path());
    CHECK(all_rows(files, Split::test).row == std::vector<int64_t>{10});
    CHECK(all_rows(files, Split::train).row.size() == 9);
  }
}
