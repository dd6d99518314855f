#include "mixrec/data/dataset.h"

#include "mixrec/core/error.h"
#include "mixrec/data/batch_builder.h"
#include "mixrec/data/packing/packed_data.h"
#include "mixrec/data/packing/packed_digests.h"

#include <algorithm>
#include <iterator>
#include <map>

namespace mixrec {

namespace {

Keyed keyed(const FeatureRule& rule, const Schema& schema) {
  if (rule.matches) return Keyed::none;
  const FeatureGroup group = rule.spec.group;
  const bool stored = !rule.joined.empty() || rule.rate || !rule.item_values.empty();
  if (group == FeatureGroup::user && (stored || (rule.column == schema.user && rule.part.empty())))
    return Keyed::user;
  if (group == FeatureGroup::item && (stored || (rule.column == schema.item && rule.part.empty())))
    return Keyed::item;
  return rule.spec.scope == FeatureScope::request ? Keyed::request : Keyed::row;
}

PackedFeature map_feature(const PackedData& data, size_t f, int64_t known) {
  const FeatureRule& rule = data.schema.features[f];
  PackedFeature feature;
  feature.by = keyed(rule, data.schema);
  feature.known = static_cast<uint32_t>(known);
  const std::string path = concat_message(data.folder, "/feature.", f);
  if (rule.matches) return feature;
  if (rule.spec.kind == FeatureKind::numeric) {
    feature.values = MappedArray<float>(path);
    return feature;
  }
  feature.ids = MappedArray<uint32_t>(path);
  if (rule.spec.kind == FeatureKind::list) {
    feature.list_offsets = MappedArray<uint64_t>(path + ".offsets");
    feature.list_elements = MappedArray<uint32_t>(path + ".elements");
  }
  return feature;
}

// A file that lost its end, or that belongs to another packed form, must not be read past its end.
template <class T>
void check_size(const PackedData& data, const MappedArray<T>& array, int64_t size, const std::string& file) {
  MR_CHECK(static_cast<int64_t>(array.size()) == size, data.folder, "/", file, " is damaged: it has ",
           array.size(), " entries where ", size,
           " are expected; remove the folder to prepare the data again");
}

// The manifest says of each feature, history and task what the schema and the encoders have: also one that was edited
// and got a new digest.
void check_manifest(const PackedData& data) {
  const Manifest& manifest = data.manifest;
  const Schema& schema = data.schema;
  const auto check = [&](bool fits, const auto&... what) {
    MR_CHECK(fits, data.folder, "/manifest.json is damaged: ", concat_message(what...),
             "; remove the folder to prepare the data again");
  };
  const auto check_length = [&](size_t length, size_t expected, const std::string& list, const char* of) {
    check(length == expected, list, " has ", length, " entries where the schema has ", expected, " ", of);
  };
  check_length(manifest.feature_rows.size(), schema.features.size(), "feature_rows", "features");
  check_length(manifest.signal_rows.size(), schema.histories.size(), "signal_rows", "histories");
  check_length(manifest.event_counts.size(), schema.histories.size(), "event_counts", "histories");
  for (size_t h = 0; h < schema.histories.size(); ++h)
    check_length(manifest.signal_rows[h].size(), schema.histories[h].signals.size(),
                 concat_message("signal_rows[", h, "]"), "signals");
  for (size_t s = 0; s < std::size(manifest.splits); ++s)
    check_length(manifest.splits[s].tasks.size(), schema.tasks.size(),
                 concat_message("splits[", s, "].tasks"), "tasks");
  const Encoders& encoders = data.form.encoders;
  check(manifest.signal_rows == encoders.signal_rows, "signal_rows is not as its encoders have it");
  for (size_t f = 0; f < schema.features.size(); ++f) {
    const FeatureSpec& spec = schema.features[f].spec;
    const Encoders::Table* table = encoders.find_table(spec.table_name());
    const int64_t rows = spec.kind == FeatureKind::numeric ? 0 : table ? table->rows : -1;
    check(rows < 0 || manifest.feature_rows[f] == rows, "feature_rows gives '", spec.name, "' ",
          manifest.feature_rows[f], " rows, its encoders ", rows);
  }
}

void check_sizes(const PackedData& data) {
  const Manifest& manifest = data.manifest;
  check_size(data, data.row_item, manifest.rows, "rows.item");
  check_size(data, data.row_request, manifest.rows, "rows.request");
  check_size(data, data.row_number, manifest.rows, "rows.number");
  for (const auto& labels : data.labels) check_size(data, labels, manifest.rows, "rows.label");
  for (const auto& weights : data.weights) check_size(data, weights, manifest.rows, "rows.weight");
  check_size(data, data.request_user, manifest.requests, "requests.user");
  check_size(data, data.request_rows, manifest.requests + 1, "requests.rows");
  check_size(data, data.request_time, manifest.requests, "requests.time");
  check_size(data, data.request_split, manifest.requests, "requests.split");
  for (size_t f = 0; f < data.features.size(); ++f) {
    const PackedFeature& feature = data.features[f];
    const int64_t cells = feature.by == Keyed::user      ? manifest.users
                          : feature.by == Keyed::item    ? manifest.items
                          : feature.by == Keyed::request ? manifest.requests
                          : feature.by == Keyed::row     ? manifest.rows
                                                         : 0;
    const bool numeric = data.spec.features[f].kind == FeatureKind::numeric;
    if (numeric) check_size(data, feature.values, cells, concat_message("feature.", f));
    if (!numeric) check_size(data, feature.ids, cells, concat_message("feature.", f));
    if (feature.list_offsets.size() > 0)
      check_size(data, feature.list_elements,
                 static_cast<int64_t>(feature.list_offsets[feature.list_offsets.size() - 1]),
                 concat_message("feature.", f, ".elements"));
  }
  for (size_t h = 0; h < data.histories.size(); ++h) {
    const PackedHistory& history = data.histories[h];
    const std::string name = concat_message("history.", h);
    check_size(data, history.item, manifest.event_counts[h], name + ".item");
    check_size(data, history.time, manifest.event_counts[h], name + ".time");
    check_size(data, history.split, manifest.event_counts[h], name + ".split");
    for (const auto& signal : history.signals)
      check_size(data, signal, manifest.event_counts[h], name + ".signal");
    check_size(data, history.first, manifest.users + 1, name + ".user");
    check_size(data, history.end, manifest.requests, name + ".end");
  }
}

FeatureSpec event_feature(const std::string& name, const std::string& table, int64_t rows, int64_t width) {
  FeatureSpec spec;
  spec.name = name;
  spec.group = FeatureGroup::event;
  spec.scope = FeatureScope::event;
  spec.table = table;
  spec.rows = rows;
  spec.width = width;
  return spec;
}

// The features of events: those of items first, then signals, gap and position.
HistorySpec history_spec(PackedData& data, size_t h) {
  const HistoryRule& rule = data.schema.histories[h];
  HistorySpec history{rule.name, rule.length, {}};
  for (const auto& name : rule.features) {
    const auto& features = data.spec.features;
    const auto of_item =
        std::find_if(features.begin(), features.end(), [&](const auto& one) { return one.name == name; });
    data.histories[h].features.push_back(static_cast<size_t>(of_item - features.begin()));
    FeatureSpec spec = *of_item;
    spec.group = FeatureGroup::event;
    spec.scope = FeatureScope::event;
    if (spec.kind != FeatureKind::numeric) spec.table = of_item->table_name();
    history.features.push_back(spec);
  }
  const auto own = [&](const std::string& name, int64_t rows) {
    history.features.push_back(event_feature(name, rule.name + "." + name, rows, rule.width));
  };
  for (size_t s = 0; s < rule.signals.size(); ++s) own(rule.signals[s], data.manifest.signal_rows[h][s]);
  if (rule.gap) own("gap", kGapRows);
  if (rule.position) own("position", rule.length + 1);
  return history;
}

void choose_tasks(PackedData& data, const std::vector<std::string>& names) {
  std::vector<std::string> all;
  for (const auto& task : data.schema.tasks) all.push_back(task.spec.name);
  for (const auto& name : names.empty() ? all : names) {
    const auto found = std::find(all.begin(), all.end(), name);
    const auto near = nearest_name(name, all);
    MR_CHECK(found != all.end(), "the data set has no task '", name, "'",
             near.empty() ? "" : "; did you mean '" + near + "'?");
    const auto t = static_cast<size_t>(found - all.begin());
    MR_CHECK(std::find(data.tasks.begin(), data.tasks.end(), t) == data.tasks.end(), "the task '", name,
             "' is named twice in data.tasks");
    data.tasks.push_back(t);
  }
  for (const size_t t : data.tasks) {
    data.spec.tasks.push_back(data.schema.tasks[t].spec);
    data.labels.emplace_back(concat_message(data.folder, "/rows.label.", t));
    data.weights.emplace_back(concat_message(data.folder, "/rows.weight.", t));
  }
}

}  // namespace

Dataset Dataset::open(const Schema& schema, const std::string& folder, const PrepareOptions& options,
                      const std::vector<std::string>& tasks) {
  auto data = std::make_shared<PackedData>();
  data->schema = schema;
  data->form = prepare(schema, folder, options);
  data->folder = data->form.folder;
  data->data_folder = folder;
  check_packed_files(data->folder);
  const std::string base = data->folder + "/";
  data->manifest = read_manifest(base + "manifest.json");
  check_manifest(*data);
  data->row_item = MappedArray<uint32_t>(base + "rows.item");
  data->row_request = MappedArray<uint32_t>(base + "rows.request");
  data->row_number = MappedArray<int64_t>(base + "rows.number");
  data->request_user = MappedArray<uint32_t>(base + "requests.user");
  data->request_rows = MappedArray<uint64_t>(base + "requests.rows");
  data->request_time = MappedArray<int64_t>(base + "requests.time");
  data->request_split = MappedArray<uint8_t>(base + "requests.split");
  data->users = MappedArray<uint8_t>(base + "users.txt");
  data->items = MappedArray<uint8_t>(base + "items.txt");
  choose_tasks(*data, tasks);

  std::map<std::string, int64_t> known;
  for (const auto& table : data->manifest.tables) known[table.name] = table.rows_training;
  for (size_t f = 0; f < schema.features.size(); ++f) {
    FeatureSpec spec = schema.features[f].spec;
    spec.rows = data->manifest.feature_rows[f];
    data->features.push_back(map_feature(*data, f, known[spec.table_name()]));
    data->spec.features.push_back(spec);
  }
  data->histories.resize(schema.histories.size());
  for (size_t h = 0; h < schema.histories.size(); ++h) {
    PackedHistory& history = data->histories[h];
    const std::string files = concat_message(base, "history.", h, ".");
    history.item = MappedArray<uint32_t>(files + "item");
    history.time = MappedArray<int64_t>(files + "time");
    history.split = MappedArray<uint8_t>(files + "split");
    history.first = MappedArray<uint64_t>(files + "user");
    history.end = MappedArray<uint64_t>(files + "end");
    for (size_t s = 0; s < schema.histories[h].signals.size(); ++s)
      history.signals.emplace_back(concat_message(files, "signal.", s));
    data->spec.histories.push_back(history_spec(*data, h));
  }
  check_sizes(*data);
  Dataset dataset;
  dataset.packed_ = std::move(data);
  return dataset;
}

const FeatureSet& Dataset::spec() const { return packed_->spec; }
const Schema& Dataset::schema() const { return packed_->schema; }
const Manifest& Dataset::manifest() const { return packed_->manifest; }
const std::string& Dataset::packed_folder() const { return packed_->folder; }
const Encoders& Dataset::encoders() const { return packed_->form.encoders; }
const Fingerprint& Dataset::fingerprint() const { return packed_->form.content; }
const std::string& Dataset::folder() const { return packed_->data_folder; }

SplitStats Dataset::stats(Split split) const {
  SplitStats total;
  total.tasks.resize(spec().tasks.size());
  for (const Split part : {Split::train, Split::validation, Split::test}) {
    if (!packed_->has(split, part)) continue;
    const SplitStats& one = manifest().splits[static_cast<int>(part)];
    total.rows += one.rows;
    total.requests += one.requests;
    if (total.first_day.empty()) total.first_day = one.first_day;
    if (!one.last_day.empty()) total.last_day = one.last_day;
    for (size_t t = 0; t < total.tasks.size(); ++t) {
      const TaskStats& task = one.tasks[packed_->tasks[t]];
      total.tasks[t].rows += task.rows;
      total.tasks[t].weight += task.weight;
      total.tasks[t].positives += task.positives;
    }
  }
  return total;
}

}  // namespace mixrec
