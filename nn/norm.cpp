#include "mixrec/nn/norm.h"

#include "mixrec/nn/init.h"
#include "mixrec/ops/norm.h"

namespace mixrec {

RMSNorm::RMSNorm(int64_t width, double eps) : gain(constant_parameter({width}, 1)), eps(eps) {}
Tensor RMSNorm::forward(const Tensor& x) const { return rms_norm(x, gain, eps); }

LayerNorm::LayerNorm(int64_t width, double eps)
    : gain(constant_parameter({width}, 1)), bias(constant_parameter({width}, 0)), eps(eps) {}
Tensor LayerNorm::forward(const Tensor& x) const { return layer_norm(x, gain, bias, eps); }

}  // namespace mixrec
