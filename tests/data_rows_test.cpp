// Which rows make a data set, which part they belong to, and what joined files say of them.
#include "mixrec/core/error.h"
#include "mixrec/data/feature_encoder.h"
#include "mixrec/data/inspect/inspect.h"
#include "mixrec/data/packing/packed_data.h"
#include "mixrec/tests/data_files.h"
#include "mixrec/tests/small_log.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

using namespace mixrec;
using namespace mixrec::test;

namespace {

void check_has(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    CHECK_MESSAGE(text.find(part) != std::string::npos, text, " / ", part);
}

std::string warnings_of(const Dataset& data) {
  std::string all;
  for (const auto& warning : data.manifest().warnings) all += warning + "\n";
  return all;
}

std::vector<int64_t> part_rows(const Dataset& data) {
  std::vector<int64_t> rows;
  for (const auto& part : data.manifest().splits) rows.push_back(part.rows);
  return rows;
}

std::string many_rows(int count) {
  std::string log = "user,item,day,label\n";
  for (int k = 0; k < count; ++k)
    log += "u" + std::to_string(k % 40) + ",i" + std::to_string(k) + "," + std::to_string(k / 100) + "," +
           std::to_string(k % 2) + "\n";
  return log;
}

}  // namespace

TEST_SUITE("data rows") {
  TEST_CASE("a random split keeps shares, rows and users, whatever the order of the log") {
    const auto parts = [](const std::string& log, const std::string& of) {
      DataFolder folder;
      folder.write("log.csv", log);
      Small small;
      small.split = R"("by": "random", "test": 0.2, "validation": 0.3, "seed": 7)" + of;
      const Dataset data = small.open(folder);
      // Part by item, which names a row here; and the parts of each user.
      std::map<std::string, int> by_item;
      std::map<uint32_t, std::set<int>> by_user;
      const PackedData& packed = data.packed();
      std::vector<std::string> lines;
      for (size_t at = log.find('\n') + 1; at < log.size(); at = log.find('\n', at) + 1)
        lines.push_back(log.substr(at, log.find('\n', at) - at));
      for (size_t r = 0; r < packed.row_number.size(); ++r) {
        const uint32_t request = packed.row_request[r];
        const int part = packed.request_split[request];
        by_item[lines[static_cast<size_t>(packed.row_number[r])]] = part;
        by_user[packed.request_user[request]].insert(part);
      }
      return std::pair(by_item, by_user);
    };
    const std::string log = many_rows(2000);
    std::string reversed = "user,item,day,label\n";
    for (size_t end = log.size(); end > log.find('\n') + 1;) {
      const size_t begin = log.rfind('\n', end - 2) + 1;
      reversed += log.substr(begin, end - begin), end = begin;
    }
    const auto [rows, users] = parts(log, "");
    std::map<int, int> counts;
    for (const auto& [_, part] : rows) ++counts[part];
    // Five standard deviations of a binomial.
    CHECK(std::abs(counts[2] - 400) < 90);
    CHECK(std::abs(counts[1] - 600) < 103);
    CHECK(parts(reversed, "").first == rows);
    CHECK(parts(log, R"(, "of": "users")").first != rows);
    const auto by_user = parts(reversed, R"(, "of": "users")");
    for (const auto& [_, of_user] : by_user.second) CHECK(of_user.size() == 1);
    CHECK(by_user.first == parts(log, R"(, "of": "users")").first);
  }

  TEST_CASE("a split by files needs no list of the same files again") {
    DataFolder folder;
    folder.write("a.csv", many_rows(200)), folder.write("b.csv", many_rows(50));
    const auto schema = [](const std::string& files, const std::string& time) {
      return R"({"log": {)" + files + R"("user": "user", "item": "item")" + time +
             R"(}, "tasks": {"label": "label"}, "features": {"item": ["item"]},
          "split": {"by": "files", "train": "a.csv", "test": "b.csv"}})";
    };
    const std::string day = R"(, "time": {"column": "day", "unit": "day"})";
    const Dataset data = Dataset::open(parse_schema(schema("", day)), folder.path());
    CHECK(data.manifest().splits[2].rows == 50);
    check_has(warnings_of(data),
              {"the test part ends on 1970-01-01, before the training part does (1970-01-02)"});
    check_has(warnings_of(Dataset::open(parse_schema(schema("", "")), folder.path())),
              {"the log has no time: the validation part is the last rows of the training files"});
    check_has(message_of([&] { parse_schema(schema(R"("files": ["a.csv", "b.csv", "a.csv"], )", day)); }),
              {"the file 'a.csv' is named twice"});
    check_has(message_of([&] {
                parse_schema(R"({"log": {"user": "user", "item": "item"}, "tasks": {"l": "l"}, "features": {},
                  "split": {"by": "fraction"}})");
              }),
              {"schema.log: 'files' is missing"});
  }

  TEST_CASE("a validation part that ties leave empty is told") {
    DataFolder folder;
    std::string log = "user,item,day,label\n";
    for (int k = 0; k < 20; ++k) log += "u,i" + std::to_string(k) + "," + std::to_string(k / 10) + ",1\n";
    folder.write("log.csv", log);
    Small small;
    small.split = R"("by": "fraction", "test": 0.4, "validation": 0.1)";
    const Dataset data = small.open(folder);
    CHECK(part_rows(data) == std::vector<int64_t>{10, 0, 10});
    check_has(warnings_of(data), {"asks for validation rows and gets none: too many rows share the time"});
  }

  TEST_CASE("ids that match nothing between files are an error, and few that match are a warning") {
    DataFolder folder;
    folder.write("log.csv", "user,item,day,label\nu1,a,0,1\nu1,b,1,0\nu2,c,2,1\nu2,a,3,0\n");
    Small small;
    small.split = R"("by": "date", "test_days": 1)";
    small.tables = R"("items": {"file": "items.csv"})";
    small.item_features = R"("item", "items.price")";
    const auto error = [&] { return message_of([&] { small.open(folder); }); };
    folder.write("items.csv", "item,price\na.0,3\nb.0,9\n");
    check_has(error(),
              {"tables.items: none of the log's 3 items is in items.csv (the log has 'a', the file 'a.0')"});
    folder.write("items.csv", "item,price\n a,3\nb,9\nz,2\n");
    const Dataset few = small.open(folder);
    REQUIRE(few.manifest().joins.size() == 1);
    CHECK(few.manifest().joins[0].found == 1);
    CHECK(few.manifest().joins[0].of == 3);
    check_has(warnings_of(few), {"tables.items: only 33 % of the log's items (1 of 3) are in items.csv"});
    const InspectReport report = inspect(few, folder.path());
    CHECK(report.log_items == 3);
    CHECK(report.log_users == 2);
    check_has(report.text(),
              {"4 rows, 2 users, 3 items", "has 33.3 % of the log's items: 1 of 3", "only 33 %"});
    folder.write("items.csv", "item,price\na,3\nb,9\nc,2\nd,4\n");
    CHECK(warnings_of(small.open(folder)) == "");

    small.tables = R"("users": {"file": "users.csv"})";
    small.item_features = R"("item")", small.user_features = R"("users.age")";
    folder.write("users.csv", "user,age\nU1,3\nU2,9\n");
    check_has(error(), {"tables.users: none of the log's 2 users is in users.csv"});

    small = {};
    small.split = R"("by": "date", "test_days": 1)";
    small.histories = R"("h": {"features": ["item"], "from": [{"files": "past.csv", "items": "items"}]})";
    folder.write("past.csv", "user,items\nx,a b\n");
    check_has(error(), {"histories.h: none of the log's 2 users is in past.csv"});
    folder.write("past.csv", "user,items\nu1,A B\n");
    check_has(error(),
              {"histories.h: none of the log's 3 items is in past.csv (the log has 'a', the file 'A')"});
    folder.write("past.csv", "user,items\nu1, a b \nu2,c\n");  // blanks at the ends separate nothing
    CHECK(error() == "");
  }

  TEST_CASE("inspect looks at the rows of the data set alone") {
    DataFolder folder;
    folder.write("log.csv",
                 "user,item,day,type,click\nu1,a,1,show,1\nu1,b,1,show,0\nu1,,1,ping,what\nu2,a,2,show,1\nu2,"
                 "b,2,show,0\n");
    const std::string schema =
        R"({"log": {"files": "log.csv", "user": "user", "item": "item", "time": {"column": "day", "unit": "day"},
          "where": "type == 'show'"}, "tasks": {"click": "click"}, "features": {"item": ["item"]},
          "split": {"by": "date", "test_days": 1}})";
    const InspectReport report = inspect(Dataset::open(parse_schema(schema), folder.path()), folder.path());
    CHECK(report.log_items == 2);
    const auto type = std::find_if(report.columns.begin(), report.columns.end(),
                                   [](const auto& column) { return column.name == "type"; });
    CHECK(type->constant);
    CHECK(type->missing == 0);

    // Repeats that are dropped make no column an outcome, and are not repeats any more.
    std::string log = "user,item,day,label,x\n";
    for (int k = 0; k < 20; ++k)
      log += "u" + std::to_string(k % 2) + ",i" + std::to_string(k) + "," + std::to_string(k) + "," +
             std::to_string(k / 2 % 2) + "," + std::to_string(k) + "\n";
    for (int k = 0; k < 40; ++k) log += "u1,i19,19,1,19\n";
    folder.write("log.csv", log);
    Small small;
    small.context_features = R"("x")";
    small.log_options += R"(, "duplicates": ["user", "item"])";
    const InspectReport dropped = inspect(small.open(folder), folder.path());
    CHECK(dropped.repeated_rows == 0);
    CHECK(dropped.repeated_events == 0);
    for (const auto& warning : dropped.warnings) CHECK(warning.find("outcome") == std::string::npos);
    for (const auto& column : dropped.columns) CHECK((column.label || column.auc < 0.85));
  }

  TEST_CASE("a dense id is no outcome, an outcome still is") {
    DataFolder folder;
    std::string log = "user,item,day,label,watched\n";
    for (int k = 0; k < 3000; ++k) {
      const int label = k % 3 == 0;
      // Ids were numbered by how often they are clicked.
      log += std::to_string(k % 7) + "," + std::to_string(2000 * label + k % 2000) + "," +
             std::to_string(k / 300) + "," + std::to_string(label) + "," +
             std::to_string(label * (100 + k % 50) + k % 10) + "\n";
    }
    folder.write("log.csv", log);
    Small small;
    small.context_features =
        R"({"column": "watched", "numeric": "log1p"}, {"name": "again", "column": "item"})";
    const InspectReport report = inspect(small.open(folder), folder.path());
    std::string all;
    for (const auto& warning : report.warnings) all += warning + "\n";
    CHECK(all.find("'item' is an INPUT") == std::string::npos);
    check_has(all, {"'watched' is an INPUT and looks like an outcome"});
  }

  TEST_CASE("lists that are written in another way, and features that say nothing, are told") {
    const auto warned = [](const std::vector<std::string>& cells, const std::string& feature) {
      DataFolder folder;
      std::string log = "user,item,day,x,label\n";
      for (size_t k = 0; k < cells.size(); ++k)
        log += "u,i" + std::to_string(k) + "," + std::to_string(k) + ",\"" + cells[k] + "\",1\n";
      folder.write("log.csv", log);
      Small small;
      small.split = R"("by": "date", "test_days": 1)";
      small.context_features = R"({"column": "x", )" + feature + "}";
      return warnings_of(small.open(folder));
    };
    check_has(warned({"['t1', 't2']", "['t3']", "[]", "['t1']"}, R"("list": ",")"),
              {"look like Python or JSON lists (['t1', 't2'])"});
    check_has(warned({"[\"\"a\"\"]", "[\"\"b\"\", \"\"c\"\"]", "[\"\"a\"\"]"}, R"("list": ",", "hash": 10)"),
              {"look like Python or JSON lists"});
    check_has(warned({"a|b", "c|d", "a", "b|c"}, R"("list": ",")"),
              {"most cells hold '|': is the separator ',' the right one?"});
    check_has(warned({"a b", "c d", "a", "b c"}, R"("list": ";", "hash": 7)"), {"most cells hold ' '"});
    check_has(warned({"", "", ""}, R"("list": "|")"), {"the list feature 'x' is empty in every row"});
    check_has(warned({"", "NA", ""}, R"("list": "|", "missing": ["NA"])"),
              {"the list feature 'x' is empty in every row"});
    CHECK(warned({"a|b", "c d|d", "a", "b|c"}, R"("list": "|")") == "");
    check_has(warned({"5", "5", "5", "6"}, R"("quantiles": 4)"), {"'x' has a single bucket"});
    check_has(warned({"5", "5", "5", "6"}, R"("numeric": "standard")"), {"'x' has one value"});
    CHECK(warned({"5", "6", "5", "6"}, R"("quantiles": 4)") == "");
  }

  TEST_CASE("several texts mean a missing cell, in packing and in scoring") {
    const std::vector<std::string> cells{"1", "NA", "", "\\N", "3", "NULL", "nan", "1", "9"};
    DataFolder folder;
    folder.write("log.csv", days(cells));
    Small small;
    small.split = R"("by": "date", "test_days": 1)";
    const std::string missing = R"("missing": ["", "NA", "NULL", "\\N", "nan"])";
    small.context_features = R"({"column": "x", "numeric": "standard", )" + missing + R"(},
      {"name": "b", "column": "x", "buckets": [2], )" +
                             missing + R"(},
      {"name": "v", "column": "x", )" +
                             missing + R"(},
      {"name": "f", "column": "x", "buckets": [2], "fill": "7", )" +
                             missing + "}";
    const Dataset data = small.open(folder);
    CHECK(ids(data, Split::train, "b") == std::vector<int64_t>{2, 1, 1, 1, 3, 1, 1, 2});
    CHECK(ids(data, Split::train, "f") == std::vector<int64_t>{2, 3, 3, 3, 3, 3, 3, 2});
    const auto words = ids(data, Split::train, "v");
    CHECK(words == std::vector<int64_t>{1, 2, 2, 2, 3, 2, 2, 1});
    const auto numbers = values(data, Split::train, "x");
    for (const size_t i : {1, 2, 3, 5, 6}) CHECK(numbers[i] == 0);
    write_features(data, folder.path("encoders"));
    const FeatureEncoder encoder(folder.path("encoders"), TrainedOn::whole_period);
    for (size_t row = 0; row < 8; ++row) {
      ScoreRequest request{.user = "u"};
      request.candidates.emplace_back(std::string("i0"),
                                      Values{{"x", cells[row]}, {"b", cells[row]}, {"v", cells[row]}});
      const RequestBatch batch = encoder.encode(request);
      CHECK(batch.features[feature(data, "x")].values.to_vector<float>()[0] == numbers[row]);
      CHECK(batch.features[feature(data, "b")].ids.to_vector<int64_t>()[0] ==
            ids(data, Split::train, "b")[row]);
      CHECK(batch.features[feature(data, "v")].ids.to_vector<int64_t>()[0] == words[row]);
    }
    small.context_features = R"({"column": "x", "numeric": "standard", "missing": "NA"})";
    check_has(message_of([&] { small.open(folder); }), {"a list, as [\"NA\"], names cells that mean one"});
  }

  TEST_CASE(
      "a log may describe its items itself: training rows say what histories and candidates see of them") {
    DataFolder folder;
    // Item a changes its genre; c is only in the test part, and its value there is not looked at.
    folder.write(
        "log.csv",
        "user,item,day,genre,price,label\nu,a,2,drama,5,1\nu,b,1,,7,0\nv,a,1,comedy,,1\nu,b,3,action,,0\n"
        "v,a,3,,6,1\nu,a,5,news,9,1\nu,c,5,news,9,0\n");
    Small small;
    small.split = R"("by": "date", "test_days": 1)";
    const auto open = [&](const std::string& which) {
      small.item_features = R"("item", {"column": "genre", "item_values": ")" + which +
                            R"("}, {"column": "price", "buckets": [6], "item_values": ")" + which + R"("})";
      small.histories = R"("h": {"features": ["item", "genre"], "from": [{"log": true}]})";
      return small.open(folder);
    };
    // Rows of the genres' table in the order of the log: drama 1, "" none, comedy, action.
    const auto by_row = [](const Dataset& data, Split split, const std::string& name) {
      const RequestBatch batch = all_rows(data, split);
      std::map<int64_t, int64_t> rows;
      const auto cells = batch.features[feature(data, name)].ids.to_vector<int64_t>();
      for (size_t i = 0; i < cells.size(); ++i) rows[batch.row[i]] = cells[i];
      return rows;
    };
    using Rows = std::map<int64_t, int64_t>;
    for (const std::string which : {"first", "last"}) {
      const Dataset data = open(which);
      const auto genres = by_row(data, Split::train, "genre");
      // Every row of an item sees the same value.
      CHECK(genres.at(0) == genres.at(2));
      CHECK(genres.at(0) == genres.at(4));
      CHECK(genres.at(1) == genres.at(3));
      CHECK(genres.at(0) != genres.at(1));
      const auto test = by_row(data, Split::test, "genre");
      CHECK(test.at(5) == genres.at(0));
      CHECK(test.at(6) != genres.at(0));
      CHECK(by_row(data, Split::train, "price") == (which == "first"
                                                        ? Rows{{0, 2}, {1, 3}, {2, 2}, {3, 3}, {4, 2}}
                                                        : Rows{{0, 3}, {1, 3}, {2, 3}, {3, 3}, {4, 3}}));
      CHECK(by_row(data, Split::test, "price").at(6) == 1);
      // Events share the table, and scoring by the id alone gives the same.
      CHECK(data.spec().histories[0].features.size() == 2);
      write_features(data, folder.path("encoders"));
      const FeatureEncoder encoder(folder.path("encoders"), TrainedOn::whole_period);
      ScoreRequest request{.user = "u", .history = {"a", "b"}};
      request.candidates.emplace_back("a");
      const RequestBatch batch = encoder.encode(request);
      CHECK(batch.features[feature(data, "genre")].ids.to_vector<int64_t>()[0] == genres.at(0));
      CHECK(batch.histories[0].columns[1].ids.to_vector<int64_t>() ==
            std::vector<int64_t>{genres.at(0), genres.at(1)});
      // Of a only comedy (the oldest) or drama (the newest training value that is there) is left: same rows, other texts.
      ScoreRequest by_value{.user = "u"};
      by_value.candidates.emplace_back(std::string(),
                                       Values{{"genre", which == "first" ? "comedy" : "drama"}});
      CHECK(encoder.encode(by_value).features[feature(data, "genre")].ids.to_vector<int64_t>()[0] ==
            genres.at(0));
    }
    small.context_features = R"({"column": "genre", "item_values": "last"})";
    check_has(message_of([&] { parse_schema(small.schema()); }),
              {"belongs to a column of the log under features.item"});
  }

  TEST_CASE("files outside the data folder need leave") {
    DataFolder folder, other;
    other.write("log.csv", many_rows(30));
    std::filesystem::create_symlink(other.path("log.csv"), folder.path("log.csv"));
    Small small;
    check_has(message_of([&] { small.open(folder); }),
              {"the file 'log.csv' lies outside the data folder", "\"outside_files\": true"});
    std::string schema = small.schema();
    schema.insert(1, R"("outside_files": true, )");
    CHECK(message_of([&] { Dataset::open(parse_schema(schema), folder.path()); }) == "");
    const std::string climbing =
        "../" + std::filesystem::path(other.path()).parent_path().filename().string() + "/log.csv";
    std::string text = small.schema();
    text.replace(text.find("log.csv"), 7, climbing);
    check_has(message_of([&] { Dataset::open(parse_schema(text), folder.path()); }),
              {"lies outside the data folder"});
    // A link that stays inside is as good as its file.
    folder.write("real.csv", many_rows(30));
    std::filesystem::remove(folder.path("log.csv"));
    std::filesystem::create_symlink("real.csv", folder.path("log.csv"));
    CHECK(message_of([&] { small.open(folder); }) == "");
  }

  TEST_CASE("a table's column in an expression is told to be one") {
    Small small;
    small.tables = R"("movies": {"file": "movies.csv", "joins": "item", "key": "item"})";
    for (const char* label : {"movies.year > 2000", "label == 1 && `movies.year` > 2000"}) {
      small.tasks = R"("label": ")" + std::string(label) + "\"";
      check_has(message_of([&] { parse_schema(small.schema()); }),
                {"schema.tasks.label: 'movies.year' is a column of the table 'movies'; expressions read the "
                 "log's columns only"});
    }
    small.tasks = R"("label": "label")";
    small.log_options += R"(, "where": "movies.year > 2000")";
    check_has(message_of([&] { parse_schema(small.schema()); }),
              {"schema.log.where: 'movies.year' is a column"});
  }

  TEST_CASE("a key twice in schema.json is an error") {
    Small small;
    small.log_options += R"(, "item": "other")";
    check_has(message_of([&] { parse_schema(small.schema()); }), {"item"});
    small = {};
    small.tasks = R"("label": "label", "label": "label == 1")";
    check_has(message_of([&] { parse_schema(small.schema()); }), {"label"});
  }
}
