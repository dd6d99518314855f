#include "mixrec/ops/dropout.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/parallel_for.h"

#include <cmath>

namespace mixrec {
namespace {

Tensor dropped(const Tensor& x, double rate, uint64_t seed, uint64_t counter) {
  const Tensor dense = x.detach().contiguous();
  Tensor y = empty_like(x);
  const auto threshold = static_cast<uint32_t>(std::llround(rate * 0x1p32));
  run(x, [&]<class T>(auto backend) {
    kernel::dropout<T>(backend, x.numel(), dense.data<const T>(), seed, counter, threshold, 1 / (1 - rate),
                       y.data<T>());
  });
  return y;
}

}  // namespace

Tensor dropout(const Tensor& x, double rate, Rng& rng, bool training) {
  MR_OP("dropout");
  MR_CHECK(rate >= 0 && rate < 1, "the rate must be in [0, 1), got ", rate);
  if (!training || rate == 0) return x;
  const uint64_t seed = rng.seed(), counter = rng.advance((static_cast<uint64_t>(x.numel()) + 3) / 4);
  return record(dropped(x, rate, seed, counter), {x}, [&] {
    return [=](const Tensor& dy) -> Grads { return {dropped(dy, rate, seed, counter)}; };
  });
}

namespace kernel {

template <class T>
void dropout(Cpu, int64_t n, const T* x, uint64_t seed, uint64_t counter, uint32_t threshold, double scale,
             T* y) {
  const Philox philox(seed);
  const auto factor = static_cast<acc_t<T>>(scale);
  parallel_for((n + 3) / 4, 40, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const Philox::Block words = philox(counter + static_cast<uint64_t>(block));
      for (int64_t i = 4 * block; i < std::min(n, 4 * block + 4); ++i) {
        const bool keep = words.word[i % 4] >= threshold;
        y[i] = static_cast<T>(keep ? static_cast<acc_t<T>>(x[i]) * factor : acc_t<T>{0});
      }
    }
  });
}
template void dropout(Cpu, int64_t, const float*, uint64_t, uint64_t, uint32_t, double, float*);
template void dropout(Cpu, int64_t, const bfloat16*, uint64_t, uint64_t, uint32_t, double, bfloat16*);
template void dropout(Cpu, int64_t, const double*, uint64_t, uint64_t, uint32_t, double, double*);

}  // namespace kernel
}  // namespace mixrec
