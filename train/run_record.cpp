#include "mixrec/train/run_record.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/core/printable.h"
#include "mixrec/data/encoders/checked_folder.h"
#include "mixrec/data/feature_encoder.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

namespace mixrec {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string random_id() {
  std::random_device random;
  char text[24];
  std::snprintf(text, sizeof text, "%08x%08x", random(), random());
  return text;
}

// Of the text, not of what it is read as: a later release may read defaults into it that were not there.
std::string config_hash(const std::string& text) {
  json config = json::parse(text);
  // Where the schema lies does not count, what it says is compared by itself.
  for (const char* key : {"path", "schema", "workers"}) config["data"].erase(key);
  for (const char* key : {"threads", "device", "checkpoint_every"}) config["train"].erase(key);
  return hash_of(config.dump());
}

void collect(const json& before, const json& now, const std::string& place, std::vector<std::string>& all) {
  const auto shown = [](const json& value) {
    if (value.is_null()) return std::string("nothing");
    std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
    return text.size() > 200 ? text.substr(0, 200) + "…" : text;
  };
  const auto of_kind = [&](const auto& is) { return is(before) && is(now); };
  if (of_kind([](const json& value) { return value.is_object(); })) {
    json keys = before;
    keys.update(now);
    for (const auto& [key, _] : keys.items())
      collect(before.value(key, json()), now.value(key, json()), place.empty() ? key : place + "." + key,
              all);
  } else if (of_kind([](const json& value) { return value.is_array(); })) {
    for (size_t i = 0; i < std::max(before.size(), now.size()); ++i)
      collect(i < before.size() ? before[i] : json(), i < now.size() ? now[i] : json(),
              concat_message(place, "[", i, "]"), all);
  } else if (before != now) {
    all.push_back(concat_message(place, ": ", shown(before), " -> ", shown(now)));
  }
}

std::string listed(const std::vector<std::string>& sentences) {
  std::string all;
  for (const std::string& sentence : sentences) all += "\n  " + sentence;
  return all;
}

}  // namespace

Scalars RunRecord::labels() const {
  return {{"format", std::to_string(format)},
          {"run", run},
          {"config", config},
          {"encoders", encoders},
          {"data", data}};
}

std::string RunRecord::json_labels() const {
  const std::string text =
      nlohmann::ordered_json{{"format", format}, {"run", run}, {"config", config}}.dump();
  return text.substr(1, text.size() - 2);
}

void RunRecord::check(const Scalars& of_file, const std::string& path) const {
  if (format == 1) {
    MR_CHECK(!of_file.contains("run"), path, " belongs to a run of a newer format than its folder's");
    return;
  }
  constexpr std::pair<const char*, const char*> kMeanings[] = {
      {"run", "belongs to another run"},
      {"config", "was made with another configuration"},
      {"encoders", "was made with other encoders"},
      {"data", "was made from other data"}};
  const Scalars expected = labels();
  for (const auto& [label, meaning] : kMeanings) {
    const auto found = of_file.find(label);
    MR_CHECK(found != of_file.end(), path, " does not say which run it belongs to: it lacks '", label, "'");
    MR_CHECK(found->second == expected.at(label), path, " ", meaning, ": its ", label, " is ", found->second,
             ", the run's is ", expected.at(label));
  }
}

RunRecord new_record(const Dataset& data, const Config& config, const std::string& run) {
  RunRecord record;
  record.run = random_id();
  record.config = config_hash(dump_config(config));
  record.encoders = data.encoders().id;
  record.content = data.fingerprint();
  record.data = record.content.digest();
  const fs::path folder = fs::weakly_canonical(data.folder());
  record.data_path = folder;
  record.data_relative = folder.lexically_relative(fs::weakly_canonical(run));
  return record;
}

void begin_run(const RunFolder& folder, const RunRecord& record, const Dataset& data) {
  write_features(data, folder.encoders_path(), record.labels());
  json text = {{"format", record.format},
               {"run", record.run},
               {"config", record.config},
               {"encoders", record.encoders},
               {"data", record.data},
               {"data_path", record.data_path},
               {"data_relative", record.data_relative}};
  text["content"] = json::parse(fingerprint_text(record.content));
  text["hash"] = hash_of(text.dump());
  write_file_atomically(folder.record_path(), text.dump(1) + "\n");
}

RunRecord read_record(const RunFolder& folder) {
  RunRecord record;
  const std::string path = folder.record_path();
  if (!fs::exists(path)) {
    MR_CHECK(!fs::exists(folder.path() + "/encoders"), folder.path(),
             " holds encoders/ without the run.json that says whose they are");
    record.format = 1;
    return record;
  }
  try {
    json text = json::parse(read_text_file(path));
    record.format = text.at("format");
    MR_CHECK(record.format == RunRecord::kFormat, path, " is of format ", record.format,
             "; this program reads formats 1 and ", RunRecord::kFormat,
             ": a newer release of mixrec reads it");
    const std::string hash = text.at("hash");
    text.erase("hash");
    MR_CHECK(hash_of(text.dump()) == hash, path, " has been changed: its hash does not fit");
    text.at("run").get_to(record.run), text.at("config").get_to(record.config);
    text.at("encoders").get_to(record.encoders), text.at("data").get_to(record.data);
    text.at("data_path").get_to(record.data_path), text.at("data_relative").get_to(record.data_relative);
    record.content = parse_fingerprint(text.at("content").dump());
  } catch (const json::exception&) {
    MR_FAIL(path, " is damaged: it is not what mixrec wrote");
  }
  load_config(folder.config_path(), {});  // its error says what is wrong with a text that is no configuration
  const std::string now = config_hash(read_text_file(folder.config_path()));
  MR_CHECK(now == record.config, folder.config_path(), " has been changed since the run began: its hash is ",
           now, ", it was ", record.config);
  const std::string encoders = folder.encoders_path();
  record.check(check_folder(encoders, Encoders::kFormat).labels, encoders);
  MR_CHECK(read_encoders(encoders).id == record.encoders, encoders, " are not the encoders of the run");
  return record;
}

void check_has_encoders(const RunFolder& folder, const RunRecord& record) {
  MR_CHECK(fs::exists(folder.encoders_path()), folder.path(),
           record.format == 1
               ? " is of format 1 and not finished: it does not hold what its data was encoded with; "
                 "mixrec 0.1 reads it"
               : " holds no encoders");
}

namespace {

void check_report(const std::string& path, const std::string& line, const RunRecord& record) {
  const json text = json::parse(line, nullptr, false);
  if (!text.is_object()) return;
  const auto label = [&](const char* name) {
    return text.contains(name) && text[name].is_string() ? text[name].get<std::string>() : "";
  };
  MR_CHECK(text.contains("run"), path, " does not say which run it belongs to: it lacks 'run'");
  MR_CHECK(label("run") == record.run, path, " belongs to another run: its run is ", printable(label("run")),
           ", the folder's is ", record.run);
  MR_CHECK(label("config") == record.config, path, " was made with another configuration: its config is ",
           printable(label("config")), ", the run's is ", record.config);
}

}  // namespace

void check_reports(const RunFolder& folder, const RunRecord& record) {
  for (const std::string& path : {folder.metrics_path(), folder.result_path()}) {
    std::ifstream in(path);
    std::string line;
    if (std::getline(in, line) && !in.eof()) check_report(path, line, record);
  }
}

bool may_change(const std::string& difference) {
  for (const char* key : {"data.path", "data.schema", "data.workers", "train.threads", "train.device",
                          "train.checkpoint_every"})
    if (difference.starts_with(std::string(key) + ":")) return true;
  return false;
}

std::vector<std::string> json_differences(const std::string& before, const std::string& now) {
  std::vector<std::string> all;
  collect(json::parse(before), json::parse(now), "", all);
  return all;
}

void check_resumable(const RunFolder& folder, const RunRecord& record, const Config& config,
                     const std::string& schema, const Fingerprint& content) {
  MR_CHECK(record.format > 1, "cannot resume ", folder.path(),
           ": it is of format 1, which does not say what data it was trained on; end it with mixrec 0.1, or "
           "begin a new run");
  std::vector<std::string> all;
  for (const std::string& difference : config_differences(load_config(folder.config_path(), {}), config))
    if (!may_change(difference)) all.push_back(difference);
  for (const std::string& difference :
       json_differences(read_text_file(folder.encoders_path() + "/schema.json"), schema))
    all.push_back("schema " + difference);
  for (const std::string& difference : differences(record.content, content))
    all.push_back("data " + difference);
  MR_CHECK(all.empty(), "cannot resume ", folder.path(),
           " with other data or settings than it was begun with:", listed(all));
}

}  // namespace mixrec
