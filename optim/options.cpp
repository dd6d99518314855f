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

void check_numbers(const RuleOptions& rule) {
  RuleOptions copy = rule;
  check_options(rule.name, [&](OptionVisitor& v) { copy.visit(v); });
  MR_CHECK(rule.eps > 0 || rule.name == "sgd", rule.name,
           ": eps must be above 0, or a gradient of 0 would divide 0 by 0");
  MR_CHECK(!rule.nesterov || rule.momentum > 0, "nesterov needs a momentum above 0");
}

}  // namespace

void RuleOptions::visit(OptionVisitor& v) {
  constexpr double kLarge = 1e6;
  v.text(
      "name", name,
      "dense: sgd | rmsprop | adagrad | adam | adamw; tables: sgd | adagrad | row_wise_adagrad | lazy_adam");
  v.number("lr", lr, between(0, kLarge), "learning rate");
  v.number("beta1", beta1, below(0, 1), "adam: decay of the first moment");
  v.number("beta2", beta2, below(0, 1), "adam: decay of the second moment");
  v.number("decay", decay, below(0, 1), "rmsprop: decay of the mean squared gradient");
  v.number("momentum", momentum, below(0, 1), "sgd");
  v.flag("nesterov", nesterov, "sgd with momentum");
  v.number("eps", eps, between(0, kLarge), "");
  v.number("weight_decay", weight_decay, between(0, kLarge), "");
  v.number("initial_accumulator", initial_accumulator, between(0, kLarge),
           "adagrad: first value of the sum of squares");
}

void GroupOptions::visit(OptionVisitor& v) {
  v.text("pattern", pattern, "dotted parameter names; * matches anything");
  v.number("lr_scale", lr_scale, between(0, 1e6), "times the optimiser's learning rate");
  v.number("weight_decay", weight_decay, between(-1e6, 1e6),
           "instead of the optimiser's; negative = the same");
  v.flag("freeze", freeze, "do not train these");
}

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
