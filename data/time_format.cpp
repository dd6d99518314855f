#include "mixrec/data/time_format.h"

#include "mixrec/core/error.h"

#include <cctype>
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
bool take_number(std::string_view& text, size_t most, int& value) {
  size_t taken = 0;
  value = 0;
  for (; taken < most && taken < text.size() && std::isdigit(static_cast<unsigned char>(text[taken]));
       ++taken)
    value = 10 * value + (text[taken] - '0');
  text.remove_prefix(taken);
  return taken > 0;
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
  int year = 1970, month = 1, day = 1, hour = 0, minute = 0, second = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      if (text.empty() || text.front() != format[i]) return false;
      text.remove_prefix(1);
      continue;
    }
    switch (format[++i]) {
      case 'Y':
        if (!take_number(text, 4, year)) return false;
        break;
      case 'm':
        if (!take_number(text, 2, month)) return false;
        break;
      case 'd':
        if (!take_number(text, 2, day)) return false;
        break;
      case 'H':
        if (!take_number(text, 2, hour)) return false;
        break;
      case 'M':
        if (!take_number(text, 2, minute)) return false;
        break;
      case 'S':
        if (!take_number(text, 2, second)) return false;
        break;
      default:
        return false;
    }
  }
  if (!text.empty() || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month)) return false;
  if (hour > 23 || minute > 59 || second > 60) return false;
  milliseconds =
      days_from_civil(year, month, day) * kMillisecondsADay + ((hour * 60 + minute) * 60 + second) * 1000LL;
  return true;
}

int64_t parse_day(std::string_view text, std::string_view what) {
  int64_t milliseconds = 0;
  MR_CHECK(parse_time(text, "%Y-%m-%d", milliseconds), what, ": '", text, "' is not a date like 2022-05-03");
  return milliseconds / kMillisecondsADay;
}

double unit_milliseconds(std::string_view unit) {
  if (unit == "s") return 1000;
  if (unit == "ms") return 1;
  if (unit == "us") return 0.001;
  if (unit == "day") return kMillisecondsADay;
  return 0;
}

}  // namespace mixrec
