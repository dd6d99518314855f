#include "mixrec/data/encoders/encoders.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/data/encoders/checked_folder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace mixrec {

using Json = nlohmann::ordered_json;

static void to_json(Json& to, const Encoders::Feature& from) {
  to = {{"name", from.name}, {"numbers", from.numbers}, {"unknown", from.unknown}};
  if (!from.item_values.empty()) to["item_values"] = from.item_values;
}
static void from_json(const Json& from, Encoders::Feature& to) {
  from.at("name").get_to(to.name), from.at("numbers").get_to(to.numbers);
  from.at("unknown").get_to(to.unknown);
  to.item_values = from.value("item_values", "");
}
static void to_json(Json& to, const Encoders::Table& from) {
  to = {{"name", from.name},
        {"rows", from.rows},
        {"rows_training", from.rows_training},
        {"vocabulary", from.vocabulary}};
}
static void from_json(const Json& from, Encoders::Table& to) {
  from.at("name").get_to(to.name), from.at("rows").get_to(to.rows);
  from.at("rows_training").get_to(to.rows_training), from.at("vocabulary").get_to(to.vocabulary);
}
static void to_json(Json& to, const Encoders::Beginning& from) {
  to = {{"day", from.day}, {"time", from.time}};
}
static void from_json(const Json& from, Encoders::Beginning& to) {
  from.at("day").get_to(to.day), from.at("time").get_to(to.time);
}

namespace {

std::string file_name(int64_t vocabulary) { return concat_message("vocabulary.", vocabulary, ".txt"); }
std::string item_values_name(size_t feature) { return concat_message("item_values.", feature, ".txt"); }

template <class All>
auto find_named(const All& all, const std::string& name) -> decltype(all.data()) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.name == name; });
  return found == all.end() ? nullptr : &*found;
}

void check_sizes(const Encoders& encoders, const FolderIndex& index, const std::string& path) {
  for (const auto& table : encoders.tables) {
    const bool fits = table.rows > 0 && table.rows <= UINT32_MAX && table.rows_training > 0 &&
                      table.rows_training <= table.rows;
    if (!fits)
      MR_FAIL(path, ": the table '", table.name, "' cannot have ", table.rows, " rows, ", table.rows_training,
              " of them from training");
    if (table.vocabulary < 0) continue;
    const auto file = index.files.find(file_name(table.vocabulary));
    if (file == index.files.end() || file->second.lines != table.rows - 1)
      MR_FAIL(path, ": the table '", table.name, "' has ", table.rows - 1, " values, its file ",
              file_name(table.vocabulary), " has ", file == index.files.end() ? 0 : file->second.lines,
              " lines");
  }
  for (const auto& feature : encoders.features)
    for (const double number : feature.numbers)
      if (!std::isfinite(number))
        MR_FAIL(path, ": a number of the feature '", feature.name, "' is not finite");
}

}  // namespace

const Encoders::Feature* Encoders::find_feature(const std::string& name) const {
  return find_named(features, name);
}
const Encoders::Table* Encoders::find_table(const std::string& name) const {
  return find_named(tables, name);
}

std::string Encoders::vocabulary_file(const Table& table) const {
  return folder + "/" + file_name(table.vocabulary);
}

Dictionary Encoders::vocabulary(const Table& table) const {
  Dictionary texts = parse_lines(read_text_file(vocabulary_file(table)));
  const int64_t most = (format == 1 ? table.rows_training : table.rows) - 1;
  if (texts.size() != most)
    MR_FAIL(vocabulary_file(table), " has been changed: it has ", texts.size(), " different values where ",
            most, " were written");
  return texts;
}

std::string Encoders::item_values_file(const std::string& folder, size_t feature) {
  return folder + "/" + item_values_name(feature);
}

void write_encoders(Encoders& encoders, const std::string& folder) {
  encoders.folder = folder;
  for (size_t f = 0; f < encoders.features.size(); ++f)
    if (const std::string path = Encoders::item_values_file(folder, f); std::filesystem::exists(path))
      encoders.features[f].item_values = describe_file(path).hash;
  Json json;
  json["format"] = encoders.format;
  json["features"] = encoders.features;
  json["tables"] = encoders.tables;
  json["signal_rows"] = encoders.signal_rows;
  if (encoders.validation) json["validation"] = *encoders.validation;
  if (encoders.test) json["test"] = *encoders.test;
  Json hashes = Json::array();
  for (const auto& table : encoders.tables)
    if (table.vocabulary >= 0) hashes.push_back(describe_file(encoders.vocabulary_file(table)).hash);
  json["vocabularies"] = hashes;
  const std::string text = json.dump(1) + "\n";
  encoders.id = hash_of(text);
  write_file_atomically(folder + "/encoders.json", text);
  write_index(folder, Encoders::kFormat);
}

Encoders read_encoders(const std::string& folder) {
  if (!has_index(folder)) MR_FAIL(folder, " holds no encoders: it has no index.json");
  const FolderIndex index = check_folder(folder, Encoders::kFormat);
  const std::string path = folder + "/encoders.json";
  const std::string text = read_text_file(path);
  Encoders encoders;
  std::vector<std::string> hashes;
  try {
    const Json json = Json::parse(text);
    json.at("features").get_to(encoders.features), json.at("tables").get_to(encoders.tables);
    json.at("signal_rows").get_to(encoders.signal_rows);
    json.at("vocabularies").get_to(hashes);
    encoders.format = json.at("format");
    if (json.contains("validation")) encoders.validation = json.at("validation").get<Encoders::Beginning>();
    if (json.contains("test")) encoders.test = json.at("test").get<Encoders::Beginning>();
  } catch (const nlohmann::json::exception& error) {
    MR_FAIL(path, " is damaged: ", error.what());
  }
  check_sizes(encoders, index, path);
  // An edited file is found out even beside an index that was made to fit.
  const auto check_named = [&](const std::string& file, bool fits) {
    if (!fits)
      MR_FAIL(folder, "/", file, " has been changed: it is not the file that encoders.json speaks of");
  };
  for (size_t t = 0, v = 0; t < encoders.tables.size(); ++t) {
    if (encoders.tables[t].vocabulary < 0) continue;
    const std::string file = file_name(encoders.tables[t].vocabulary);
    check_named(file, v < hashes.size() && index.files.at(file).hash == hashes[v]);
    ++v;
  }
  for (size_t f = 0; f < encoders.features.size(); ++f) {
    const std::string file = item_values_name(f), &hash = encoders.features[f].item_values;
    if (!hash.empty()) check_named(file, index.files.contains(file) && index.files.at(file).hash == hash);
  }
  encoders.folder = folder;
  encoders.id = hash_of(text);
  return encoders;
}

std::string escaped_line(std::string_view text) {
  std::string line;
  for (const char c : text) {
    if (c == '\n' || c == '\\') line += '\\';
    line += c == '\n' ? 'n' : c;
  }
  return line += '\n';
}

Dictionary parse_lines(std::string_view lines) {
  Dictionary texts;
  for_each_line(lines, [&](const std::string& text) { texts.add(text); });
  return texts;
}

void for_each_line(std::string_view lines, const std::function<void(const std::string&)>& take) {
  std::string text;
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(line.size() + 1, lines.size()));
    text.clear();
    for (size_t i = 0; i < line.size(); ++i) {
      const bool escape = line[i] == '\\' && i + 1 < line.size();
      if (escape) ++i;
      text += escape && line[i] == 'n' ? '\n' : line[i];
    }
    take(text);
  }
}

}  // namespace mixrec
