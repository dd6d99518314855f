// What a step decides on a device, in one block: the gradient norm from the sums of squares that earlier
// kernels left, whether the step is applied, the clip factor, the count of steps and Adam's corrections.
//
// 1024 threads take the sums of squares in turn and add up in a fixed order; the rest is one thread's.  It
// reads 8 bytes a dense block and a block of rows: some microseconds, most of it the launch.
#include "mixrec/optim/device_rows.cuh"

namespace mixrec::optim::kernel {

namespace {

constexpr int kThreads = 1024;

__global__ void write_numbers(double lr_factor, double gradient_scale, DeviceStep* step) {
  step->lr_factor = lr_factor;
  step->gradient_scale = gradient_scale;
}

__global__ void forget_refused(DeviceStep* step) { step->refused = 0; }

__device__ double loss_of(const Terms& terms) {
  if (!terms.loss) return 0;
  switch (terms.loss_dtype) {
    case DType::f64:
      return *static_cast<const double*>(terms.loss);
    case DType::bf16:
      return static_cast<double>(static_cast<float>(*static_cast<const bfloat16*>(terms.loss)));
    default:
      return static_cast<double>(*static_cast<const float*>(terms.loss));
  }
}

__device__ double share_of(const Partials& partials) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < partials.count; i += kThreads) sum += partials.values[i];
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    decide_step(Terms terms, Partials dense, Partials tables, const RowCounts* rows, int64_t* steps,
                DeviceStep* step) {
  const double square = cuda::block_sum<kThreads>(share_of(dense) + share_of(tables));
  if (threadIdx.x != 0) return;
  const int32_t suspect = step->suspect;
  step->suspect = kNoParameter;
  if (step->refused > 0) {
    ++step->refused;
    return;
  }
  const double norm = fabs(step->gradient_scale) * sqrt(square);
  const bool finite = isfinite(norm), applied = finite && isfinite(loss_of(terms));
  const double clip = terms.clip_norm > 0 && norm > terms.clip_norm ? terms.clip_norm / norm : 1;
  step->applied = applied;
  step->refused = applied ? 0 : 1;
  step->not_finite = finite ? kNoParameter : suspect;
  step->gradient_norm = norm;
  step->clip_factor = applied ? clip : 1;
  step->table_rows = applied && rows ? rows->rows : 0;
  if (!applied) return;
  const int64_t number = *steps + 1;
  *steps = number;
  step->number = number;
  step->scale = step->gradient_scale * clip;
  step->correction = AdamCorrection(terms.beta1, terms.beta2, number);
  if (terms.average.decay > 0) step->average_kept = terms.average.kept(number - 1, number);
}

}  // namespace

void set_numbers(Cuda device, double lr_factor, double gradient_scale, DeviceStep* step) {
  cuda::launch(device, write_numbers, int64_t{1}, 1, 0, lr_factor, gradient_scale, step);
}

void accept_again(Cuda device, DeviceStep* step) {
  cuda::launch(device, forget_refused, int64_t{1}, 1, 0, step);
}

void decide(Cuda device, const Terms& terms, const Partials& dense, const DeviceRows* rows, int64_t* steps,
            DeviceStep* step) {
  const Partials tables = rows ? Partials{rows->partials, rows->partial_count} : Partials{};
  cuda::launch(device, decide_step, int64_t{1}, kThreads, 0, terms, dense, tables,
               rows ? rows->counts.data() : nullptr, steps, step);
}

}  // namespace mixrec::optim::kernel
