// Reads a schema from JSON.  Every object is read through `Object`, which knows its place in the file and
// refuses keys that nobody asked for.
#include "mixrec/core/error.h"
#include "mixrec/data/json_reader.h"
#include "mixrec/data/schema.h"
#include "mixrec/data/schema_parts.h"
#include "mixrec/data/time_format.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace mixrec {

namespace {

// Beyond these a number is a slip, and what would be made of it has no end.
constexpr int64_t kMostRows = (int64_t{1} << 31) - 2;  // of a table
constexpr int64_t kMostBuckets = 1'000'000, kMostWidth = 65'536;

CsvFormat read_format(JsonObject& in, const CsvFormat& otherwise) {
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

const std::vector<std::string> kUnits{"s", "ms", "us", "ns", "day"};

void read_years(JsonObject& in, TimeColumn& time) {
  if (!in.has("years")) return;
  const std::vector<double> years = in.numbers("years");
  const auto year = [](double value) { return value >= 1 && value <= 9999 && value == std::floor(value); };
  MR_CHECK(years.size() == 2 && year(years[0]) && year(years[1]) && years[0] <= years[1], in.at("years"),
           ": needs the first and the last year, as in [1950, 2100]");
  time.first_year = static_cast<int>(years[0]), time.last_year = static_cast<int>(years[1]);
}

TimeColumn read_time(JsonObject& in, const std::string& key, const std::string& format) {
  const JsonValue value = in.value(key);
  if (value.is_text()) return {value.text(), "s", format};
  JsonObject object = value.object();
  TimeColumn time{object.text("column"), object.choice("unit", "s", kUnits),
                  object.text("format", object.has("unit") ? "" : format)};
  MR_CHECK(!object.has("format") || !time.format.empty(), object.at("format"), ": must not be empty");
  if (!time.format.empty()) {
    MR_CHECK(!object.has("unit"), object.at("unit"), ": a time in a format has no unit");
    check_time_format(time.format, object.at("format"));
  }
  read_years(object, time);
  object.finish();
  return time;
}

void read_log(JsonObject in, Schema& schema) {
  schema.files = in.texts("files");
  schema.format = read_format(in, {});
  schema.user = in.text("user");
  schema.item = in.text("item");
  if (in.has("time")) schema.time = read_time(in, "time", "");
  if (in.has("date")) schema.date = read_time(in, "date", "%Y-%m-%d");
  schema.utc_offset_hours = in.number("utc_offset_hours", 0);
  MR_CHECK(std::abs(schema.utc_offset_hours) <= 24, in.at("utc_offset_hours"),
           ": must be from -24 to 24, got ", schema.utc_offset_hours);
  schema.request = in.text("request", "");
  schema.duplicates = in.texts("duplicates");
  MR_CHECK(schema.duplicates.empty() || std::find(schema.duplicates.begin(), schema.duplicates.end(),
                                                  schema.user) != schema.duplicates.end(),
           in.at("duplicates"), ": the key must name the user column '", schema.user, "'");
  schema.where = in.text("where", "");
  schema.weight = in.text("weight", "");
  in.finish();
}

JoinedTable read_table(JsonObject in, const std::string& name, const Schema& schema) {
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

TaskRule read_task(const JsonValue& value, const std::string& name) {
  TaskRule task;
  task.spec.name = name;
  for (const char* taken : {"row", "user", "item", "time", "request"})
    MR_CHECK(name != taken, value.place(), ": '", name,
             "' is another column of predictions; name the task otherwise");
  if (value.is_text()) return task.label = value.text(), task;
  JsonObject in = value.object();
  task.label = in.text("label");
  task.mask = in.text("where", "");
  task.weight = in.text("weight", "");
  task.spec.loss_weight = in.number("loss_weight", 1);
  task.spec.kept_negatives = in.number("kept_negatives", 1);
  MR_CHECK(task.spec.loss_weight > 0, in.at("loss_weight"),
           ": must be above 0; to leave a task out, name the others in data.tasks");
  MR_CHECK(task.spec.kept_negatives > 0 && task.spec.kept_negatives <= 1, in.at("kept_negatives"),
           ": must be above 0 and at most 1, got ", task.spec.kept_negatives);
  if (in.has("positive_from")) {
    task.spec.positive_from = in.number("positive_from", 1);
    MR_CHECK(*task.spec.positive_from > 0 && *task.spec.positive_from <= 1, in.at("positive_from"),
             ": must be above 0 and at most 1, got ", *task.spec.positive_from);
  }
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

void read_encoding(JsonObject& in, FeatureRule& feature) {
  const std::vector<std::string> encodings{"hash", "quantiles", "buckets", "numeric", "part"};
  int given = 0;
  for (const auto& key : encodings) given += in.has(key);
  MR_CHECK(given <= 1, in.place(), ": give at most one of hash, quantiles, buckets, numeric, part");
  if (in.has("hash")) {
    feature.encoding = Encoding::hash;
    feature.buckets = in.integer("hash", 0, 1, kMostRows);
  } else if (in.has("quantiles")) {
    feature.encoding = Encoding::quantiles;
    feature.buckets = in.integer("quantiles", 0, 2, kMostBuckets);
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

void read_derived(JsonObject& in, FeatureRule& feature) {
  if (in.has("rate")) {
    JsonObject rule = in.object("rate");
    feature.rate =
        RateRule{rule.text("history"), rule.text("key"), rule.text("signal"), rule.number("k", 20)};
    MR_CHECK(feature.rate->k > 0, rule.at("k"), ": must be above 0");
    rule.finish();
    feature.encoding = Encoding::numeric;
    feature.spec.kind = FeatureKind::numeric;
  } else {
    JsonObject rule = in.object("matches");
    feature.matches = MatchRule{rule.text("history"), rule.text("key"), rule.text("signal", ""),
                                rule.integer("cap", 10, 1, kMostBuckets)};
    rule.finish();
    feature.spec.scope = FeatureScope::candidate;
  }
}

// One text stands for an empty cell; a list names the texts that mean one.
void read_missing(JsonObject& in, FeatureRule& feature) {
  if (in.has("missing")) {
    if (in.value("missing").is_list()) {
      feature.missing_texts = in.texts("missing");
    } else {
      feature.missing = in.text("missing");
    }
  }
  double number = 0;
  MR_CHECK(
      feature.encoding < Encoding::quantiles || !feature.missing || parse_number(*feature.missing, number),
      in.at("missing"), ": '", *feature.missing,
      "' stands for an empty cell and is not a number; a list, as [\"NA\"], names cells that mean one");
  if (!in.has("fill")) return;
  MR_CHECK(!feature.missing, in.at("fill"),
           ": \"missing\" is one text and says that already; write a list there");
  feature.missing = in.text("fill");
  MR_CHECK(feature.encoding < Encoding::quantiles || parse_number(*feature.missing, number), in.at("fill"),
           ": '", *feature.missing, "' is not a number");
}

void read_item_values(JsonObject& in, FeatureRule& feature, const Schema& schema) {
  feature.item_values = in.choice("item_values", "", {"first", "last"});
  MR_CHECK(feature.spec.group == FeatureGroup::item && feature.joined.empty() && feature.part.empty() &&
               feature.column != schema.item,
           in.at("item_values"), ": belongs to a column of the log under features.item");
}

FeatureRule read_feature(const JsonValue& value, FeatureGroup group, int64_t width, const Schema& schema) {
  FeatureRule feature;
  feature.spec.group = group;
  feature.spec.scope = group == FeatureGroup::user ? FeatureScope::request : FeatureScope::candidate;
  feature.spec.width = width;
  if (value.is_text()) {
    feature.column = value.text();
    place_column(feature, schema, value.place());
    feature.spec.name = feature.column;
    return feature;
  }
  JsonObject in = value.object();
  if (in.has("rate") || in.has("matches")) {
    read_derived(in, feature);
    feature.spec.name = in.text("name");
    MR_CHECK(!feature.spec.name.empty(), in.at("name"), ": must not be empty");
  } else {
    feature.column = in.text("column");
    place_column(feature, schema, in.place());
    read_encoding(in, feature);
    feature.spec.name = in.text("name", feature.part.empty() ? feature.column : feature.part);
    MR_CHECK(!feature.spec.name.empty(), in.at("name"), ": must not be empty");
    feature.spec.table = in.text("table", "");
    read_missing(in, feature);
    if (in.has("item_values")) read_item_values(in, feature, schema);
    feature.unknown_rate = in.number("unknown_rate", 0);
    MR_CHECK(feature.unknown_rate >= 0 && feature.unknown_rate < 1, in.at("unknown_rate"),
             ": must be in [0, 1)");
    MR_CHECK(feature.unknown_rate == 0 || feature.spec.kind == FeatureKind::categorical,
             in.at("unknown_rate"), ": only a categorical feature has an unknown row to train");
  }
  feature.spec.width = in.integer("width", width, 1, kMostWidth);
  if (group == FeatureGroup::context &&
      in.choice("scope", "candidate", {"request", "candidate"}) == "request") {
    MR_CHECK(!feature.matches, in.at("scope"), ": match counts depend on the candidate");
    feature.spec.scope = FeatureScope::request;
  }
  in.finish();
  return feature;
}

SignalRule read_signal(const JsonValue& value, const std::string& name) {
  if (value.is_text()) return {name, value.text(), std::nullopt};
  JsonObject in = value.object();
  SignalRule signal{name, in.text("column"), std::nullopt};
  if (in.has("list")) signal.list_separator = in.text("list");
  in.finish();
  return signal;
}

// Sets `separator` and returns the column of "watched" or {"column": "watched", "list": ";"}.
std::string read_list(JsonObject& in, const std::string& key, std::string& separator) {
  const JsonValue value = in.value(key);
  separator = " ";
  if (value.is_text()) return value.text();
  JsonObject object = value.object();
  const std::string column = object.text("column");
  separator = object.text("list", " ");
  object.finish();
  return column;
}

EventSource read_source(JsonObject in, const Schema& schema) {
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
        JsonObject times = in.object("times");
        source.time = TimeColumn{times.text("column"), times.choice("unit", "s", kUnits), ""};
        read_years(times, *source.time);
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
    JsonObject signals = in.object("signals");
    for (const auto& name : signals.names()) source.signals.push_back(read_signal(signals.value(name), name));
  }
  in.finish();
  return source;
}

HistoryRule read_history(JsonObject in, const std::string& name, const Schema& schema, int64_t width) {
  HistoryRule history;
  history.name = name;
  history.length = in.integer("length", 64, 1, kMostBuckets);
  for (const auto& source : in.value("from").list())
    history.sources.push_back(read_source(source.object(), schema));
  MR_CHECK(!history.sources.empty(), in.at("from"), ": needs a source");
  history.features = in.texts("features");
  for (const auto& source : history.sources)
    for (const auto& signal : source.signals)
      if (std::find(history.signals.begin(), history.signals.end(), signal.name) == history.signals.end())
        history.signals.push_back(signal.name);
  history.gap = in.flag("gap", false);
  MR_CHECK(!history.gap || schema.time, in.at("gap"), ": the log has no 'time' to count from");
  history.position = in.flag("position", false);
  history.width = in.integer("width", width, 1, kMostWidth);
  MR_CHECK(!history.features.empty() || !history.signals.empty(), in.place(),
           ": events need features or signals");
  in.finish();
  return history;
}

void read_protocol(JsonObject& in, Schema& schema) {
  const bool dated = schema.time || schema.date;
  schema.split = detail::read_split(in.object("split"));
  if (schema.files.empty() && schema.split.by == SplitBy::files)
    for (const auto* part :
         {&schema.split.train_values, &schema.split.validation_values, &schema.split.test_values})
      schema.files.insert(schema.files.end(), part->begin(), part->end());
  MR_CHECK(!schema.files.empty(), in.at("log"), ": 'files' is missing");
  for (const auto& file : schema.files)
    MR_CHECK(std::count(schema.files.begin(), schema.files.end(), file) == 1, in.at("log"), ": the file '",
             file, "' is named twice");
  MR_CHECK(schema.split.by != SplitBy::date || dated, in.at("split"),
           ": a split by date needs log.time or log.date");
  const std::string snapshot = in.choice("snapshot", dated ? "day" : "time", {"day", "time"});
  schema.snapshot = snapshot == "day" ? Snapshot::day : Snapshot::time;
  MR_CHECK(schema.snapshot == Snapshot::time || dated, in.at("snapshot"),
           ": \"day\" needs log.time or log.date");
  schema.freeze = in.flag("freeze", true);
}

// What a model may choose anew over one packed form.
const std::vector<std::vector<std::string>> kModelKeys = {{"name"},
                                                          {"width"},
                                                          {"features", "*", "*", "width"},
                                                          {"features", "*", "*", "unknown_rate"},
                                                          {"tasks", "*", "loss_weight"},
                                                          {"tasks", "*", "kept_negatives"},
                                                          {"tasks", "*", "positive_from"},
                                                          {"histories", "*", "length"},
                                                          {"histories", "*", "width"}};

}  // namespace

Schema parse_schema(const std::string& text, const std::string& called) {
  const JsonValue json = JsonValue::parse(text, called);
  JsonObject in = json.object();
  Schema schema;
  schema.name = in.text("name", "");
  const int64_t width = in.integer("width", 16, 1, kMostWidth);
  read_log(in.object("log"), schema);
  if (in.has("tables")) {
    JsonObject tables = in.object("tables");
    for (const auto& name : tables.names())
      schema.tables.push_back(read_table(tables.object(name), name, schema));
  }
  JsonObject tasks = in.object("tasks");
  for (const auto& name : tasks.names()) schema.tasks.push_back(read_task(tasks.value(name), name));
  MR_CHECK(!schema.tasks.empty(), in.at("tasks"), ": needs at least one task");
  JsonObject features = in.object("features");
  for (const auto& [key, group] :
       {std::pair("user", FeatureGroup::user), std::pair("item", FeatureGroup::item),
        std::pair("context", FeatureGroup::context)}) {
    if (!features.has(key)) continue;
    for (const auto& value : features.value(key).list())
      schema.features.push_back(read_feature(value, group, width, schema));
  }
  features.finish();
  if (in.has("histories")) {
    JsonObject histories = in.object("histories");
    for (const auto& name : histories.names())
      schema.histories.push_back(read_history(histories.object(name), name, schema, width));
  }
  read_protocol(in, schema);
  schema.outside_files = in.flag("outside_files", false);
  in.finish();
  detail::check_names(schema, called);
  detail::check_expressions(schema, called);
  schema.json = json.dump_without({});
  schema.packed_key = json.dump_without(kModelKeys);
  return schema;
}

}  // namespace mixrec
