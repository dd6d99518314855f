#include "mixrec/train/config.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/train/device_choice.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <type_traits>

namespace mixrec {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// The fields of each section, with the sentence that --help prints.

template <class V>
void visit_fields(DataConfig& c, V& v) {
  v("path", c.path, "folder of the data set (also --data)");
  v("schema", c.schema,
    "schema file, or several to choose from by the files in the folder; [] = its own schema.json or a "
    "bundled one");
  v("overrides", c.overrides, "JSON object merged over the schema");
  v("tasks", c.tasks, "labels to train; [] = all of the schema");
  v("batch_size", c.batch_size, "candidates in one batch");
  v("max_events", c.max_events, "history events in one batch at most; 0 = no cap");
  v("workers", c.workers, "threads that assemble batches ahead of the step");
  v("shuffle", c.shuffle, "rows | requests: requests keeps the candidates of a request together");
}

template <class V>
void visit_fields(TrainConfig& c, V& v) {
  v("seed", c.seed, "of initial weights, order of rows and dropout (also --seed)");
  v("epochs", c.epochs, "passes over the training rows");
  v("max_steps", c.max_steps, "stop after so many optimiser steps; 0 = no limit");
  v("max_minutes", c.max_minutes, "stop after so much time; 0 = no limit");
  v("select_by", c.select_by, "auc | uauc | log_loss: what the best step is best in, mean over tasks");
  v("patience", c.patience, "stop after so many evaluations without a better one; 0 = never");
  v("refit", c.refit, "afterwards train afresh on the whole training period, validation rows included");
  v("refit_for", c.refit_for, "steps | passes: for the best number of steps, or of passes over the rows");
  v("test", c.test, "evaluate the test rows at the end; false while configurations are compared");
  v("eval_every", c.eval_every, "steps between evaluations; 0 = at the end of each epoch");
  v("log_every", c.log_every, "steps between lines of metrics.jsonl");
  v("checkpoint_every", c.checkpoint_every, "steps between checkpoints; 0 = only at the end");
  v("accumulate", c.accumulate, "batches in one optimiser step");
  v("clip_norm", c.clip_norm, "global gradient norm at most; 0 = no clipping");
  v("ema", c.ema, "decay of averaged weights, which are then evaluated and kept; 0 = none");
  v("threads", c.threads, "0 = OMP_NUM_THREADS or all cores");
  v("device", c.device, "auto | cpu | cuda | cuda:N (also --device); auto = a card where there is one");
  v("precision", c.precision, "f32 | bf16 (also --precision): what activations are computed in");
}

template <class V>
void visit_fields(ScheduleOptions& c, V& v) {
  v("name", c.name, "constant | cosine | step");
  v("warmup_steps", c.warmup_steps, "steps of linear warm-up");
  v("total_steps", c.total_steps, "cosine: steps until the end; 0 = the length of the run");
  v("final_share", c.final_share, "cosine: share of the learning rate that is left at the end");
  v("step_every", c.step_every, "step: multiply the learning rate by step_factor every so many steps");
  v("step_factor", c.step_factor, "");
}

template <class V>
void visit_fields(RuleOptions& c, V& v) {
  v("name", c.name,
    "dense: sgd | rmsprop | adagrad | adam | adamw; tables: sgd | adagrad | row_wise_adagrad | lazy_adam");
  v("lr", c.lr, "learning rate");
  v("beta1", c.beta1, "adam: decay of the first moment");
  v("beta2", c.beta2, "adam: decay of the second moment");
  v("decay", c.decay, "rmsprop: decay of the mean squared gradient");
  v("momentum", c.momentum, "sgd");
  v("nesterov", c.nesterov, "sgd with momentum");
  v("eps", c.eps, "");
  v("weight_decay", c.weight_decay, "");
  v("initial_accumulator", c.initial_accumulator, "adagrad: first value of the sum of squares");
}

template <class V>
void visit_fields(GroupOptions& c, V& v) {
  v("pattern", c.pattern, "dotted parameter names; * matches anything");
  v("lr_scale", c.lr_scale, "times the optimiser's learning rate");
  v("weight_decay", c.weight_decay, "instead of the optimiser's; negative = the same");
  v("freeze", c.freeze, "do not train these");
}

template <class V>
void visit_fields(Config& c, V& v) {
  v("data", c.data, "");
  v("model", c.model, "");
  v("train", c.train, "");
  v("optimizer", c.optimizer, "");
  v("table_optimizer", c.table_optimizer, "");
  v("schedule", c.schedule, "");
  v("groups", c.groups,
    "list of {pattern, lr_scale, weight_decay, freeze}: numbers of their own for some parameters");
}

template <class T>
constexpr bool kIsSection =
    std::is_class_v<T> && !std::is_same_v<T, std::string> && !std::is_same_v<T, JsonText> &&
    !std::is_same_v<T, std::vector<std::string>> && !std::is_same_v<T, std::vector<GroupOptions>>;

// Where a value comes from, for messages: "config.json: train.epochs".
struct Place {
  std::string source, path;

  Place at(const std::string& key) const { return {source, path.empty() ? key : path + "." + key}; }
  std::string text() const { return source + ": " + path; }
};

struct KeyCollector {
  std::vector<std::string> keys;
  template <class T>
  void operator()(const char* key, T&, const char*) {
    keys.emplace_back(key);
  }
};

[[noreturn]] void wrong_type(const Place& place, const char* expected, const json& value) {
  MR_FAIL(place.text(), " needs ", expected, ", got ", value.dump());
}

void read(bool& to, const json& value, const Place& place) {
  if (!value.is_boolean()) wrong_type(place, "true or false", value);
  to = value;
}
void read(int64_t& to, const json& value, const Place& place) {
  // 1e6 is a whole number to a person.
  const bool whole = value.is_number() && std::abs(value.get<double>()) < 9e15 &&
                     value.get<double>() == std::floor(value.get<double>());
  if (!whole) wrong_type(place, "a whole number", value);
  to = value.is_number_float() ? static_cast<int64_t>(value.get<double>()) : value.get<int64_t>();
}
void read(double& to, const json& value, const Place& place) {
  if (!value.is_number()) wrong_type(place, "a number", value);
  to = value;
}
void read(std::string& to, const json& value, const Place& place) {
  if (!value.is_string()) wrong_type(place, "a string", value);
  to = value;
}
void read(std::vector<std::string>& to, const json& value, const Place& place) {
  to.clear();
  if (value.is_string()) return to.push_back(value);
  if (!value.is_array()) wrong_type(place, "a string or a list of strings", value);
  for (const json& item : value) read(to.emplace_back(), item, place);
}
void read(JsonText& to, const json& value, const Place& place) {
  if (!value.is_object()) wrong_type(place, "an object", value);
  json merged = json::parse(to.text);
  merged.merge_patch(value);
  to.text = merged.dump();
}

template <class Section>
requires kIsSection<Section>
void read(Section& to, const json& value, const Place& place);

void read(std::vector<GroupOptions>& to, const json& value, const Place& place) {
  if (!value.is_array()) wrong_type(place, "a list of parameter groups", value);
  to.clear();
  for (const json& item : value) {
    const Place here = place.at(std::to_string(to.size()));
    read(to.emplace_back(), item, here);
  }
}

// The name is ours, everything else is the model's.
void read(ModelConfig& to, const json& value, const Place& place) {
  if (!value.is_object()) wrong_type(place, "an object", value);
  json options = value;
  if (const auto name = options.find("name"); name != options.end()) {
    const std::string before = to.name;
    read(to.name, *name, place.at("name"));
    // Another model's options would only be refused by this one.
    if (to.name != before) to.options = {};
    options.erase(name);
  }
  read(to.options, options, place);
}

struct FieldReader {
  const json& object;
  const Place& place;
  template <class T>
  void operator()(const char* key, T& field, const char*) {
    if (const auto found = object.find(key); found != object.end()) read(field, *found, place.at(key));
  }
};

template <class Section>
requires kIsSection<Section>
void read(Section& to, const json& value, const Place& place) {
  if (!value.is_object()) wrong_type(place, "an object", value);
  KeyCollector known;
  visit_fields(to, known);
  for (const auto& [key, unused] : value.items()) {
    if (std::find(known.keys.begin(), known.keys.end(), key) != known.keys.end()) continue;
    const std::string nearest = nearest_name(key, known.keys);
    MR_FAIL(place.source, ": unknown key ", place.at(key).path,
            nearest.empty() ? "" : "; did you mean " + place.at(nearest).path + "?");
  }
  FieldReader reader{value, place};
  visit_fields(to, reader);
}

template <class T>
ordered_json to_json(const T& value) {
  return value;
}
ordered_json to_json(const JsonText& value) { return ordered_json::parse(value.text); }
ordered_json to_json(const ModelConfig& value) {
  ordered_json object = {{"name", value.name}};
  object.update(ordered_json::parse(value.options.text));
  return object;
}
template <class Section>
requires kIsSection<Section> ordered_json to_json(const Section& section);
ordered_json to_json(const std::vector<GroupOptions>& groups) {
  ordered_json list = ordered_json::array();
  for (const auto& group : groups) list.push_back(to_json(group));
  return list;
}

struct FieldWriter {
  ordered_json& object;
  template <class T>
  void operator()(const char* key, T& field, const char*) {
    object[key] = to_json(std::as_const(field));
  }
};

template <class Section>
requires kIsSection<Section> ordered_json to_json(const Section& section) {
  ordered_json object = ordered_json::object();
  FieldWriter writer{object};
  visit_fields(const_cast<Section&>(section), writer);
  return object;
}

struct Describer {
  std::string path, text;
  template <class T>
  void operator()(const char* key, T& field, const char* help) {
    const std::string name = path.empty() ? key : path + "." + key;
    if constexpr (std::is_same_v<T, ModelConfig>) {
      text += describe_line(name + ".name", field.name,
                            "which model; all other keys of the section are the model's");
    } else if constexpr (kIsSection<T>) {
      Describer inner{name, {}};
      visit_fields(field, inner);
      text += inner.text;
    } else {
      text += describe_line(name, to_json(field).dump(), help);
    }
  }
  static std::string describe_line(std::string name, const std::string& value, const char* help) {
    name += " = " + value;
    if (name.size() < 36) name.resize(36, ' ');
    return "  " + name + "  " + help + "\n";
  }
};

void check_one_of(const char* key, const std::string& value, std::initializer_list<const char*> known) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return;
  std::string list;
  for (const char* name : known) list += (list.empty() ? "" : ", ") + std::string(name);
  const std::string nearest = nearest_name(value, std::vector<std::string>(known.begin(), known.end()));
  MR_FAIL(key, " is \"", value, "\", known are ", list,
          nearest.empty() ? "" : "; did you mean " + nearest + "?");
}

void check_range(const char* key, double value, double least, double most) {
  MR_CHECK(value >= least && value <= most, key, " is ", value, ", it must lie between ", least, " and ",
           most);
}

json parse_json(const std::string& text, const std::string& source) {
  try {
    // Comments are allowed: a configuration is read by people.
    return json::parse(text, nullptr, true, true);
  } catch (const json::exception& error) {
    MR_FAIL(source, " is not JSON: ", error.what());
  }
}

// "train.epochs=3" -> {"train": {"epochs": 3}}
json parse_set(const std::string& set) {
  const auto equals = set.find('=');
  MR_CHECK(equals != std::string::npos && equals > 0, "--set ", set, ": expected section.key=value");
  const std::string text = set.substr(equals + 1);
  json value = json::parse(text, nullptr, false);
  if (value.is_discarded()) value = text;
  std::string path = set.substr(0, equals);
  for (size_t dot; !path.empty(); path = dot == std::string::npos ? "" : path.substr(0, dot)) {
    dot = path.rfind('.');
    const std::string key = dot == std::string::npos ? path : path.substr(dot + 1);
    value = json{{key, std::move(value)}};
  }
  return value;
}

void collect_differences(const json& before, const json& after, const std::string& path,
                         std::vector<std::string>& differences) {
  if (!before.is_object() || !after.is_object()) {
    if (before != after) differences.push_back(concat_message(path, ": ", before, " -> ", after));
    return;
  }
  json keys = before;
  keys.update(after);
  for (const auto& [key, unused] : keys.items())
    collect_differences(before.value(key, json()), after.value(key, json()),
                        path.empty() ? key : path + "." + key, differences);
}

void make_relative_to(const std::filesystem::path& folder, std::string& path) {
  if (!path.empty() && !std::filesystem::path(path).is_absolute()) path = (folder / path).lexically_normal();
}

}  // namespace

void check_config(const Config& c) {
  constexpr double kMany = 9e15;
  check_one_of("data.shuffle", c.data.shuffle, {"rows", "requests"});
  check_range("data.batch_size", static_cast<double>(c.data.batch_size), 1, kMany);
  check_range("data.max_events", static_cast<double>(c.data.max_events), 0, kMany);
  check_range("data.workers", static_cast<double>(c.data.workers), 0, 256);
  check_one_of("train.select_by", c.train.select_by, {"auc", "uauc", "log_loss"});
  check_one_of("train.refit_for", c.train.refit_for, {"steps", "passes"});
  if (!parse_device(c.train.device))
    check_one_of("train.device", c.train.device, {"auto", "cpu", "cuda", "cuda:N"});
  check_one_of("train.precision", c.train.precision, {"f32", "bf16"});
  for (const auto& [key, value] : {std::pair{"train.seed", c.train.seed},
                                   {"train.epochs", c.train.epochs},
                                   {"train.max_steps", c.train.max_steps},
                                   {"train.patience", c.train.patience},
                                   {"train.eval_every", c.train.eval_every},
                                   {"train.log_every", c.train.log_every},
                                   {"train.checkpoint_every", c.train.checkpoint_every},
                                   {"train.threads", c.train.threads},
                                   {"schedule.warmup_steps", c.schedule.warmup_steps},
                                   {"schedule.total_steps", c.schedule.total_steps},
                                   {"schedule.step_every", c.schedule.step_every}})
    check_range(key, static_cast<double>(value), 0, kMany);
  check_range("train.accumulate", static_cast<double>(c.train.accumulate), 1, kMany);
  check_range("train.max_minutes", c.train.max_minutes, 0, kMany);
  check_range("train.clip_norm", c.train.clip_norm, 0, kMany);
  check_range("train.ema", c.train.ema, 0, 0.999999999);
  check_one_of("schedule.name", c.schedule.name, {"constant", "cosine", "step"});
  check_range("schedule.final_share", c.schedule.final_share, 0, 1);
  MR_CHECK(c.schedule.name != "step" || c.schedule.step_every > 0,
           "schedule.name is step, schedule.step_every is 0");
  check_dense_rule(c.optimizer);
  check_table_rule(c.table_optimizer);
}

Config load_config(const std::string& file, std::span<const std::string> sets) {
  Config config;
  if (!file.empty()) {
    read(config, parse_json(read_text_file(file), file), {file, ""});
    const auto folder = std::filesystem::path(file).parent_path();
    make_relative_to(folder, config.data.path);
    for (std::string& path : config.data.schema) make_relative_to(folder, path);
  }
  for (const auto& set : sets) read(config, parse_set(set), {"--set " + set, ""});
  check_config(config);
  return config;
}

std::string dump_config(const Config& config) { return to_json(config).dump(2) + "\n"; }

std::vector<std::string> config_differences(const Config& before, const Config& after) {
  std::vector<std::string> differences;
  collect_differences(to_json(before), to_json(after), "", differences);
  return differences;
}

std::string describe_config() {
  Config config;
  Describer describer;
  visit_fields(config, describer);
  return describer.text;
}

}  // namespace mixrec
