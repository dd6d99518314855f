#include "mixrec/nn/linear.h"

#include "mixrec/nn/init.h"
#include "mixrec/ops/matmul.h"

namespace mixrec {

Linear::Linear(int64_t in, int64_t out, Rng& rng, const LinearOptions& options)
    : weight(weight_parameter({in, out}, rng, options.gain)) {
  if (options.bias) bias = constant_parameter({out}, 0);
}

Tensor Linear::forward(const Tensor& x) const { return linear(x, weight, bias); }

PerHeadLinear::PerHeadLinear(int64_t heads, int64_t in, int64_t out, Rng& rng, double gain)
    : weight(weight_parameter({heads, in, out}, rng, gain)) {}

Tensor PerHeadLinear::forward(const Tensor& x) const { return per_head_matmul(x, weight); }

}  // namespace mixrec
