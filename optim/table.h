// The table side of an optimiser: embedding tables, of which a step touches a few rows.
//
// The gradient g of a row is the sum over all of its look-ups since zero_grad(), so duplicates count as they
// do in a dense parameter that was used as often, and a row is updated once a step however often it was
// looked up.  A row that no look-up names keeps its bits, and so does its state.  With the rules of rules.h,
// each row being a parameter that steps only when it is looked up:
//
//   sgd, adagrad       without weight decay as the dense rule, which moves nothing where g = 0; weight decay
//                      (d = g + λ p) acts on a row in the steps that look it up, not in those between
//   row_wise_adagrad   the same with one accumulator a row
//   lazy_adam          AdamW by row: t is the number of steps that looked this row up, this one included;
//                      m, v and the decay p -= lr λ p rest in the steps between
#pragma once

#include "mixrec/optim/device.h"
#include "mixrec/optim/row_gradients.h"
#include "mixrec/optim/rules.h"
#include "mixrec/optim/state.h"

#include <cstdint>
#include <memory>
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
  // Each [rows, width], all of one dtype, f32 or f64, on one device, dense in memory.
  TableSet(std::vector<Trained> tables, const RuleOptions& rule, MovingAverage average);

  size_t size() const { return tables_.size(); }
  const std::string& name(size_t table) const { return tables_[table].name; }

  // Brings the look-ups together by row: what a step starts with.
  void collect();
  double sum_of_squares() const;         // of the collected gradients
  std::string first_not_finite() const;  // name of the first table with such a gradient, or ""
  int64_t rows() const { return static_cast<int64_t>(gradients_.rows().size()); }  // looked up

  // Step number `step` (from 1), with gradients times `gradient_scale`.
  void update(int64_t step, double lr_factor, double gradient_scale);

  // The same on a device, queued.  Tables are numbered from `first_parameter` on.  What collect() returns, null
  // without look-ups, is for decide() and update().
  std::shared_ptr<DeviceRows> collect(Cuda device, int32_t first_parameter, DeviceStep* step);
  void update(Cuda device, const DeviceRows* rows, const DeviceStep* step);

  // Exchanges weights and averages after the step whose number (i64 [1]) is given.  Calling it twice restores
  // the weights.
  void swap_averages(const Tensor& steps);

  void append_state(std::vector<NamedTensor>& to) const;

 private:
  struct State {
    std::vector<Tensor> slots;
    Tensor steps, average, average_step;
  };

  template <class T>
  std::vector<TableView<T>> views() const;
  std::vector<DeviceTable> device_tables() const;
  void make_device_tables();
  void swap_on_device(const Tensor& steps);
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
  Device device_;
  int64_t widest_ = 0;
  std::vector<State> states_;
  RowGradients gradients_;
  std::vector<AdamCorrection> corrections_;  // lazy_adam: by t; beyond the last entry as there

  Tensor device_tables_;  // on a device: DeviceTables
  bool vectorisable_ = false;
};

}  // namespace mixrec::optim
