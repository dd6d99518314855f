#include "mixrec/data/time_format.h"

#include "mixrec/core/error.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>

namespace mixrec {

namespace {

constexpr int64_t kMillisecondsADay = 86'400'000;

bool leap(int64_t year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }

int days_in_month(int64_t year, int month) {
  constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return kDays[month - 1] + (month == 2 && leap(year));
}

// Takes up to `most` digits from the front of `text`.
bool take_number(std::string_view& text, size_t most, int64_t& value) {
  size_t taken = 0;
  value = 0;
  for (; taken < most && taken < text.size() && std::isdigit(static_cast<unsigned char>(text[taken]));
       ++taken)
    value = 10 * value + (text[taken] - '0');
  text.remove_prefix(taken);
  return taken > 0;
}

bool take_sign(std::string_view& text, int64_t& sign) {
  sign = text.starts_with('-') ? -1 : 1;
  if (!text.starts_with('-') && !text.starts_with('+')) return false;
  text.remove_prefix(1);
  return true;
}

bool take_word(std::string_view& text, std::string_view word) {
  if (text.size() < word.size()) return false;
  for (size_t i = 0; i < word.size(); ++i)
    if (std::tolower(static_cast<unsigned char>(text[i])) !=
        std::tolower(static_cast<unsigned char>(word[i])))
      return false;
  text.remove_prefix(word.size());
  return true;
}

// A name in full or by its first three letters.
template <size_t N>
bool take_name(std::string_view& text, const std::string_view (&names)[N], int64_t& number) {
  for (size_t n = 0; n < N; ++n)
    if (take_word(text, names[n]) || take_word(text, names[n].substr(0, 3)))
      return number = static_cast<int64_t>(n), true;
  return false;
}

constexpr std::string_view kMonths[] = {"January",   "February", "March",    "April",
                                        "May",       "June",     "July",     "August",
                                        "September", "October",  "November", "December"};
constexpr std::string_view kWeekdays[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                          "Friday", "Saturday", "Sunday"};
constexpr std::string_view kKnown = "YymdejbBaAHIpMSfzsFT%";

// The parts of a time while it is read.
struct Parts {
  int64_t year = 1970, month = 1, day = 1, day_of_year = 0;
  int64_t hour = 0, hour_of_12 = 0, half = 0, minute = 0, second = 0, millisecond = 0;
  int64_t offset_minutes = 0, since_1970 = 0;
  bool counted = false;  // by %s

  bool take_all(std::string_view format, std::string_view& text);
  bool take(char directive, std::string_view& text);
  bool take_offset(std::string_view& text);
  bool take_fraction(std::string_view& text);
  bool milliseconds(int64_t& out) const;
};

bool Parts::take_offset(std::string_view& text) {
  if (take_word(text, "Z") || take_word(text, "UTC") || take_word(text, "GMT")) return true;
  int64_t sign = 1, hours = 0, minutes = 0;
  if (!take_sign(text, sign)) return false;
  const size_t before = text.size();
  if (!take_number(text, 2, hours) || before - text.size() != 2) return false;
  const bool colon = text.starts_with(':');
  if (colon) text.remove_prefix(1);
  if (!take_number(text, 2, minutes) && colon) return false;
  offset_minutes = sign * (60 * hours + minutes);
  return hours <= 23 && minutes <= 59;
}

// Digits beyond the millisecond are dropped.
bool Parts::take_fraction(std::string_view& text) {
  const size_t before = text.size();
  int64_t value = 0;
  if (!take_number(text, 9, value)) return false;
  for (size_t digits = before - text.size(); digits != 3; digits < 3 ? ++digits : --digits)
    value = digits < 3 ? value * 10 : value / 10;
  millisecond = value;
  return true;
}

bool Parts::take_all(std::string_view format, std::string_view& text) {
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] == '%' && i + 1 < format.size()) {
      if (!take(format[++i], text)) return false;
    } else {
      if (text.empty() || text.front() != format[i]) return false;
      text.remove_prefix(1);
    }
  }
  return true;
}

bool Parts::take(char directive, std::string_view& text) {
  int64_t number = 0, sign = 1;
  switch (directive) {
    case 'Y':
      return take_number(text, 4, year);
    case 'y':
      if (!take_number(text, 2, number)) return false;
      year = number < 69 ? 2000 + number : 1900 + number;
      return true;
    case 'm':
      return take_number(text, 2, month);
    case 'e':
      if (text.starts_with(' ')) text.remove_prefix(1);
      [[fallthrough]];
    case 'd':
      return take_number(text, 2, day);
    case 'j':
      return take_number(text, 3, day_of_year) && day_of_year >= 1;
    case 'b':
    case 'B':
      if (!take_name(text, kMonths, number)) return false;
      month = number + 1;
      return true;
    case 'a':
    case 'A':
      return take_name(text, kWeekdays, number);
    case 'F':
      return take_all("%Y-%m-%d", text);
    case 'T':
      return take_all("%H:%M:%S", text);
    case 'H':
      return take_number(text, 2, hour);
    case 'I':
      return take_number(text, 2, hour_of_12) && hour_of_12 >= 1 && hour_of_12 <= 12;
    case 'p':
      half = take_word(text, "PM") || take_word(text, "p.m.");
      return half || take_word(text, "AM") || take_word(text, "a.m.");
    case 'M':
      return take_number(text, 2, minute);
    case 'S':
      return take_number(text, 2, second);
    case 'f':
      return take_fraction(text);
    case 'z':
      return take_offset(text);
    case 's':
      take_sign(text, sign);
      if (!take_number(text, 12, number)) return false;
      since_1970 = sign * number, counted = true;
      return true;
    default:
      return directive == '%' && take_word(text, "%");
  }
}

bool Parts::milliseconds(int64_t& out) const {
  if (counted) {
    out = since_1970 * 1000 + millisecond;
    return true;
  }
  if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, static_cast<int>(month))) return false;
  if (day_of_year > 365 + leap(year) || hour > 23 || minute > 59 || second > 60) return false;
  const int64_t days = day_of_year > 0
                           ? days_from_civil(year, 1, 1) + day_of_year - 1
                           : days_from_civil(year, static_cast<int>(month), static_cast<int>(day));
  const int64_t of_day = hour_of_12 > 0 ? hour_of_12 % 12 + 12 * half : hour;
  out =
      days * kMillisecondsADay + ((of_day * 60 + minute - offset_minutes) * 60 + second) * 1000 + millisecond;
  return true;
}

bool has(std::string_view format, char directive) {
  for (size_t i = 0; i + 1 < format.size(); ++i) {
    if (format[i] != '%') continue;
    if (format[i + 1] == directive) return true;
    ++i;
  }
  return false;
}

}  // namespace

// Howard Hinnant's counting: years begin in March, so that the leap day is the last of its year.
int64_t days_from_civil(int64_t year, int month, int day) {
  year -= month <= 2;
  const int64_t era = (year >= 0 ? year : year - 399) / 400;
  const int64_t year_of_era = year - era * 400;
  const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146'097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719'468;
}

std::string day_text(int64_t day) {
  const int64_t shifted = day + 719'468;
  const int64_t era = (shifted >= 0 ? shifted : shifted - 146'096) / 146'097;
  const int64_t day_of_era = shifted - era * 146'097;
  const int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t march_month = (5 * day_of_year + 2) / 153;
  const int month = static_cast<int>(march_month < 10 ? march_month + 3 : march_month - 9);
  const int64_t year = year_of_era + era * 400 + (month <= 2);
  char text[40];
  std::snprintf(text, sizeof text, "%04lld-%02d-%02d", static_cast<long long>(year), month,
                static_cast<int>(day_of_year - (153 * march_month + 2) / 5 + 1));
  return text;
}

bool parse_time(std::string_view text, std::string_view format, int64_t& milliseconds) {
  Parts parts;
  return parts.take_all(format, text) && text.empty() && parts.milliseconds(milliseconds);
}

void check_time_format(std::string_view format, std::string_view what) {
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') continue;
    const std::string_view directive = format.substr(i++, 2);
    if (directive.size() == 2 && kKnown.find(directive[1]) != std::string_view::npos) continue;
    std::string known;
    for (const char c : kKnown) known.append(known.empty() ? "%" : " %") += c;
    MR_FAIL(what, ": the format '", format, "' has '", directive, "', which is not known; known are ", known);
  }
  MR_CHECK(has(format, 'I') == has(format, 'p'), what, ": the format '", format,
           "' has one of %I (hour of 12) and %p (AM or PM), which need each other");
  MR_CHECK(!has(format, 'I') || (!has(format, 'H') && !has(format, 'T')), what, ": the format '", format,
           "' has an hour of 12 and an hour of 24");
  const auto any = [&](std::string_view of) {
    return std::any_of(of.begin(), of.end(), [&](char c) { return has(format, c); });
  };
  MR_CHECK(any("YyFs"), what, ": the format '", format, "' has no year (%Y, %y, %F or %s)");
}

bool counts_from_utc(std::string_view format) {
  return format.empty() || has(format, 'z') || has(format, 's');
}

int64_t parse_day(std::string_view text, std::string_view what) {
  int64_t milliseconds = 0;
  MR_CHECK(parse_time(text, "%Y-%m-%d", milliseconds), what, ": '", text, "' is not a date like 2022-05-03");
  return milliseconds / kMillisecondsADay;
}

double unit_milliseconds(std::string_view unit) {
  if (unit == "s") return 1000;
  if (unit == "ms") return 1;
  if (unit == "us") return 1e-3;
  if (unit == "ns") return 1e-6;
  if (unit == "day") return kMillisecondsADay;
  return 0;
}

bool to_milliseconds(double value, std::string_view unit, int64_t& milliseconds) {
  constexpr double kYear1 = -62'135'596'800'000, kYear9999 = 253'402'300'799'999;
  const double moment = std::round(value * unit_milliseconds(unit));
  if (!(moment >= kYear1 && moment <= kYear9999)) return false;
  milliseconds = static_cast<int64_t>(moment);
  return true;
}

bool in_years(int64_t milliseconds, int first, int last) {
  return milliseconds >= days_from_civil(first, 1, 1) * kMillisecondsADay &&
         milliseconds < days_from_civil(last + 1, 1, 1) * kMillisecondsADay;
}

std::string plausible_unit(double least, double most, std::string_view unit) {
  int64_t first = 0, last = 0;
  for (const std::string other : {"s", "ms", "us", "ns", "day"})
    if (other != unit && to_milliseconds(least, other, first) && to_milliseconds(most, other, last) &&
        in_years(first, kFirstYear, kLastYear) && in_years(last, kFirstYear, kLastYear))
      return "\"unit\": \"" + other + "\"";
  const auto dated = [](double value, const char* format, int64_t& milliseconds) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.0f", value);
    return value >= 0 && value < 1e17 && parse_time(digits, format, milliseconds) &&
           in_years(milliseconds, kFirstYear, kLastYear);
  };
  for (const char* format : {"%Y%m%d", "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d%H"})
    if (dated(least, format, first) && dated(most, format, last))
      return std::string("\"format\": \"") + format + "\"";
  return "";
}

}  // namespace mixrec
