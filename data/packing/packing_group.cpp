// The second reading: bucket by bucket, row records become requests, histories and counts.
//
// Written here, in the packed order (bucket, user, day, request, time):
//   rows.item  rows.number  rows.request  rows.label.*  rows.weight.*  column.F (raw numbers, until `encode`)
//   requests.user  requests.rows (first row; one more at the end)  requests.time  requests.day requests.split
//   history.H.item  history.H.time  history.H.split  history.H.signal.S  (events, by user, oldest first)
//   history.H.user (first event by user)  history.H.end (by request: one past its newest event)
#include "mixrec/core/error.h"
#include "mixrec/data/packing/packing.h"
#include "mixrec/data/time_format.h"

#include <algorithm>
#include <numeric>
#include <optional>

namespace mixrec::packing {

namespace {

// Fixed-size records with a head of type Head.
template <class Head>
struct Records {
  std::vector<char> bytes;
  size_t width;

  size_t size() const {
    MR_CHECK(bytes.size() / width <= UINT32_MAX, "more than ", UINT32_MAX, " rows share a bucket of users");
    return bytes.size() / width;
  }
  const char* at(size_t i) const { return bytes.data() + i * width; }
  Head head(size_t i) const {
    Head head;
    std::memcpy(&head, at(i), sizeof head);
    return head;
  }
};

class Grouper {
 public:
  explicit Grouper(Packing& packing)
      : packing_(packing),
        layout_(packing.layout),
        row_item_(packing.out_path("rows.item")),
        row_number_(packing.out_path("rows.number")),
        row_request_(packing.out_path("rows.request")),
        request_user_(packing.out_path("requests.user")),
        request_rows_(packing.out_path("requests.rows")),
        request_time_(packing.out_path("requests.time")),
        request_day_(packing.out_path("requests.day")),
        request_split_(packing.out_path("requests.split")) {
    for (size_t t = 0; t < layout_.tasks; ++t) {
      labels_.emplace_back(packing.out_path(concat_message("rows.label.", t)));
      weights_.emplace_back(packing.out_path(concat_message("rows.weight.", t)));
    }
    for (size_t f = 0; f < packing.columns.size(); ++f) {
      Column& column = packing.columns[f];
      if (!column.in_rows()) continue;
      if (column.from_log) {
        MR_CHECK(of_items_.size() < 32, "at most 32 features may have \"item_values\"");
        of_items_.push_back({&column, {}});
        continue;
      }
      slots_.push_back({&column, FileWriter(packing.out_path(concat_message("column.", f))), {}});
      if (column.rule->encoding == Encoding::quantiles)
        slots_.back().sample.emplace(packing.out_path(concat_message("sample.", f)));
    }
    for (size_t h = 0; h < packing.schema.histories.size(); ++h)
      histories_.emplace_back(packing, h, packing.schema.histories[h].signals.size());
    packing.users_seen.resize(packing.users.size());
    packing.items_seen.resize(packing.items.size());
    packing.user_rows.resize(packing.users.size());
    packing.item_rows.resize(packing.items.size());
    for (auto& part : packing.manifest.splits) part.tasks.resize(layout_.tasks);
  }

  void run() {
    for (uint32_t b = 0; b < packing_.buckets; ++b) {
      packing_.tick("grouping", static_cast<double>(b) / packing_.buckets);
      bucket(b);
    }
    request_rows_.append(rows_);
    for (FileWriter* file : {&row_item_, &row_number_, &row_request_, &request_user_, &request_rows_,
                             &request_time_, &request_day_, &request_split_})
      file->close(true);
    for (auto& file : labels_) file.close(true);
    for (auto& file : weights_) file.close(true);
    for (auto& slot : slots_) {
      slot.file.close(true);
      if (slot.sample) slot.sample->close(false);
    }
    for (size_t h = 0; h < histories_.size(); ++h) histories_[h].close(packing_, h);
    Manifest& manifest = packing_.manifest;
    manifest.rows = static_cast<int64_t>(rows_);
    manifest.requests = requests_;
    for (int s = 0; s < 3; ++s) {
      if (!packing_.schema.time && !packing_.schema.date) continue;
      if (first_day_[s] > last_day_[s]) continue;
      manifest.splits[s].first_day = day_text(first_day_[s]);
      manifest.splits[s].last_day = day_text(last_day_[s]);
    }
  }

 private:
  struct Slot {
    Column* column;
    FileWriter file;
    std::optional<FileWriter> sample;  // training values that quantile edges are taken from
  };

  // What training rows say of items: the oldest or the newest value that is not missing.
  struct ItemValues {
    Column* column;
    std::vector<std::pair<int64_t, uint64_t>> moments;  // by item: time and row of the value that is kept
  };

  struct HistoryFiles {
    HistoryFiles(const Packing& packing, size_t h, size_t count)
        : name(concat_message("history.", h, ".")),
          item(packing.out_path(name + "item")),
          time(packing.out_path(name + "time")),
          split(packing.out_path(name + "split")),
          end(packing.out_path(name + "end")),
          first(packing.users.size() + 1, 0) {
      for (size_t s = 0; s < count; ++s)
        signals.emplace_back(packing.out_path(concat_message(name, "signal.", s)));
      signal_rows.assign(count, 1);
    }
    void close(Packing& packing, size_t h) {
      for (FileWriter* file : {&item, &time, &split, &end}) file->close(true);
      for (auto& file : signals) file.close(true);
      write_array(packing.out_path(name + "user"), first);
      packing.manifest.signal_rows.push_back(packing.given ? packing.given->signal_rows.at(h) : signal_rows);
      packing.manifest.event_counts.push_back(static_cast<int64_t>(events));
    }
    std::string name;
    FileWriter item, time, split, end;
    std::vector<FileWriter> signals;
    std::vector<uint64_t> first;  // by user: first event
    std::vector<int64_t> signal_rows;
    uint64_t events = 0;
    std::vector<std::pair<int64_t, int64_t>> moments;  // (day, time) of the current user's events
  };

  Split split_of(const RowHead& head) const {
    if (packing_.schema.split.by < SplitBy::column) return packing_.split_of(head.day, head.time);
    const bool cut = head.split == Split::train && packing_.validation.reached(head.day, head.time);
    return cut ? Split::validation : head.split;
  }

  void bucket(uint32_t b) {
    const Records<RowHead> records{take_file(packing_.row_bucket(b)), layout_.bytes()};
    std::vector<RowHead> heads(records.size());
    for (size_t i = 0; i < heads.size(); ++i) heads[i] = records.head(i);
    for (auto& head : heads) {
      head.split = split_of(head);
      if (packing_.schema.snapshot == Snapshot::time && packing_.schema.request.empty())
        head.request = static_cast<uint64_t>(head.time);
    }
    std::vector<uint32_t> order(heads.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      const auto key = [&](const RowHead& h) {
        return std::tuple(h.user, h.day, h.split, h.request, h.time, h.row);
      };
      return key(heads[a]) < key(heads[b]);
    });
    std::vector<Records<EventHead>> events;
    for (size_t h = 0; h < histories_.size(); ++h)
      events.push_back(
          {take_file(packing_.event_bucket(h, b)), sizeof(EventHead) + histories_[h].signals.size()});

    // Users with rows or events, each once.
    std::vector<uint32_t> users;
    for (const auto& head : heads) users.push_back(head.user);
    std::vector<std::vector<uint32_t>> event_order(events.size());
    for (size_t h = 0; h < events.size(); ++h) {
      event_order[h] = ordered(events[h]);
      for (const uint32_t e : event_order[h]) users.push_back(events[h].head(e).user);
    }
    std::sort(users.begin(), users.end());
    users.erase(std::unique(users.begin(), users.end()), users.end());

    size_t row = 0;
    std::vector<size_t> event(events.size(), 0);
    for (const uint32_t user : users) {
      const size_t first = row;
      while (row < order.size() && heads[order[row]].user == user) ++row;
      const std::vector<uint32_t> rows(order.begin() + first, order.begin() + row);
      for (size_t h = 0; h < histories_.size(); ++h) {
        const size_t begin = event[h];
        auto& at = event[h];
        while (at < event_order[h].size() && events[h].head(event_order[h][at]).user == user) ++at;
        write_events(h, user, records, heads, rows, events[h],
                     {event_order[h].begin() + begin, event_order[h].begin() + at});
      }
      write_requests(records, heads, rows);
    }
  }

  static std::vector<uint32_t> ordered(const Records<EventHead>& events) {
    std::vector<uint32_t> order(events.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      const auto key = [](const EventHead& e) { return std::tuple(e.user, e.day, e.time, e.order); };
      return key(events.head(a)) < key(events.head(b));
    });
    return order;
  }

  // Merges a user's events from files and from the log; at equal times those from files come first.
  void write_events(size_t h, uint32_t user, const Records<RowHead>& records,
                    const std::vector<RowHead>& heads, const std::vector<uint32_t>& rows,
                    const Records<EventHead>& events, const std::vector<uint32_t>& of_files) {
    HistoryFiles& out = histories_[h];
    out.first[user] = out.events;
    out.moments.clear();
    std::vector<uint32_t> of_log;
    for (const uint32_t r : rows)
      if (heads[r].events >> h & 1) of_log.push_back(r);
    std::sort(of_log.begin(), of_log.end(), [&](uint32_t a, uint32_t b) {
      return std::tuple(heads[a].day, heads[a].time, heads[a].row) <
             std::tuple(heads[b].day, heads[b].time, heads[b].row);
    });
    size_t next = 0;
    const auto write = [&](const auto& head, Split split, const char* signals) {
      out.item.append(head.item);
      out.time.append(head.time);
      out.split.append(split);
      for (size_t s = 0; s < out.signals.size(); ++s) {
        out.signals[s].append(signals[s]);
        out.signal_rows[s] = std::max<int64_t>(out.signal_rows[s], static_cast<uint8_t>(signals[s]) + 1);
      }
      out.moments.emplace_back(head.day, head.time);
      ++out.events;
    };
    const auto write_log_until = [&](int32_t day, int64_t time) {
      for (; next < of_log.size(); ++next) {
        const RowHead& head = heads[of_log[next]];
        if (std::tuple(head.day, head.time) >= std::tuple(day, time)) return;
        write(head, head.split, records.at(of_log[next]) + layout_.signal_at() + packing_.log_signal_at[h]);
      }
    };
    for (const uint32_t e : of_files) {
      const EventHead head = events.head(e);
      write_log_until(head.day, head.time);
      write(head, packing_.split_of(head.day, head.time), events.at(e) + sizeof(EventHead));
    }
    write_log_until(INT32_MAX, INT64_MAX);
  }

  void write_requests(const Records<RowHead>& records, const std::vector<RowHead>& heads,
                      const std::vector<uint32_t>& rows) {
    for (size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
      const RowHead& first = heads[rows[begin]];
      const auto same = [&](const RowHead& head) {
        return head.day == first.day && head.split == first.split && head.request == first.request;
      };
      // Without a request column the day alone makes a request: `request` is 0 for all its rows.
      while (end < rows.size() && same(heads[rows[end]])) ++end;
      write_request(first);
      for (size_t r = begin; r < end; ++r)
        write_row(records.at(rows[r]), heads[rows[r]], records.at(rows[begin]));
      ++requests_;
    }
  }

  void write_request(const RowHead& first) {
    request_user_.append(first.user);
    request_rows_.append(rows_);
    request_time_.append(first.time);
    request_day_.append(first.day);
    request_split_.append(first.split);
    const int s = static_cast<int>(first.split);
    ++packing_.manifest.splits[s].requests;
    first_day_[s] = std::min<int64_t>(first_day_[s], first.day);
    last_day_[s] = std::max<int64_t>(last_day_[s], first.day);
    for (auto& history : histories_) {
      const auto& moments = history.moments;
      const std::pair<int64_t, int64_t> cut(
          first.day, packing_.schema.snapshot == Snapshot::day ? INT64_MIN : first.time);
      const auto before = std::lower_bound(moments.begin(), moments.end(), cut) - moments.begin();
      history.end.append(history.first[first.user] + static_cast<uint64_t>(before));
    }
  }

  void write_row(const char* record, const RowHead& head, const char* first_of_request) {
    row_item_.append(head.item);
    row_number_.append(static_cast<int64_t>(head.row));
    MR_CHECK(requests_ < UINT32_MAX, "the log has more than ", UINT32_MAX, " requests; split it");
    row_request_.append(static_cast<uint32_t>(requests_));
    const auto* label = reinterpret_cast<const float*>(record + layout_.label_at());
    const auto* weight = reinterpret_cast<const float*>(record + layout_.weight_at());
    SplitStats& stats = packing_.manifest.splits[static_cast<int>(head.split)];
    ++stats.rows;
    for (size_t t = 0; t < layout_.tasks; ++t) {
      labels_[t].append(label[t]);
      weights_[t].append(weight[t]);
      stats.tasks[t].rows += weight[t] > 0;
      stats.tasks[t].weight += weight[t];
      stats.tasks[t].positives += double{weight[t]} * label[t];
    }
    packing_.users_seen[head.user] = packing_.items_seen[head.item] = true;
    count(packing_.user_rows[head.user], head.split);
    count(packing_.item_rows[head.item], head.split);
    for (auto& slot : slots_) {
      const size_t width = slot.column->is_number() ? sizeof(double) : sizeof(uint32_t);
      const size_t at =
          (slot.column->is_number() ? layout_.number_at() : layout_.id_at()) + width * slot.column->slot;
      const bool by_request = slot.column->place == Place::request;
      MR_CHECK(!by_request || std::memcmp(record + at, first_of_request + at, width) == 0, "feature '",
               slot.column->rule->spec.name, "' is declared once a request, but its value on data row ",
               head.row + 1,
               " differs from an earlier row of the request; declare \"scope\": \"candidate\" under context");
      if (!by_request || record == first_of_request) slot.file.write(record + at, width);
      count_value(slot, record + at, head.split);
    }
    for (size_t i = 0; i < of_items_.size(); ++i)
      if (head.split == Split::train && (head.given >> i & 1)) keep_value(of_items_[i], record, head);
    ++rows_;
  }

  void keep_value(ItemValues& values, const char* record, const RowHead& head) const {
    Column& column = *values.column;
    const bool last = column.rule->item_values == "last";
    constexpr std::pair<int64_t, uint64_t> kNone(INT64_MIN, UINT64_MAX);
    if (values.moments.size() <= head.item) values.moments.resize(packing_.items.size(), kNone);
    const std::pair<int64_t, uint64_t> now(head.time, head.row);
    auto& kept = values.moments[head.item];
    if (kept != kNone && (last ? now < kept : now > kept)) return;
    kept = now;
    if (column.is_number()) {
      column.side_numbers.resize(packing_.items.size(), column.missing_number());
      std::memcpy(&column.side_numbers[head.item], record + layout_.number_at() + 8 * column.slot,
                  sizeof(double));
    } else {
      column.side.resize(packing_.items.size(), column.missing_id());
      std::memcpy(&column.side[head.item], record + layout_.id_at() + 4 * column.slot, sizeof(uint32_t));
    }
  }

  static void count(Counts& counts, Split split) {
    counts.train += split == Split::train;
    counts.validation += split == Split::validation;
  }

  static void count_value(Slot& slot, const char* cell, Split split) {
    Column& column = *slot.column;
    if (column.is_number()) {
      double number = 0;
      std::memcpy(&number, cell, sizeof number);
      if (split != Split::train || number != number) return;
      if (slot.sample) slot.sample->append(number);
      if (column.rule->encoding == Encoding::numeric)
        column.moments.add(transformed(number, column.rule->log1p));
      return;
    }
    uint32_t value = 0;
    std::memcpy(&value, cell, sizeof value);
    if (column.rule->encoding == Encoding::hash || !column.rule->part.empty()) return;
    if (column.counts.size() <= value) column.counts.resize(value + 1);
    count(column.counts[value], split);
  }

  Packing& packing_;
  const RowLayout layout_;
  FileWriter row_item_, row_number_, row_request_;
  FileWriter request_user_, request_rows_, request_time_, request_day_, request_split_;
  std::vector<FileWriter> labels_, weights_;
  std::vector<Slot> slots_;
  std::vector<ItemValues> of_items_;
  std::vector<HistoryFiles> histories_;
  uint64_t rows_ = 0;
  int64_t requests_ = 0;
  int64_t first_day_[3] = {INT64_MAX, INT64_MAX, INT64_MAX}, last_day_[3] = {INT64_MIN, INT64_MIN, INT64_MIN};
};

// Leaves the first row of each duplicate key in a bucket's file; a user's rows are all in one bucket.
void drop_duplicates(Packing& packing, uint32_t bucket) {
  const std::string path = packing.row_bucket(bucket);
  const Records<RowHead> records{take_file(path), packing.layout.bytes()};
  std::vector<RowHead> heads(records.size());
  for (size_t i = 0; i < heads.size(); ++i) heads[i] = records.head(i);
  std::vector<uint32_t> kept(heads.size());
  std::iota(kept.begin(), kept.end(), 0);
  const auto key = [&](uint32_t i) { return std::tuple(heads[i].user, heads[i].duplicate); };
  std::sort(kept.begin(), kept.end(), [&](uint32_t a, uint32_t b) {
    return std::tuple(key(a), heads[a].row) < std::tuple(key(b), heads[b].row);
  });
  kept.erase(std::unique(kept.begin(), kept.end(), [&](uint32_t a, uint32_t b) { return key(a) == key(b); }),
             kept.end());
  packing.manifest.duplicates += static_cast<int64_t>(heads.size() - kept.size());
  FileWriter out(path);
  for (const uint32_t i : kept) {
    packing.place(heads[i]);
    out.write(records.at(i), records.width);
  }
  out.close(false);
}

}  // namespace

void place_split(Packing& packing) {
  for (uint32_t b = 0; b < packing.buckets && !packing.schema.duplicates.empty(); ++b)
    drop_duplicates(packing, b);
  if (packing.given && packing.given->test) {
    packing.validation = *packing.given->validation, packing.test = *packing.given->test;
    return;
  }
  const SplitRule& split = packing.schema.split;
  if (split.by == SplitBy::date) {
    packing.test.day = split.test_from.empty() ? packing.last_day - split.test_days + 1
                                               : parse_day(split.test_from, "split.test_from");
    packing.validation.day = split.validation_from.empty()
                                 ? packing.test.day - split.validation_days
                                 : parse_day(split.validation_from, "split.validation_from");
    return;
  }
  if (packing.times.empty()) return;
  auto& times = packing.times;
  const auto cut = [&](double share) {
    const auto at = static_cast<size_t>(share * static_cast<double>(times.size()));
    if (at >= times.size()) return INT64_MAX;
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(at), times.end());
    return times[at];
  };
  if (split.by == SplitBy::fraction) packing.test.time = cut(1 - split.test);
  if (split.validation > 0) packing.validation.time = cut(1 - split.test - split.validation);
  std::vector<int64_t>().swap(times);
}

void group(Packing& packing) {
  // Parts may be empty: rows to be predicted are no training rows.  What trains or tests asks for its own parts.
  Grouper(packing).run();
  check_joins(packing);
}

}  // namespace mixrec::packing
