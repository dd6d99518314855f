#include "mixrec/core/options.h"

#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"

#include <algorithm>
#include <cmath>

namespace mixrec {

namespace detail {

std::string option_path(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

void check_option(const std::string& path, double value, OptionRange range) {
  if (!range.holds(value)) throw Error(concat_message(path, " is ", value, ", it must be ", range.text()));
}

void check_option(const std::string& path, int64_t value, OptionRange range) {
  if (!range.holds(static_cast<double>(value)))
    throw Error(concat_message(path, " is ", value, ", it must be ", range.text()));
}

void check_option(const std::string& path, const std::string& value,
                  const std::vector<std::string>& choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  std::string known;
  for (const std::string& choice : choices)
    known += (known.empty() ? "" : ", ") + (choice.empty() ? "\"\"" : choice);
  const std::string nearest = nearest_name(value, choices);
  throw Error(concat_message(path, " is \"", printable(value), "\", known are ", known,
                             nearest.empty() ? "" : "; did you mean " + nearest + "?"));
}

}  // namespace detail

namespace {

class Checker : public OptionVisitor {
 public:
  explicit Checker(std::string path) : path_(std::move(path)) {}

  void number(const char* name, int64_t& field, OptionRange range, const char*) override {
    detail::check_option(at(name), field, range);
  }
  void number(const char* name, double& field, OptionRange range, const char*) override {
    detail::check_option(at(name), field, range);
  }
  void flag(const char*, bool&, const char*) override {}
  void text(const char*, std::string&, const char*) override {}
  void choice(const char* name, std::string& field, const std::vector<std::string>& choices,
              const char*) override {
    detail::check_option(at(name), field, choices);
  }
  void list(const char*, std::vector<std::string>&, const char*) override {}
  void list(const char* name, std::vector<int64_t>& field, OptionRange range, const char*) override {
    for (size_t i = 0; i < field.size(); ++i)
      detail::check_option(at(name) + "." + std::to_string(i), field[i], range);
  }
  void nested(const char* name, const Visit& visit, const char*) override {
    Checker inner(at(name));
    visit(inner);
  }
  void members(const char* name, const Members& members, const char*) override {
    for (size_t i = 0; i < members.size(); ++i) {
      Checker inner(at(name) + "." + std::to_string(i));
      members.visit(i, inner);
    }
  }
  void object(const char*, std::string&, const char*) override {}
  void other_keys(std::string&, const char*) override {}

 private:
  std::string at(const char* name) const { return detail::option_path(path_, name); }

  std::string path_;
};

// 65536 and 1000000 as people write them, 9e+15 as it is.
std::string plain(double value) {
  const bool whole = std::abs(value) < 1e10 && value == std::floor(value);
  return whole ? std::to_string(static_cast<int64_t>(value)) : concat_message(value);
}

}  // namespace

bool OptionRange::holds(double value) const {
  return (without_least ? value > least : value >= least) && (without_most ? value < most : value <= most);
}

std::string OptionRange::text() const {
  if (!without_least && !without_most) return "between " + plain(least) + " and " + plain(most);
  return (without_least ? "above " : "at least ") + plain(least) + " and " +
         (without_most ? "below " : "at most ") + plain(most);
}

void check_options(const std::string& path, const OptionVisitor::Visit& visit) {
  Checker checker(path);
  visit(checker);
}

}  // namespace mixrec
