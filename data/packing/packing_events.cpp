// The first reading of histories: their files into bucket files of events.
#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"
#include "mixrec/data/packing/packing.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace mixrec::packing {

std::string_view key_text(const CsvReader& reader, size_t cell, const char* what) {
  MR_CHECK(!reader.cell(cell).empty(), reader.place(cell), ": the ", what, " is missing");
  return reader.cell(cell);
}

uint8_t signal_row(double value, const CsvReader& reader, const SignalRule& signal) {
  MR_CHECK(value >= 0 && value <= 253 && value == std::floor(value), reader.place(), ": the signal '",
           signal.name, "' is ", value, "; it must be a whole number from 0 to 253");
  return static_cast<uint8_t>(1 + value);
}

std::vector<size_t> signal_places(const HistoryRule& history, const EventSource& source) {
  std::vector<size_t> places;
  for (const auto& signal : source.signals)
    places.push_back(static_cast<size_t>(
        std::find(history.signals.begin(), history.signals.end(), signal.name) - history.signals.begin()));
  return places;
}

namespace {

// Spills event records of one history, and counts what rates and vocabularies need.
class EventSpill {
 public:
  EventSpill(Packing& packing, size_t history) : packing_(packing), history_(history) {
    for (uint32_t b = 0; b < packing.buckets; ++b) files_.emplace_back(packing.event_bucket(history, b));
  }

  void add(EventHead head, const std::vector<uint8_t>& signals) {
    head.order = count_++;
    FileWriter& file = files_[head.user % packing_.buckets];
    file.append(head);
    file.write(signals.data(), signals.size());
    JoinedIds::add(packing_.joined.back().users, head.user);
    JoinedIds::add(packing_.joined.back().items, head.item);
    const Split split = packing_.split_of(head.day, head.time);
    count(packing_.item_events, head.item, split);
    for (size_t s = 0; s < signals.size(); ++s)
      if (signals[s] != 0 && split == Split::train) {
        rate(packing_.item_rates[history_][s], head.item, signals[s]);
        rate(packing_.user_rates[history_][s], head.user, signals[s]);
      }
  }

  void close() {
    for (auto& file : files_) file.close(false);
  }

 private:
  static void count(std::vector<Counts>& counts, uint32_t entity, Split split) {
    if (counts.size() <= entity) counts.resize(entity + 1);
    counts[entity].train += split == Split::train;
    counts[entity].validation += split == Split::validation;
  }
  static void rate(std::vector<Packing::Rate>& rates, uint32_t entity, uint8_t signal) {
    if (rates.size() <= entity) rates.resize(entity + 1);
    ++rates[entity].all;
    rates[entity].yes += signal > 1;
  }

  Packing& packing_;
  size_t history_;
  uint64_t count_ = 0;
  std::vector<FileWriter> files_;
};

// One row a user: lists of items, signals and times side by side.
void read_sequences(Packing& packing, const HistoryRule& history, const EventSource& source,
                    const std::string& file, EventSpill& spill, TimeRange& range) {
  CsvReader reader(packing.data_path(file), source.format);
  const std::string from = "histories." + history.name + ".from";
  const size_t user = reader.column(source.user, from + ".user"),
               items = reader.column(source.item, from + ".items");
  std::optional<TimeReader> time;
  if (source.time) time.emplace(*source.time, reader, packing.schema.utc_offset_hours, range, from + ".time");
  std::optional<Expression> where;
  if (!source.where.empty()) where.emplace(source.where, reader, from + ".where");
  std::vector<size_t> cells;
  for (const auto& signal : source.signals)
    cells.push_back(reader.column(signal.expression, from + ".signals." + signal.name));
  const auto places = signal_places(history, source);
  const size_t width = history.signals.size();
  std::vector<EventHead> events;
  std::vector<std::vector<uint8_t>> signals;
  Ticks ticks(packing, file);
  while (reader.next()) {
    ticks(reader);
    if (where && (*where)(reader) == 0) continue;
    const uint32_t of_user = packing.users.add(key_text(reader, user, "user"));
    events.clear();
    // Blanks at the ends separate nothing.
    const auto list_of = [&](size_t cell, const std::string& separator) {
      std::string_view text = reader.cell(cell);
      while (separator == " " && text.starts_with(' ')) text.remove_prefix(1);
      while (separator == " " && text.ends_with(' ')) text.remove_suffix(1);
      return text;
    };
    for_each_element(list_of(items, *source.items_separator), *source.items_separator,
                     [&](std::string_view item) {
                       MR_CHECK(!item.empty(), reader.place(items), ": an item is missing in the list");
                       events.push_back({kBeforeAll, 0, of_user, packing.items.add(item), kDayBeforeAll});
                     });
    signals.assign(events.size(), std::vector<uint8_t>(width, 0));
    const auto beside = [&](size_t cell, const std::string& separator, const auto& take) {
      size_t at = 0;
      for_each_element(list_of(cell, separator), separator, [&](std::string_view element) {
        if (at < events.size()) take(at, element);
        ++at;
      });
      MR_CHECK(at == events.size(), reader.place(cell), ": ", at, " elements beside ", events.size(),
               " items");
    };
    for (size_t s = 0; s < cells.size(); ++s)
      beside(cells[s], source.signals[s].list_separator.value_or(*source.items_separator),
             [&](size_t at, std::string_view element) {
               double value = 0;
               MR_CHECK(parse_number(element, value), reader.place(cells[s]), ": '", printable(element),
                        "' is not a number");
               signals[at][places[s]] = signal_row(value, reader, source.signals[s]);
             });
    if (time)
      beside(time->cell(), source.times_separator, [&](size_t at, std::string_view element) {
        events[at].time = time->parse(element, reader);
        events[at].day = time->day(events[at].time);
      });
    for (size_t e = 0; e < events.size(); ++e) spill.add(events[e], signals[e]);
  }
}

void read_event_rows(Packing& packing, const HistoryRule& history, const EventSource& source,
                     const std::string& file, EventSpill& spill, TimeRange& range) {
  CsvReader reader(packing.data_path(file), source.format);
  const std::string from = "histories." + history.name + ".from";
  const size_t user = reader.column(source.user, from + ".user"),
               item = reader.column(source.item, from + ".item");
  std::optional<TimeReader> time;
  if (source.time) time.emplace(*source.time, reader, packing.schema.utc_offset_hours, range, from + ".time");
  std::optional<Expression> where;
  if (!source.where.empty()) where.emplace(source.where, reader, from + ".where");
  std::vector<Expression> rules;
  for (const auto& signal : source.signals)
    rules.emplace_back(signal.expression, reader, from + ".signals." + signal.name);
  const auto places = signal_places(history, source);
  std::vector<uint8_t> signals(history.signals.size());
  Ticks ticks(packing, file);
  while (reader.next()) {
    ticks(reader);
    if (where && (*where)(reader) == 0) continue;
    EventHead head{kBeforeAll, 0, packing.users.add(key_text(reader, user, "user")),
                   packing.items.add(key_text(reader, item, "item")), kDayBeforeAll};
    if (time) {
      head.time = time->milliseconds(reader);
      head.day = time->day(head.time);
    }
    for (size_t s = 0; s < rules.size(); ++s)
      signals[places[s]] = signal_row(rules[s](reader), reader, source.signals[s]);
    spill.add(head, signals);
  }
}

}  // namespace

void read_events(Packing& packing) {
  const auto& histories = packing.schema.histories;
  packing.item_rates.resize(histories.size());
  packing.user_rates.resize(histories.size());
  for (size_t h = 0; h < histories.size(); ++h) {
    packing.item_rates[h].resize(histories[h].signals.size());
    packing.user_rates[h].resize(histories[h].signals.size());
    EventSpill spill(packing, h);
    for (const auto& source : histories[h].sources) {
      TimeRange range;
      if (!source.files.empty())
        packing.joined.push_back(
            {"histories." + histories[h].name, source.files.front(), {}, {}, true, true});
      for (const auto& file : source.files)
        source.items_separator ? read_sequences(packing, histories[h], source, file, spill, range)
                               : read_event_rows(packing, histories[h], source, file, spill, range);
      if (source.time) check_times(*source.time, range, "histories." + histories[h].name + ".from");
    }
    spill.close();
  }
}

}  // namespace mixrec::packing
