#include "mixrec/models/options.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/json_text.h"
#include "mixrec/core/printable.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace mixrec {

namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void fail(const OptionPlace& place, const std::string& message) {
  throw Error(printable_message((place.source.empty() ? "" : place.source + ": ") + message));
}

Json parse(const OptionPlace& place, const std::string& text) {
  const std::string& called = place.source.empty() ? place.path : place.source;
  return parse_json_text<Json>(text.empty() ? "{}" : text, called);
}

class Reader : public OptionVisitor {
 public:
  Reader(OptionPlace place, const Json& object) : place_(std::move(place)), object_(object) {
    if (!object.is_object()) wrong_type(place_.path, "an object", object);
  }

  void number(const char* name, int64_t& field, OptionRange range, const char*) override {
    if (const Json* value = find(name)) field = whole(at(name), *value, range);
  }
  void number(const char* name, double& field, OptionRange range, const char*) override {
    const Json* value = find(name);
    if (!value) return;
    if (!value->is_number()) wrong_type(at(name), "a number", *value);
    check_range(at(name), *value, range);
    field = value->get<double>();
  }
  void flag(const char* name, bool& field, const char*) override {
    const Json* value = find(name);
    if (!value) return;
    if (!value->is_boolean()) wrong_type(at(name), "true or false", *value);
    field = value->get<bool>();
  }
  void text(const char* name, std::string& field, const char*) override {
    if (const Json* value = find(name)) field = text_of(at(name), *value);
  }
  void choice(const char* name, std::string& field, const std::vector<std::string>& choices,
              const char*) override {
    const Json* value = find(name);
    if (!value) return;
    const std::string chosen = text_of(at(name), *value);
    detail::check_option(prefix() + at(name), chosen, choices);
    field = chosen;
  }
  void list(const char* name, std::vector<std::string>& field, const char*) override {
    const Json* value = find(name);
    if (!value) return;
    field.clear();
    if (value->is_string()) return field.push_back(value->get<std::string>());
    if (!value->is_array()) wrong_type(at(name), "a string or a list of strings", *value);
    for (const Json& item : *value) field.push_back(text_of(at(name, field.size()), item));
  }
  void list(const char* name, std::vector<int64_t>& field, OptionRange range, const char*) override {
    const Json* value = find(name);
    if (!value) return;
    if (!value->is_array()) wrong_type(at(name), "a list of whole numbers", *value);
    field.clear();
    for (const Json& item : *value) field.push_back(whole(at(name, field.size()), item, range));
  }
  void nested(const char* name, const Visit& visit, const char*) override {
    if (const Json* value = find(name)) read({place_.source, at(name)}, *value, visit);
  }
  void members(const char* name, const Members& members, const char*) override {
    const Json* value = find(name);
    if (!value) return;
    if (!value->is_array()) wrong_type(at(name), "a list of objects", *value);
    members.resize(0);
    members.resize(value->size());
    for (size_t i = 0; i < value->size(); ++i)
      read({place_.source, at(name, i)}, (*value)[i], [&](OptionVisitor& v) { members.visit(i, v); });
  }
  void object(const char* name, std::string& json, const char*) override {
    const Json* value = find(name);
    if (!value) return;
    if (!value->is_object()) wrong_type(at(name), "an object", *value);
    merge(json, *value);
  }
  void other_keys(std::string& json, const char*) override {
    Json others = Json::object();
    for (const auto& [key, value] : object_.items())
      if (!known(key)) others[key] = value;
    names_.clear();
    others_taken_ = true;
    merge(json, others);
  }

  static void read(OptionPlace place, const Json& value, const Visit& visit) {
    Reader reader(std::move(place), value);
    visit(reader);
    reader.finish();
  }

 private:
  std::string at(const char* name) const { return detail::option_path(place_.path, name); }
  std::string at(const char* name, size_t index) const { return at(name) + "." + std::to_string(index); }

  const Json* find(const char* name) {
    names_.emplace_back(name);
    const auto found = object_.find(name);
    return found == object_.end() ? nullptr : &*found;
  }
  bool known(const std::string& key) const {
    return std::find(names_.begin(), names_.end(), key) != names_.end();
  }

  // Throws when the object has a key that no option took.
  void finish() const {
    if (others_taken_) return;
    for (const auto& [key, value] : object_.items()) {
      if (known(key)) continue;
      const std::string shown = printable(key), nearest = nearest_name(key, names_);
      fail(place_,
           "unknown key " + detail::option_path(place_.path, shown) +
               (nearest.empty() ? "" : "; did you mean " + detail::option_path(place_.path, nearest) + "?"));
    }
  }

  [[noreturn]] void wrong_type(const std::string& path, const char* expected, const Json& value) const {
    fail(place_, (path.empty() ? "" : path + " ") + "needs " + expected + ", got " + shown_json(value));
  }

  std::string prefix() const { return place_.source.empty() ? "" : place_.source + ": "; }

  // Shows the number as it is written.
  void check_range(const std::string& path, const Json& value, OptionRange range) const {
    if (!range.holds(value.get<double>()))
      fail(place_, path + " is " + shown_json(value) + ", it must be " + range.text());
  }

  int64_t whole(const std::string& path, const Json& value, OptionRange range) const {
    // 1e6 is a whole number to a person.
    if (!value.is_number() || value.get<double>() != std::floor(value.get<double>()))
      wrong_type(path, "a whole number", value);
    check_range(path, value, range);
    return value.is_number_float() ? static_cast<int64_t>(value.get<double>()) : value.get<int64_t>();
  }
  std::string text_of(const std::string& path, const Json& value) const {
    if (!value.is_string()) wrong_type(path, "a string", value);
    return value.get<std::string>();
  }

  static void merge(std::string& json, const Json& value) {
    // Keys of a kept text are sorted, so that two that say the same are the same text.
    nlohmann::json merged = nlohmann::json::parse(json.empty() ? "{}" : json);
    merged.merge_patch(nlohmann::json(value));
    json = merged.dump();
  }

  OptionPlace place_;
  const Json& object_;
  std::vector<std::string> names_;
  bool others_taken_ = false;
};

class Writer : public OptionVisitor {
 public:
  void number(const char* name, int64_t& field, OptionRange, const char*) override { json[name] = field; }
  void number(const char* name, double& field, OptionRange, const char*) override { json[name] = field; }
  void flag(const char* name, bool& field, const char*) override { json[name] = field; }
  void text(const char* name, std::string& field, const char*) override { json[name] = field; }
  void choice(const char* name, std::string& field, const std::vector<std::string>&, const char*) override {
    json[name] = field;
  }
  void list(const char* name, std::vector<std::string>& field, const char*) override { json[name] = field; }
  void list(const char* name, std::vector<int64_t>& field, OptionRange, const char*) override {
    json[name] = field;
  }
  void nested(const char* name, const Visit& visit, const char*) override {
    Writer inner;
    visit(inner);
    json[name] = std::move(inner.json);
  }
  void members(const char* name, const Members& members, const char*) override {
    Json& list = json[name] = Json::array();
    for (size_t i = 0; i < members.size(); ++i) {
      Writer inner;
      members.visit(i, inner);
      list.push_back(std::move(inner.json));
    }
  }
  void object(const char* name, std::string& text, const char*) override { json[name] = Json::parse(text); }
  void other_keys(std::string& text, const char*) override { json.update(Json::parse(text)); }

  Json json = Json::object();
};

class Describer : public OptionVisitor {
 public:
  explicit Describer(std::string path) : path_(std::move(path)) {}

  void number(const char* name, int64_t& field, OptionRange, const char* help) override {
    add(name, Json(field), help);
  }
  void number(const char* name, double& field, OptionRange, const char* help) override {
    add(name, Json(field), help);
  }
  void flag(const char* name, bool& field, const char* help) override { add(name, Json(field), help); }
  void text(const char* name, std::string& field, const char* help) override { add(name, Json(field), help); }
  void choice(const char* name, std::string& field, const std::vector<std::string>& choices,
              const char* help) override {
    std::string known;
    for (const std::string& choice : choices)
      if (!choice.empty()) known += (known.empty() ? "" : " | ") + choice;
    add(name, Json(field), (known + (*help ? ": " : "") + help).c_str());
  }
  void list(const char* name, std::vector<std::string>& field, const char* help) override {
    add(name, Json(field), help);
  }
  void list(const char* name, std::vector<int64_t>& field, OptionRange, const char* help) override {
    add(name, Json(field), help);
  }
  void nested(const char* name, const Visit& visit, const char*) override {
    Describer inner(detail::option_path(path_, name));
    visit(inner);
    text_ += inner.text_;
  }
  void members(const char* name, const Members&, const char* help) override {
    add(name, Json::array(), help);
  }
  void object(const char* name, std::string& text, const char* help) override {
    add(name, Json::parse(text), help);
  }
  void other_keys(std::string&, const char* help) override {
    if (*help) text_ += "  " + detail::option_path(path_, "*") + "  " + help + "\n";
  }

  const std::string& lines() const { return text_; }

 private:
  void add(const char* name, const Json& value, const char* help) {
    constexpr size_t kColumn = 36;
    std::string line = detail::option_path(path_, name) + " = " + value.dump();
    if (line.size() < kColumn) line.resize(kColumn, ' ');
    text_ += "  " + line + "  " + help + "\n";
  }

  std::string path_, text_;
};

}  // namespace

void read_options(const OptionPlace& place, const std::string& text, const OptionVisitor::Visit& visit) {
  Reader::read(place, parse(place, text), visit);
}

std::string write_options(const OptionVisitor::Visit& visit, int indent) {
  Writer writer;
  visit(writer);
  return writer.json.dump(indent);
}

std::string describe_options(const std::string& path, const OptionVisitor::Visit& visit) {
  Describer describer(path);
  visit(describer);
  return describer.lines();
}

}  // namespace mixrec
