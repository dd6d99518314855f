// Reads a schema from JSON.  Every object is read through `Object`, which knows its place in the file and
// refuses keys that nobody asked for.
#include "mixrec/core/error.h"
#include "mixrec/data/schema.h"
#include "mixrec/data/time_format.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace mixrec {

namespace {

using Json = nlohmann::ordered_json;

class Object {
 public:
  Object(const Json& json, std::string place) : json_(json), place_(std::move(place)) {
    MR_CHECK(json_.is_object(), place_, ": needs an object in braces, got ", json_.dump());
  }

  bool has(const std::string& key) {
    asked_.insert(key);
    return json_.contains(key);
  }
  std::string at(const std::string& key) const { return place_ + "." + key; }
  const std::string& place() const { return place_; }

  const Json& value(const std::string& key) {
    MR_CHECK(has(key), place_, ": '", key, "' is missing");
    return json_.at(key);
  }
  std::string text(const std::string& key) { return as_text(value(key), at(key)); }
  std::string text(const std::string& key, const std::string& otherwise) {
    return has(key) ? text(key) : otherwise;
  }

  double number(const std::string& key, double otherwise) {
    if (!has(key)) return otherwise;
    MR_CHECK(json_.at(key).is_number(), at(key), ": needs a number, got ", json_.at(key).dump());
    return json_.at(key).get<double>();
  }
  int64_t integer(const std::string& key, int64_t otherwise, int64_t least) {
    if (!has(key)) return otherwise;
    const Json& json = json_.at(key);
    MR_CHECK(json.is_number_integer() && json.get<int64_t>() >= least, at(key),
             ": needs a whole number of at least ", least, ", got ", json.dump());
    return json.get<int64_t>();
  }
  bool flag(const std::string& key, bool otherwise) {
    if (!has(key)) return otherwise;
    MR_CHECK(json_.at(key).is_boolean(), at(key), ": needs true or false, got ", json_.at(key).dump());
    return json_.at(key).get<bool>();
  }
  std::string choice(const std::string& key, const std::string& otherwise,
                     const std::vector<std::string>& choices) {
    const std::string chosen = text(key, otherwise);
    if (std::find(choices.begin(), choices.end(), chosen) != choices.end()) return chosen;
    std::string list;
    for (const auto& one : choices) list += (list.empty() ? "" : ", ") + one;
    MR_FAIL(at(key), ": '", chosen, "' is not one of ", list);
  }
  // One text, or a list of texts.
  std::vector<std::string> texts(const std::string& key) {
    std::vector<std::string> all;
    if (!has(key)) return all;
    const Json& json = json_.at(key);
    if (!json.is_array()) return {as_text(json, at(key))};
    for (size_t i = 0; i < json.size(); ++i)
      all.push_back(as_text(json[i], concat_message(at(key), "[", i, "]")));
    return all;
  }
  std::vector<double> numbers(const std::string& key) {
    const Json& json = value(key);
    MR_CHECK(
        json.is_array() && std::all_of(json.begin(), json.end(), [](auto& one) { return one.is_number(); }),
        at(key), ": needs a list of numbers, got ", json.dump());
    return json.get<std::vector<double>>();
  }
  std::vector<std::string> keys() {
    std::vector<std::string> all;
    for (const auto& [key, _] : json_.items()) asked_.insert(key), all.push_back(key);
    return all;
  }

  // Call when all keys have been asked for.
  void finish() const {
    for (const auto& [key, _] : json_.items()) {
      if (asked_.count(key)) continue;
      const auto near = nearest_name(key, asked_);
      MR_FAIL(place_, ": unknown key '", key, "'", near.empty() ? "" : "; did you mean '" + near + "'?");
    }
  }

  static std::string as_text(const Json& json, const std::string& place) {
    MR_CHECK(json.is_string(), place, ": needs a text in quotes, got ", json.dump());
    return json.get<std::string>();
  }

 private:
  const Json& json_;
  std::string place_;
  std::set<std::string> asked_;
};

CsvFormat read_format(Object& in, const CsvFormat& otherwise) {
  CsvFormat format = otherwise;
  if (in.has("separator")) {
    format.separator = in.text("separator");
    MR_CHECK(!format.separator.empty(), in.at("separator"), ": must not be empty");
    format.quotes = format.separator == ",";
  }
  if (in.has("columns")) format.columns = in.texts("columns"), format.header = false;
  format.header = in.flag("header", format.header);
  MR_CHECK(format.header || !format.columns.empty(), in.at("header"),
           ": without a header, 'columns' must name them");
  format.quotes = in.flag("quotes", format.quotes);
  return format;
}

TimeColumn read_time(Object& in, const std::string& key, const std::string& format) {
  const Json& json = in.value(key);
  if (json.is_string()) return {json.get<std::string>(), "s", format};
  Object object(json, in.at(key));
  TimeColumn time{object.text("column"), object.choice("unit", "s", {"s", "ms", "us", "day"}),
                  object.text("format", object.has("unit") ? "" : format)};
  object.finish();
  return time;
}

void read_log(Object in, Schema& schema) {
  schema.files = in.texts("files");
  MR_CHECK(!schema.files.empty(), in.place(), ": 'files' is missing");
  schema.format = read_format(in, {});
  schema.user = in.text("user");
  schema.item = in.text("item");
  if (in.has("time")) schema.time = read_time(in, "time", "");
  if (in.has("date")) schema.date = read_time(in, "date", "%Y-%m-%d");
  schema.utc_offset_hours = in.number("utc_offset_hours", 0);
  schema.request = in.text("request", "");
  schema.duplicates = in.texts("duplicates");
  MR_CHECK(schema.duplicates.empty() || std::find(schema.duplicates.begin(), schema.duplicates.end(),
                                                  schema.user) != schema.duplicates.end(),
           in.at("duplicates"), ": the key must name the user column '", schema.user, "'");
  schema.where = in.text("where", "");
  schema.weight = in.text("weight", "");
  in.finish();
}

JoinedTable read_table(Object in, const std::string& name, const Schema& schema) {
  JoinedTable table;
  table.name = name;
  table.files = in.texts("file");
  MR_CHECK(!table.files.empty(), in.place(), ": 'file' is missing");
  table.format = read_format(in, {});
  const std::string joins = in.choice("joins", name.starts_with("user") ? "user" : "item", {"user", "item"});
  table.of_user = joins == "user";
  table.key = in.text("key", table.of_user ? schema.user : schema.item);
  in.finish();
  return table;
}

TaskRule read_task(const Json& json, const std::string& name, const std::string& place) {
  TaskRule task;
  task.spec.name = name;
  if (json.is_string()) return task.label = json.get<std::string>(), task;
  Object in(json, place);
  task.label = in.text("label");
  task.mask = in.text("where", "");
  task.weight = in.text("weight", "");
  task.spec.loss_weight = in.number("loss_weight", 1);
  task.spec.kept_negatives = in.number("kept_negatives", 1);
  MR_CHECK(task.spec.loss_weight >= 0, in.at("loss_weight"), ": must not be negative");
  MR_CHECK(task.spec.kept_negatives > 0 && task.spec.kept_negatives <= 1, in.at("kept_negatives"),
           ": must be above 0 and at most 1, got ", task.spec.kept_negatives);
  in.finish();
  return task;
}

// "users.age" is the column `age` of the table `users`, anything else a column of the log.
void place_column(FeatureRule& feature, const Schema& schema, const std::string& place) {
  const size_t dot = feature.column.find('.');
  const auto named = [&](const auto& table) { return table.name == feature.column.substr(0, dot); };
  const auto table = std::find_if(schema.tables.begin(), schema.tables.end(), named);
  if (dot == std::string::npos || table == schema.tables.end()) return;
  const FeatureGroup group = table->of_user ? FeatureGroup::user : FeatureGroup::item;
  MR_CHECK(feature.spec.group == group, place, ": '", feature.column, "' describes ",
           table->of_user ? "users" : "items", "; list it under features.", table->of_user ? "user" : "item");
  feature.joined = table->name;
  feature.column = feature.column.substr(dot + 1);
}

void read_encoding(Object& in, FeatureRule& feature) {
  const std::vector<std::string> encodings{"hash", "quantiles", "buckets", "numeric", "part"};
  int given = 0;
  for (const auto& key : encodings) given += in.has(key);
  MR_CHECK(given <= 1, in.place(), ": give at most one of hash, quantiles, buckets, numeric, part");
  if (in.has("hash")) {
    feature.encoding = Encoding::hash;
    feature.buckets = in.integer("hash", 0, 1);
  } else if (in.has("quantiles")) {
    feature.encoding = Encoding::quantiles;
    feature.buckets = in.integer("quantiles", 0, 2);
  } else if (in.has("buckets")) {
    feature.encoding = Encoding::buckets;
    feature.edges = in.numbers("buckets");
    MR_CHECK(!feature.edges.empty() && std::is_sorted(feature.edges.begin(), feature.edges.end()),
             in.at("buckets"), ": needs edges in rising order");
  } else if (in.has("numeric")) {
    feature.encoding = Encoding::numeric;
    feature.log1p = in.choice("numeric", "standard", {"standard", "log1p"}) == "log1p";
    feature.spec.kind = FeatureKind::numeric;
  } else if (in.has("part")) {
    feature.part = in.choice("part", "", {"hour", "weekday"});
  }
  if (in.has("min_count")) {
    MR_CHECK(given == 0, in.at("min_count"), ": only a vocabulary has it");
    feature.min_count = in.integer("min_count", 1, 1);
  }
  if (in.has("list")) {
    MR_CHECK(feature.encoding <= Encoding::hash && feature.part.empty(), in.at("list"),
             ": a list needs a vocabulary or a hash");
    feature.list_separator = in.text("list");
    MR_CHECK(!feature.list_separator.empty(), in.at("list"), ": must not be empty");
    feature.spec.kind = FeatureKind::list;
  }
}

void read_derived(Object& in, FeatureRule& feature) {
  if (in.has("rate")) {
    Object rule(in.value("rate"), in.at("rate"));
    feature.rate =
        RateRule{rule.text("history"), rule.text("key"), rule.text("signal"), rule.number("k", 20)};
    MR_CHECK(feature.rate->k > 0, rule.at("k"), ": must be above 0");
    rule.finish();
    feature.encoding = Encoding::numeric;
    feature.spec.kind = FeatureKind::numeric;
  } else {
    Object rule(in.value("matches"), in.at("matches"));
    feature.matches = MatchRule{rule.text("history"), rule.text("key"), rule.text("signal", ""),
                                rule.integer("cap", 10, 1)};
    rule.finish();
    feature.spec.scope = FeatureScope::candidate;
  }
}

FeatureRule read_feature(const Json& json, FeatureGroup group, int64_t width, const Schema& schema,
                         const std::string& place) {
  FeatureRule feature;
  feature.spec.group = group;
  feature.spec.scope = group == FeatureGroup::user ? FeatureScope::request : FeatureScope::candidate;
  feature.spec.width = width;
  if (json.is_string()) {
    feature.column = json.get<std::string>();
    place_column(feature, schema, place);
    feature.spec.name = feature.column;
    return feature;
  }
  Object in(json, place);
  if (in.has("rate") || in.has("matches")) {
    read_derived(in, feature);
    feature.spec.name = in.text("name");
  } else {
    feature.column = in.text("column");
    place_column(feature, schema, place);
    read_encoding(in, feature);
    feature.spec.name = in.text("name", feature.part.empty() ? feature.column : feature.part);
    feature.spec.table = in.text("table", "");
    if (in.has("missing")) feature.missing = in.text("missing");
    feature.unknown_rate = in.number("unknown_rate", 0);
    MR_CHECK(feature.unknown_rate >= 0 && feature.unknown_rate < 1, in.at("unknown_rate"),
             ": must be in [0, 1)");
    MR_CHECK(feature.unknown_rate == 0 || feature.spec.kind == FeatureKind::categorical,
             in.at("unknown_rate"), ": only a categorical feature has an unknown row to train");
  }
  feature.spec.width = in.integer("width", width, 1);
  if (group == FeatureGroup::context &&
      in.choice("scope", "candidate", {"request", "candidate"}) == "request") {
    MR_CHECK(!feature.matches, in.at("scope"), ": match counts depend on the candidate");
    feature.spec.scope = FeatureScope::request;
  }
  in.finish();
  return feature;
}

SignalRule read_signal(const Json& json, const std::string& name, const std::string& place) {
  if (json.is_string()) return {name, json.get<std::string>(), std::nullopt};
  Object in(json, place);
  SignalRule signal{name, in.text("column"), std::nullopt};
  if (in.has("list")) signal.list_separator = in.text("list");
  in.finish();
  return signal;
}

// Sets `separator` and returns the column of "watched" or {"column": "watched", "list": ";"}.
std::string read_list(Object& in, const std::string& key, std::string& separator) {
  const Json& json = in.value(key);
  separator = " ";
  if (json.is_string()) return json.get<std::string>();
  Object object(json, in.at(key));
  const std::string column = object.text("column");
  separator = object.text("list", " ");
  object.finish();
  return column;
}

EventSource read_source(Object in, const Schema& schema) {
  EventSource source;
  source.log = in.flag("log", false);
  source.user = schema.user, source.item = schema.item;
  source.format = schema.format;
  if (!source.log) {
    source.files = in.texts("files");
    MR_CHECK(!source.files.empty(), in.place(), ": needs 'files', or \"log\": true");
    source.user = in.text("user", schema.user);
    const bool sequences = in.has("items");
    MR_CHECK(!sequences || !in.has("item"), in.place(),
             ": 'item' names one item a row, 'items' a list; give one");
    source.format = read_format(in, sequences ? CsvFormat{} : schema.format);
    if (sequences) {
      source.item = read_list(in, "items", source.items_separator.emplace());
      if (in.has("times")) {
        Object times(in.value("times"), in.at("times"));
        source.time =
            TimeColumn{times.text("column"), times.choice("unit", "s", {"s", "ms", "us", "day"}), ""};
        source.times_separator = times.text("list", " ");
        times.finish();
      }
    } else {
      source.item = in.text("item", schema.item);
      source.time = in.has("time") ? read_time(in, "time", "") : schema.time;
    }
  }
  source.where = in.text("where", "");
  if (in.has("signals")) {
    Object signals(in.value("signals"), in.at("signals"));
    for (const auto& name : signals.keys())
      source.signals.push_back(read_signal(signals.value(name), name, signals.at(name)));
  }
  in.finish();
  return source;
}

HistoryRule read_history(Object in, const std::string& name, const Schema& schema, int64_t width) {
  HistoryRule history;
  history.name = name;
  history.length = in.integer("length", 64, 1);
  const Json& from = in.value("from");
  MR_CHECK(from.is_array() && !from.empty(), in.at("from"), ": needs a list of sources");
  for (size_t i = 0; i < from.size(); ++i)
    history.sources.push_back(
        read_source(Object(from[i], concat_message(in.at("from"), "[", i, "]")), schema));
  history.features = in.texts("features");
  for (const auto& source : history.sources)
    for (const auto& signal : source.signals)
      if (std::find(history.signals.begin(), history.signals.end(), signal.name) == history.signals.end())
        history.signals.push_back(signal.name);
  history.gap = in.flag("gap", false);
  MR_CHECK(!history.gap || schema.time, in.at("gap"), ": the log has no 'time' to count from");
  history.position = in.flag("position", false);
  history.width = in.integer("width", width, 1);
  MR_CHECK(!history.features.empty() || !history.signals.empty(), in.place(),
           ": events need features or signals");
  in.finish();
  return history;
}

SplitRule read_split(Object in) {
  SplitRule split;
  const std::string by = in.choice("by", "date", {"date", "fraction", "column", "files"});
  if (by == "date") {
    split.test_from = in.text("test_from", "");
    split.validation_from = in.text("validation_from", "");
    split.test_days = in.integer("test_days", 0, 1);
    split.validation_days = in.integer("validation_days", 0, 0);
    MR_CHECK(split.test_from.empty() != (split.test_days == 0), in.place(), ": give test_from or test_days");
    MR_CHECK(split.validation_from.empty() || split.validation_days == 0, in.place(),
             ": give validation_from or validation_days, not both");
    for (const auto* key : {"test_from", "validation_from"})
      if (in.has(key)) parse_day(in.text(key), in.at(key));
  } else if (by == "fraction") {
    split.by = SplitBy::fraction;
    split.test = in.number("test", 0.1);
    split.validation = in.number("validation", 0.1);
    MR_CHECK(split.test > 0 && split.validation >= 0 && split.test + split.validation < 1, in.place(),
             ": test and validation are fractions with a sum below 1");
  } else {
    split.by = by == "column" ? SplitBy::column : SplitBy::files;
    if (by == "column") split.column = in.text("column");
    split.train_values = in.texts("train");
    split.validation_values = in.texts("validation");
    split.test_values = in.texts("test");
    MR_CHECK(!split.train_values.empty() && !split.test_values.empty(), in.place(),
             ": needs 'train' and 'test'");
    split.validation = in.number("validation_fraction", split.validation_values.empty() ? 0.1 : 0);
    MR_CHECK(split.validation >= 0 && split.validation < 1, in.at("validation_fraction"),
             ": must be in [0, 1)");
  }
  in.finish();
  return split;
}

// Names that one part of a schema takes from another.
void check_names(const Schema& schema, const std::string& called) {
  std::set<std::string> names, item_features, histories;
  std::map<std::string, int64_t> widths;
  for (const auto& feature : schema.features) {
    const FeatureSpec& spec = feature.spec;
    MR_CHECK(names.insert(spec.name).second, called, ": two features are named '", spec.name,
             "'; give one of them a \"name\"");
    const bool stored_by_item = spec.group == FeatureGroup::item &&
                                (!feature.joined.empty() || feature.rate || feature.column == schema.item);
    if (stored_by_item) item_features.insert(spec.name);
    if (spec.kind == FeatureKind::numeric || feature.matches) continue;
    const int64_t width = widths.emplace(spec.table_name(), spec.width).first->second;
    MR_CHECK(width == spec.width, called, ": features of the table '", spec.table_name(), "' have widths ",
             width, " and ", spec.width);
  }
  const auto known = [&](const std::string& name, const auto& set, const std::string& place,
                         const char* what) {
    if (std::find(set.begin(), set.end(), name) != set.end()) return;
    const auto near = nearest_name(name, set);
    MR_FAIL(called, ": ", place, ": there is no ", what, " '", name, "'",
            near.empty() ? "" : "; did you mean '" + near + "'?");
  };
  for (const auto& history : schema.histories) {
    histories.insert(history.name);
    for (const auto& name : history.features)
      known(name, item_features, "histories." + history.name + ".features", "stored item feature");
  }
  for (const auto& feature : schema.features) {
    if (!feature.rate && !feature.matches) continue;
    const std::string place = "feature '" + feature.spec.name + "'";
    const std::string& key = feature.rate ? feature.rate->key : feature.matches->key;
    const std::string& signal = feature.rate ? feature.rate->signal : feature.matches->signal;
    const std::string& name = feature.rate ? feature.rate->history : feature.matches->history;
    known(name, histories, place, "history");
    const auto history = std::find_if(schema.histories.begin(), schema.histories.end(),
                                      [&](const auto& one) { return one.name == name; });
    if (!signal.empty()) known(signal, history->signals, place, "signal");
    if (feature.spec.group != FeatureGroup::user || feature.matches)
      known(key, item_features, place, "stored item feature");
    MR_CHECK(!feature.rate || feature.spec.group != FeatureGroup::context, called, ": ", place,
             ": a rate belongs under features.item or features.user");
  }
}

// The schema without what a model may choose anew over one packed form.
std::string packed_key(Json json) {
  json.erase("width");
  json.erase("name");
  for (auto& [_, group] : json["features"].items())
    for (auto& feature : group)
      if (feature.is_object()) feature.erase("width"), feature.erase("unknown_rate");
  for (auto& [_, task] : json["tasks"].items())
    if (task.is_object()) task.erase("loss_weight"), task.erase("kept_negatives");
  if (json.contains("histories"))
    for (auto& [_, history] : json["histories"].items()) history.erase("length"), history.erase("width");
  return json.dump();
}

}  // namespace

Schema parse_schema(const std::string& text, const std::string& called) {
  Json json;
  try {
    json = Json::parse(text, nullptr, true, true);
  } catch (const Json::parse_error& error) {
    MR_FAIL(called, " is not valid JSON: ", error.what());
  }
  Schema schema;
  Object in(json, called);
  schema.name = in.text("name", "");
  const int64_t width = in.integer("width", 16, 1);
  read_log(Object(in.value("log"), in.at("log")), schema);
  if (in.has("tables")) {
    Object tables(in.value("tables"), in.at("tables"));
    for (const auto& name : tables.keys())
      schema.tables.push_back(read_table(Object(tables.value(name), tables.at(name)), name, schema));
  }
  Object tasks(in.value("tasks"), in.at("tasks"));
  for (const auto& name : tasks.keys())
    schema.tasks.push_back(read_task(tasks.value(name), name, tasks.at(name)));
  MR_CHECK(!schema.tasks.empty(), in.at("tasks"), ": needs at least one task");
  Object features(in.value("features"), in.at("features"));
  for (const auto& [key, group] :
       {std::pair("user", FeatureGroup::user), std::pair("item", FeatureGroup::item),
        std::pair("context", FeatureGroup::context)}) {
    if (!features.has(key)) continue;
    const Json& list = features.value(key);
    MR_CHECK(list.is_array(), features.at(key), ": needs a list");
    for (size_t i = 0; i < list.size(); ++i)
      schema.features.push_back(
          read_feature(list[i], group, width, schema, concat_message(features.at(key), "[", i, "]")));
  }
  features.finish();
  if (in.has("histories")) {
    Object histories(in.value("histories"), in.at("histories"));
    for (const auto& name : histories.keys())
      schema.histories.push_back(
          read_history(Object(histories.value(name), histories.at(name)), name, schema, width));
  }
  schema.split = read_split(Object(in.value("split"), in.at("split")));
  MR_CHECK(schema.split.by != SplitBy::date || schema.time || schema.date, in.at("split"),
           ": a split by date needs log.time or log.date");
  const std::string snapshot =
      in.choice("snapshot", schema.time || schema.date ? "day" : "time", {"day", "time"});
  schema.snapshot = snapshot == "day" ? Snapshot::day : Snapshot::time;
  MR_CHECK(schema.snapshot == Snapshot::time || schema.time || schema.date, in.at("snapshot"),
           ": \"day\" needs log.time or log.date");
  schema.freeze = in.flag("freeze", true);
  in.finish();
  check_names(schema, called);
  schema.packed_key = packed_key(json);
  return schema;
}

}  // namespace mixrec
