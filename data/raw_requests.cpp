#include "mixrec/data/raw_requests.h"

#include "mixrec/core/error.h"
#include "mixrec/data/csv_reader.h"
#include "mixrec/data/packing/packed_data.h"
#include "mixrec/data/time_format.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <map>
#include <optional>

namespace mixrec {

namespace {

constexpr int64_t kNoTime = INT64_MIN;

Dictionary texts_of(const MappedArray<uint8_t>& lines) {
  return parse_lines({reinterpret_cast<const char*>(lines.data()), lines.size()});
}

// Milliseconds as a time column of the log would give them.
Value time_value(int64_t milliseconds, const std::optional<TimeColumn>& column) {
  if (!column) return milliseconds;
  if (column->format.empty()) return static_cast<double>(milliseconds) / unit_milliseconds(column->unit);
  const int64_t seconds = (milliseconds - (milliseconds % 1000 + 1000) % 1000) / 1000;
  // What the C library would write in the zone of this machine, or does not know.
  std::string format;
  for (size_t i = 0; i < column->format.size(); ++i) {
    const char next = column->format[i] == '%' && i + 1 < column->format.size() ? column->format[i + 1] : 0;
    char digits[32];
    std::snprintf(digits, sizeof digits, "%03lld", static_cast<long long>(milliseconds - 1000 * seconds));
    if (next == 'f') format += digits;
    if (next == 's') format += std::to_string(seconds);
    if (next != 'f' && next != 's') format += column->format[i];
    if (next != 0 && next != 'f' && next != 's') format += next;
    i += next != 0;
  }
  const auto time = static_cast<std::time_t>(seconds);
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[256];
  return std::string(text, std::strftime(text, sizeof text, format.c_str(), &utc));
}

class RawRequests {
 public:
  RawRequests(const Dataset& dataset, TrainedOn trained_on)
      : dataset_(dataset), data_(dataset.packed()), trained_on_(trained_on), items_(texts_of(data_.items)) {}

  std::vector<ScoreRequest> read(Split split, int64_t rows) {
    std::vector<ScoreRequest> requests;
    int64_t have = 0;
    for (uint32_t r = 0; r < data_.request_split.size() && have < rows; ++r) {
      if (!data_.has(split, static_cast<Split>(data_.request_split[r]))) continue;
      for (uint64_t row = data_.request_rows[r]; row < data_.request_rows[r + 1]; ++row, ++have)
        places_[data_.row_number[row]] = {requests.size(), row - data_.request_rows[r], row};
      requests.push_back(request(r));
    }
    read_cells(requests);
    return requests;
  }

 private:
  struct Place {
    size_t request, candidate;
    uint64_t row;
  };

  ScoreRequest request(uint32_t r) const {
    ScoreRequest request;
    request.time = time_value(data_.request_time[r], data_.schema.time);
    request.candidates.resize(data_.request_rows[r + 1] - data_.request_rows[r]);
    for (size_t h = 0; h < data_.histories.size(); ++h)
      request.histories[data_.schema.histories[h].name] = events(h, r);
    return request;
  }

  std::vector<Event> events(size_t h, uint32_t r) const {
    const PackedHistory& history = data_.histories[h];
    const HistoryRule& rule = data_.schema.histories[h];
    std::vector<Event> events;
    const uint64_t first = history.first[data_.request_user[r]];
    for (uint64_t e = history.end[r]; e > first && static_cast<int64_t>(events.size()) < rule.length; --e) {
      if (!data_.admits(history.split[e - 1], trained_on_)) continue;
      Event event{std::string(items_.text(history.item[e - 1]))};
      if (history.time[e - 1] != kNoTime) event.time = time_value(history.time[e - 1], data_.schema.time);
      for (size_t s = 0; s < rule.signals.size(); ++s)
        if (const int64_t row = history.signals[s][e - 1]; row > 0) event.values[rule.signals[s]] = row - 1;
      events.push_back(std::move(event));
    }
    std::reverse(events.begin(), events.end());
    return events;
  }

  // Ids and the cells of features that are columns of the log.
  void read_cells(std::vector<ScoreRequest>& requests) {
    const Schema& schema = data_.schema;
    int64_t number = 0;
    for (const std::string& name : schema.files) {
      CsvReader reader(dataset_.folder() + "/" + name, schema.format);
      const size_t user = reader.column(schema.user), item = reader.column(schema.item);
      for (; reader.next(); ++number) {
        const auto found = places_.find(number);
        if (found == places_.end()) continue;
        ScoreRequest& request = requests[found->second.request];
        Candidate& candidate = request.candidates[found->second.candidate];
        request.user = reader.cell(user), candidate.item = reader.cell(item);
        for (size_t f = 0; f < schema.features.size(); ++f)
          add_cell(f, reader, found->second.row, request, candidate);
        places_.erase(found);
      }
    }
    MR_CHECK(places_.empty(), dataset_.folder(), " has changed since it was opened: its log has no row ",
             places_.begin()->first + 1);
  }

  void add_cell(size_t f, const CsvReader& reader, uint64_t row, ScoreRequest& request,
                Candidate& candidate) const {
    const PackedFeature& feature = data_.features[f];
    const FeatureRule& rule = data_.schema.features[f];
    if (feature.by != Keyed::request && feature.by != Keyed::row) return;
    const bool of_candidate = rule.spec.scope == FeatureScope::candidate;
    Values& values = of_candidate ? candidate.values : request.values;
    if (rule.part.empty()) {
      values[rule.spec.name] = std::string(reader.cell(reader.column(rule.column)));
    } else if (of_candidate) {
      // Rows of one request may have times of their own; the request tells one.
      values[rule.spec.name] = int64_t{feature.ids[row]} - 1;
    }
  }

  const Dataset& dataset_;
  const PackedData& data_;
  const TrainedOn trained_on_;
  const Dictionary items_;
  std::map<int64_t, Place> places_;  // by number of the log's row
};

}  // namespace

std::vector<ScoreRequest> raw_requests(const Dataset& data, Split split, TrainedOn trained_on, int64_t rows) {
  return RawRequests(data, trained_on).read(split, rows);
}

}  // namespace mixrec
