// The encoder of requests against the packed data set: every row of a log, told in raw values, gives the same ids and
// numbers.
#include "mixrec/data/feature_encoder.h"

#include "mixrec/core/error.h"
#include "mixrec/data/batch_builder.h"
#include "mixrec/data/csv_reader.h"
#include "mixrec/data/loader.h"
#include "mixrec/data/packing/packed_data.h"
#include "mixrec/data/raw_requests.h"
#include "mixrec/tests/data_files.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <map>
#include <string>
#include <vector>

using namespace mixrec;
using mixrec::test::DataFolder;
using mixrec::test::message_of;

namespace {

// Every kind of feature: vocabularies with rare and missing values, hashes, buckets, quantiles, numbers, lists, times,
// tables, shared tables, rates and match counts.
const char* kSchema = R"({
  "log": {"files": "log.csv", "user": "user", "item": "item", "time": "time", "utc_offset_hours": -3},
  "tables": {"users": {"file": "users.csv"}, "items": {"file": "items.csv"}},
  "tasks": {"label": {"label": "label == 1", "kept_negatives": 0.5}, "other": "label == 0"},
  "features": {
    "user": ["user", {"column": "users.city", "name": "home", "table": "city"}, {"column": "users.age", "buckets": [18, 30]},
             {"name": "user_rate", "rate": {"history": "seen", "key": "user", "signal": "good", "k": 3}},
             {"name": "user_number", "column": "user", "numeric": "log1p"}],
    "item": [{"column": "item", "min_count": 2}, {"column": "items.city", "table": "city", "missing": "Oslo"},
             {"column": "items.tags", "list": "|"}, {"name": "hashed", "column": "items.tags", "list": "|", "hash": 5},
             {"column": "items.price", "quantiles": 3}, {"name": "length", "column": "items.length", "numeric": "standard"},
             {"name": "item_hash", "column": "item", "hash": 7},
             {"name": "tag_rate", "rate": {"history": "seen", "key": "tags", "signal": "good", "k": 2}},
             {"name": "item_rate", "rate": {"history": "seen", "key": "item", "signal": "good"}}],
    "context": [{"column": "place"}, {"column": "x", "numeric": "log1p"}, {"name": "xq", "column": "x", "quantiles": 4, "missing": "2.5"},
                {"name": "device", "column": "device", "scope": "request", "min_count": 2},
                {"column": "time", "part": "hour"}, {"column": "time", "part": "weekday"},
                {"name": "same_item", "matches": {"history": "seen", "key": "item", "cap": 3}},
                {"name": "same_tags", "matches": {"history": "seen", "key": "tags", "cap": 2, "signal": "good"}}]},
  "histories": {"seen": {"length": 5, "features": ["item", "tags", "length", "city"], "gap": true, "position": true,
    "from": [{"files": "past.csv", "items": "items", "signals": {"good": {"column": "good", "list": ""}}},
             {"log": true, "where": "label == 1 || stars > 3", "signals": {"good": "label", "stars": "stars"}}]}},
  "split": {"by": "date", "test_days": 2, "validation_days": 2}
})";

void write_log(const DataFolder& folder) {
  const std::vector<std::string> tags{"a|b", "", "c", "b|b|z", "a", "q"},
      places{"top", "", "side", "a\\b", "new"}, xs{"1", "-2.5", "", "4", "100", "3.25"};
  std::string log = "user,item,time,place,x,device,stars,label\n", items = "item,city,tags,price,length\n",
              users = "user,city,age\n", past = "user,items,good\n";
  for (int i = 0; i < 9; ++i)
    items += "i" + std::to_string(i) + "," + (i % 3 ? "Rome" : "") + "," + tags[i % 6] + "," +
             (i == 4 ? "" : std::to_string(i * i)) + "," + (i == 5 ? "" : std::to_string(i % 4) + ".5") +
             "\n";
  for (int u = 0; u < 5; ++u) {
    users += std::to_string(u) + "," + (u % 2 ? "Rome" : "Paris") + "," +
             (u == 2 ? "" : std::to_string(12 * u)) + "\n";
    past += std::to_string(u) + ",i1 i2 i0," + (u % 2 ? "101" : "010") + "\n";
  }
  int n = 0;
  for (int day = 0; day < 10; ++day)
    for (int user = 0; user < 7; ++user)  // users 5 and 6 are in no table
      for (int c = 0; c < 1 + (user + day) % 3; ++c, ++n) {
        const int item = (n * 7 + day) % 11 + (day > 7 ? 1 : 0);  // items 9 and above are in no table
        log += std::to_string(user) + ",i" + std::to_string(item) + "," +
               std::to_string(1651536000 + day * 86'400 + user * 1000 + c) + "," + places[n % 4 + (day > 6)] +
               "," + xs[n * 5 % 6] + ",d" + std::to_string((user + day * (day > 7)) % 9) + "," +
               std::to_string(n % 5) + "," + std::to_string(n * n % 3 == 1) + "\n";
      }
  folder.write("log.csv", log), folder.write("items.csv", items);
  folder.write("users.csv", users), folder.write("past.csv", past);
}

struct Row {
  std::string user, item, place, x, device, stars;
  int64_t time, day;
  bool label;
};

std::vector<Row> read_log(const DataFolder& folder) {
  CsvReader reader(folder.path("log.csv"), {});
  std::vector<Row> rows;
  while (reader.next()) {
    const auto cell = [&](const char* name) { return std::string(reader.cell(reader.column(name))); };
    const int64_t time = std::stoll(cell("time"));
    rows.push_back({cell("user"), cell("item"), cell("place"), cell("x"), cell("device"), cell("stars"), time,
                    (time - 3 * 3600) / 86'400, cell("label") == "1"});
  }
  return rows;
}

// The row's request as a caller would tell it: ids, context, and the events that its history had by then.
ScoreRequest told(const std::vector<Row>& rows, size_t r, int64_t last_day_in_histories) {
  const Row& row = rows[r];
  ScoreRequest request{.user = row.user, .time = row.time, .values = {{"device", row.device}}};
  if (std::stoi(row.user) < 5) {
    const bool odd = std::stoi(row.user) % 2;
    const std::string good = odd ? "101" : "010";
    for (size_t e = 0; e < 3; ++e)
      request.history.push_back(
          {std::vector<std::string>{"i1", "i2", "i0"}[e], {}, {{"good", int64_t{good[e] - '0'}}}});
  }
  for (const Row& other : rows) {
    const bool event = other.label || other.stars > "3";
    if (other.user == row.user && event && other.day < row.day && other.day <= last_day_in_histories)
      request.history.push_back(
          {other.item, other.time, {{"good", int64_t{other.label}}, {"stars", other.stars}}});
  }
  Values context{{"place", row.place}, {"x", row.x}, {"xq", row.x}};
  request.candidates.emplace_back(row.item, context);
  return request;
}

bool same(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || (a.shape() == b.shape() && a.to_vector<double>() == b.to_vector<double>());
}

void check_column(const FeatureColumn& got, const FeatureColumn& expected, const std::string& name,
                  size_t row) {
  INFO("feature ", name, ", row ", row);
  CHECK(same(got.ids, expected.ids));
  CHECK(same(got.offsets, expected.offsets));
  CHECK(same(got.values, expected.values));
}

struct Prepared {
  Prepared() : data(open(folder)) {}
  static Dataset open(const DataFolder& folder) {
    write_log(folder);
    return Dataset::open(parse_schema(kSchema), folder.path());
  }
  FeatureEncoder encoder(TrainedOn trained_on) const {
    write_features(data, folder.path("encoders"));
    return FeatureEncoder(folder.path("encoders"), trained_on);
  }
  DataFolder folder;
  Dataset data;
};

}  // namespace

TEST_SUITE("feature encoder") {
  TEST_CASE("requests told in the log's own cells are encoded as the packed form has them") {
    const Prepared prepared;
    for (const TrainedOn trained_on : {TrainedOn::training_part, TrainedOn::whole_period}) {
      const FeatureEncoder encoder = prepared.encoder(trained_on);
      const auto requests = raw_requests(prepared.data, Split::test, trained_on, 25);
      Loader loader(prepared.data, Split::test,
                    {.batch_size = 1, .shuffle = Shuffle::none, .workers = 0, .trained_on = trained_on});
      int64_t rows = 0;
      for (size_t r = 0; r < requests.size(); ++r) {
        const RequestBatch got = encoder.encode(requests[r]), expected = *loader.next();
        rows += got.candidates;
        REQUIRE(got.candidates == expected.candidates);
        for (size_t f = 0; f < got.features.size(); ++f)
          check_column(got.features[f], expected.features[f], prepared.data.spec().features[f].name, r);
        CHECK(same(got.histories[0].offsets, expected.histories[0].offsets));
        for (size_t c = 0; c < got.histories[0].columns.size(); ++c)
          check_column(got.histories[0].columns[c], expected.histories[0].columns[c], "of events", r);
      }
      CHECK(rows >= 25);
    }
  }

  TEST_CASE("every row of the log, told in raw values, is encoded as the packed data set has it") {
    const Prepared prepared;
    const std::vector<Row> rows = read_log(prepared.folder);
    const PackedData& packed = prepared.data.packed();
    const int64_t first_day = rows.front().day;
    for (const TrainedOn trained_on : {TrainedOn::training_part, TrainedOn::whole_period}) {
      const FeatureEncoder encoder = prepared.encoder(trained_on);
      CHECK(encoder.spec() == prepared.data.spec());
      const int64_t last_day = first_day + (trained_on == TrainedOn::training_part ? 5 : 7);
      for (uint32_t p = 0; p < packed.manifest.rows; ++p) {
        const RequestBatch expected = build_batch(packed, std::span(&p, 1), {.trained_on = trained_on});
        const auto r = static_cast<size_t>(expected.row[0]);
        // A request's time is that of its first row.
        ScoreRequest request = told(rows, r, last_day);
        const RequestBatch got = encoder.encode(request);
        got.validate(encoder.spec());
        for (size_t f = 0; f < got.features.size(); ++f)
          check_column(got.features[f], expected.features[f], encoder.spec().features[f].name, r);
        REQUIRE(same(got.histories[0].offsets, expected.histories[0].offsets));
        for (size_t c = 0; c < got.histories[0].columns.size(); ++c) {
          const std::string& name = encoder.spec().histories[0].features[c].name;
          if (name == "gap" && rows[r].time % 10 > 0) continue;  // counted from the request's first row
          check_column(got.histories[0].columns[c], expected.histories[0].columns[c], "seen." + name, r);
        }
        const RequestBatch items = encoder.encode_candidates(request);
        for (size_t f = 0; f < got.features.size(); ++f) {
          const bool of_candidate = encoder.spec().features[f].scope == FeatureScope::candidate;
          check_column(items.features[f], of_candidate ? expected.features[f] : FeatureColumn{},
                       encoder.spec().features[f].name, r);
        }
      }
    }
  }

  TEST_CASE("raw values of an item or a user may be told instead of its id, and go before its tables") {
    const Prepared prepared;
    const FeatureEncoder encoder = prepared.encoder(TrainedOn::whole_period);
    const auto column = [&](const RequestBatch& batch, const std::string& name) {
      for (size_t f = 0; f < batch.features.size(); ++f)
        if (encoder.spec().features[f].name == name) return batch.features[f];
      FAIL("no feature " << name);
      return FeatureColumn();
    };
    const RequestBatch by_id = encoder.encode({.user = "3", .candidates = {"i3", "i8"}});
    // Item i3: no city (Oslo), tags b|b|z, price 9, length 3.5.
    const Values i3{{"item", "i3"},      {"city", ""}, {"tags", std::vector<std::string>{"b", "b", "z"}},
                    {"hashed", "b|b|z"}, {"price", 9}, {"length", 3.5},
                    {"item_hash", "i3"}};
    const RequestBatch told =
        encoder.encode({.values = {{"user", 3}, {"home", "Rome"}, {"age", 36}, {"user_number", "3"}},
                        .candidates = {{"", i3}, {"i8", i3}}});
    for (const char* name : {"user", "home", "age", "user_number"})
      check_column(column(told, name), column(by_id, name), name, 0);
    for (const char* name : {"item", "city", "price", "item_hash"}) {
      const auto got = column(told, name).ids.to_vector<int64_t>(),
                 id = column(by_id, name).ids.to_vector<int64_t>();
      CHECK(got == std::vector<int64_t>{id[0], id[0]});
    }
    CHECK(column(told, "length").values.to_vector()[1] == column(by_id, "length").values.to_vector()[0]);
    CHECK(column(told, "tags").offsets.to_vector<int64_t>() == std::vector<int64_t>{0, 3, 6});
    const auto tags = column(told, "tags").ids.to_vector<int64_t>();
    CHECK(std::equal(tags.begin(), tags.begin() + 3, column(by_id, "tags").ids.data<const int64_t>()));
    // Hours and counts as they are.
    const RequestBatch counted =
        encoder.encode({.candidates = {{"i1", {{"hour", 23}, {"weekday", 0}, {"same_item", 9}}}}});
    CHECK(column(counted, "hour").ids.to_vector<int64_t>()[0] == 24);
    CHECK(column(counted, "weekday").ids.to_vector<int64_t>()[0] == 1);
    CHECK(column(counted, "same_item").ids.to_vector<int64_t>()[0] == 4);
  }

  TEST_CASE("what was never seen is unknown: items, users, values") {
    const Prepared prepared;
    const FeatureEncoder encoder = prepared.encoder(TrainedOn::training_part);
    const RequestBatch batch = encoder.encode({.user = "nobody",
                                               .values = {{"user_number", 1}},
                                               .history = {"never", "seen"},
                                               .candidates = {{"nothing", {{"place", "nowhere"}}}}});
    batch.validate(encoder.spec());
    CHECK(batch.features[0].ids.to_vector<int64_t>()[0] == kUnknownRow);
    CHECK(batch.histories[0].columns[0].ids.to_vector<int64_t>() == std::vector<int64_t>{0, 0});
    // Rates of the unknown are the rate of all events, standardised like the others.
    const size_t rate = 3;
    REQUIRE(encoder.spec().features[rate].name == "user_rate");
    const RequestBatch user6 = encoder.encode({.user = "6", .candidates = {"i1"}});
    CHECK(batch.features[rate].values.to_vector() == user6.features[rate].values.to_vector());
  }

  TEST_CASE("mistakes are told with candidate or event, feature and value") {
    const Prepared prepared;
    const FeatureEncoder encoder = prepared.encoder(TrainedOn::training_part);
    const auto said = [&](const ScoreRequest& request) {
      return message_of([&] { encoder.encode(request); });
    };
    const auto holds = [](const std::string& text, const std::string& part) {
      return text.find(part) != std::string::npos;
    };
    CHECK(holds(said({.user = "1"}), "the request has no candidate"));
    CHECK(holds(said({.values = {{"hom", "x"}}, .candidates = {"i1"}}),
                "no feature 'hom'; did you mean 'home'?"));
    CHECK(
        holds(said({.values = {{"price", 1}}, .candidates = {"i1"}}), "the request has no feature 'price'"));
    CHECK(holds(said({.candidates = {"i1", {"i2", {{"price", "cheap"}}}}}),
                "candidate 1, feature 'price': 'cheap' is not a number"));
    CHECK(holds(said({.candidates = {{"i2", {{"city", 1.5}}}}}),
                "candidate 0, feature 'city': 1.5 is a number"));
    CHECK(
        holds(said({.candidates = {{"i2", {{"city", std::vector<std::string>{"a"}}}}}}), "['a'] is a list"));
    CHECK(holds(said({.candidates = {{"i2", {{"age", 3}}}}}), "candidate 0 has no feature 'age'"));
    CHECK(holds(said({.candidates = {Candidate()}}), "candidate 0 has neither"));
    CHECK(holds(said({.history = {"i1", {"i2", {}, {{"good", 1.5}}}}, .candidates = {"i1"}}),
                "history 'seen', event 1, signal 'good': 1.5"));
    CHECK(holds(said({.time = 9, .history = {{"i1", 8}, {"i2", 7}}, .candidates = {"i1"}}),
                "event 1 is older"));
    CHECK(holds(said({.time = "noon", .candidates = {"i1"}}), "the request's time: 'noon' is not a number"));
    CHECK(holds(said({.histories = {{"sen", {}}}, .candidates = {"i1"}}), "no history 'sen'"));
    CHECK(holds(said({.candidates = {{"i1", {{"hour", 24}}}}}), "24 is not a whole number from 0 to 23"));
  }
}
