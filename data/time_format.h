// Points in time and days: parsing, and the civil calendar.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mixrec {

// Days since 1970-01-01 of a Gregorian date, and back.
int64_t days_from_civil(int64_t year, int month, int day);
std::string day_text(int64_t day);  // "2022-05-03"

// Parses `text` by a strptime-like format of %Y %m %d %H %M %S, literal characters and blanks; false when it
// does not match as a whole.  `milliseconds` counts from 1970 without any time zone; missing parts are the
// first of their range.
bool parse_time(std::string_view text, std::string_view format, int64_t& milliseconds);

// "2022-05-03" as days since 1970; throws, beginning with `what`, when it is no date.
int64_t parse_day(std::string_view text, std::string_view what);

// Milliseconds in a unit: s, ms, us (0.001), day; 0 when unknown.
double unit_milliseconds(std::string_view unit);

}  // namespace mixrec
