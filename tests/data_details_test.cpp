// What a data set must not get wrong in small things: the order of events, values that are unknown on both sides, and
// which rows a mean is taken over.
#include "mixrec/core/feature_spec.h"
#include "mixrec/tests/small_log.h"

#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

TEST_SUITE("data details") {
  TEST_CASE("of more events than a history holds the newest are kept, in the order of time") {
    DataFolder folder;
    folder.write(
        "log.csv",
        "user,item,day,label\nu,a,0,1\nu,b,1,0\nu,c,2,1\nu,d,3,0\nu,e,4,1\nv,a,4,0\nu,a,5,1\nv,a,5,0\n");
    Small small;
    small.histories =
        R"("seen": {"length": 3, "from": [{"log": true}], "features": ["item"], "position": true})";
    small.split = R"("by": "date", "test_days": 1)";
    const Dataset data = small.open(folder);
    const RequestBatch all = all_rows(data, Split::train), last = all_rows(data, Split::test);
    // Row 0 of the test day is u's: its newest three events are the items c, d, e of rows 2, 3 and 4 of the log.
    const auto item = all.features[feature(data, "item")].ids.to_vector<int64_t>();
    const auto offsets = last.histories[0].offsets.to_vector<int64_t>();
    const auto events = last.histories[0].columns[0].ids.to_vector<int64_t>();
    const auto places = last.histories[0].columns[1].ids.to_vector<int64_t>();
    REQUIRE(last.requests == 2);
    REQUIRE(offsets == std::vector<int64_t>{0, 3, 4});
    CHECK(item[2] != item[4]);
    CHECK(std::vector<int64_t>(events.begin(), events.begin() + 3) ==
          std::vector<int64_t>{item[2], item[3], item[4]});
    CHECK(std::vector<int64_t>(places.begin(), places.begin() + 3) == std::vector<int64_t>{3, 2, 1});
  }

  TEST_CASE("match counts do not count values that are unknown on both sides") {
    DataFolder folder;
    folder.write("log.csv",
                 "user,item,day,label\nu,often,0,1\nu,rare,1,0\nu,often,2,1\nu,other,3,0\nu,often,4,1\nu,"
                 "seldom,5,0\n");
    Small small;
    small.item_features = R"({"column": "item", "min_count": 2})";
    small.histories = R"("seen": {"length": 9, "from": [{"log": true}], "features": ["item"]})";
    small.context_features = R"({"name": "again", "matches": {"history": "seen", "key": "item"}})";
    small.split = R"("by": "date", "test_days": 1)";
    const Dataset data = small.open(folder);
    REQUIRE(ids(data, Split::test, "item") == std::vector<int64_t>{kUnknownRow});
    CHECK(ids(data, Split::test, "again") == std::vector<int64_t>{1});  // none
    // 1 + how often the item was seen before, where it is known.
    CHECK(ids(data, Split::train, "again") == std::vector<int64_t>{1, 1, 2, 1, 3});
  }

  TEST_CASE("numbers of users have mean 0 over the training rows, each counted once and no validation row") {
    DataFolder folder;
    folder.write(
        "log.csv",
        "user,item,day,label\na,x,0,1\na,y,0,0\na,x,1,1\nb,y,1,0\na,y,2,1\nb,x,2,0\nb,x,3,1\nc,y,4,0\n");
    folder.write("users.csv", "user,age\na,20\nb,50\nc,1000\n");
    Small small;
    small.tables = R"("users": {"file": "users.csv"})";
    small.user_features = R"({"name": "age", "column": "users.age", "numeric": "standard"})";
    small.split = R"("by": "date", "test_days": 1, "validation_days": 1)";
    const Dataset data = small.open(folder);
    double sum = 0, squares = 0, rows = 0;
    const RequestBatch batch = all_rows(data, Split::train);
    const auto age = batch.features[feature(data, "age")].values.to_vector<double>();
    const auto offsets = batch.offsets.to_vector<int64_t>();
    for (size_t r = 0; r + 1 < offsets.size(); ++r) {
      const auto count = static_cast<double>(offsets[r + 1] - offsets[r]);
      sum += count * age[r], squares += count * age[r] * age[r], rows += count;
    }
    CHECK(rows == 6);
    CHECK(sum / rows == doctest::Approx(0).epsilon(1e-6));
    CHECK(squares / rows == doctest::Approx(1).epsilon(1e-5));
  }
}
