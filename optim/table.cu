// Rows of tables on a device: each row that was looked up is updated by one group of lanes, which sums its
// look-ups (at most 64, or one sum of many: row_gradients.cu) and applies the rule at once.
//
// Adagrad of 524288 rows of 64 floats moves 134 MB of gradients, and 537 MB of values and state both ways: the
// rows are far apart, but each is whole sectors of memory.  lazy_adam adds m or v, and two powers a row, in
// double, by all lanes alike.
#include "mixrec/optim/device_rows.cuh"

namespace mixrec::optim::kernel {

namespace {

constexpr int kThreads = 256;

// What a group of lanes does to a row.
template <class T, int kPack>
struct RowWork {
  const DeviceTable& table;
  const Row& row;
  const Source<T>* sources;
  const Group& group;
  int lanes;
  T scale;
  bool blends;  // the average is brought to the step before this one, with the values of then,
  T kept;       // by this share

  // f(packs of gradient, value and state; first element of the row's part) over the row.
  template <int kSlots, class F>
  __device__ void over_columns(F&& f) const {
    const int64_t start = row.id * table.width;
    T* const value = static_cast<T*>(table.value) + start;
    T* const average = static_cast<T*>(table.average) + (blends ? start : 0);
    for (int64_t col = group.lane * kPack; col < table.width; col += lanes * kPack) {
      // All that does not wait for the sum is asked for first.
      Pack<T, kPack> p = load_pack<kPack>(value + col), s[2], mean;
#pragma unroll
      for (int k = 0; k < kSlots; ++k) s[k] = load_pack<kPack>(slot(k) + start + col);
      if (blends) mean = load_pack<kPack>(average + col);
      const Pack<T, kPack> g = add_sources<kPack>(sources + row.first, row.count, col);
      if (blends) {
#pragma unroll
        for (int k = 0; k < kPack; ++k) mean.at[k] = blended(kept, p.at[k], mean.at[k]);
        store_pack<kPack>(average + col, mean);
      }
#pragma unroll
      for (int k = 0; k < kPack; ++k) f(g.at[k], p.at[k], s[0].at[k], s[1].at[k]);
      store_pack<kPack>(value + col, p);
#pragma unroll
      for (int k = 0; k < kSlots; ++k) store_pack<kPack>(slot(k) + start + col, s[k]);
    }
  }

  __device__ T* slot(int k) const { return static_cast<T*>(table.slots[k]); }

  __device__ void apply(const Sgd<T>& rule) const {
    over_columns<0>([&](T g, T& p, T&, T&) { rule(scale * g, p); });
  }

  __device__ void apply(const Adagrad<T>& rule) const {
    over_columns<1>([&](T g, T& p, T& s, T&) { rule(scale * g, p, s); });
  }

  // Twice over the row: for the mean of squares, and with it.
  __device__ void apply(const RowWiseAdagrad<T>& rule) const {
    const T* const value = static_cast<const T*>(table.value) + row.id * table.width;
    T& sum = slot(0)[row.id];
    const T before = sum;
    double square = 0;
    for (int64_t col = group.lane * kPack; col < table.width; col += lanes * kPack) {
      const Pack<T, kPack> p = load_pack<kPack>(value + col);
      const Pack<T, kPack> g = add_sources<kPack>(sources + row.first, row.count, col);
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        const auto d = static_cast<double>(rule.decayed(scale, g.at[k], p.at[k]));
        square += d * d;
      }
    }
    square = group.sum(square, lanes);
    const T after = before + static_cast<T>(square / static_cast<double>(table.width));
    __syncwarp(group.mask);  // all have read it
    if (group.lane == 0) sum = after;
    const T rate = rule.rate(after);
    over_columns<0>([&](T g, T& p, T&, T&) { p -= rate * rule.decayed(scale, g, p); });
  }

  // lazy_adam, corrected by the row's own count.
  __device__ void apply(Adam<T> rule, const RuleNumbers& numbers) const {
    int32_t& steps = table.steps[row.id];
    const int32_t step = steps + 1;
    __syncwarp(group.mask);
    if (group.lane == 0) steps = step;
    rule.correct(AdamCorrection(numbers.beta1, numbers.beta2, step));
    over_columns<2>([&](T g, T& p, T& m, T& v) { rule(scale * g, p, m, v); });
  }
};

template <class T, int kPack, class Rule>
__global__ void __launch_bounds__(kThreads)
    step_rows(const Row* rows, const RowCounts* counts, const Source<T>* sources, const DeviceTable* tables,
              RuleNumbers numbers, MovingAverage average, int lanes, const DeviceStep* step) {
  const Group group(lanes);
  if (!step->applied || group.index >= counts->rows) return;
  const Row row = rows[group.index];
  const DeviceTable table = tables[row.table];
  bool blends = false;
  T kept = 0;
  if (table.average) {
    const auto last = static_cast<int32_t>(step->number - 1);
    const int32_t since = table.average_step[row.id];
    __syncwarp(group.mask);
    blends = since != last;
    if (blends) {
      kept = static_cast<T>(average.kept(since, last));
      if (group.lane == 0) table.average_step[row.id] = last;
    }
  }
  const RowWork<T, kPack> work{table, row, sources, group, lanes, static_cast<T>(step->scale), blends, kept};
  const Rule rule = Rule::make(numbers, table.lr * step->lr_factor, table.weight_decay, {});
  if constexpr (std::is_same_v<Rule, Adam<T>>) {
    work.apply(rule, numbers);
  } else {
    work.apply(rule);
  }
}

// A warp a row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    swap_rows(DeviceTable table, MovingAverage moving, const int64_t* steps) {
  const Group group(cuda::kWarp);
  if (group.index >= table.rows) return;
  int32_t& average_step = table.average_step[group.index];
  const int32_t since = average_step, step = static_cast<int32_t>(*steps);
  // A row that was never looked up after the first step has been what it is in every step.
  if (since == 0) return;
  __syncwarp(group.mask);
  if (group.lane == 0) average_step = step;
  const T kept = since == step ? T(1) : static_cast<T>(moving.kept(since, step));
  T* const value = static_cast<T*>(table.value) + group.index * table.width;
  T* const average = static_cast<T*>(table.average) + group.index * table.width;
  for (int64_t col = group.lane; col < table.width; col += cuda::kWarp) {
    const T p = value[col], a = average[col];
    value[col] = since == step ? a : blended(kept, p, a);
    average[col] = p;
  }
}

template <class T, int kPack>
void step_all(Cuda device, const RuleOptions& rule, MovingAverage average, const DeviceRows& rows,
              const DeviceStep* step) {
  with_table_rule<T>(rule, [&]<class Rule>() {
    cuda::launch(device, step_rows<T, kPack, Rule>, cuda::blocks(rows.count, kThreads / rows.lanes), kThreads,
                 0, rows.rows, rows.counts, reinterpret_cast<const Source<T>*>(rows.sources.data()),
                 rows.tables.tables, RuleNumbers(rule), average, rows.lanes, step);
  });
}

}  // namespace

template <class T>
void update_rows(Cuda device, const RuleOptions& rule, MovingAverage average, const DeviceRows& rows,
                 const DeviceStep* step) {
  if constexpr (std::is_same_v<T, float>) {
    if (rows.vectors) return step_all<float, 4>(device, rule, average, rows, step);
  }
  step_all<T, 1>(device, rule, average, rows, step);
}
template void update_rows<float>(Cuda, const RuleOptions&, MovingAverage, const DeviceRows&,
                                 const DeviceStep*);
template void update_rows<double>(Cuda, const RuleOptions&, MovingAverage, const DeviceRows&,
                                  const DeviceStep*);

template <class T>
void swap_averages(Cuda device, MovingAverage average, const DeviceTable& table, const int64_t* steps) {
  cuda::launch(device, swap_rows<T>, cuda::blocks(table.rows, kThreads / cuda::kWarp), kThreads, 0, table,
               average, steps);
}
template void swap_averages<float>(Cuda, MovingAverage, const DeviceTable&, const int64_t*);
template void swap_averages<double>(Cuda, MovingAverage, const DeviceTable&, const int64_t*);

}  // namespace mixrec::optim::kernel
