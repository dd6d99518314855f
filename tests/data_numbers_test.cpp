// Numbers of the log keep what they are until they are encoded: moments, edges, quantiles, weights; and scoring from raw
// values makes the same of them.
#include "mixrec/data/feature_encoder.h"
#include "mixrec/data/packing/packed_data.h"
#include "mixrec/tests/data_files.h"
#include "mixrec/tests/small_log.h"

#include <cmath>
#include <doctest/doctest.h>
#include <string>
#include <vector>

using namespace mixrec;
using namespace mixrec::test;

namespace {

// All rows but the last are training rows.
Small one_test_day() {
  Small small;
  small.split = R"("by": "date", "test_days": 1)";
  return small;
}

// Bit for bit: what the encoder of requests makes of each training cell.
void check_scored_alike(const Dataset& data, const DataFolder& folder, const std::vector<std::string>& cells,
                        const std::string& name) {
  write_features(data, folder.path("encoders"));
  const FeatureEncoder encoder(folder.path("encoders"), TrainedOn::whole_period);
  const RequestBatch packed = all_rows(data, Split::train);
  const size_t f = feature(data, name);
  for (size_t row = 0; row < packed.row.size(); ++row) {
    ScoreRequest request{.user = "u"};
    request.candidates.emplace_back(std::string("i0"), Values{{name, cells[row]}});
    const FeatureColumn got = encoder.encode(request).features[f];
    INFO("row ", row, ", cell ", cells[row]);
    if (got.ids.defined()) {
      CHECK(got.ids.to_vector<int64_t>()[0] == packed.features[f].ids.to_vector<int64_t>()[row]);
    } else {
      CHECK(got.values.to_vector<float>()[0] == packed.features[f].values.to_vector<float>()[row]);
    }
  }
}

}  // namespace

TEST_SUITE("data numbers") {
  TEST_CASE("a small deviation of large numbers is kept") {
    struct Case {
      std::vector<std::string> cells;
      std::vector<float> expected;
    };
    const std::vector<Case> cases{
        {{"1651363200", "1651364224", "1651363200", "1651364224"}, {-1, 1, -1, 1}},
        {{"-4503599627370497", "-4503599627370495", "-4503599627370495", "-4503599627370497"},
         {-1, 1, 1, -1}},
        {{"1000000.001", "1000000.003", "1000000.001", "1000000.003"}, {-1, 1, -1, 1}},
        {{"1e-200", "3e-200", "1e-200", "3e-200"}, {-1, 1, -1, 1}},
        {{"3e38", "-3e38", "-3e38", "3e38"}, {1, -1, -1, 1}},
        {{"0.1", "0.1", "0.1", "0.1"}, {0, 0, 0, 0}},
    };
    for (const auto& [cells, expected] : cases) {
      DataFolder folder;
      auto with_test = cells;
      with_test.push_back(cells[0]);
      folder.write("log.csv", days(with_test));
      Small small = one_test_day();
      small.context_features = R"({"column": "x", "numeric": "standard"})";
      const Dataset data = small.open(folder);
      const auto got = values(data, Split::train, "x");
      for (size_t i = 0; i < expected.size(); ++i)
        CHECK_MESSAGE(got[i] == doctest::Approx(expected[i]).epsilon(1e-5), cells[i]);
      check_scored_alike(data, folder, cells, "x");
    }
  }

  TEST_CASE("moments of a table count its rows as often as the log shows them") {
    DataFolder folder;
    folder.write("log.csv", "user,item,day,label\nu,a,0,1\nu,a,1,0\nu,a,2,1\nu,b,3,0\nu,a,4,1\n");
    folder.write("items.csv", "item,price\nb,1651364224\na,1651363200\nnever,5\n");
    Small small = one_test_day();
    small.tables = R"("items": {"file": "items.csv"})";
    small.item_features = R"("item", {"column": "items.price", "numeric": "standard"})";
    // a a a b: mean 256 above a, deviation 256 sqrt(3).
    const auto got = values(small.open(folder), Split::train, "price");
    CHECK(got[0] == doctest::Approx(-1 / std::sqrt(3)));
    CHECK(got[3] == doctest::Approx(std::sqrt(3)));
  }

  TEST_CASE("a number on an edge begins the bucket, whatever f32 makes of it") {
    const std::vector<std::pair<std::string, std::vector<std::string>>> cases{
        {"9.99", {"9.98", "9.99", "10", "9.99"}},
        {"0.7", {"0.69999999999999", "0.7", "0.70000001", "7e-1"}},
        {"16777217", {"16777216", "16777217", "16777218", "16777217"}}};
    for (const auto& [edge, cells] : cases) {
      DataFolder folder;
      auto with_test = cells;
      with_test.push_back("1");
      folder.write("log.csv", days(with_test));
      Small small = one_test_day();
      small.context_features = R"({"column": "x", "buckets": [)" + edge + "]}";
      const Dataset data = small.open(folder);
      CHECK(ids(data, Split::train, "x") == std::vector<int64_t>{2, 3, 3, 3});
      check_scored_alike(data, folder, cells, "x");
    }
  }

  TEST_CASE("quantiles keep what a heavy value can be told apart from") {
    const auto edges_of = [](const std::vector<std::string>& cells, int buckets) {
      DataFolder folder;
      auto with_test = cells;
      with_test.push_back(cells[0]);
      folder.write("log.csv", days(with_test));
      Small small = one_test_day();
      small.context_features = R"({"column": "x", "quantiles": )" + std::to_string(buckets) + "}";
      const Dataset data = small.open(folder);
      check_scored_alike(data, folder, cells, "x");
      return ids(data, Split::train, "x");
    };
    using Rows = std::vector<int64_t>;
    CHECK(edges_of({"3", "0", "0", "0", "0", "3", "0", "0", "0", "0"}, 4) ==
          Rows{3, 2, 2, 2, 2, 3, 2, 2, 2, 2});
    CHECK(edges_of({"0", "0", "0", "0", "0", "0", "0", "7"}, 2) == Rows{2, 2, 2, 2, 2, 2, 2, 3});
    CHECK(edges_of({"7", "7", "7", "7", "7", "7", "7", "0"}, 2) == Rows{3, 3, 3, 3, 3, 3, 3, 2});
    CHECK(edges_of({"0", "5", "5", "5", "5", "5", "5", "9"}, 3) == Rows{2, 3, 3, 3, 3, 3, 3, 4});
    // Two numbers that are one as f32.
    CHECK(edges_of({"16777217", "16777216", "16777217", "16777216"}, 2) == Rows{3, 2, 3, 2});
    CHECK(edges_of({"1", "2", "3", "4", "5", "6", "7", "8"}, 4) == Rows{2, 2, 3, 3, 4, 4, 5, 5});
    CHECK(edges_of({"4", "4", "4"}, 5) == Rows{2, 2, 2});
  }

  TEST_CASE("numbers and weights beyond f32 are refused at their line") {
    const auto message = [](const std::string& cell, const std::string& feature, const std::string& weight) {
      DataFolder folder;
      folder.write("log.csv", days({"1", cell, "3", "4"}));
      Small small = one_test_day();
      small.context_features = feature;
      if (!weight.empty()) small.log_options += R"(, "weight": ")" + weight + "\"";
      return message_of([&] { small.open(folder); });
    };
    const std::string numeric = R"({"column": "x", "numeric": "standard"})";
    for (const char* cell : {"1.7976931348623157e308", "-1e39", "3.5e38"}) {
      const std::string said = message(cell, numeric, "");
      CHECK(said.find("log.csv, line 3, column 'x': '" + std::string(cell) + "' is beyond") == 0);
    }
    CHECK(message("3.4e38", numeric, "") == "");
    // Buckets compare the number as it is.
    CHECK(message("1e300", R"({"column": "x", "buckets": [2.5]})", "") == "");
    CHECK(message("1e39", "", "x").find("log.csv, line 3: the weight of 'label' is too large") == 0);
    CHECK(message("2e20", "", "x * x").find("log.csv, line 3: the weight of 'label' is too large") == 0);
    CHECK(message("1e-46", "", "x").find("log.csv, line 3: the weight of 'label' is too small") == 0);
    CHECK(message("1e-30", "", "x * x").find("log.csv, line 3: the weight of 'label' is too small") == 0);
    CHECK(message("1e-44", "", "x") == "");
    CHECK(message("0", "", "x") == "");
  }

  TEST_CASE("a value of a table beyond f32 and one that a test row puts too far out are refused") {
    DataFolder folder;
    folder.write("log.csv", "user,item,day,label\nu,a,0,1\nu,b,1,0\nu,a,2,1\n");
    folder.write("items.csv", "item,price\na,1\nb,4e38\n");
    Small small = one_test_day();
    small.tables = R"("items": {"file": "items.csv"})";
    small.item_features = R"("item", {"column": "items.price", "numeric": "standard"})";
    CHECK(message_of([&] { small.open(folder); }).find("items.csv, line 3, column 'price': '4e38'") == 0);
    DataFolder other;
    other.write("log.csv", days({"1e-30", "2e-30", "1e-30", "3e38"}));
    Small plain = one_test_day();
    plain.context_features = R"({"column": "x", "numeric": "standard"})";
    CHECK(message_of([&] { plain.open(other); }).find("feature 'x': 3e+38 is too far") == 0);
  }

  TEST_CASE("an empty label cell is no label: the row stays and counts nothing") {
    DataFolder folder;
    folder.write("log.csv", "user,item,day,click,like\nu,a,0,1,\nu,b,1,0,0.25\nu,c,2,,1\nu,d,3,,\n");
    Small small = one_test_day();
    small.tasks = R"("click": "click == 1", "like": "like", "either": "click > 0 || like > 0.5")";
    const std::string schema =
        R"({"log": {"files": "log.csv", "user": "user", "item": "item", "time": {"column": "day", "unit": "day"}},
        "tasks": {"click": "click == 1", "like": "like", "either": "click > 0 || like > 0.5"},
        "features": {"item": ["item"]}, "split": {"by": "date", "test_days": 1}})";
    const Dataset data = Dataset::open(parse_schema(schema), folder.path());
    const SplitStats& train = data.manifest().splits[0];
    const SplitStats& test = data.manifest().splits[2];
    CHECK(train.rows == 3);
    CHECK(train.tasks[0].rows == 2);
    CHECK(train.tasks[0].positives == 1);
    CHECK(train.tasks[1].rows == 2);
    CHECK(train.tasks[1].positives == 1.25);
    CHECK(train.tasks[2].rows == 2);  // the first row is known without its second cell
    CHECK(test.rows == 1);
    CHECK(test.tasks[0].rows == 0);
    folder.write("log.csv", "user,item,day,click,like\nu,a,0,yes,\nu,b,1,0,0\n");
    CHECK(message_of([&] {
            Dataset::open(parse_schema(schema), folder.path());
          }).find("log.csv, line 2, column 'click': 'yes' is not a number") == 0);
  }
}
