#include "mixrec/train/config.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/core/files/json_text.h"
#include "mixrec/core/printable.h"
#include "mixrec/models/options.h"
#include "mixrec/train/device_choice.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

namespace mixrec {

namespace {

using nlohmann::json;

constexpr OptionRange kCount = between(0, kMostCount);

// A text of which nlohmann makes no exception, whatever bytes it holds.
std::string string_json(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

// ".98", "5." and "+3" are numbers to a person and none to JSON.
std::optional<std::string> number_text(const std::string& text) {
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  if (begin == end || (*begin != '-' && *begin != '.' && (*begin < '0' || *begin > '9'))) return {};
  double value = 0;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) return {};
  return json(value).dump();
}

// "train.epochs=3" -> {"train": {"epochs": 3}}
std::string parse_set(const std::string& set) {
  const auto equals = set.find('=');
  if (equals == std::string::npos || equals == 0)
    throw Error("--set " + printable(set) + ": expected section.key=value");
  std::string text = set.substr(equals + 1);
  if (!json::accept(text)) text = number_text(text).value_or(string_json(text));
  std::string path = set.substr(0, equals);
  for (size_t dot; !path.empty(); path = dot == std::string::npos ? "" : path.substr(0, dot)) {
    dot = path.rfind('.');
    text = "{" + string_json(dot == std::string::npos ? path : path.substr(dot + 1)) + ": " + text + "}";
  }
  return text;
}

// The name of the model that a text of the configuration asks for, "" when it asks for none.  Errors are left to
// the reader.
std::string model_name_in(const std::string& text, const std::string& source) {
  const json config = parse_json_text<json>(text, source);
  if (!config.is_object() || !config.contains("model") || !config["model"].is_object()) return "";
  const json name = config["model"].value("name", json());
  return name.is_string() ? name.get<std::string>() : "";
}

void read_over(Config& config, const std::string& text, const std::string& source) {
  Config read = config;
  // Another model's options would only be refused by this one.
  if (const std::string name = model_name_in(text, source); !name.empty() && name != read.model.name)
    read.model.options = {};
  read_options({source}, text, read);
  config = std::move(read);
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

void DataConfig::visit(OptionVisitor& v) {
  v.text("path", path, "folder of the data set (also --data)");
  v.list("schema", schema,
         "schema file, or several to choose from by the files in the folder; [] = its own schema.json or a "
         "bundled one");
  v.object("overrides", overrides.text, "JSON object merged over the schema");
  v.flag("outside", outside,
         "files of the schema may lie outside the folder, by `..`, a full path or a link");
  v.list("tasks", tasks, "labels to train; [] = all of the schema");
  v.number("batch_size", batch_size, between(1, kMostCount), "candidates in one batch");
  v.number("max_events", max_events, kCount, "history events in one batch at most; 0 = no cap");
  v.number("workers", workers, between(0, 256), "threads that assemble batches ahead of the step");
  v.choice("shuffle", shuffle, {"rows", "requests"}, "requests keeps the candidates of a request together");
}

void ModelConfig::visit(OptionVisitor& v) {
  v.text("name", name, "which model; all other keys of the section are the model's");
  v.other_keys(options.text, "");
}

std::vector<MetricName> TrainConfig::metrics_to_compute() const {
  std::vector<MetricName> names = parse_metrics_list(metrics, "train.metrics");
  MetricName chosen = parse_metric(select_by, "train.select_by");
  if (std::find(names.begin(), names.end(), chosen) == names.end()) names.push_back(std::move(chosen));
  return names;
}

void TrainConfig::visit(OptionVisitor& v) {
  v.number("seed", seed, kCount, "of initial weights, order of rows and dropout (also --seed)");
  v.number("epochs", epochs, between(1, kMostCount), "passes over the training rows");
  v.number("max_steps", max_steps, kCount, "stop after so many optimiser steps; 0 = no limit");
  v.number("max_minutes", max_minutes, between(0, kMostCount), "stop after so much time; 0 = no limit");
  v.text("select_by", select_by,
         "the metric that the best step is best in, mean over tasks: auc, ndcg@10, ...");
  v.list("metrics", metrics,
         "computed beside it: auc, uauc, request_auc, log_loss, normalised_entropy, calibration, rmse, mae, "
         "ndcg@k, mrr, hr@k by request, user_ndcg@k, user_mrr, user_hr@k");
  v.number("patience", patience, kCount, "stop after so many evaluations without a better one; 0 = never");
  v.flag("refit", refit, "afterwards train afresh on the whole training period, validation rows included");
  v.choice("refit_for", refit_for, {"steps", "passes"},
           "for the best number of steps, or of passes over the rows");
  v.flag("test", test, "evaluate the test rows at the end; false while configurations are compared");
  v.number("eval_every", eval_every, kCount, "steps between evaluations; 0 = at the end of each epoch");
  v.number("log_every", log_every, kCount, "steps between lines of metrics.jsonl");
  v.number("checkpoint_every", checkpoint_every, kCount, "steps between checkpoints; 0 = only at the end");
  v.number("accumulate", accumulate, between(1, kMostCount), "batches in one optimiser step");
  v.number("clip_norm", clip_norm, between(0, kMostCount), "global gradient norm at most; 0 = no clipping");
  v.number("ema", ema, below(0, 1), "decay of averaged weights, which are then evaluated and kept; 0 = none");
  v.number("threads", threads, between(0, 4096), "0 = OMP_NUM_THREADS or all cores");
  v.text("device", device, "auto | cpu | cuda | cuda:N (also --device); auto = a GPU where there is one");
  v.choice("precision", precision, {"f32", "bf16"}, "(also --precision): what activations are computed in");
}

void Config::visit(OptionVisitor& v) {
  v.nested("data", data, "");
  v.nested("model", model, "");
  v.nested("train", train, "");
  v.nested("optimizer", optimizer, "");
  v.nested("table_optimizer", table_optimizer, "");
  v.nested("schedule", schedule, "");
  v.list("groups", groups,
         "list of {pattern, lr_scale, weight_decay, freeze}: numbers of their own for some parameters");
}

void check_config(const Config& c) {
  Config copy = c;
  check_options("", [&](OptionVisitor& v) { copy.visit(v); });
  if (!parse_device(c.train.device))
    detail::check_option("train.device", c.train.device, {"auto", "cpu", "cuda", "cuda:N"});
  if (c.schedule.name == "step" && c.schedule.step_every == 0)
    throw Error("schedule.name is step, schedule.step_every is 0");
  c.train.metrics_to_compute();
  check_dense_rule(c.optimizer);
  check_table_rule(c.table_optimizer);
}

Config load_config(const std::string& file, std::span<const std::string> sets, const std::string& model) {
  Config config;
  config.model.name = model;
  if (!file.empty()) {
    read_over(config, read_text_file(file), file);
    const auto folder = std::filesystem::path(file).parent_path();
    make_relative_to(folder, config.data.path);
    for (std::string& path : config.data.schema) make_relative_to(folder, path);
  }
  for (const auto& set : sets) read_over(config, parse_set(set), "--set " + printable(set));
  check_config(config);
  return config;
}

std::string dump_config(const Config& config) { return write_options(config, 2) + "\n"; }

std::vector<std::string> config_differences(const Config& before, const Config& after) {
  std::vector<std::string> differences;
  collect_differences(json::parse(write_options(before)), json::parse(write_options(after)), "", differences);
  return differences;
}

std::string describe_config() { return describe_options("", Config{}); }

}  // namespace mixrec
