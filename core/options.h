// Structs of options, described once: one `visit` gives reading, writing, help, defaults and ranges.
//
//   struct DinOptions {
//     int64_t width = 32;
//     double dropout = 0;
//     void visit(OptionVisitor& v) {
//       v.number("width", width, between(1, 65536), "of the attention's hidden layer");
//       v.number("dropout", dropout, below(0, 1), "share of features set to zero in training");
//     }
//   };
//
// models/options.h reads and writes them as JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace mixrec {

// The numbers that an option takes.  NaN is never one of them.
struct OptionRange {
  double least, most;
  bool without_least = false, without_most = false;

  bool holds(double value) const;
  std::string text() const;  // "between 0 and 1", "at least 0 and below 1"
};

// least <= x <= most;  least <= x < most;  least < x <= most.
constexpr OptionRange between(double least, double most) { return {least, most}; }
constexpr OptionRange below(double least, double most) { return {least, most, false, true}; }
constexpr OptionRange above(double least, double most) { return {least, most, true, false}; }

constexpr double kMostCount = 9e15;  // the largest count that a double and a JSON number hold exactly

// Sees every option of a struct, in order.  `help` is one line.
class OptionVisitor {
 public:
  using Visit = std::function<void(OptionVisitor&)>;

  // A list whose members have options of their own.
  struct Members {
    std::function<size_t()> size;
    std::function<void(size_t)> resize;
    std::function<void(size_t, OptionVisitor&)> visit;
  };

  virtual ~OptionVisitor() = default;
  virtual void number(const char* name, int64_t& field, OptionRange range, const char* help) = 0;
  virtual void number(const char* name, double& field, OptionRange range, const char* help) = 0;
  virtual void flag(const char* name, bool& field, const char* help) = 0;
  virtual void text(const char* name, std::string& field, const char* help) = 0;
  virtual void choice(const char* name, std::string& field, const std::vector<std::string>& choices,
                      const char* help) = 0;
  virtual void list(const char* name, std::vector<std::string>& field, const char* help) = 0;
  // Numbers, `range` is of each.
  virtual void list(const char* name, std::vector<int64_t>& field, OptionRange range, const char* help) = 0;
  virtual void nested(const char* name, const Visit& visit, const char* help) = 0;
  virtual void members(const char* name, const Members& members, const char* help) = 0;
  // A JSON object that somebody else reads, as its text; new keys are merged over it.
  virtual void object(const char* name, std::string& json, const char* help) = 0;
  // The same of all keys of the struct's own object that no other option has taken; visited last.
  virtual void other_keys(std::string& json, const char* help) = 0;

  template <class Options>
  void nested(const char* name, Options& options, const char* help) {
    nested(
        name, [&](OptionVisitor& v) { options.visit(v); }, help);
  }
  template <class Options>
  void list(const char* name, std::vector<Options>& options, const char* help) {
    members(name,
            {[&] { return options.size(); }, [&](size_t n) { options.resize(n); },
             [&](size_t i, OptionVisitor& v) { options[i].visit(v); }},
            help);
  }
};

// Throws when a number is out of its range or a text none of its choices: "optimizer.beta1 is 1, it must be at
// least 0 and below 1".  `path` stands in front of names; "" = nothing does.
void check_options(const std::string& path, const OptionVisitor::Visit& visit);

namespace detail {

// Throws an Error without a place in our sources: the fault is in what a user wrote.
void check_option(const std::string& path, double value, OptionRange range);
void check_option(const std::string& path, int64_t value, OptionRange range);
void check_option(const std::string& path, const std::string& value, const std::vector<std::string>& choices);

// "a" and "b" -> "a.b"
std::string option_path(const std::string& path, const std::string& name);

}  // namespace detail

}  // namespace mixrec
