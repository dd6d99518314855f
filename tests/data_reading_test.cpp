// What a reader does with files that are not the plain CSV it expects: compressed ones are read, others are told what
// they are; and expressions over ids.
#include "mixrec/compression.h"
#include "mixrec/core/error.h"
#include "mixrec/data/csv_reader.h"
#include "mixrec/data/expression.h"
#include "mixrec/tests/data_files.h"
#include "mixrec/tests/skip.h"
#include "mixrec/tests/small_log.h"

#include <cstdlib>
#include <doctest/doctest.h>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <vector>

using namespace mixrec;
using namespace mixrec::test;

namespace {

const std::string kLog = "user,item,day,label\nu,a,0,1\nu,b,1,0\nv,a,2,1\n";

std::string open_error(const std::string& log, const Small& small = {}) {
  DataFolder folder;
  folder.write("log.csv", log);
  return message_of([&] { small.open(folder); });
}

void check_has(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    CHECK_MESSAGE(text.find(part) != std::string::npos, text, " / ", part);
}

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Compressed by the system's own program; "" when it is not here.
std::string compressed(const DataFolder& folder, const std::string& text, const std::string& program) {
  folder.write("plain", text);
  const std::string command =
      program + " -c " + folder.path("plain") + " > " + folder.path("packed") + " 2>/dev/null";
  return std::system(command.c_str()) == 0 ? contents(folder.path("packed")) : "";
}

std::vector<std::vector<std::string>> all_cells(const std::string& path) {
  CsvReader reader(path, {});
  std::vector<std::vector<std::string>> rows;
  while (reader.next()) rows.emplace_back(reader.cells().begin(), reader.cells().end());
  CHECK(reader.bytes_read() == reader.bytes());
  return rows;
}

std::string long_log() {
  std::string text = "user,item,day,label\n";
  for (int i = 0; i < 200'000; ++i)
    text += "u" + std::to_string(i * 7919 % 1000) + ",\"i," + std::to_string(i) + "\"," +
            std::to_string(i % 97) + ",1\n";
  return text;
}

}  // namespace

TEST_SUITE("data reading") {
  TEST_CASE("compressed files read as what was compressed, whatever their name") {
    const DataFolder folder;
    const std::string text = long_log();
    folder.write("log.csv", text);
    const auto expected = all_cells(folder.path("log.csv"));
    REQUIRE(expected.size() == 200'000);
    for (const auto& [program, name, built] :
         {std::tuple("gzip", "log.csv.gz", MIXREC_ZLIB), std::tuple("zstd -q", "log.csv.zst", MIXREC_ZSTD)}) {
      const std::string packed = compressed(folder, text, program);
      if (packed.empty()) continue;
      folder.write(name, packed);
      folder.write("renamed.csv", packed);
      if (!built) {
        check_has(message_of([&] { all_cells(folder.path(name)); }), {name, "and this build has no"});
        continue;
      }
      CHECK(all_cells(folder.path(name)) == expected);
      CHECK(all_cells(folder.path("renamed.csv")) == expected);
      // Two files one after the other are one file.
      const std::string half = text.substr(0, text.find("\n", text.size() / 2) + 1),
                        rest = text.substr(half.size());
      folder.write(name, compressed(folder, half, program) + compressed(folder, rest, program));
      CHECK(all_cells(folder.path(name)) == expected);
    }
  }

  TEST_CASE("a damaged or cut archive is an error that names the file") {
    const DataFolder folder;
    const std::string text = long_log();
    for (const auto& [program, name, built] : {std::tuple("gzip", "log.csv.gz", MIXREC_ZLIB),
                                               std::tuple("zstd -q --check", "log.csv.zst", MIXREC_ZSTD)}) {
      const std::string packed = compressed(folder, text, program);
      if (packed.empty() || !built) continue;
      for (const size_t length : {packed.size() - 1, packed.size() / 2, size_t{12}}) {
        folder.write(name, packed.substr(0, length));
        const std::string said = message_of([&] { all_cells(folder.path(name)); });
        check_has(said, {name, "is cut short"});
      }
      for (const size_t at : {packed.size() / 2, packed.size() - 6}) {
        std::string changed = packed;
        changed[at] = static_cast<char>(changed[at] ^ 0x55);
        folder.write(name, changed);
        check_has(message_of([&] { all_cells(folder.path(name)); }), {name, "is damaged"});
      }
      folder.write(name, packed + "more");
      check_has(message_of([&] { all_cells(folder.path(name)); }), {name, "is damaged"});
      folder.write(name, kLog);
      check_has(message_of([&] { all_cells(folder.path(name)); }), {name, "although its name says so"});
    }
  }

  TEST_CASE("a compressed log and table make the same data set") {
    const DataFolder folder;
    if (!MIXREC_ZLIB || compressed(folder, kLog, "gzip").empty())
      return skip("a data set of compressed files: there is no gzip");
    const std::string items = "item,price\na,1\nb,5\n";
    Small small;
    small.tables = R"("items": {"file": "items.csv"})";
    small.item_features = R"("item", {"column": "items.price", "numeric": "standard"})";
    small.split = R"("by": "date", "test_days": 1)";
    folder.write("log.csv", kLog), folder.write("items.csv", items);
    const auto expected = values(small.open(folder), Split::train, "price");
    folder.write("log.csv", compressed(folder, kLog, "gzip"));
    folder.write("items.csv", compressed(folder, items, "gzip"));
    CHECK(values(small.open(folder), Split::train, "price") == expected);
    CHECK(expected == std::vector<float>{-1, 1});
  }

  TEST_CASE("how the first line was read is said where a column is missing") {
    check_has(open_error("user;item;day;label\nu;a;0;1\n"),
              {"has no column 'user'", "log.user asks for it", "1 column with the separator ','",
               "user;item;day;label", R"("separator": ";")"});
    check_has(open_error("user\titem\tday\tlabel\nu\ta\t0\t1\n"), {R"("separator": "\t")"});
    check_has(open_error("user|item|day|label\nu|a|0|1\n"), {R"("separator": "|")"});
    check_has(open_error("user item day label\nu a 0 1\n"), {R"("separator": " ")"});
    check_has(
        open_error("user,item,day,lable\nu,a,0,1\n"),
        {"has no column 'label'; did you mean 'lable'?", "tasks.label", "4 columns with the separator ','"});
    Small small;
    small.context_features = R"({"column": "place"})";
    check_has(open_error(kLog, small), {"has no column 'place'", "the feature 'place' asks for it"});
    small = {};
    small.log_options += R"(, "separator": ";")";
    check_has(open_error("\"user\";\"item\";\"day\";\"label\"\n", small), {R"("quotes": true)"});
    check_has(open_error("user;item;day;label\nu,a,0,1\n", small),
              {R"("separator": ",")", "line 2: 1 cell where 4"});
    small.log_options = R"(, "time": {"column": "tag", "unit": "day"})";
    check_has(open_error(kLog, small), {"has no column 'tag'", "log.time asks for it"});
    small = {};
    small.histories =
        R"("h": {"features": ["item"], "from": [{"log": true, "signals": {"good": "stars > 3"}}]})";
    check_has(open_error(kLog, small), {"has no column 'stars'", "histories.h.from.signals.good"});
  }

  TEST_CASE("files that are no delimited text are told what they are") {
    std::string utf16 = "\xff\xfe", big_endian;
    for (const char c : kLog) utf16 += c, utf16 += '\0', big_endian += '\0', big_endian += c;
    std::string utf32("\xff\xfe\0\0", 4);
    for (const char c : kLog) utf32.append(1, c).append(3, '\0');
    check_has(open_error(utf16), {"log.csv is UTF-16", "iconv -f utf-16 "});
    check_has(open_error(big_endian), {"log.csv is UTF-16", "iconv -f utf-16be"});
    check_has(open_error(utf16.substr(2)), {"log.csv is UTF-16", "iconv -f utf-16le"});
    check_has(open_error(utf32), {"log.csv is UTF-32", "iconv -f utf-32"});
    std::string carriage = kLog;
    for (char& c : carriage) c = c == '\n' ? '\r' : c;
    check_has(open_error(carriage), {"ends its lines with a carriage return alone"});
    check_has(open_error("{\"user\": \"u\", \"item\": \"a\"}\n"), {"log.csv is JSON"});
    check_has(open_error("[{\"user\": \"u\"}]\n"), {"log.csv is JSON"});
    check_has(open_error("PK\x03\x04rest"), {"a zip archive or an Excel workbook"});
    check_has(open_error("PAR1rest"), {"a Parquet file"});
    check_has(open_error("<!DOCTYPE html>\n<html>"), {"a web page"});
    check_has(open_error("user,item,day,label,,\nu,a,0,1,,\n"),
              {"columns 5 and 6 have no name", "its first line has 6 columns"});
    check_has(open_error("user,item,day,label,day\nu,a,0,1,1\n"), {"two columns are named 'day'"});
    check_has(open_error(""), {"is empty: it needs at least a header row"});
    Small small;
    small.log_options += R"(, "columns": ["user", "item", "day", "label"])";
    check_has(open_error("", small), {"log.csv is empty: it has no row"});
    check_has(open_error("user,item,day,label\n\"u\"x,a,0,1\n"),
              {"line 2: text after a closing quote", R"("quotes": false)"});
  }

  TEST_CASE("numbers that are too small for f64 are 0, those that are too large are none") {
    double value = 7;
    for (const char* text : {"1e-400", "-3.5e-999", "0.0e-400"}) {
      CHECK(parse_number(text, value));
      CHECK(value == 0);
    }
    CHECK(parse_number("0." + std::string(400, '0') + "1", value));
    CHECK(value == 0);
    for (const std::string& text :
         {std::string("1e400"), "1" + std::string(400, '0'), std::string("1e-400x")})
      CHECK_FALSE(parse_number(text, value));
    check_has(open_error("user,item,day,label\nu,\"a\nb\",\"\n\",1\n"), {R"('\n' is no time)"});
  }

  TEST_CASE("pipes and folders are no files") {
    const DataFolder folder;
    REQUIRE(::mkfifo(folder.path("pipe").c_str(), 0600) == 0);
    check_has(message_of([&] { CsvReader(folder.path("pipe"), {}); }), {"pipe is not a file"});
    check_has(message_of([&] { CsvReader("/dev/zero", {}); }), {"/dev/zero is not a file"});
    check_has(message_of([&] { CsvReader(folder.path(), {}); }), {"is not a file"});
  }

  TEST_CASE("cells that are not UTF-8 are refused where somebody reads them") {
    const std::string said = open_error("user,item,day,label\nu,a,0,1\nu,caf\xe9,1,0\n");
    check_has(said, {"log.csv, line 3, column 'item': 'caf\\xE9' is not UTF-8", "iconv"});
    CHECK(open_error("user,item,day,label,title\nu,a,0,1,\xfc\nu,b,1,0,x\n") == "");
    Small small;
    small.context_features = R"({"column": "title", "hash": 10})";
    check_has(open_error("user,item,day,label,title\nu,a,0,1,ok\nu,b,1,0,\xfc\xfc\n", small),
              {"log.csv, line 3, column 'title'"});
    // Overlong forms and halves of a character too.
    for (const char* cell : {"\xc0\xaf", "\xe2\x82", "\xed\xa0\x80", "\xff"})
      check_has(open_error(std::string("user,item,day,label\nu,") + cell + ",0,1\n"),
                {"line 2, column 'item'"});
    CHECK(open_error("user,item,day,label\nu,caf\xc3\xa9,0,1\nu,\xe2\x82\xac,1,0\n") == "");
    check_has(open_error("user,item,day,label,pr\xe9\nu,a,0,1,2\n"),
              {"line 1: the name of column 5, 'pr\\xE9'"});
    DataFolder folder;
    folder.write("log.csv", kLog);
    folder.write("items.csv", "item,city\na,Z\xfcrich\nb,Bern\n");
    small = {};
    small.tables = R"("items": {"file": "items.csv"})";
    small.item_features = R"("item", "items.city")";
    check_has(message_of([&] { small.open(folder); }),
              {"items.csv, line 2, column 'city': 'Z\\xFCrich' is not UTF-8"});
  }

  TEST_CASE("whole numbers of any length compare exactly") {
    DataFolder folder;
    folder.write("x.csv",
                 "a,b,c\n9007199254740992,9007199254740993,5\n-9007199254740993,-9007199254740992,0\n"
                 "123456789012345678901234567890,123456789012345678901234567891,1e30\n007,7,7.0\n");
    CsvReader reader(folder.path("x.csv"), {});
    const auto value = [&](const std::string& text) { return Expression(text, reader)(reader); };
    REQUIRE(reader.next());
    CHECK(value("a != 9007199254740993") == 1);
    CHECK(value("b == 9007199254740993") == 1);
    CHECK(value("a == b") == 0);
    CHECK(value("a < b && !(b <= a)") == 1);
    CHECK(value("9007199254740993 > a") == 1);
    CHECK(value("a > 0.5") == 1);
    CHECK(value("c + 1 == 6") == 1);
    check_has(message_of([&] { value("b - a == 1"); }),
              {"x.csv, line 2", "9007199254740993", "is beyond 2^53"});
    check_has(message_of([&] { value("9007199254740995 + c > 1"); }), {"is beyond 2^53"});
    REQUIRE(reader.next());
    CHECK(value("a < b") == 1);
    CHECK(value("a == -9007199254740993 && b != -9007199254740993") == 1);
    CHECK(value("a < c") == 1);
    REQUIRE(reader.next());
    CHECK(value("a < b && a != b") == 1);
    CHECK(value("a == 123456789012345678901234567890") == 1);
    check_has(message_of([&] { value("a == 123456789012345678901234567890.0"); }),
              {"compare exactly only with"});
    REQUIRE(reader.next());
    CHECK(value("a == b && a == c") == 1);
  }

  TEST_CASE("names that an expression reads apart get a hint of backticks") {
    DataFolder folder;
    folder.write("x.csv", "is-click,play time,click,user.id,2nd\n1,2,3,4,5\n");
    CsvReader reader(folder.path("x.csv"), {});
    reader.next();
    const auto value = [&](const std::string& text) {
      return Expression(text, reader, "tasks.click")(reader);
    };
    check_has(message_of([&] { value("is-click == 1"); }), {"tasks.click", "no column 'is'", "`is-click`"});
    check_has(message_of([&] { value("click > 1 && play time > 1"); }), {"no column 'play'", "`play time`"});
    CHECK(value("`is-click` + `play time`") == 3);
    CHECK(value("user.id == 4") == 1);
    check_has(message_of([&] { value("klick == 1"); }), {"has no column 'klick'; did you mean 'click'?"});
  }
}
