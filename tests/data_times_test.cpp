// Times of a log: formats against the system's own calendar, units and ranges.
#include "mixrec/core/error.h"
#include "mixrec/data/feature_encoder.h"
#include "mixrec/data/time_format.h"
#include "mixrec/tests/data_files.h"
#include "mixrec/tests/small_log.h"

#include <ctime>
#include <doctest/doctest.h>
#include <random>
#include <string>
#include <vector>

using namespace mixrec;
using namespace mixrec::test;

namespace {

// One training row a cell, and a later test row.
std::string log_of(const std::vector<std::string>& cells) {
  std::string text = "user,item,when,label\n";
  for (size_t i = 0; i < cells.size(); ++i)
    text += "u,i" + std::to_string(i) + ",\"" + cells[i] + "\"," + std::to_string(i % 2) + "\n";
  return text;
}

std::string open_error(const std::vector<std::string>& cells, const std::string& time,
                       const std::string& log_extra = "") {
  DataFolder folder;
  folder.write("log.csv", log_of(cells));
  Small small;
  small.log_options = R"(, "time": )" + time + log_extra;
  small.split = R"("by": "fraction", "test": 0.4, "validation": 0)";
  return message_of([&] { small.open(folder); });
}

void check_has(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    CHECK_MESSAGE(text.find(part) != std::string::npos, text, " / ", part);
}

int64_t parsed(const std::string& text, const std::string& format) {
  int64_t milliseconds = -1;
  check_time_format(format, "format");
  REQUIRE_MESSAGE(parse_time(text, format, milliseconds), text, " ", format);
  return milliseconds;
}

}  // namespace

TEST_SUITE("data times") {
  TEST_CASE("formats read what the system's strftime writes") {
    std::mt19937_64 random(5);
    for (const char* format :
         {"%Y-%m-%d %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d-%b-%y %H.%M.%S", "%A, %d %B %Y %T",
          "%a %e %b %Y %T", "%F %T", "%Y%j %H%M%S", "%Y%m%d%H%M%S", "%s", "%FT%T%z", "100%% on %F at %T"})
      for (int i = 0; i < 200; ++i) {
        const auto seconds = static_cast<std::time_t>(631'152'000 + random() % 2'500'000'000u);
        std::tm parts{};
        ::gmtime_r(&seconds, &parts);
        char text[100];
        const bool year_of_2 = std::string(format).find("%y") != std::string::npos;
        if (year_of_2 && parts.tm_year >= 169) continue;
        // The C library's %s reads the machine's time zone.
        if (std::string(format) == "%s") {
          std::snprintf(text, sizeof text, "%lld", static_cast<long long>(seconds));
        } else {
          REQUIRE(std::strftime(text, sizeof text, format, &parts) > 0);
        }
        INFO(text, " ", format);
        CHECK(parsed(text, format) == 1000 * int64_t{seconds});
      }
  }

  TEST_CASE("noon, midnight, fractions, offsets and names") {
    const int64_t day = 86'400'000 * days_from_civil(2022, 5, 1);
    CHECK(parsed("05/01/2022 12:00 AM", "%m/%d/%Y %I:%M %p") == day);
    CHECK(parsed("05/01/2022 12:30 pm", "%m/%d/%Y %I:%M %p") == day + 45'000'000);
    CHECK(parsed("May 1, 2022 1 a.m.", "%b %d, %Y %I %p") == day + 3'600'000);
    CHECK(parsed("1 MAY 22", "%d %B %y") == day);
    CHECK(parsed("1 Jan 70", "%d %b %y") == 0);
    CHECK(parsed("2022-05-01 00:00:00.5", "%Y-%m-%d %H:%M:%S.%f") == day + 500);
    CHECK(parsed("2022-05-01 00:00:00.123456789", "%Y-%m-%d %H:%M:%S.%f") == day + 123);
    CHECK(parsed("2022-05-01T02:00:00+02:00", "%Y-%m-%dT%H:%M:%S%z") == day);
    CHECK(parsed("2022-04-30T18:30:00-0530", "%FT%T%z") == day);
    CHECK(parsed("2022-05-01T00:00:00Z", "%FT%T%z") == day);
    CHECK(parsed("1651363200.25", "%s.%f") == day + 250);
    CHECK(parsed("2024 366", "%Y %j") == parsed("2024-12-31", "%F"));
    int64_t ignored = 0;
    for (const auto& [text, format] :
         std::vector<std::pair<std::string, std::string>>{{"05/01/2022 13:00 AM", "%m/%d/%Y %I:%M %p"},
                                                          {"2022-13-01", "%Y-%m-%d"},
                                                          {"2023 000", "%Y %j"},
                                                          {"2022 366", "%Y %j"},
                                                          {"2022-02-29", "%F"},
                                                          {"2022-05-01 24:00:00", "%F %T"},
                                                          {"2022-05-01 ", "%F"},
                                                          {"1 Mai 2022", "%d %B %Y"},
                                                          {"2022-05-01T00:00:00+2:00", "%FT%T%z"},
                                                          {"2022-05-01.", "%F.%f"}})
      CHECK_MESSAGE(!parse_time(text, format, ignored), text);
  }

  TEST_CASE("a directive that is not known is an error of the schema that lists the known ones") {
    const auto error = [](const std::string& format) {
      return open_error({"x"}, R"({"column": "when", "format": ")" + format + "\"}");
    };
    check_has(error("%Y-%m-%d %k"), {"schema.log.time.format", "'%k', which is not known", "%I", "%z", "%j"});
    check_has(error("%G-%V"), {"'%G', which is not known"});
    check_has(error("%Y-%m-%d %"), {"'%', which is not known"});
    check_has(error("%Y %I"), {"%I (hour of 12) and %p (AM or PM), which need each other"});
    check_has(error("%H:%M"), {"has no year"});
    check_has(open_error({"x"}, R"({"column": "when", "format": "%F", "unit": "ms"})"), {"has no unit"});
  }

  TEST_CASE("times in another unit than the schema says are an error that names the unit") {
    struct Case {
      std::vector<std::string> cells;
      std::string unit, hint, place;
    };
    for (const auto& one : std::vector<Case>{
             {{"1651363200000", "1651449600000", "1651536000000"},
              "s",
              R"("unit": "ms")",
              "log.csv, line 2, column 'when'"},
             {{"1651363200000000", "1651449600000000"}, "s", R"("unit": "us")", "log.csv, line 2"},
             {{"1651363200000000000", "1651449600000000001"}, "ms", R"("unit": "ns")", "log.csv, line 2"},
             {{"1651363200", "1651449600"},
              "ms",
              R"("unit": "s")",
              "log.time: the times of the column 'when' in ms"},
             {{"1651363200", "1651449600"}, "day", R"("unit": "s")", "log.csv, line 2"},
             {{"19113", "19114", "19115"}, "s", R"("unit": "day")", "log.time"},
             {{"20220501", "20220502"}, "s", R"("format": "%Y%m%d")", "log.time"},
             {{"20220501120000", "20220502120000"}, "s", R"("format": "%Y%m%d%H%M%S")", "log.csv, line 2"},
             // One row among others.
             {{"1651363200", "1651363300", "1651363400000", "1651363500"},
              "s",
              R"("unit": "ms")",
              "log.csv, line 4"}})
      check_has(open_error(one.cells, R"({"column": "when", "unit": ")" + one.unit + "\"}"),
                {one.hint, one.place});
    for (const char* cell : {"1e300", "-1e30", "9223372036854775807", "-9223372036854775808", "1e16"})
      check_has(open_error({"1651363200", cell, "1651363300"}, "\"when\""),
                {"log.csv, line 3, column 'when': '" + std::string(cell) + "' in s is no day of the years"});
    check_has(open_error({"2022-05-01", "2202-05-02", "2022-05-03"}, R"({"column": "when", "format": "%F"})"),
              {"log.csv, line 3, column 'when': '2202-05-02' is 2202-05-02, outside the years 1990 to 2100"});
    check_has(open_error({"2022-05-01", "1022-05-02", "2022-05-03"}, R"({"column": "when", "format": "%F"})"),
              {"log.csv, line 3, column 'when': '1022-05-02' is 1022-05-02, outside the years 1990 to 2100"});
    check_has(open_error({"1651363200", "1651363300", "0", "1651363400"}, "\"when\""),
              {"log.csv, line 4, column 'when': '0' is 1970-01-01"});
  }

  TEST_CASE("other years are allowed by name, and so are numbers that count from another beginning") {
    CHECK(open_error({"1", "2", "3", "4", "5"}, R"({"column": "when", "unit": "day"})") == "");
    CHECK(open_error({"0", "86400", "172800"}, "\"when\"") == "");
    CHECK(open_error({"1955-05-01", "1977-05-02"},
                     R"({"column": "when", "format": "%F", "years": [1950, 2000]})") == "");
    CHECK(open_error({"4102444800", "4202444800"}, R"({"column": "when", "years": [2000, 2200]})") == "");
    check_has(open_error({"1955-05-01", "1949-05-02"},
                         R"({"column": "when", "format": "%F", "years": [1950, 2000]})"),
              {"outside the years 1950 to 2000"});
    check_has(open_error({"1"}, R"({"column": "when", "years": [2000]})"),
              {"schema.log.time.years: needs the first"});
    check_has(open_error({"1"}, "\"when\"", R"(, "utc_offset_hours": 1e300)"), {"must be from -24 to 24"});
  }

  TEST_CASE("times with an offset are cut into days and hours at utc_offset_hours, and scored alike") {
    DataFolder folder;
    folder.write("log.csv", log_of({"2022-05-01T01:30:00+02:00", "2022-05-01T22:30:00Z",
                                    "2022-05-03T12:00:00-0100", "2022-05-04T00:00:00Z"}));
    Small small;
    small.log_options = R"(, "time": {"column": "when", "format": "%FT%T%z"}, "utc_offset_hours": 2)";
    small.context_features = R"({"column": "when", "part": "hour"}, {"column": "when", "part": "weekday"})";
    small.split = R"("by": "date", "test_days": 1)";
    const Dataset data = small.open(folder);
    CHECK(data.manifest().splits[0].first_day == "2022-05-01");
    const auto hours = ids(data, Split::train, "hour"), weekdays = ids(data, Split::train, "weekday");
    CHECK(hours == std::vector<int64_t>{2, 1, 16});
    CHECK(weekdays == std::vector<int64_t>{7, 1, 2});
    write_features(data, folder.path("encoders"));
    const FeatureEncoder encoder(folder.path("encoders"), TrainedOn::whole_period);
    ScoreRequest request{.user = "u", .time = "2022-05-03T12:00:00-0100"};
    request.candidates.emplace_back("i0");
    const RequestBatch batch = encoder.encode(request);
    CHECK(batch.features[feature(data, "hour")].ids.to_vector<int64_t>()[0] == 16);
    CHECK(batch.features[feature(data, "weekday")].ids.to_vector<int64_t>()[0] == 2);
    request.time = "1e300";
    check_has(message_of([&] { encoder.encode(request); }),
              {"the request's time: '1e300' is no time of the form"});
  }

  TEST_CASE("times of history files are looked at in the same way") {
    DataFolder folder;
    folder.write("log.csv", log_of({"1651363200", "1651449600", "1651536000"}));
    folder.write("past.csv", "user,item,when\nu,i0,1651300000\nu,i1,1651300000000\n");
    folder.write("lists.csv", "user,items,times\nu,i0 i1,1651300000 1e300\n");
    Small small;
    small.log_options = R"(, "time": "when")";
    small.split = R"("by": "fraction", "test": 0.4, "validation": 0)";
    small.histories = R"("h": {"features": ["item"], "from": [{"files": "past.csv"}]})";
    check_has(message_of([&] { small.open(folder); }),
              {"past.csv, line 3, column 'when'", R"("unit": "ms")"});
    small.histories =
        R"("h": {"features": ["item"], "from": [{"files": "lists.csv", "items": "items", "times": {"column": "times"}}]})";
    check_has(message_of([&] { small.open(folder); }),
              {"lists.csv, line 2, column 'times': '1e300' in s is no day"});
  }
}
