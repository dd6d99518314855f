#include "mixrec/optim/table.h"

#include "mixrec/core/dispatch.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/optim/loops.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace mixrec::optim {

namespace {

constexpr size_t kAhead = 6;       // rows whose memory is asked for before it is needed
constexpr int64_t kRowWork = 200;  // of one row beside its elements, as parallel_for counts: memory far apart

std::vector<std::string> slot_names(const RuleOptions& rule) {
  if (rule.name == "sgd") return {};
  if (rule.name == "lazy_adam") return {"m", "v"};
  return {"sum"};
}

// A rule on one row, with the factor on its gradient, and a row of scratch, which may be where the gradient
// lies.

template <class T>
void update_row(const Sgd<T>& rule, const TableView<T>& t, int64_t id, T scale, const T* gradient, T*) {
  update(t.width, rule, scale, gradient, t.value + id * t.width);
}

template <class T>
void update_row(const Adagrad<T>& rule, const TableView<T>& t, int64_t id, T scale, const T* gradient, T*) {
  update(t.width, rule, scale, gradient, t.value + id * t.width, t.slots[0] + id * t.width);
}

template <class T>
void update_row(const RowWiseAdagrad<T>& rule, const TableView<T>& t, int64_t id, T scale, const T* gradient,
                T* scratch) {
  T* const p = t.value + id * t.width;
  simd::transform(
      t.width, scratch, [&](auto g, auto value) { return rule.decayed(scale, g, value); }, gradient,
      static_cast<const T*>(p));
  T& sum = t.slots[0][id];
  sum += static_cast<T>(sum_of_squares(t.width, scratch) / static_cast<double>(t.width));
  const T rate = rule.rate(sum);
  simd::transform(
      t.width, p, [&](auto value, auto d) { return value - decltype(d)(rate) * d; }, static_cast<const T*>(p),
      static_cast<const T*>(scratch));
}

// Corrected by the row's own count.
template <class T>
struct LazyAdam {
  Adam<T> rule;
  const std::vector<AdamCorrection>* corrections;
};
template <class T>
void update_row(const LazyAdam<T>& lazy, const TableView<T>& t, int64_t id, T scale, const T* gradient, T*) {
  const auto step = static_cast<size_t>(++t.steps[id]);
  Adam<T> rule = lazy.rule;
  rule.correct((*lazy.corrections)[std::min(step, lazy.corrections->size() - 1)]);
  const int64_t at = id * t.width;
  update(t.width, rule, scale, gradient, t.value + at, t.slots[0] + at, t.slots[1] + at);
}

template <class T>
void prefetch_row(const T* row, int64_t width) {
  const auto* line = reinterpret_cast<const char*>(row);
  const auto bytes = std::min<int64_t>(width * static_cast<int64_t>(sizeof(T)), 512);
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(line + at, 1);
}

template <class T>
void prefetch_row(const TableView<T>& t, int64_t id, bool row_wise) {
  prefetch_row(t.value + id * t.width, t.width);
  if (row_wise) {
    __builtin_prefetch(t.slots[0] + id, 1);
  } else {
    for (const T* slot : t.slots) {
      if (slot) prefetch_row(slot + id * t.width, t.width);
    }
  }
  if (t.steps) __builtin_prefetch(t.steps + id, 1);
}

}  // namespace

TableSet::TableSet(std::vector<Trained> tables, const RuleOptions& rule, MovingAverage average)
    : tables_(std::move(tables)), rule_(rule), average_(average) {
  for (const Trained& table : tables_) {
    const Tensor& value = table.value;
    dtype_ = tables_[0].value.dtype();
    device_ = tables_[0].value.device();
    MR_CHECK(value.ndim() == 2 && value.is_contiguous(), "the table ", table.name, " ", value.shape(),
             " must be [rows, width] and dense in memory");
    MR_CHECK(value.dtype() == dtype_, "the table ", table.name, " is ", value.dtype(), " and ",
             tables_[0].name, " is ", dtype_, ": one optimiser trains one dtype");
    widest_ = std::max(widest_, value.dim(1));
    State& state = states_.emplace_back();
    const Shape slot_shape = rule_.name == "row_wise_adagrad" ? Shape{value.dim(0)} : value.shape();
    for (size_t i = 0; i < slot_names(rule_).size(); ++i) {
      state.slots.push_back(lazy_zeros(slot_shape, dtype_, device_));
      if (rule_.initial_accumulator > 0) state.slots.back().fill(rule_.initial_accumulator);
    }
    if (rule_.name == "lazy_adam") state.steps = lazy_zeros({value.dim(0)}, i32, device_);
    if (average_.decay > 0) {
      state.average = lazy_zeros(value.shape(), dtype_, device_);
      state.average_step = lazy_zeros({value.dim(0)}, i32, device_);
    }
  }
  if (!tables_.empty() && device_.is_cuda()) make_device_tables();
}

std::vector<DeviceTable> TableSet::device_tables() const {
  std::vector<DeviceTable> entries;
  int64_t base = 0;
  for (size_t i = 0; i < tables_.size(); ++i) {
    const Trained& table = tables_[i];
    const State& state = states_[i];
    DeviceTable entry{};
    entry.base = base;
    entry.rows = table.value.dim(0);
    entry.width = table.value.dim(1);
    entry.lr = table.lr;
    entry.weight_decay = table.weight_decay;
    entry.value = table.value.raw_data();
    for (size_t s = 0; s < state.slots.size(); ++s) entry.slots[s] = state.slots[s].raw_data();
    if (state.steps) entry.steps = state.steps.data<int32_t>();
    if (state.average) entry.average = state.average.raw_data();
    if (state.average_step) entry.average_step = state.average_step.data<int32_t>();
    base += entry.rows;
    entries.push_back(entry);
  }
  return entries;
}

void TableSet::make_device_tables() {
  const auto entries = device_tables();
  const auto* const bytes = reinterpret_cast<const uint8_t*>(entries.data());
  device_tables_ =
      Tensor::from(std::vector<uint8_t>(bytes, bytes + entries.size() * sizeof(DeviceTable))).to(device_);
  // State has the alignment of fresh memory; a table may be a view.
  vectorisable_ = dtype_ == f32;
  for (const Trained& table : tables_) {
    vectorisable_ = vectorisable_ && table.value.dim(1) % 4 == 0 &&
                    reinterpret_cast<uintptr_t>(table.value.raw_data()) % 16 == 0;
  }
}

std::shared_ptr<DeviceRows> TableSet::collect(Cuda device, int32_t first_parameter, DeviceStep* step) {
  int64_t count = 0;
  const auto lookups = recorded_lookups(tables_, &count);
  std::shared_ptr<DeviceRows> rows;
  if (count == 0) return rows;
  int64_t table_rows = 0;
  for (const Trained& table : tables_) table_rows += table.value.dim(0);
  const DeviceTables tables{reinterpret_cast<const DeviceTable*>(device_tables_.raw_data()),
                            static_cast<int32_t>(tables_.size()),
                            first_parameter,
                            table_rows,
                            widest_,
                            vectorisable_};
  if constexpr (kHasCuda)
    dispatch_real(dtype_,
                  [&]<class T>() { rows = kernel::collect_rows<T>(device, tables, lookups, count, step); });
  return rows;
}

void TableSet::update(Cuda device, const DeviceRows* rows, const DeviceStep* step) {
  if (!rows) return;
  if constexpr (kHasCuda)
    dispatch_real(dtype_, [&]<class T>() { kernel::update_rows<T>(device, rule_, average_, *rows, step); });
  for (const Trained& table : tables_) table.value.bump_version();
}

template <class T>
std::vector<TableView<T>> TableSet::views() const {
  std::vector<TableView<T>> views;
  for (size_t i = 0; i < tables_.size(); ++i) {
    const State& state = states_[i];
    TableView<T>& view = views.emplace_back();
    view.width = tables_[i].value.dim(1);
    view.value = tables_[i].value.template data<T>();
    for (size_t s = 0; s < state.slots.size(); ++s) view.slots[s] = state.slots[s].template data<T>();
    if (state.steps) view.steps = state.steps.data<int32_t>();
    if (state.average) view.average = state.average.template data<T>();
    if (state.average_step) view.average_step = state.average_step.data<int32_t>();
  }
  return views;
}

void TableSet::collect() { gradients_.collect(tables_); }

double TableSet::sum_of_squares() const {
  double sum = 0;
  if (rows() == 0) return sum;
  const auto& rows = gradients_.rows();
  dispatch_real(dtype_, [&]<class T>() {
    chunked_reduce(this->rows(), 1, kRowWork + widest_, &sum,
                   [&](int64_t begin, int64_t end, double* partial) {
                     std::vector<T> scratch(static_cast<size_t>(widest_));
                     for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r) {
                       if (r + kAhead < rows.size()) gradients_.prefetch(rows[r + kAhead]);
                       const int64_t width = tables_[static_cast<size_t>(rows[r].table)].value.dim(1);
                       *partial += optim::sum_of_squares(width, gradients_.gradient(rows[r], scratch.data()));
                     }
                   });
  });
  return sum;
}

std::string TableSet::first_not_finite() const {
  std::string name;
  dispatch_real(dtype_, [&]<class T>() {
    std::vector<T> scratch(static_cast<size_t>(widest_));
    for (const auto& row : gradients_.rows()) {
      const Trained& table = tables_[static_cast<size_t>(row.table)];
      const T* gradient = gradients_.gradient(row, scratch.data());
      if (std::isfinite(optim::sum_of_squares(table.value.dim(1), gradient))) continue;
      name = table.name;
      return;
    }
  });
  return name;
}

void TableSet::extend_corrections(int64_t step) {
  const auto settled = [](const AdamCorrection& c) { return c.first == 1 && c.second == 1; };
  while (static_cast<int64_t>(corrections_.size()) <= step) {
    if (!corrections_.empty() && settled(corrections_.back())) return;
    corrections_.emplace_back(rule_.beta1, rule_.beta2, static_cast<int64_t>(corrections_.size()));
  }
}

void TableSet::update(int64_t step, double lr_factor, double gradient_scale) {
  if (rows() == 0) return;
  dispatch_real(dtype_, [&]<class T>() { update_as<T>(step, lr_factor, gradient_scale); });
  for (const Trained& table : tables_) table.value.bump_version();
}

template <class T>
void TableSet::update_as(int64_t step, double lr_factor, double gradient_scale) {
  const RuleNumbers numbers(rule_);
  const auto rules_of = [&]<class Rule>() {
    std::vector<Rule> rules;
    for (const Trained& table : tables_)
      rules.push_back(Rule::make(numbers, table.lr * lr_factor, table.weight_decay, {}));
    return rules;
  };
  with_table_rule<T>(rule_, [&]<class Rule>() {
    const auto rules = rules_of.template operator()<Rule>();
    if constexpr (std::is_same_v<Rule, Adam<T>>) {
      extend_corrections(step);
      std::vector<LazyAdam<T>> lazy;
      for (const Rule& rule : rules) lazy.push_back({rule, &corrections_});
      run<T>(step, lazy, gradient_scale);
    } else {
      run<T>(step, rules, gradient_scale);
    }
  });
}

template <class T, class Rule>
void TableSet::run(int64_t step, const std::vector<Rule>& rules, double gradient_scale) {
  const auto views = this->views<T>();
  const auto& rows = gradients_.rows();
  const bool row_wise = rule_.name == "row_wise_adagrad";
  parallel_for(this->rows(), kRowWork + 8 * widest_, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(static_cast<size_t>(widest_));
    for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r) {
      if (r + kAhead < rows.size()) {
        const auto& later = rows[r + kAhead];
        gradients_.prefetch(later);
        prefetch_row(views[static_cast<size_t>(later.table)], later.id, row_wise);
      }
      const auto& row = rows[r];
      const auto table = static_cast<size_t>(row.table);
      if (average_.decay > 0) bring_average(views[table], row.id, step - 1);
      const T* gradient = gradients_.gradient(row, scratch.data());
      update_row(rules[table], views[table], row.id, static_cast<T>(gradient_scale), gradient,
                 scratch.data());
    }
  });
}

// Brings the average of a row that has not changed since `average_step` to where it is after `step`.
template <class T>
void TableSet::bring_average(const TableView<T>& table, int64_t id, int64_t step) const {
  int32_t& since = table.average_step[id];
  if (since == step) return;
  const T kept = static_cast<T>(average_.kept(since, step));
  const T* const value = table.value + id * table.width;
  blend(table.width, kept, value, table.average + id * table.width);
  since = static_cast<int32_t>(step);
}

void TableSet::swap_averages(const Tensor& steps) {
  if (tables_.empty()) return;
  if (device_.is_cuda()) return swap_on_device(steps);
  const int64_t step = *steps.data<const int64_t>();
  dispatch_real(dtype_, [&]<class T>() {
    const auto views = this->views<T>();
    for (size_t i = 0; i < views.size(); ++i) {
      const TableView<T>& table = views[i];
      parallel_for(tables_[i].value.dim(0), 4 * table.width, [&](int64_t begin, int64_t end) {
        for (int64_t id = begin; id < end; ++id) {
          // A row that was never looked up after the first step has been what it is in every step.
          if (table.average_step[id] == 0) continue;
          bring_average(table, id, step);
          T* const value = table.value + id * table.width;
          std::swap_ranges(value, value + table.width, table.average + id * table.width);
        }
      });
      tables_[i].value.bump_version();
    }
  });
}

void TableSet::swap_on_device(const Tensor& steps) {
  const auto entries = device_tables();
  on_backend(device_, [&](auto backend) {
    if constexpr (std::is_same_v<decltype(backend), Cuda>) {
      dispatch_real(dtype_, [&]<class T>() {
        for (const DeviceTable& table : entries)
          kernel::swap_averages<T>(backend, average_, table, steps.data<const int64_t>());
      });
    }
  });
  for (const Trained& table : tables_) table.value.bump_version();
}

void TableSet::append_state(std::vector<NamedTensor>& to) const {
  const auto slots = slot_names(rule_);
  for (size_t i = 0; i < tables_.size(); ++i) {
    const State& state = states_[i];
    for (size_t s = 0; s < slots.size(); ++s) {
      to.push_back({rule_.name + "." + slots[s] + "." + tables_[i].name, state.slots[s]});
    }
    if (state.steps) to.push_back({rule_.name + ".steps." + tables_[i].name, state.steps});
    if (state.average) to.push_back({"average." + tables_[i].name, state.average});
    if (state.average_step) to.push_back({"average_step." + tables_[i].name, state.average_step});
  }
}

}  // namespace mixrec::optim
