// Strict reading of JSON: every value knows its place in the text, and keys that nobody asked for are errors.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace mixrec {

class JsonObject;

// A value that may be read as a text or as an object; "s.json.features.item[2]" is its place.
class JsonValue {
 public:
  // Throws, naming `called` and the position, when the text is not valid JSON.
  static JsonValue parse(const std::string& text, const std::string& called);

  bool is_text() const;
  bool is_null() const;
  bool is_list() const;
  bool is_object() const;
  bool is_whole() const;  // a whole number in the range of int64_t
  std::string text() const;
  int64_t whole() const;
  double number() const;  // true and false are 1 and 0
  JsonObject object() const;
  std::vector<JsonValue> list() const;
  const std::string& place() const { return place_; }

  // The value as one line, without the members at the given paths; "*" stands for every key or index.
  std::string dump_without(const std::vector<std::vector<std::string>>& paths) const;

 private:
  friend class JsonObject;
  JsonValue(std::shared_ptr<const void> json, std::string place)
      : json_(std::move(json)), place_(std::move(place)) {}

  std::shared_ptr<const void> json_;
  std::string place_;
};

// All readers throw with the place when the value has another type; those without a default when the key is
// missing.
class JsonObject {
 public:
  bool has(const std::string& key);
  JsonValue value(const std::string& key);
  JsonObject object(const std::string& key) { return value(key).object(); }
  std::string text(const std::string& key) { return value(key).text(); }
  std::string text(const std::string& key, const std::string& otherwise);
  double number(const std::string& key, double otherwise);
  int64_t integer(const std::string& key, int64_t otherwise, int64_t least, int64_t most = int64_t{1} << 53);
  bool flag(const std::string& key, bool otherwise);
  std::string choice(const std::string& key, const std::string& otherwise,
                     const std::vector<std::string>& choices);
  std::vector<std::string> texts(const std::string& key);  // one text, or a list of texts; none when missing
  std::vector<double> numbers(const std::string& key);
  std::vector<std::string> keys();  // in the order of the text; counts as asking for all of them

  std::vector<std::string> names();  // keys, none of which may be empty

  // Refuses keys that were not asked for, with the nearest one that was.
  void finish() const;

  const std::string& place() const { return value_.place(); }
  std::string at(const std::string& key) const { return place() + "." + key; }

 private:
  friend class JsonValue;
  explicit JsonObject(JsonValue value) : value_(std::move(value)) {}

  JsonValue value_;
  std::set<std::string> asked_;
};

}  // namespace mixrec
