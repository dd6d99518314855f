// Input that is hostile or broken in form: nesting, keys twice, numbers beyond any double, bytes that are no
// text, values of megabytes.  Each ends in one short sentence.
#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"
#include "mixrec/data/csv_reader.h"
#include "mixrec/data/expression.h"
#include "mixrec/data/json_reader.h"
#include "mixrec/data/schema.h"
#include "mixrec/tests/data_files.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/temporary_folder.h"

#include <doctest/doctest.h>
#include <string>

using namespace mixrec;
using mixrec::test::message_of;

namespace {

std::string repeated(const std::string& text, size_t times) {
  std::string all;
  all.reserve(text.size() * times);
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

std::string json_error(const std::string& text) {
  return message_of([&] { JsonValue::parse(text, "s.json"); });
}

void check_has(const std::string& message, const std::string& part) {
  CAPTURE(message);
  CHECK(message.find(part) != std::string::npos);
}

}  // namespace

TEST_SUITE("bad input") {
  TEST_CASE("bytes that are not UTF-8 are shown as \\xHH, characters are kept") {
    CHECK(printable("d\xff") == "d\\xFF");
    CHECK(printable("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8e\x89") == "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8e\x89");
    CHECK(printable("\xc0\xaf") == "\\xC0\\xAF");                    // overlong
    CHECK(printable("\xed\xa0\x80") == "\\xED\\xA0\\x80");           // a surrogate
    CHECK(printable("\xf4\x90\x80\x80") == "\\xF4\\x90\\x80\\x80");  // beyond U+10FFFF
    CHECK(printable("\xe2\x82") == "\\xE2\\x82");                    // cut short
    CHECK_FALSE(is_utf8("a\x80"));
    CHECK(is_utf8("a\xc2\x80"));
  }

  TEST_CASE("control characters are shown, but for the line breaks of a whole message") {
    CHECK(printable("a\n\tb\r") == "a\\n\\tb\\r");
    CHECK(printable("\x1b[31mred\x7f") == "\\x1B[31mred\\x7F");
    CHECK(printable_message("a:\n  b\x1b") == "a:\n  b\\x1B");
    CHECK(printable(std::string_view("\0", 1)) == "\\x00");
  }

  TEST_CASE("a long value keeps its start and its end, and no character is cut") {
    const std::string shown = printable(repeated("\xe2\x82\xac", 1000));
    CHECK(is_utf8(shown));
    CHECK(shown.find('\\') == std::string::npos);
    CHECK(shown.find("(3000 bytes)") != std::string::npos);
    CHECK(shown.size() < 300);
    CHECK(printable(std::string(200, 'a')) == std::string(200, 'a'));
  }

  TEST_CASE("every error is UTF-8 and short") {
    const std::string bytes = message_of([] { MR_FAIL("no folder d\xff"); });
    check_has(bytes, "no folder d\\xFF");
    const std::string large =
        message_of([] { MR_FAIL("the key ", std::string(5'000'000, 'k'), " is unknown"); });
    CHECK(large.size() < 5000);
    check_has(large, "is unknown");
  }

  TEST_CASE("JSON nested too deep is an error that names the place") {
    check_has(json_error(repeated("[", 100'000)), "nested more than 64 levels");
    check_has(json_error(repeated(R"({"a":)", 200'000)), "s.json: lists and objects are nested");
    check_has(json_error(R"({"b": [0, )" + repeated("[", 100) + repeated("]", 100) + "]}"), "in b[1]");
    CHECK(json_error(repeated("[", 64) + repeated("]", 64)) == "");
    check_has(json_error(repeated("[", 65) + repeated("]", 65)), "nested more than 64 levels");
  }

  TEST_CASE("a key that stands twice is an error, in small and in large objects") {
    check_has(json_error(R"({"a": 1, "b": {"c": 1, "c": 2}})"), "'c' stands twice in b");
    std::string large = "{\"k50\": 0";
    for (int i = 0; i < 60; ++i) large += concat_message(",\"k", i, "\": 1");
    check_has(json_error(large + "}"), "'k50' stands twice");
    CHECK(json_error(R"([{"a": 1}, {"a": 1}])") == "");
  }

  TEST_CASE("a number that no double holds is an error with its line") {
    check_has(json_error("{\"a\":\n 1e309}"), "line 2, column ");
    check_has(json_error("{\"a\":\n 1e309}"), "the number 1e309 is out of range");
    check_has(json_error("[-1e400]"), "is out of range");
  }

  TEST_CASE("what is not JSON is an error without the name of an exception") {
    const std::string error = json_error("{\"a\": tru}");
    check_has(error, "s.json is not valid JSON: line 1, column ");
    CHECK(error.find("json.exception") == std::string::npos);
    CHECK(is_utf8(json_error("{\"a\": \"\xff\"}")));
    CHECK(json_error("\"" + std::string(3'000'000, 'x')).size() < 1000);
  }

  TEST_CASE("an unknown key of megabytes is refused at once and cut") {
    JsonObject object = JsonValue::parse("{\"" + std::string(5'000'000, 'k') + "\": 1}", "s.json").object();
    object.has("key");
    const std::string error = message_of([&] { object.finish(); });
    check_has(error, "unknown key 'kkk");
    CHECK(error.size() < 500);
  }

  TEST_CASE("a value in a message is cut") {
    JsonObject object = JsonValue::parse("{\"a\": \"" + std::string(100'000, 'v') + "\"}", "s.json").object();
    const std::string error = message_of([&] { object.number("a", 0); });
    check_has(error, "s.json.a: needs a number");
    CHECK(error.size() < 400);
  }

  TEST_CASE("expressions nested too deep or too long are errors") {
    const auto error = [](const std::string& text) { return message_of([&] { expression_columns(text); }); };
    check_has(error(repeated("(", 7000) + "a" + repeated(")", 7000)), "nested more than 100 deep");
    check_has(error(repeated("-", 200'000) + "a"), "nested more than 100 deep");
    check_has(error(repeated("!", 200'000) + "a"), "nested more than 100 deep");
    check_has(error("a" + repeated(" + a", 200'000)), "more than 1000 operators");
    check_has(error("a" + repeated(" || a == 1", 3'000)), "more than 1000 operators");
    CHECK(error(repeated("(", 90) + "a" + repeated(")", 90)) == "");
    CHECK(error("a == 0" + repeated(" || a == 1", 900)) == "");
    CHECK(error(repeated("(a) + ", 500) + "a") == "");
  }
}
