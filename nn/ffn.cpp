#include "mixrec/nn/ffn.h"

#include "mixrec/nn/init.h"
#include "mixrec/ops/ffn/ffn.h"

namespace mixrec {

SwiGLU::SwiGLU(int64_t width, int64_t hidden, Rng& rng, const FfnOptions& options)
    : gate_up(weight_parameter({width, 2 * hidden}, rng)),
      down(weight_parameter({hidden, width}, rng, options.down_scale)) {}

Tensor SwiGLU::forward(const Tensor& x, const Tensor& residual) const {
  return mixrec::ffn(x, gate_up, down, residual);
}

PerHeadFFN::PerHeadFFN(int64_t heads, int64_t width, int64_t hidden, Rng& rng, const FfnOptions& options)
    : gate_up(weight_parameter({heads, width, 2 * hidden}, rng)),
      down(weight_parameter({heads, hidden, width}, rng, options.down_scale)) {}

Tensor PerHeadFFN::forward(const Tensor& x, const Tensor& residual) const {
  return mixrec::ffn(x, gate_up, down, residual);
}

}  // namespace mixrec
