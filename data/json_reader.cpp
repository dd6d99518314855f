#include "mixrec/data/json_reader.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/json_text.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace mixrec {

namespace {

using Json = nlohmann::ordered_json;

const Json& of(const std::shared_ptr<const void>& json) { return *static_cast<const Json*>(json.get()); }

void erase(Json& json, const std::vector<std::string>& path, size_t depth) {
  const std::string& key = path[depth];
  const bool last = depth + 1 == path.size();
  if (key == "*") {
    for (auto& member : json) erase(member, path, depth + 1);
  } else if (json.is_object() && json.contains(key)) {
    last ? static_cast<void>(json.erase(key)) : erase(json[key], path, depth + 1);
  }
}

}  // namespace

JsonValue JsonValue::parse(const std::string& text, const std::string& called) {
  return {std::make_shared<const Json>(parse_json_text<Json>(text, called)), called};
}

bool JsonValue::is_text() const { return of(json_).is_string(); }

bool JsonValue::is_null() const { return of(json_).is_null(); }
bool JsonValue::is_list() const { return of(json_).is_array(); }
bool JsonValue::is_object() const { return of(json_).is_object(); }
bool JsonValue::is_whole() const {
  const Json& json = of(json_);
  return json.is_number_integer() && !(json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX);
}

int64_t JsonValue::whole() const {
  MR_CHECK(is_whole(), place_, ": needs a whole number, got ", shown_json(of(json_)));
  return of(json_).get<int64_t>();
}

double JsonValue::number() const {
  const Json& json = of(json_);
  MR_CHECK(json.is_number() || json.is_boolean(), place_, ": needs a number, got ", shown_json(json));
  return json.is_boolean() ? (json.get<bool>() ? 1 : 0) : json.get<double>();
}

std::string JsonValue::text() const {
  MR_CHECK(is_text(), place_, ": needs a text in quotes, got ", shown_json(of(json_)));
  return of(json_).get<std::string>();
}

JsonObject JsonValue::object() const {
  MR_CHECK(of(json_).is_object(), place_, ": needs an object in braces, got ", shown_json(of(json_)));
  return JsonObject(*this);
}

std::vector<JsonValue> JsonValue::list() const {
  MR_CHECK(of(json_).is_array(), place_, ": needs a list in brackets, got ", shown_json(of(json_)));
  std::vector<JsonValue> values;
  for (const auto& one : of(json_))
    values.push_back({{json_, &one}, concat_message(place_, "[", values.size(), "]")});
  return values;
}

std::string JsonValue::dump_without(const std::vector<std::vector<std::string>>& paths) const {
  Json json = of(json_);
  for (const auto& path : paths) erase(json, path, 0);
  return json.dump();
}

bool JsonObject::has(const std::string& key) {
  asked_.insert(key);
  return of(value_.json_).contains(key);
}

JsonValue JsonObject::value(const std::string& key) {
  MR_CHECK(has(key), place(), ": '", key, "' is missing");
  return {{value_.json_, &of(value_.json_).at(key)}, at(key)};
}

std::string JsonObject::text(const std::string& key, const std::string& otherwise) {
  return has(key) ? text(key) : otherwise;
}

double JsonObject::number(const std::string& key, double otherwise) {
  if (!has(key)) return otherwise;
  const Json& json = of(value_.json_).at(key);
  MR_CHECK(json.is_number(), at(key), ": needs a number, got ", shown_json(json));
  return json.get<double>();
}

int64_t JsonObject::integer(const std::string& key, int64_t otherwise, int64_t least, int64_t most) {
  if (!has(key)) return otherwise;
  const Json& json = of(value_.json_).at(key);
  // 1e6 is a whole number to a person; a double holds whole numbers up to 2^53 exactly.
  const double number = json.is_number() ? json.get<double>() : 0.5;
  MR_CHECK(number == std::floor(number) && number >= static_cast<double>(least), at(key),
           ": needs a whole number of at least ", least, ", got ", shown_json(json));
  MR_CHECK(number <= static_cast<double>(most), at(key), ": must be at most ", most, ", got ",
           shown_json(json));
  return json.is_number_float() ? static_cast<int64_t>(number) : json.get<int64_t>();
}

bool JsonObject::flag(const std::string& key, bool otherwise) {
  if (!has(key)) return otherwise;
  const Json& json = of(value_.json_).at(key);
  MR_CHECK(json.is_boolean(), at(key), ": needs true or false, got ", shown_json(json));
  return json.get<bool>();
}

std::string JsonObject::choice(const std::string& key, const std::string& otherwise,
                               const std::vector<std::string>& choices) {
  const std::string chosen = text(key, otherwise);
  if (std::find(choices.begin(), choices.end(), chosen) != choices.end()) return chosen;
  std::string list;
  for (const auto& one : choices) list += (list.empty() ? "" : ", ") + one;
  MR_FAIL(at(key), ": '", printable(chosen), "' is not one of ", list);
}

std::vector<std::string> JsonObject::texts(const std::string& key) {
  std::vector<std::string> all;
  if (!has(key)) return all;
  const JsonValue given = value(key);
  if (given.is_text()) return {given.text()};
  for (const auto& one : given.list()) all.push_back(one.text());
  return all;
}

std::vector<double> JsonObject::numbers(const std::string& key) {
  const JsonValue given = value(key);
  const Json& json = of(given.json_);
  MR_CHECK(
      json.is_array() && std::all_of(json.begin(), json.end(), [](auto& one) { return one.is_number(); }),
      at(key), ": needs a list of numbers, got ", shown_json(json));
  return json.get<std::vector<double>>();
}

std::vector<std::string> JsonObject::keys() {
  std::vector<std::string> all;
  for (const auto& [key, _] : of(value_.json_).items()) all.push_back(key);
  asked_.insert(all.begin(), all.end());
  return all;
}

std::vector<std::string> JsonObject::names() {
  const std::vector<std::string> all = keys();
  for (const std::string& name : all) MR_CHECK(!name.empty(), place(), ": a name is empty");
  return all;
}

void JsonObject::finish() const {
  for (const auto& [key, _] : of(value_.json_).items()) {
    if (asked_.count(key)) continue;
    const auto near = nearest_name(key, asked_);
    MR_FAIL(place(), ": unknown key '", printable(key), "'",
            near.empty() ? "" : "; did you mean '" + near + "'?");
  }
}

}  // namespace mixrec
