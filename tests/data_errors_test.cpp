// Every malformed file or schema ends in one sentence that says where; and a packed form is never half there.
#include "mixrec/core/error.h"
#include "mixrec/data/csv_reader.h"
#include "mixrec/data/dictionary.h"
#include "mixrec/data/expression.h"
#include "mixrec/data/loader.h"
#include "mixrec/data/time_format.h"
#include "mixrec/tests/data_files.h"

#include <chrono>
#include <doctest/doctest.h>
#include <filesystem>
#include <string>

using namespace mixrec;
using mixrec::test::DataFolder;
using mixrec::test::message_of;

namespace {

const std::string kLog = "user,item,time,label\nu,a,0,1\nv,b,86400,0\nu,b,172800,1\n";
const std::string kSchema = R"({
  "log": {"files": "log.csv", "user": "user", "item": "item", "time": "time"},
  "tasks": {"label": "label == 1"},
  "features": {"user": ["user"], "item": ["item"]},
  "histories": {"h": {"from": [{"log": true}], "features": ["item"]}},
  "split": {"by": "date", "test_days": 1}
})";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

// The error of opening a data set with this log and schema.
std::string open_error(const std::string& log, const std::string& schema = kSchema,
                       const std::string& past = "") {
  DataFolder folder;
  folder.write("log.csv", log);
  folder.write("past.csv", past);
  const std::string message = message_of([&] { Dataset::open(parse_schema(schema), folder.path()); });
  // Nothing is left behind: no packed form, no temporary folder.
  if (!message.empty()) CHECK(!std::filesystem::exists(folder.path(".mixrec")));
  return message;
}

void check_starts(const std::string& message, const std::string& start) {
  INFO("message: ", message);
  CHECK(message.substr(0, start.size()) == start);
}

void check_has(const std::string& message, const std::string& part) {
  INFO("message: ", message);
  CHECK(message.find(part) != std::string::npos);
}

}  // namespace

TEST_SUITE("data errors") {
  TEST_CASE("malformed rows name file, line, column and cell") {
    CHECK(open_error(kLog).empty());
    check_starts(open_error(kLog + "u,a,1\n"),
                 "log.csv, line 5: 3 cells where 4 are expected (separator ','); the row starts with 'u'");
    check_starts(open_error(kLog + "u,a,soon,1\n"), "log.csv, line 5, column 'time': 'soon' is no time in s");
    check_starts(open_error(kLog + "u,a,1,yes\n"), "log.csv, line 5, column 'label': 'yes' is not a number");
    check_starts(open_error(kLog + "u,a,1,nan\n"), "log.csv, line 5, column 'label': 'nan' is not a number");
    check_starts(open_error(kLog + ",a,1,1\n"), "log.csv, line 5, column 'user': the user is missing");
    check_starts(open_error(kLog + "\"u,a,1,1\n"), "log.csv, line 5: a quote is opened and never closed");
    check_starts(open_error(kLog + "\"u\"x,a,1,1\n"),
                 "log.csv, line 5: text after a closing quote: 'x,a,1,1'");
    check_starts(open_error(kLog, replaced(kSchema, "label == 1", "label * 2")),
                 "log.csv, line 2: the label 'label' is 2;");
    check_starts(open_error("user,item,time,label\n"), "log.csv: there is no row under the header");
    check_has(open_error(""), "log.csv is empty: it needs at least a header row");
    check_starts(open_error("user,item,time,user\n"), "log.csv: two columns are named 'user'");
    check_has(open_error("user,item,tims,label\nu,a,1,1\n"),
              "log.csv has no column 'time'; did you mean 'tims'?");
  }

  TEST_CASE("histories beside the log are checked too") {
    const std::string schema =
        replaced(kSchema, R"({"log": true})",
                 R"({"files": "past.csv", "items": "items", "signals": {"s": {"column": "s", "list": ""}}})");
    CHECK(open_error(kLog, schema, "user,items,s\nu,a b,01\n").empty());
    check_starts(open_error(kLog, schema, "user,items,s\nu,a b,011\n"),
                 "past.csv, line 2, column 's': 3 elements beside 2 items");
    check_starts(open_error(kLog, schema, "user,items,s\nu,a b,0x\n"),
                 "past.csv, line 2, column 's': 'x' is not a number");
    check_starts(open_error(kLog, schema, "user,items,s\nu,a  b,011\n"),
                 "past.csv, line 2, column 'items': an item is missing");
  }

  TEST_CASE("a part without rows is no error of the data: rows to be predicted have no training part") {
    CHECK(open_error(kLog, replaced(kSchema, R"("test_days": 1)", R"("test_from": "1980-01-01")")).empty());
    CHECK(open_error(kLog, replaced(kSchema, R"("test_days": 1)", R"("test_days": 9)")).empty());
  }

  TEST_CASE("missing files and tables") {
    DataFolder folder;
    const Schema schema = parse_schema(kSchema);
    check_starts(message_of([&] { Dataset::open(schema, folder.path("nowhere")); }),
                 "there is no data folder ");
    check_has(message_of([&] { Dataset::open(schema, folder.path()); }), "has no file 'log.csv'");
    check_has(message_of([&] { find_schema(folder.path()); }), "holds no schema.json");
    folder.write("other.json", kSchema);
    check_has(message_of([&] { find_schema(folder.path(), {folder.path("other.json")}); }),
              "other.json it lacks log.csv");
    folder.write("log.csv", kLog);
    CHECK(find_schema(folder.path(), {folder.path("other.json")}).user == "user");
  }

  TEST_CASE("schemas: unknown keys, wrong types, names that are not there") {
    const auto error = [](const std::string& from, const std::string& to) {
      return message_of([&] { parse_schema(replaced(kSchema, from, to), "s.json"); });
    };
    check_starts(error("\"features\": {", "\"feature\": {"), "s.json: 'features' is missing");
    check_starts(error("\"time\": \"time\"", "\"tyme\": \"time\""),
                 "s.json.log: unknown key 'tyme'; did you mean 'time'?");
    check_starts(error("\"item\": [\"item\"]", "\"item\": [{\"column\": \"item\", \"mincount\": 2}]"),
                 "s.json.features.item[0]: unknown key 'mincount'; did you mean 'min_count'?");
    check_starts(error("\"item\": [\"item\"]", "\"item\": [{\"column\": \"item\", \"min_count\": 0}]"),
                 "s.json.features.item[0].min_count: needs a whole number of at least 1, got 0");
    check_starts(error("\"item\": [\"item\"]", "\"items\": [\"item\"]"),
                 "s.json.features: unknown key 'items'; did you mean 'item'?");
    check_starts(error("\"features\": [\"item\"]", "\"features\": [\"itm\"]"),
                 "s.json: histories.h.features: there is no stored item feature 'itm'; did you mean 'item'?");
    check_starts(error("\"date\"", "\"dates\""),
                 "s.json.split.by: 'dates' is not one of date, fraction, column, files");
    check_starts(error("\"test_days\": 1", "\"test_from\": \"3 May\""),
                 "s.json.split.test_from: '3 May' is not a date like 2022-05-03");
    check_starts(error(", \"time\": \"time\"", ""),
                 "s.json.split: a split by date needs log.time or log.date");
    check_has(error("\"tasks\"", "tasks"), "s.json is not valid JSON");
    check_starts(error("{\"label\":", "{\"\":"), "s.json.tasks: a name is empty");
    check_starts(error("{\"h\":", "{\"\":"), "s.json.histories: a name is empty");
    check_starts(error("[\"user\"]", "[{\"column\": \"user\", \"name\": \"\"}]"),
                 "s.json.features.user[0].name: must not be empty");
    check_starts(
        error("\"test_days\": 1", "\"test_from\": \"2022-05-03\", \"validation_from\": \"2022-05-03\""),
        "s.json.split.validation_from: must lie before test_from");
    check_starts(error("\"time\": \"time\"", "\"time\": {\"column\": \"time\", \"format\": \"\"}"),
                 "s.json.log.time.format: must not be empty");
    check_has(open_error(kLog, replaced(kSchema, "label == 1", "label = 1")),
              "in the expression \"label = 1\", at character 7: unexpected '='");
    check_has(open_error(kLog, replaced(kSchema, "label == 1", "labl == 1")),
              "has no column 'labl'; did you mean 'label'?");
  }

  TEST_CASE("a feature that is declared once a request must not vary inside it") {
    const std::string schema =
        replaced(kSchema, R"("item": ["item"]})",
                 R"("item": ["item"], "context": [{"column": "time", "scope": "request"}]})");
    CHECK(open_error(kLog, schema).empty());
    check_starts(open_error(kLog + "u,c,172801,0\n", schema),
                 "feature 'time' is declared once a request, but");
  }

  TEST_CASE("expressions") {
    DataFolder folder;
    folder.write("x.csv", "a,b c,t\n2,3,hi\n");
    CsvReader reader(folder.path("x.csv"), {});
    reader.next();
    const auto value = [&](const std::string& text) { return Expression(text, reader)(reader); };
    CHECK(value("a + `b c` * 2") == 8);
    CHECK(value("(a + `b c`) * -2 / 4") == -2.5);
    CHECK(value("a >= 2 && !(`b c` < 3) || a == 7") == 1);
    CHECK(value("t == 'hi'") == 1);
    CHECK(value("'ho' != t && a - 1 - 1 == 0") == 1);
    CHECK(value("a != 2 && t > 5") == 0);  // the right side is not read
    check_has(message_of([&] { value("a +"); }), "at character 4: a value is missing");
    check_has(message_of([&] { value("t < 'b'"); }), "text can only be compared with a column");
    check_has(message_of([&] { value("t + 1"); }), "x.csv, line 2, column 't': 'hi' is not a number");
    check_has(message_of([&] { value("a / 0"); }), "is not a finite number");
    // (1 < a) < 3 would hold for every a.
    for (const char* chain : {"1 < a < 3", "a == 2 == 1", "a >= 1 != 0 && a"})
      check_has(message_of([&] { value(chain); }), "after another comparison: write a < b && b < c");
    CHECK(value("(1 < a) == 1 && a < 3") == 1);
    CHECK(value("a < 3 || a < 1") == 1);
    check_has(message_of([&] { value("a = 2"); }), "unexpected '='; equality is written ==");
    check_has(message_of([&] { value("a == 2 and a"); }), "'and' is written &&");
    check_has(message_of([&] { value("a == 2 or a"); }), "'or' is written ||");
  }

  TEST_CASE("a reader handles quotes, line ends, long separators and rows longer than its buffer") {
    DataFolder folder;
    const std::string longest(3 << 20, 'z');
    folder.write("q.csv",
                 "\xEF\xBB\xBFname,text\r\n\"a,b\",\"x\ny\"\r\n\r\nc\"d,\"\"\"e\"\"\"\n" + longest + ",f");
    CsvReader reader(folder.path("q.csv"), {});
    CHECK(reader.columns() == std::vector<std::string>{"name", "text"});
    REQUIRE(reader.next());
    CHECK(reader.cell(0) == "a,b");
    CHECK(reader.cell(1) == "x\ny");
    REQUIRE(reader.next());
    CHECK(reader.line() == 5);
    CHECK(reader.cell(0) == "c\"d");
    CHECK(reader.cell(1) == "\"e\"");
    REQUIRE(reader.next());
    CHECK(reader.cell(0) == longest);
    CHECK(!reader.next());
    folder.write("m.dat", "1::Toy \"Story\"::a|b\n2::x::\n");
    CsvReader movies(folder.path("m.dat"), {"::", {"id", "title", "genres"}, false, false});
    REQUIRE(movies.next());
    CHECK(movies.cell(1) == "Toy \"Story\"");
    REQUIRE(movies.next());
    CHECK(movies.cell(2).empty());
  }

  TEST_CASE("days count like the system's calendar") {
    for (const char* text : {"1970-01-01", "2000-02-29", "2022-05-03", "1969-12-31", "2100-03-01"})
      CHECK(day_text(parse_day(text, "test")) == text);
    using namespace std::chrono;
    for (int64_t day = -1000; day < 60000; day += 37) {
      const year_month_day date{sys_days{days{day}}};
      CHECK(days_from_civil(int(date.year()), static_cast<int>(unsigned(date.month())),
                            static_cast<int>(unsigned(date.day()))) == day);
    }
    CHECK(!message_of([] { parse_day("2022-02-30", "test"); }).empty());
  }

  TEST_CASE("a dictionary numbers texts by first appearance") {
    Dictionary dictionary;
    for (int round = 0; round < 2; ++round)
      for (uint32_t i = 0; i < 1000; ++i) CHECK(dictionary.add("text " + std::to_string(i)) == i);
    CHECK(dictionary.size() == 1000);
    CHECK(dictionary.find("text 77") == 77);
    CHECK(dictionary.find("other") == Dictionary::kNone);
    CHECK(dictionary.text(5) == "text 5");
  }
}
