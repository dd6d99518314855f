// JSON that somebody else wrote, read once for all readers: depth is bounded, a key that stands twice is an
// error, and every message says where.
//
// Templates over the value type (nlohmann::json or ordered_json), so that the sources that use that library
// include it and this header does not.
#pragma once

#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace mixrec {

// Levels of lists and objects that are read; what the library reads has about ten.
inline constexpr size_t kJsonDepth = 64;

// The value as a message shows it: one line, cut to a sane length, always UTF-8.  Its depth must be bounded.
template <class Json>
std::string shown_json(const Json& value) {
  return printable(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

namespace detail {

// "line 3, column 7" of a byte of the text.
inline std::string text_place(std::string_view text, size_t position) {
  const std::string_view before = text.substr(0, std::min(position, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t start = before.rfind('\n') + 1;  // npos + 1 is 0
  return concat_message("line ", line, ", column ", before.size() - start);
}

// Builds the value from the library's events.
template <class Json>
class JsonBuilder {
 public:
  JsonBuilder(std::string_view text, const std::string& called) : text_(text), called_(called) {}

  Json take() { return std::move(root_); }

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(typename Json::number_integer_t value) { return put(value); }
  bool number_unsigned(typename Json::number_unsigned_t value) { return put(value); }
  bool number_float(typename Json::number_float_t value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(typename Json::binary_t&) { return false; }  // no JSON text has one
  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_object() { return levels_.pop_back(), true; }
  bool end_array() { return levels_.pop_back(), true; }

  bool key(std::string& key) {
    Level& level = levels_.back();
    auto& object = level.value->template get_ref<typename Json::object_t&>();
    MR_CHECK(is_new(level, object, key), called_, ": '", printable(key), "' stands twice in ", place());
    if constexpr (requires { object.emplace_back(key, nullptr); }) {
      slot_ = &object.emplace_back(key, nullptr).second;
    } else {
      slot_ = &object[key];
    }
    level.key = key;
    return true;
  }

  template <class E>
  bool parse_error(size_t position, const std::string& token, const E& error) {
    const std::string what = error.what();
    // The library's own sentence has the place, and begins with the name of an exception.
    const size_t sentence = what.find(": ");
    if (what.find("parse error at") == std::string::npos || sentence == std::string::npos)
      MR_FAIL(called_, " is not valid JSON: ", text_place(text_, position), ": the number ", printable(token),
              " is out of range");
    MR_FAIL(called_, " is not valid JSON: ", text_place(text_, position), ": ",
            printable(std::string_view(what).substr(sentence + 2)));
  }

 private:
  struct Level {
    Json* value = nullptr;
    std::string key;                        // the newest
    std::unordered_set<std::string> known;  // keys of an object too large to look through
  };

  static bool is_new(Level& level, const typename Json::object_t& object, const std::string& key) {
    constexpr size_t kFew = 16;
    if (object.size() < kFew)
      return std::none_of(object.begin(), object.end(), [&](const auto& one) { return one.first == key; });
    if (level.known.empty())
      for (const auto& [known, unused] : object) level.known.insert(known);
    return level.known.insert(key).second;
  }

  // "a.b[2]", or "it" at the top.
  std::string place() const {
    std::string path;
    for (size_t l = 0; l + 1 < levels_.size(); ++l) {
      const Level& level = levels_[l];
      if (level.value->is_array()) {
        path += concat_message("[", level.value->size() - 1, "]");
      } else {
        path += (path.empty() ? "" : ".") + printable(level.key, 40);
      }
    }
    return path.empty() ? "it" : path;
  }

  template <class T>
  bool put(T&& value) {
    if (levels_.empty()) return root_ = std::forward<T>(value), true;
    Level& level = levels_.back();
    if (level.value->is_array()) {
      level.value->push_back(std::forward<T>(value));
      slot_ = &level.value->back();
    } else {
      *slot_ = std::forward<T>(value);
    }
    return true;
  }

  bool open(Json container) {
    MR_CHECK(levels_.size() < kJsonDepth, called_, ": lists and objects are nested more than ", kJsonDepth,
             " levels deep, in ", printable(place()));
    put(std::move(container));
    Json* at = levels_.empty() ? &root_ : slot_;
    levels_.emplace_back().value = at;
    return true;
  }

  const std::string_view text_;
  const std::string& called_;
  Json root_;
  Json* slot_ = nullptr;
  std::vector<Level> levels_;
};

}  // namespace detail

// The value of a text; // and /* */ comments are allowed.  Throws, naming `called` and the place, on what is not
// JSON, on a number that no double holds, on a key that stands twice and on too many levels.
template <class Json>
Json parse_json_text(std::string_view text, const std::string& called) {
  detail::JsonBuilder<Json> builder(text, called);
  Json::sax_parse(text.begin(), text.end(), &builder, Json::input_format_t::json, true, true);
  return builder.take();
}

}  // namespace mixrec
