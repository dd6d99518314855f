#include "mixrec/data/batch_builder.h"

#include "mixrec/data/dictionary.h"
#include "mixrec/data/encodings.h"
#include "mixrec/data/packing/packed_data.h"

#include <algorithm>
#include <bit>

namespace mixrec {

namespace {

constexpr int64_t kNoTime = INT64_MIN;

// Numbers of the events of one request, oldest first, appended to `events`.
void take_events(const PackedHistory& history, const PackedData& data, uint32_t request, int64_t length,
                 TrainedOn trained_on, std::vector<uint64_t>& events) {
  const uint64_t first = history.first.at(data.request_user.at(request));
  const size_t before = events.size();
  for (uint64_t e = history.end.at(request);
       e > first && events.size() - before < static_cast<size_t>(length); --e)
    if (data.admits(history.split.at(e - 1), trained_on)) events.push_back(e - 1);
  std::reverse(events.begin() + static_cast<std::ptrdiff_t>(before), events.end());
}

uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 31)) * 0x7FB5D329728EA185ULL;
  x = (x ^ (x >> 27)) * 0x81DADEF4BC2DD44DULL;
  return x ^ (x >> 33);
}

Tensor tensor_i64(size_t size) { return empty({static_cast<int64_t>(size)}, i64); }

class Builder {
 public:
  Builder(const PackedData& data, std::span<const uint32_t> rows, const BatchRule& rule)
      : data_(data), rows_(rows), rule_(rule) {}

  RequestBatch build() {
    group();
    batch_.requests = static_cast<int64_t>(requests_.size());
    batch_.candidates = static_cast<int64_t>(rows_.size());
    for (size_t h = 0; h < data_.histories.size(); ++h) add_history(h);
    for (size_t f = 0; f < data_.features.size(); ++f) add_feature(f);
    add_labels();
    return std::move(batch_);
  }

 private:
  void group() {
    std::vector<int64_t> starts;
    for (size_t c = 0; c < rows_.size(); ++c) {
      const uint32_t request = data_.row_request.at(rows_[c]);
      items_.push_back(data_.row_item.at(rows_[c]));
      batch_.user.push_back(data_.request_user.at(request));
      batch_.row.push_back(data_.row_number.at(rows_[c]));
      if (rule_.by_request && c > 0 && requests_.back() == request) continue;
      requests_.push_back(request);
      starts.push_back(static_cast<int64_t>(c));
    }
    starts.push_back(static_cast<int64_t>(rows_.size()));
    for (const uint32_t request : requests_) users_.push_back(data_.request_user.at(request));
    batch_.offsets = Tensor::from(starts);
    starts_ = std::move(starts);
  }

  // Rows above `known` were never trained while hyperparameters are chosen: they read as unknown.
  uint32_t limit(const PackedFeature& feature) const {
    return rule_.trained_on == TrainedOn::training_part ? feature.known : UINT32_MAX;
  }

  // Cells of a feature for the given numbers of users, items, requests or rows.
  FeatureColumn gather(const PackedFeature& feature, FeatureKind kind, std::span<const uint32_t> at) const {
    FeatureColumn column;
    if (kind == FeatureKind::numeric) {
      column.values = empty({static_cast<int64_t>(at.size())}, f32);
      float* out = column.values.data<float>();
      for (size_t i = 0; i < at.size(); ++i) out[i] = feature.values.at(at[i]);
      return column;
    }
    const uint32_t known = limit(feature);
    if (kind == FeatureKind::categorical) {
      column.ids = tensor_i64(at.size());
      int64_t* out = column.ids.data<int64_t>();
      for (size_t i = 0; i < at.size(); ++i) {
        const uint32_t id = feature.ids.at(at[i]);
        out[i] = id < known ? id : kUnknownRow;
      }
      return column;
    }
    column.offsets = tensor_i64(at.size() + 1);
    int64_t* offsets = column.offsets.data<int64_t>();
    offsets[0] = 0;
    for (size_t i = 0; i < at.size(); ++i) {
      const uint64_t list = feature.ids.at(at[i]);
      const uint64_t begin = feature.list_offsets.at(list), end = feature.list_offsets.at(list + 1);
      if (end > begin) static_cast<void>(feature.list_elements.at(end - 1));
      offsets[i + 1] = offsets[i] + (end > begin ? static_cast<int64_t>(end - begin) : 0);
    }
    column.ids = tensor_i64(static_cast<size_t>(offsets[at.size()]));
    int64_t* out = column.ids.data<int64_t>();
    for (const uint32_t cell : at) {
      const uint64_t list = feature.ids[cell];
      for (uint64_t e = feature.list_offsets[list]; e < feature.list_offsets[list + 1]; ++e) {
        const uint32_t id = feature.list_elements[e];
        *out++ = id < known ? id : kUnknownRow;
      }
    }
    return column;
  }

  // In training, a share of a feature's cells reads as unknown; `at` tells cells apart, `salt` features and
  // epochs.
  template <class Index>
  void forget(FeatureColumn& column, size_t f, std::span<const Index> at, uint64_t salt) const {
    const double rate = data_.schema.features[f].unknown_rate;
    if (!rule_.training || rate == 0) return;
    int64_t* ids = column.ids.data<int64_t>();
    const uint64_t key = mixed(rule_.salt + mixed(salt + f));
    for (size_t i = 0; i < at.size(); ++i)
      if (static_cast<double>(mixed(key ^ mixed(at[i] + 1)) >> 11) * 0x1p-53 < rate) ids[i] = kUnknownRow;
  }

  void add_feature(size_t f) {
    const PackedFeature& feature = data_.features[f];
    const FeatureSpec& spec = data_.spec.features[f];
    const std::span<const uint32_t> at = feature.by == Keyed::user      ? std::span<const uint32_t>(users_)
                                         : feature.by == Keyed::item    ? std::span<const uint32_t>(items_)
                                         : feature.by == Keyed::request ? std::span<const uint32_t>(requests_)
                                                                        : rows_;
    batch_.features.push_back(feature.by == Keyed::none ? match_counts(*data_.schema.features[f].matches)
                                                        : gather(feature, spec.kind, at));
    const std::span<const uint32_t> cells = spec.scope == FeatureScope::request ? requests_ : rows_;
    forget(batch_.features.back(), f, cells, 0);
  }

  void add_history(size_t h) {
    const PackedHistory& history = data_.histories[h];
    const HistoryRule& rule = data_.schema.histories[h];
    HistoryBatch out;
    std::vector<uint64_t>& events = events_.emplace_back();
    std::vector<int64_t>& offsets = event_offsets_.emplace_back(1, 0);
    for (const uint32_t request : requests_) {
      take_events(history, data_, request, rule.length, rule_.trained_on, events);
      offsets.push_back(static_cast<int64_t>(events.size()));
    }
    std::vector<uint32_t>& items = event_items_.emplace_back(events.size());
    for (size_t e = 0; e < events.size(); ++e) items[e] = history.item.at(events[e]);
    out.offsets = Tensor::from(offsets);
    for (const size_t f : history.features) {
      out.columns.push_back(gather(data_.features[f], data_.spec.features[f].kind, items));
      forget(out.columns.back(), f, std::span<const uint64_t>(events), 1 + h);
    }
    for (size_t s = 0; s < history.signals.size(); ++s) {
      // Other data than the encoders were counted from may hold larger values.
      const int64_t rows = data_.manifest.signal_rows[h][s];
      FeatureColumn column{tensor_i64(events.size()), {}, {}};
      int64_t* ids = column.ids.data<int64_t>();
      for (size_t e = 0; e < events.size(); ++e) {
        const int64_t row = history.signals[s].at(events[e]);
        ids[e] = row < rows ? row : kUnknownRow;
      }
      out.columns.push_back(std::move(column));
    }
    if (rule.gap) out.columns.push_back(gaps(history, events, offsets));
    if (rule.position) out.columns.push_back(positions(offsets));
    batch_.histories.push_back(std::move(out));
  }

  FeatureColumn gaps(const PackedHistory& history, const std::vector<uint64_t>& events,
                     const std::vector<int64_t>& offsets) const {
    FeatureColumn column{tensor_i64(events.size()), {}, {}};
    int64_t* ids = column.ids.data<int64_t>();
    for (size_t r = 0; r < requests_.size(); ++r) {
      const int64_t now = data_.request_time.at(requests_[r]);
      for (int64_t e = offsets[r]; e < offsets[r + 1]; ++e) {
        const int64_t then = history.time.at(events[static_cast<size_t>(e)]);
        ids[e] = then == kNoTime ? kUnknownRow : gap_row(now - then);
      }
    }
    return column;
  }

  static FeatureColumn positions(const std::vector<int64_t>& offsets) {
    FeatureColumn column{tensor_i64(static_cast<size_t>(offsets.back())), {}, {}};
    int64_t* ids = column.ids.data<int64_t>();
    for (size_t r = 0; r + 1 < offsets.size(); ++r)
      for (int64_t e = offsets[r]; e < offsets[r + 1]; ++e) ids[e] = offsets[r + 1] - e;
    return column;
  }

  // Known values of a feature, by row: `ids` from `offsets[row]` on, or one a row.
  struct Values {
    explicit Values(const FeatureColumn& column)
        : ids(column.ids.data<const int64_t>()),
          offsets(column.offsets.defined() ? column.offsets.data<const int64_t>() : nullptr) {}
    std::span<const int64_t> operator[](int64_t row) const {
      return offsets ? std::span(ids + offsets[row], ids + offsets[row + 1]) : std::span(ids + row, 1);
    }
    const int64_t *ids, *offsets;
  };

  static bool overlap(std::span<const int64_t> a, std::span<const int64_t> b) {
    for (const int64_t id : a)
      for (const int64_t other : b)
        if (id == other && id != kUnknownRow) return true;
    return false;
  }

  // Per candidate: 1 + how many events share a known value of the key with it, capped.
  FeatureColumn match_counts(const MatchRule& rule) const {
    const auto place = [](const auto& all, const auto& is) {
      return static_cast<size_t>(std::find_if(all.begin(), all.end(), is) - all.begin());
    };
    const size_t key = place(data_.spec.features, [&](const auto& one) { return one.name == rule.key; });
    const size_t h = place(data_.schema.histories, [&](const auto& one) { return one.name == rule.history; });
    const size_t s =
        place(data_.schema.histories[h].signals, [&](const auto& one) { return one == rule.signal; });
    const MappedArray<uint8_t>* signal = rule.signal.empty() ? nullptr : &data_.histories[h].signals[s];

    const FeatureKind kind = data_.spec.features[key].kind;
    const FeatureColumn of_items = gather(data_.features[key], kind, items_);
    const FeatureColumn of_events = gather(data_.features[key], kind, event_items_[h]);
    const Values candidate(of_items), event(of_events);
    FeatureColumn column{tensor_i64(rows_.size()), {}, {}};
    int64_t* counts = column.ids.data<int64_t>();
    for (size_t r = 0; r < requests_.size(); ++r)
      for (int64_t c = starts_[r]; c < starts_[r + 1]; ++c) {
        int64_t count = 0;
        for (int64_t e = event_offsets_[h][r]; e < event_offsets_[h][r + 1]; ++e)
          if (!signal || (*signal)[events_[h][static_cast<size_t>(e)]] >= kSignalTrue)
            count += overlap(candidate[c], event[e]);
        counts[c] = 1 + std::min(count, rule.cap);
      }
    return column;
  }

  void add_labels() {
    const auto tasks = static_cast<int64_t>(data_.labels.size());
    batch_.labels = empty({batch_.candidates, tasks}, f32);
    batch_.weights = empty({batch_.candidates, tasks}, f32);
    float *labels = batch_.labels.data<float>(), *weights = batch_.weights.data<float>();
    for (const uint32_t row : rows_)
      for (size_t t = 0; t < data_.labels.size(); ++t) {
        *weights = label_weight(data_, t, row, rule_.training);
        *labels++ = *weights++ > 0 ? data_.labels[t][row] : 0;
      }
  }

  const PackedData& data_;
  std::span<const uint32_t> rows_;
  const BatchRule rule_;
  RequestBatch batch_;
  std::vector<uint32_t> requests_, users_, items_;
  std::vector<int64_t> starts_;
  std::vector<std::vector<uint64_t>> events_;
  std::vector<std::vector<int64_t>> event_offsets_;
  std::vector<std::vector<uint32_t>> event_items_;
};

}  // namespace

int64_t gap_row(int64_t milliseconds) {
  const auto seconds = static_cast<uint64_t>(std::max<int64_t>(milliseconds, 0) / 1000);
  return std::min<int64_t>(std::bit_width(seconds + 1), kGapRows - 1);
}

float label_weight(const PackedData& data, size_t task, uint32_t row, bool training) {
  const float weight = data.weights[task][row];
  const double kept = data.spec.tasks[task].kept_negatives;
  if (!training || kept == 1 || data.labels[task][row] > 0) return weight;
  const int64_t number = data.row_number[row];
  const uint64_t draw =
      hash_text({reinterpret_cast<const char*>(&number), sizeof number}, data.tasks[task] + 1);
  return static_cast<double>(draw >> 11) * 0x1p-53 < kept ? weight : 0;
}

int64_t history_events(const PackedData& data, size_t h, uint32_t request, TrainedOn trained_on) {
  const PackedHistory& history = data.histories[h];
  const uint64_t first = history.first.at(data.request_user.at(request));
  const int64_t length = data.schema.histories[h].length;
  int64_t count = 0;
  for (uint64_t e = history.end.at(request); e > first && count < length; --e)
    count += data.admits(history.split.at(e - 1), trained_on);
  return count;
}

RequestBatch build_batch(const PackedData& data, std::span<const uint32_t> rows, const BatchRule& rule) {
  return Builder(data, rows, rule).build();
}

}  // namespace mixrec
