#include "mixrec/data/feature_export.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/data/encoders/checked_folder.h"
#include "mixrec/data/feature_encoder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace mixrec {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FeatureSpec, name, group, scope, kind, table, rows, width)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(HistorySpec, name, max_length, features)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TaskSpec, name, loss_weight, kept_negatives)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RateRule, history, key, signal, k)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(MatchRule, history, key, signal, cap)

using nlohmann::json;

static void to_json(json& to, const FeatureRule& rule) {
  to = {{"spec", rule.spec},       {"column", rule.column}, {"encoding", rule.encoding},
        {"buckets", rule.buckets}, {"log1p", rule.log1p},   {"list", rule.list_separator},
        {"part", rule.part}};
  if (rule.missing) to["missing"] = *rule.missing;
  if (!rule.missing_texts.empty()) to["missing_texts"] = rule.missing_texts;
  if (rule.rate) to["rate"] = *rule.rate;
  if (rule.matches) to["matches"] = *rule.matches;
}

static void from_json(const json& from, FeatureRule& rule) {
  from.at("spec").get_to(rule.spec), from.at("column").get_to(rule.column);
  from.at("encoding").get_to(rule.encoding), from.at("buckets").get_to(rule.buckets);
  from.at("log1p").get_to(rule.log1p), from.at("list").get_to(rule.list_separator);
  from.at("part").get_to(rule.part);
  if (from.contains("missing_texts")) from.at("missing_texts").get_to(rule.missing_texts);
  if (from.contains("missing")) rule.missing = from.at("missing").get<std::string>();
  if (from.contains("rate")) rule.rate = from.at("rate").get<RateRule>();
  if (from.contains("matches")) rule.matches = from.at("matches").get<MatchRule>();
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ExportedFeature, rule, by, of_entity, vocabulary, numbers)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ExportedHistory, spec, features, signals, gap, position)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FeatureExport, user_column, item_column, time_unit, time_format,
                                   utc_offset_hours, features, histories, tasks, vocabularies)

namespace {

namespace fs = std::filesystem;

template <class T>
void write_cells(const MappedArray<T>& cells, const std::string& to) {
  FileWriter out(to);
  out.write(cells.data(), cells.size() * sizeof(T));
  out.close(true);
}

void write_text(const std::string& text, const std::string& to) {
  FileWriter out(to);
  out.write(text.data(), text.size());
  out.close(true);
}

class Exporter {
 public:
  Exporter(const PackedData& data, const std::string& folder)
      : data_(data), encoders_(data.form.encoders), to_(folder + "/") {}

  void run() {
    const Schema& schema = data_.schema;
    export_.user_column = schema.user, export_.item_column = schema.item;
    if (schema.time) export_.time_unit = schema.time->unit, export_.time_format = schema.time->format;
    export_.utc_offset_hours = schema.utc_offset_hours;
    export_.tasks = data_.spec.tasks;
    export_.vocabularies = static_cast<int64_t>(encoders_.tables.size());
    MR_CHECK(encoders_.format > 1, "a run cannot be begun with the encoders of format 1 in ",
             encoders_.folder);
    for (size_t f = 0; f < data_.features.size(); ++f) add_feature(f);
    for (size_t h = 0; h < data_.histories.size(); ++h) {
      const HistoryRule& rule = schema.histories[h];
      export_.histories.push_back(
          {data_.spec.histories[h], data_.histories[h].features, rule.signals, rule.gap, rule.position});
    }
    const auto stored = [&](Keyed by) {
      return std::any_of(export_.features.begin(), export_.features.end(),
                         [&](const auto& feature) { return feature.is_stored() && feature.by == by; });
    };
    if (stored(Keyed::user)) write_cells(data_.users, to_ + "users.txt");
    if (stored(Keyed::item)) write_cells(data_.items, to_ + "items.txt");
    json text = export_;
    text["version"] = FeatureExport::kVersion;
    const bool by_day = data_.schema.snapshot == Snapshot::day && data_.schema.time && !data_.schema.date;
    text["snapshot"] = by_day ? "day" : "time";
    write_text(text.dump(1) + "\n", to_ + "features.json");
    write_text(nlohmann::ordered_json::parse(schema.json).dump(1) + "\n", to_ + "schema.json");
    write_text(read_text_file(encoders_.folder + "/encoders.json"), to_ + "encoders.json");
    for (const auto& table : encoders_.tables)
      if (table.vocabulary >= 0)
        fs::copy_file(encoders_.vocabulary_file(table),
                      to_ + concat_message("vocabulary.", table.vocabulary, ".txt"));
    for (size_t f = 0; f < encoders_.features.size(); ++f)
      if (!encoders_.features[f].item_values.empty())
        fs::copy_file(Encoders::item_values_file(encoders_.folder, f), Encoders::item_values_file(to_, f));
  }

 private:
  void add_feature(size_t f) {
    ExportedFeature feature;
    feature.rule = data_.schema.features[f];
    feature.rule.spec = data_.spec.features[f];
    feature.by = data_.features[f].by;
    const FeatureRule& rule = feature.rule;
    feature.of_entity = rule.joined.empty() && rule.part.empty() && !rule.rate &&
                        ((feature.by == Keyed::user && rule.column == data_.schema.user) ||
                         (feature.by == Keyed::item && rule.column == data_.schema.item));
    if (const Encoders::Feature* counted = encoders_.find_feature(rule.spec.name))
      feature.numbers = counted->numbers;
    const Encoders::Table* table = encoders_.find_table(rule.spec.table_name());
    if (rule.encoding == Encoding::vocabulary && rule.part.empty() && !rule.matches && table)
      feature.vocabulary = table->vocabulary;
    if (feature.is_stored()) write_side(data_.features[f], to_ + concat_message("feature.", f));
    export_.features.push_back(std::move(feature));
  }

  static void write_side(const PackedFeature& side, const std::string& path) {
    if (side.values.size() > 0) return write_cells(side.values, path);
    write_cells(side.ids, path);
    if (side.list_offsets.size() == 0) return;
    write_cells(side.list_offsets, path + ".offsets");
    write_cells(side.list_elements, path + ".elements");
  }

  const PackedData& data_;
  const Encoders& encoders_;
  const std::string to_;
  FeatureExport export_;
};

// What does not add up in a file that people may have edited.
void check_export(const FeatureExport& features, const std::string& path) {
  const auto check = [&](bool fits, const auto&... what) {
    MR_CHECK(fits, path, " is damaged: ", concat_message(what...));
  };
  const auto within = [](auto value, auto last) { return value <= last; };
  for (const ExportedFeature& feature : features.features) {
    const FeatureRule& rule = feature.rule;
    const FeatureSpec& spec = rule.spec;
    const auto is = [&](bool fits, const char* what) { check(fits, "feature '", spec.name, "': ", what); };
    is(within(feature.by, Keyed::none) && within(spec.kind, FeatureKind::numeric) &&
           within(spec.group, FeatureGroup::event) && within(spec.scope, FeatureScope::event) &&
           within(rule.encoding, Encoding::numeric),
       "it is of no known kind");
    is(spec.rows >= 0 && spec.rows <= UINT32_MAX && spec.width > 0 && spec.width < (1 << 20),
       "its table has no possible size");
    is(rule.encoding != Encoding::hash || rule.matches || (rule.buckets > 0 && rule.buckets + 1 == spec.rows),
       "its buckets do not fit its table");
    is(feature.vocabulary >= -1 && feature.vocabulary < features.vocabularies, "its vocabulary is not there");
    const bool needs = rule.encoding == Encoding::vocabulary && rule.part.empty() && !rule.matches &&
                       spec.kind != FeatureKind::numeric;
    is(!needs || feature.vocabulary >= 0, "it has no vocabulary");
    const size_t least = spec.kind != FeatureKind::numeric ? 0 : rule.rate ? 3 : 2;
    is(feature.numbers.size() >= least, "its numbers are missing");
    is(std::all_of(feature.numbers.begin(), feature.numbers.end(),
                   [](double number) { return std::isfinite(number); }),
       "one of its numbers is not finite");
  }
  for (const ExportedHistory& history : features.histories) {
    const auto is = [&](bool fits, const char* what) {
      check(fits, "history '", history.spec.name, "': ", what);
    };
    is(history.spec.max_length > 0, "it has no possible length");
    is(history.spec.features.size() ==
           history.features.size() + history.signals.size() + history.gap + history.position,
       "its columns do not fit its features");
    for (const size_t f : history.features)
      is(f < features.features.size() && features.features[f].rule.spec.scope == FeatureScope::candidate,
         "one of its features is not there");
  }
  const auto names = [](const auto& all, const std::string& name, const auto& name_of) {
    return std::any_of(all.begin(), all.end(), [&](const auto& one) { return name_of(one) == name; });
  };
  for (const ExportedFeature& feature : features.features) {
    if (!feature.rule.matches) continue;
    const MatchRule& rule = *feature.rule.matches;
    check(names(features.histories, rule.history, [](const auto& one) { return one.spec.name; }) &&
              names(features.features, rule.key, [](const auto& one) { return one.rule.spec.name; }) &&
              rule.cap > 0 && rule.cap < INT32_MAX,
          "feature '", feature.rule.spec.name, "' counts what is not there");
  }
  check(!features.tasks.empty(), "it has no task");
  for (const TaskSpec& task : features.tasks)
    check(task.kept_negatives > 0 && task.kept_negatives <= 1, "the task '", task.name,
          "' keeps no possible share of negatives");
}

// What a folder of format 1 implies: its vocabularies end with the last value that the model knows.
Encoders encoders_of_format_1(const std::string& folder) {
  const FeatureExport features = read_feature_export(folder);
  Encoders encoders;
  encoders.folder = folder;
  encoders.format = 1;
  for (const ExportedFeature& feature : features.features) {
    const FeatureSpec& spec = feature.rule.spec;
    encoders.features.push_back({spec.name, feature.numbers, 0, ""});
    if (spec.rows == 0 || encoders.find_table(spec.table_name())) continue;
    int64_t known = spec.rows;
    if (feature.vocabulary >= 0)
      known = 1 + describe_file(concat_message(folder, "/vocabulary.", feature.vocabulary, ".txt")).lines;
    MR_CHECK(known <= spec.rows, folder, "/vocabulary.", feature.vocabulary, ".txt has ", known - 1,
             " lines, its table has room for ", spec.rows - 1);
    encoders.tables.push_back({spec.table_name(), spec.rows, known, feature.vocabulary});
  }
  for (const ExportedHistory& history : features.histories) {
    auto& rows = encoders.signal_rows.emplace_back();
    for (size_t s = 0; s < history.signals.size(); ++s)
      rows.push_back(history.spec.features[history.features.size() + s].rows);
  }
  std::string all;
  for (const auto& entry : fs::directory_iterator(folder))
    all += describe_file(entry.path()).hash + entry.path().filename().string() + "\n";
  encoders.id = "format-1-" + hash_of(read_text_file(folder + "/features.json") + all);
  return encoders;
}

}  // namespace

void write_features(const Dataset& data, const std::string& folder,
                    const std::map<std::string, std::string>& labels) {
  AtomicFolder out(folder);
  Exporter(data.packed(), out.folder()).run();
  write_index(out.folder(), Encoders::kFormat, labels);
  out.commit();
}

FeatureExport read_feature_export(const std::string& folder) {
  const std::string path = folder + "/features.json";
  FeatureExport features;
  try {
    const json text = json::parse(read_text_file(path));
    features = text.get<FeatureExport>();
    features.version = text.at("version");
    if (text.value("snapshot", "time") == "day") features.snapshot = Snapshot::day;
  } catch (const json::exception& error) {
    MR_FAIL(path, " is damaged: ", error.what());
  }
  MR_CHECK(features.version >= 1 && features.version <= FeatureExport::kVersion, path, " has version ",
           features.version, "; this program reads versions up to ", FeatureExport::kVersion,
           ": a newer release of mixrec reads it");
  check_export(features, path);
  return features;
}

void check_same_rules(const FeatureExport& features, const Schema& schema, const std::string& folder) {
  const auto text = [](FeatureRule rule, int64_t rows) {
    rule.spec.rows = rows;
    return json(rule).dump();
  };
  bool same = features.features.size() == schema.features.size() &&
              features.histories.size() == schema.histories.size();
  for (size_t f = 0; same && f < schema.features.size(); ++f)
    same = text(features.features[f].rule, 0) == text(schema.features[f], 0);
  for (size_t h = 0; same && h < schema.histories.size(); ++h)
    same = features.histories[h].spec.name == schema.histories[h].name &&
           features.histories[h].spec.max_length == schema.histories[h].length &&
           features.histories[h].signals == schema.histories[h].signals;
  MR_CHECK(same, "the schema has other features or histories than the run in ", folder,
           " was trained with; give the data with the schema of then");
}

Encoders read_run_encoders(const std::string& folder) {
  return has_index(folder) ? read_encoders(folder) : encoders_of_format_1(folder);
}

}  // namespace mixrec
