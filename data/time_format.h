// Points in time and days: parsing, and the civil calendar.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace mixrec {

// Days since 1970-01-01 of a Gregorian date, and back.
int64_t days_from_civil(int64_t year, int month, int day);
std::string day_text(int64_t day);  // "2022-05-03"

// Parses `text` by a strptime-like format; false when it does not match as a whole.  `milliseconds` counts from 1970, in
// UTC when the format names a moment (counts_from_utc) and else in the log's own time; missing parts are the first of
// their range.  The directives, all in English whatever the locale:
//   %Y %y %m %d %e %j %b %B %a %A   year, year of 1969-2068, month, day, the same, day of the year, names
//   %H %I %p %M %S %f               hour of 24 or 12 with AM or PM, minute, second, fraction of a second
//   %z %s %F %T %%                  offset (+0200, +02:00 or Z), seconds since 1970, %Y-%m-%d, %H:%M:%S, a percent sign
bool parse_time(std::string_view text, std::string_view format, int64_t& milliseconds);

// Throws, beginning with `what`, on a directive that parse_time does not know and on contradictions.
void check_time_format(std::string_view format, std::string_view what);

// Whether a time in this format ("": a number in a unit) is a moment, which utc_offset_hours moves to local time.
bool counts_from_utc(std::string_view format);

// "2022-05-03" as days since 1970; throws, beginning with `what`, when it is no date.
int64_t parse_day(std::string_view text, std::string_view what);

// Milliseconds in a unit: s, ms, us (0.001), ns, day; 0 when unknown.
double unit_milliseconds(std::string_view unit);

// A number in a unit as milliseconds; false where they are beyond the years 1 to 9999.
bool to_milliseconds(double value, std::string_view unit, int64_t& milliseconds);

// Years in which times are believed when nothing else is said, the second one included.
inline constexpr int kFirstYear = 1990, kLastYear = 2100;

// Whether a moment lies in these years.
bool in_years(int64_t milliseconds, int first, int last);

// What would make these times, which a column gives as numbers in `unit`, lie in the plausible years: `"unit": "ms"`, or
// a format for dates written as numbers; "" when nothing would.
std::string plausible_unit(double least, double most, std::string_view unit);

}  // namespace mixrec
