// What an Optimizer is told: one update rule for dense parameters, one for tables, and groups by name.
#pragma once

#include "mixrec/core/options.h"

#include <string>
#include <vector>

namespace mixrec {

// An update rule by name, with its numbers.
//
//   dense   sgd, rmsprop, adagrad, adam, adamw
//   tables  sgd, adagrad, row_wise_adagrad, lazy_adam
//
// rules.h has the formulas.  A number that the rule has no use for must keep its default.
struct RuleOptions {
  std::string name = {};
  double lr = 0;
  double beta1 = 0.9, beta2 = 0.999;  // adam, adamw, lazy_adam
  double decay = 0.99;                // rmsprop: of the squared gradient's average
  double momentum = 0;                // sgd of dense parameters
  bool nesterov = false;              // sgd with momentum
  double eps = 1e-8;                  // all but sgd
  double weight_decay = 0;
  double initial_accumulator = 0;  // adagrad, row_wise_adagrad

  void visit(OptionVisitor& v);
};

// Numbers of their own for the parameters whose dotted name matches `pattern`: * stands for any text, ? for
// one character.  The last matching group wins.
struct GroupOptions {
  std::string pattern = {};
  double lr_scale = 1;
  double weight_decay = -1;  // < 0: as the rule says
  bool freeze = false;       // not trained: no gradient, no state

  void visit(OptionVisitor& v);
};

struct OptimizerOptions {
  RuleOptions dense{.name = "adamw", .lr = 1e-3};
  RuleOptions tables{.name = "lazy_adam", .lr = 1e-2};
  std::vector<GroupOptions> groups = {};
  double clip_norm = 0;      // largest global gradient norm; 0 = no clipping
  double average_decay = 0;  // of the moving average of the weights; 0 = none is kept
};

// Throw unless the name is known (with the nearest one) and every number is in range and means something to
// the rule.
void check_dense_rule(const RuleOptions& rule);
void check_table_rule(const RuleOptions& rule);

}  // namespace mixrec
