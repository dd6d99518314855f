#include "mixrec/data/feature_encoder.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/data/batch_builder.h"
#include "mixrec/data/encoded_feature.h"
#include "mixrec/data/encodings.h"
#include "mixrec/data/time_format.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <span>

namespace mixrec {

namespace {

constexpr int64_t kNoTime = INT64_MIN;
constexpr int64_t kLargestSignal = 253;

const Value* find(const Values& values, const std::string& name) {
  const auto found = values.find(name);
  return found == values.end() ? nullptr : &found->second;
}

}  // namespace

struct FeatureEncoder::Impl {
  Impl(const std::string& folder, TrainedOn trained_on);

  int64_t milliseconds(const Value& value) const;
  // From a moment to the time whose days are counted.
  int64_t day_offset() const {
    return counts_from_utc(rules.time_format) ? std::llround(rules.utc_offset_hours * 3'600'000) : 0;
  }
  bool counts_matches() const {
    return std::any_of(features.begin(), features.end(),
                       [](const EncodedFeature& f) { return f.rule.matches; });
  }

  FeatureExport rules;
  std::vector<EncodedFeature> features;
  std::map<int64_t, Dictionary> vocabularies;  // by the number of their file
  Dictionary users, items;
  FeatureSet spec;
  std::map<std::string, size_t> by_name;
  // What the values of a request, a candidate and an event of each history may be called.
  std::set<std::string> request_names, candidate_names;
  std::vector<std::set<std::string>> event_names;
};

namespace {

// What is stored of users or items, checked: rows lie inside their table, lists inside their elements.
void read_stored(EncodedFeature& feature, const std::string& path, size_t entities) {
  const bool numeric = feature.spec().kind == FeatureKind::numeric;
  PackedFeature& stored = feature.stored;
  if (numeric) stored.values = MappedArray<float>(path);
  if (!numeric) stored.ids = MappedArray<uint32_t>(path);
  const size_t cells = numeric ? stored.values.size() : stored.ids.size();
  MR_CHECK(cells == entities, path, " is damaged: it has ", cells, " entries where ", entities,
           " are expected");
  if (numeric) return;
  const auto below = [&](const MappedArray<uint32_t>& ids, size_t end, const std::string& file) {
    const auto outside =
        std::find_if(ids.data(), ids.data() + ids.size(), [&](uint32_t id) { return id >= end; });
    MR_CHECK(outside == ids.data() + ids.size(), file, " is damaged: entry ", outside - ids.data(), " is ",
             *outside, ", they end below ", end);
  };
  const auto rows = static_cast<size_t>(feature.spec().rows);
  if (!feature.is_list()) return below(stored.ids, rows, path);
  stored.list_offsets = MappedArray<uint64_t>(path + ".offsets");
  stored.list_elements = MappedArray<uint32_t>(path + ".elements");
  const uint64_t *offsets = stored.list_offsets.data(), count = stored.list_offsets.size();
  MR_CHECK(count > 0 && offsets[0] == 0 && std::is_sorted(offsets, offsets + count) &&
               offsets[count - 1] == stored.list_elements.size(),
           path, ".offsets is damaged: it does not fit the ", stored.list_elements.size(), " elements");
  below(stored.ids, count - 1, path);
  below(stored.list_elements, rows, path + ".elements");
}

Dictionary read_lines(const std::string& path) { return parse_lines(read_text_file(path)); }

}  // namespace

FeatureEncoder::Impl::Impl(const std::string& folder, TrainedOn trained_on) {
  const Encoders encoders = read_run_encoders(folder);
  rules = read_feature_export(folder);
  const std::string base = folder + "/";
  if (std::filesystem::exists(base + "users.txt")) users = read_lines(base + "users.txt");
  if (std::filesystem::exists(base + "items.txt")) items = read_lines(base + "items.txt");
  for (size_t f = 0; f < rules.features.size(); ++f) {
    EncodedFeature feature{rules.features[f], nullptr, {}};
    if (feature.vocabulary >= 0) {
      const Encoders::Table* table = encoders.find_table(feature.spec().table_name());
      MR_CHECK(table && table->vocabulary == feature.vocabulary && table->rows == feature.spec().rows, folder,
               "/features.json is damaged: feature '", feature.spec().name,
               "' has another table than encoders.json says");
      if (!vocabularies.contains(feature.vocabulary))
        vocabularies[feature.vocabulary] = encoders.vocabulary(*table);
      feature.texts = &vocabularies[feature.vocabulary];
      // Format 1 left out the values that its model does not know.
      if (encoders.format > 1 && trained_on == TrainedOn::training_part) feature.known = table->rows_training;
    }
    if (feature.is_stored())
      read_stored(feature, concat_message(base, "feature.", f),
                  feature.by == Keyed::user ? users.size() : items.size());
    const std::string& name = feature.spec().name;
    const bool of_candidate = feature.spec().scope == FeatureScope::candidate;
    if (of_candidate) candidate_names.insert(name);
    if (!of_candidate || feature.spec().group == FeatureGroup::context) request_names.insert(name);
    by_name[name] = f;
    spec.features.push_back(feature.spec());
    features.push_back(std::move(feature));
  }
  for (const ExportedHistory& history : rules.histories) {
    spec.histories.push_back(history.spec);
    auto& names = event_names.emplace_back(history.signals.begin(), history.signals.end());
    for (const size_t f : history.features) names.insert(features[f].spec().name);
  }
  spec.tasks = rules.tasks;
}

int64_t FeatureEncoder::Impl::milliseconds(const Value& value) const {
  int64_t time = 0;
  if (!rules.time_format.empty()) {
    const auto* text = std::get_if<std::string>(&value);
    MR_CHECK(text && parse_time(*text, rules.time_format, time), shown(value), " is no time of the form ",
             rules.time_format);
    return time;
  }
  const double number = number_of(value);
  const std::string unit =
      rules.time_unit.empty() ? "ms" : rules.time_unit;  // the order of rows counts by one
  MR_CHECK(to_milliseconds(number, unit, time), shown(value), " in ", unit,
           " is no day of the years 1 to 9999");
  return time;
}

namespace {

// Runs `encode`; says in front of its error what it was about.
template <class F>
void about(const F& where, const auto& encode) {
  try {
    encode();
  } catch (const Error& error) {
    throw Error(concat_message(where(), ": ", error.what()));
  }
}

class RequestEncoder {
 public:
  RequestEncoder(const FeatureEncoder::Impl& of, const ScoreRequest& request, bool whole, EncodeNotes* notes)
      : of_(of), request_(request), whole_(whole), notes_(notes ? *notes : unasked_) {}

  RequestBatch encode() {
    MR_CHECK(!request_.candidates.empty(), "the request has no candidate");
    check_names(request_.values, of_.request_names, [] { return std::string("the request"); });
    if (request_.time)
      about([] { return "the request's time"; }, [&] { now_ = of_.milliseconds(*request_.time); });
    batch_.requests = 1;
    batch_.candidates = static_cast<int64_t>(request_.candidates.size());
    batch_.offsets = Tensor::from({int64_t{0}, batch_.candidates}, {2});
    find_candidates();
    choose_histories();
    batch_.features.resize(of_.features.size());
    for (size_t f = 0; f < of_.features.size(); ++f)
      if (whole_ || of_.spec.features[f].scope == FeatureScope::candidate) add_feature(f);
    for (size_t f = 0; f < of_.features.size(); ++f)
      if (of_.features[f].rule.matches) add_matches(f);
    return std::move(batch_);
  }

 private:
  static void check_names(const Values& values, const std::set<std::string>& names, const auto& where) {
    for (const auto& [name, _] : values) {
      if (names.count(name)) continue;
      const auto near = nearest_name(name, names);
      MR_FAIL(where(), " has no feature '", name, "'", near.empty() ? "" : "; did you mean '" + near + "'?");
    }
  }

  void find_candidates() {
    for (size_t c = 0; c < request_.candidates.size(); ++c) {
      const Candidate& candidate = request_.candidates[c];
      MR_CHECK(!candidate.item.empty() || !candidate.values.empty(), "candidate ", c,
               " has neither an item's id nor features");
      check_names(candidate.values, of_.candidate_names, [&] { return concat_message("candidate ", c); });
      items_.push_back(of_.items.find(candidate.item));
    }
  }

  void choose_histories() {
    const auto& histories = of_.spec.histories;
    MR_CHECK(request_.history.empty() || histories.size() == 1, "the model has ", histories.size(),
             " histories; name them in 'histories'");
    for (const auto& [name, _] : request_.histories) {
      const auto named = [&, &wanted = name](const auto& history) { return history.name == wanted; };
      MR_CHECK(std::any_of(histories.begin(), histories.end(), named), "the model has no history '", name,
               "'");
    }
    events_.resize(histories.size());
    for (size_t h = 0; h < histories.size(); ++h) {
      const auto named = request_.histories.find(histories[h].name);
      const std::vector<Event>& events = named == request_.histories.end() ? request_.history : named->second;
      const auto length = static_cast<size_t>(histories[h].max_length);
      given_.push_back(events.data());
      events_[h] = before_request(h, events);
      if (events_[h].size() > length) events_[h] = events_[h].last(length);
      for (const Event& event : events_[h])
        check_names(event.values, of_.event_names[h], [&] { return event_place(h, event); });
      if (whole_) batch_.histories.push_back(history(h));
    }
  }

  // The events that training would show the model: those before the request's day or time.
  std::span<const Event> before_request(size_t h, const std::vector<Event>& events) const {
    if (now_ == kNoTime) return events;
    size_t visible = events.size();
    int64_t last = kNoTime;
    for (size_t e = 0; e < events.size(); ++e)
      if (events[e].time && !is_before_request(event_time(h, events[e], last)))
        visible = std::min(visible, e);
    if (visible < events.size())
      notes_.later_events[of_.spec.histories[h].name] += static_cast<int64_t>(events.size() - visible);
    return std::span(events).first(visible);
  }

  bool is_before_request(int64_t time) const {
    if (of_.rules.snapshot == Snapshot::time) return time < now_;
    return day_of(time + of_.day_offset()) < day_of(now_ + of_.day_offset());
  }

  // Of an event that has one; `last` is the time of the event before it, and becomes this one.
  int64_t event_time(size_t h, const Event& event, int64_t& last) const {
    int64_t then = 0;
    about([&] { return event_place(h, event) + ", time"; }, [&] { then = of_.milliseconds(*event.time); });
    MR_CHECK(then >= last, event_place(h, event), " is older than the one before it; the oldest goes first");
    return last = then;
  }

  std::string event_place(size_t h, const Event& event) const {
    return concat_message("history '", of_.spec.histories[h].name, "', event ", &event - given_[h]);
  }

  // Columns of a history's events for an item feature.
  Cells event_cells(size_t h, size_t f) const {
    const EncodedFeature& feature = of_.features[f];
    Cells cells(feature.spec().kind);
    for (const Event& event : events_[h])
      about([&] { return event_place(h, event) + ", feature '" + feature.spec().name + "'"; },
            [&] {
              const Value* value = find(event.values, feature.spec().name);
              value ? feature.put(*value, cells)
                    : feature.put_entity(event.item, of_.items.find(event.item), cells);
            });
    return cells;
  }

  // Row 1 + value, as in the packed form; 0 where the event does not say.
  int64_t signal_row(size_t h, const Event& event, const std::string& signal) const {
    const Value* value = find(event.values, signal);
    const auto* text = value ? std::get_if<std::string>(value) : nullptr;
    double number = -1;
    if (value && !(text && text->empty()))
      about([&] { return event_place(h, event) + ", signal '" + signal + "'"; },
            [&] {
              number = number_of(*value);
              MR_CHECK(number >= 0 && number <= kLargestSignal && number == std::floor(number), number,
                       " is not a whole number from 0 to ", kLargestSignal);
            });
    return 1 + static_cast<int64_t>(number);
  }

  HistoryBatch history(size_t h) const {
    const ExportedHistory& rule = of_.rules.histories[h];
    const auto count = static_cast<int64_t>(events_[h].size());
    HistoryBatch batch;
    batch.offsets = Tensor::from({int64_t{0}, count}, {2});
    for (const size_t f : rule.features) {
      const Cells cells = event_cells(h, f);
      note_unknown(f, cells, true);
      batch.columns.push_back(cells.column());
    }
    const auto add = [&](const auto& row_of) {
      const int64_t rows = rule.spec.features[batch.columns.size()].rows;
      std::vector<int64_t> ids;
      for (const Event& event : events_[h]) {
        const int64_t row = row_of(event);
        ids.push_back(row < rows ? row : kUnknownRow);
      }
      batch.columns.push_back({.ids = Tensor::from(ids)});
    };
    for (const std::string& signal : rule.signals)
      add([&](const Event& event) { return signal_row(h, event, signal); });
    int64_t last = kNoTime;
    if (rule.gap) add([&](const Event& event) { return gap(h, event, last); });
    if (rule.position) add([&](const Event& event) { return count - (&event - events_[h].data()); });
    return batch;
  }

  int64_t gap(size_t h, const Event& event, int64_t& last) const {
    if (!event.time) return kUnknownRow;
    const int64_t then = event_time(h, event, last);
    return now_ == kNoTime ? kUnknownRow : gap_row(now_ - then);
  }

  void put_time(const EncodedFeature& feature, Cells& to) const {
    if (now_ == kNoTime) return feature.put_missing(to);
    const int64_t moved = of_.day_offset();
    to.ids.push_back(feature.rule.part == "hour" ? hour_row(now_ + moved)
                                                 : weekday_row(day_of(now_ + moved)));
  }

  void add_feature(size_t f) {
    const EncodedFeature& feature = of_.features[f];
    const std::string& name = feature.spec().name;
    const bool of_candidate = feature.spec().scope == FeatureScope::candidate;
    const Value* of_all = find(request_.values, name);
    Cells cells(feature.spec().kind);
    const auto put = [&](const Value* value, const std::string& id, uint32_t entity) {
      if (value) return feature.put(*value, cells);
      if (feature.by <= Keyed::item) return feature.put_entity(id, entity, cells);
      feature.rule.part.empty() ? feature.put_missing(cells) : put_time(feature, cells);
    };
    if (!of_candidate)
      about([&] { return "feature '" + name + "'"; },
            [&] { put(of_all, request_.user, of_.users.find(request_.user)); });
    for (size_t c = 0; of_candidate && c < request_.candidates.size(); ++c) {
      const Candidate& candidate = request_.candidates[c];
      const Value* own = find(candidate.values, name);
      if (!own && !of_all && feature.rule.matches) {
        cells.ids.push_back(kUnknownRow);  // counted when all columns are there
        continue;
      }
      about([&] { return concat_message("candidate ", c, ", feature '", name, "'"); },
            [&] { put(own ? own : of_all, candidate.item, items_[c]); });
    }
    note_unknown(f, cells, !of_candidate);
    batch_.features[f] = cells.column();
  }

  void note_unknown(size_t f, const Cells& cells, bool of_user) const {
    if (cells.unknown == 0) return;
    notes_.unknown[of_.features[f].spec().name] += cells.unknown;
    if (of_user) notes_.unknown_of_user[of_.features[f].spec().name] += cells.unknown;
  }

  // Counts where no value was given: 1 + how many events share a known value of the key, capped.
  void add_matches(size_t f) {
    const MatchRule& rule = *of_.features[f].rule.matches;
    const size_t key = of_.by_name.at(rule.key);
    size_t h = 0;
    while (of_.spec.histories[h].name != rule.history) ++h;
    const Cells events = event_cells(h, key);
    const FeatureColumn& candidates = batch_.features[key];
    const auto* ids = candidates.ids.data<const int64_t>();
    const auto* offsets = candidates.offsets.defined() ? candidates.offsets.data<const int64_t>() : nullptr;
    std::map<int64_t, std::vector<int64_t>> events_with;  // by value
    for (size_t e = 0; e < events_[h].size(); ++e) {
      if (!rule.signal.empty() && signal_row(h, events_[h][e], rule.signal) < kSignalTrue) continue;
      const auto at = static_cast<int64_t>(e);
      const int64_t begin = offsets ? events.offsets[e] : at, end = offsets ? events.offsets[e + 1] : at + 1;
      for (int64_t i = begin; i < end; ++i) events_with[events.ids[static_cast<size_t>(i)]].push_back(at);
    }
    auto* counts = batch_.features[f].ids.data<int64_t>();
    for (int64_t c = 0; c < batch_.candidates; ++c) {
      if (counts[c] != kUnknownRow) continue;
      std::set<int64_t> agree;
      for (int64_t i = offsets ? offsets[c] : c; i < (offsets ? offsets[c + 1] : c + 1); ++i) {
        const auto found = ids[i] == kUnknownRow ? events_with.end() : events_with.find(ids[i]);
        if (found != events_with.end()) agree.insert(found->second.begin(), found->second.end());
      }
      counts[c] = 1 + std::min(static_cast<int64_t>(agree.size()), rule.cap);
    }
  }

  const FeatureEncoder::Impl& of_;
  const ScoreRequest& request_;
  const bool whole_;
  EncodeNotes unasked_;
  EncodeNotes& notes_;
  RequestBatch batch_;
  int64_t now_ = kNoTime;
  std::vector<uint32_t> items_;
  std::vector<std::span<const Event>> events_;  // the newest ones
  std::vector<const Event*> given_;             // the first of all
};

}  // namespace

FeatureEncoder::FeatureEncoder(const std::string& folder, TrainedOn trained_on)
    : impl_(std::make_shared<const Impl>(folder, trained_on)) {}

const FeatureSet& FeatureEncoder::spec() const { return impl_->spec; }
const std::string& FeatureEncoder::user_column() const { return impl_->rules.user_column; }
const std::string& FeatureEncoder::item_column() const { return impl_->rules.item_column; }
bool FeatureEncoder::counts_matches() const { return impl_->counts_matches(); }

RequestBatch FeatureEncoder::encode(const ScoreRequest& request, EncodeNotes* notes) const {
  return RequestEncoder(*impl_, request, true, notes).encode();
}
RequestBatch FeatureEncoder::encode_candidates(const ScoreRequest& request, EncodeNotes* notes) const {
  return RequestEncoder(*impl_, request, false, notes).encode();
}

}  // namespace mixrec
