#include "mixrec/optim/options.h"

#include "mixrec/core/error.h"

#include <algorithm>

namespace mixrec {

namespace {

using Names = std::vector<std::string>;

std::string joined(const Names& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void check_name(const char* what, const std::string& name, const Names& known) {
  if (std::find(known.begin(), known.end(), name) != known.end()) return;
  const std::string nearest = nearest_name(name, known);
  MR_FAIL(what, " has no rule '", name, "'; ",
          nearest.empty() ? "there are " + joined(known) : "did you mean " + nearest + "?");
}

// `option` was set; only the rules in `users` read it.
void check_used(const RuleOptions& rule, bool set, const char* option, const Names& users) {
  MR_CHECK(!set || std::find(users.begin(), users.end(), rule.name) != users.end(), rule.name,
           " has no use for ", option, ", which belongs to ", joined(users));
}

void check_range(const RuleOptions& rule, const char* option, double value, double low, double high) {
  MR_CHECK(value >= low && value <= high, rule.name, ": ", option, " = ", value, " is outside [", low, ", ",
           high, "]");
}

void check_numbers(const RuleOptions& rule) {
  constexpr double kMany = 1e6;
  constexpr double kBelowOne = 1 - 1e-12;
  check_range(rule, "lr", rule.lr, 0, kMany);
  check_range(rule, "beta1", rule.beta1, 0, kBelowOne);
  check_range(rule, "beta2", rule.beta2, 0, kBelowOne);
  check_range(rule, "decay", rule.decay, 0, kBelowOne);
  check_range(rule, "momentum", rule.momentum, 0, kBelowOne);
  check_range(rule, "eps", rule.eps, 0, kMany);
  check_range(rule, "weight_decay", rule.weight_decay, 0, kMany);
  check_range(rule, "initial_accumulator", rule.initial_accumulator, 0, kMany);
  MR_CHECK(rule.eps > 0 || rule.name == "sgd", rule.name,
           ": eps must be above 0, or a gradient of 0 would divide 0 by 0");
  MR_CHECK(!rule.nesterov || rule.momentum > 0, "nesterov needs a momentum above 0");
}

}  // namespace

void check_dense_rule(const RuleOptions& rule) {
  check_name("the dense optimiser", rule.name, {"sgd", "rmsprop", "adagrad", "adam", "adamw"});
  check_numbers(rule);
  check_used(rule, rule.momentum != 0, "momentum", {"sgd"});
  check_used(rule, rule.initial_accumulator != 0, "initial_accumulator", {"adagrad"});
}

void check_table_rule(const RuleOptions& rule) {
  check_name("the table optimiser", rule.name, {"sgd", "adagrad", "row_wise_adagrad", "lazy_adam"});
  check_numbers(rule);
  MR_CHECK(rule.momentum == 0,
           "tables have no momentum: it would move every row in every step; lazy_adam keeps it by row");
  check_used(rule, rule.initial_accumulator != 0, "initial_accumulator", {"adagrad", "row_wise_adagrad"});
}

}  // namespace mixrec
