#include "mixrec/data/feature_export.h"

#include "mixrec/core/error.h"
#include "mixrec/data/feature_encoder.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
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
  if (rule.rate) to["rate"] = *rule.rate;
  if (rule.matches) to["matches"] = *rule.matches;
}

static void from_json(const json& from, FeatureRule& rule) {
  from.at("spec").get_to(rule.spec), from.at("column").get_to(rule.column);
  from.at("encoding").get_to(rule.encoding), from.at("buckets").get_to(rule.buckets);
  from.at("log1p").get_to(rule.log1p), from.at("list").get_to(rule.list_separator);
  from.at("part").get_to(rule.part);
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
void copy_cells(const MappedArray<T>& cells, const std::string& to, T end) {
  FileWriter out(to);
  for (size_t i = 0; i < cells.size(); ++i) out.append(cells[i] < end ? cells[i] : T{kUnknownRow});
  out.close(true);
}

void copy_lines(const std::string& from, const std::string& to, int64_t lines) {
  std::ifstream in(from);
  MR_CHECK(in, "cannot open ", from);
  FileWriter out(to);
  std::string line;
  for (int64_t l = 0; l < lines; ++l) {
    MR_CHECK(std::getline(in, line), from, " ends after ", l, " lines of ", lines);
    line += '\n';
    out.write(line.data(), line.size());
  }
  out.close(true);
}

class Exporter {
 public:
  Exporter(const PackedData& data, TrainedOn trained_on, const std::string& folder)
      : data_(data), trained_on_(trained_on), from_(data.folder + "/"), to_(folder + "/") {}

  void run() {
    const Schema& schema = data_.schema;
    export_.user_column = schema.user, export_.item_column = schema.item;
    if (schema.time) export_.time_unit = schema.time->unit, export_.time_format = schema.time->format;
    export_.utc_offset_hours = schema.utc_offset_hours;
    export_.tasks = data_.spec.tasks;
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
    if (stored(Keyed::user)) copy_lines(from_ + "users.txt", to_ + "users.txt", data_.manifest.users);
    if (stored(Keyed::item)) copy_lines(from_ + "items.txt", to_ + "items.txt", data_.manifest.items);
    json text = export_;
    text["version"] = FeatureExport::kVersion;
    const bool by_day = data_.schema.snapshot == Snapshot::day && data_.schema.time && !data_.schema.date;
    text["snapshot"] = by_day ? "day" : "time";
    const std::string dumped = text.dump(1) + "\n";
    FileWriter out(to_ + "features.json");
    out.write(dumped.data(), dumped.size());
    out.close(true);
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
    const std::string file = concat_message("feature.", f), numbers = from_ + file + ".numbers";
    if (fs::exists(numbers)) {
      const MappedArray<double> kept(numbers);
      feature.numbers.assign(kept.data(), kept.data() + kept.size());
    }
    if (rule.encoding == Encoding::vocabulary && rule.part.empty() && !rule.matches)
      feature.vocabulary = vocabulary(rule.spec.table_name());
    if (feature.is_stored()) copy_side(data_.features[f], file);
    export_.features.push_back(std::move(feature));
  }

  // Values beyond what the model knows are left out, and cells that hold them become unknown.
  void copy_side(const PackedFeature& side, const std::string& file) {
    const uint32_t known = trained_on_ == TrainedOn::training_part ? side.known : UINT32_MAX;
    if (side.values.size() > 0)
      return copy_cells(side.values, to_ + file, std::numeric_limits<float>::infinity());
    copy_cells(side.ids, to_ + file, side.list_offsets.size() > 0 ? UINT32_MAX : known);
    if (side.list_offsets.size() == 0) return;
    copy_cells(side.list_offsets, to_ + file + ".offsets", UINT64_MAX);
    copy_cells(side.list_elements, to_ + file + ".elements", known);
  }

  int64_t vocabulary(const std::string& table) {
    const auto found = std::find(tables_.begin(), tables_.end(), table);
    if (found != tables_.end()) return found - tables_.begin();
    const auto& tables = data_.manifest.tables;
    const auto info =
        std::find_if(tables.begin(), tables.end(), [&](const auto& one) { return one.name == table; });
    MR_CHECK(info != tables.end(), data_.folder, " has no table '", table, "'");
    const int64_t rows = trained_on_ == TrainedOn::training_part ? info->rows_training : info->rows;
    copy_lines(concat_message(from_, "vocabulary.", info - tables.begin(), ".txt"),
               concat_message(to_, "vocabulary.", tables_.size(), ".txt"), rows - 1);
    tables_.push_back(table);
    return export_.vocabularies++;
  }

  const PackedData& data_;
  const TrainedOn trained_on_;
  const std::string from_, to_;
  FeatureExport export_;
  std::vector<std::string> tables_;
};

}  // namespace

void write_features(const Dataset& data, TrainedOn trained_on, const std::string& folder) {
  AtomicFolder out(folder);
  Exporter(data.packed(), trained_on, out.folder()).run();
  out.commit();
}

FeatureExport read_feature_export(const std::string& path) {
  std::ifstream in(path);
  MR_CHECK(in, "cannot open ", path);
  try {
    const json text = json::parse(in);
    const int version = text.at("version");
    MR_CHECK(version == FeatureExport::kVersion, path, " has version ", version, ", this program reads ",
             FeatureExport::kVersion);
    auto features = text.get<FeatureExport>();
    if (text.value("snapshot", "time") == "day") features.snapshot = Snapshot::day;
    return features;
  } catch (const json::exception& error) {
    MR_FAIL(path, " is damaged: ", error.what());
  }
}

}  // namespace mixrec
