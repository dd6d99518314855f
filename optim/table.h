// The table side of an optimiser: embedding tables, of which a step touches a few rows.
//
// In all rules g is the sum of the gradients of all look-ups of the row since zero_grad(): a row is updated
// once a step however often it was looked up, as a dense parameter that was used so often would be.  Rows
// that no look-up names do not change, and neither does their state.  Against the dense rule of rules.h that
// means
//
//   sgd               the same with λ = 0; with decay, p -= lr (g + λ p) on looked-up rows only
//   adagrad           the same with λ = 0 (a gradient of 0 moves nothing there); with decay as above
//   row_wise_adagrad  one accumulator a row, of the mean over the row of d²; decay as above
//   lazy_adam         each row is an AdamW of its own that steps only when the row is looked up: its t in 1 -
//   βᵗ
//                     counts those steps, m and v rest in between, and so does the decay p -= lr λ p
#pragma once

#include "mixrec/optim/row_gradients.h"
#include "mixrec/optim/rules.h"
#include "mixrec/optim/state.h"

#include <cstdint>
#include <string>
#include <vector>

namespace mixrec::optim {

// Where the numbers of one table are while a step runs.
template <class T>
struct TableView {
  int64_t width = 0;
  T* value = nullptr;
  T* slots[2] = {};          // [rows, width], row_wise_adagrad: [rows]
  int32_t* steps = nullptr;  // lazy_adam: of each row
  T* average = nullptr;
  int32_t* average_step =
      nullptr;  // the step after which `average` held for the row; its value is the same since
};

class TableSet {
 public:
  // Each [rows, width], all of one dtype, f32 or f64, dense in memory.
  TableSet(std::vector<Trained> tables, const RuleOptions& rule, MovingAverage average);

  // Brings the look-ups together by row: what a step starts with.
  void collect();
  double sum_of_squares() const;         // of the collected gradients
  std::string first_not_finite() const;  // name of the first table with such a gradient, or ""
  int64_t rows() const { return static_cast<int64_t>(gradients_.rows().size()); }  // looked up

  // Step number `step` (from 1), with gradients times `gradient_scale`.
  void update(int64_t step, double lr_factor, double gradient_scale);
  // Exchanges weights and averages after step number `step`.  Calling it twice restores the weights.
  void swap_averages(int64_t step);

  void append_state(std::vector<NamedTensor>& to) const;

 private:
  struct State {
    std::vector<Tensor> slots;
    Tensor steps, average, average_step;
  };

  template <class T>
  std::vector<TableView<T>> views() const;
  template <class T>
  void update_as(int64_t step, double lr_factor, double gradient_scale);
  template <class T, class Rule>
  void run(int64_t step, const std::vector<Rule>& rules, double gradient_scale);
  template <class T>
  void bring_average(const TableView<T>& table, int64_t id, int64_t step) const;
  void extend_corrections(int64_t step);

  std::vector<Trained> tables_;
  RuleOptions rule_;
  MovingAverage average_;
  DType dtype_ = f32;
  int64_t widest_ = 0;
  std::vector<State> states_;
  RowGradients gradients_;
  std::vector<AdamCorrection> corrections_;  // lazy_adam: by t; beyond the last entry as there
};

}  // namespace mixrec::optim
