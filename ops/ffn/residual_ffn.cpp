#include "mixrec/ops/ffn/residual_ffn.h"

#include "mixrec/autograd/checkpoint.h"
#include "mixrec/autograd/record.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/ffn/ffn.h"
#include "mixrec/ops/ffn/swiglu.h"
#include "mixrec/ops/gemm/product.h"
#include "mixrec/ops/norm.h"

#include <algorithm>
#include <type_traits>
#include <utility>

namespace mixrec {
namespace {

DType sums_of(DType dtype) { return dtype == f64 ? f64 : f32; }

Tensor half(const Tensor& x, int which) {
  const int64_t width = x.dim(-1) / 2;
  return x.narrow(-1, which * width, width);
}

// Rows [B, D] of one network, or [B, N, D] of N, as [networks, B, D].
Tensor by_network(const Tensor& rows) {
  return rows.ndim() == 3 ? rows.transpose(0, 1) : rows.reshape({1, rows.dim(0), rows.dim(1)});
}

// The network on a device: parameters as the products read them, dense.
struct Network {
  Tensor gain;           // in the dtype of sums
  Tensor gate_up, down;  // [networks, D, 2F], [networks, F, D]
  double eps;

  Tensor scratch(const Tensor& x, int64_t width) const {
    return empty({gate_up.dim(0), x.dim(0), width}, x.dtype(), x.device());
  }
  // What the forward makes on the way from some rows x to y.
  struct Made {
    Tensor normed;  // as x
    Tensor hidden;  // [networks, B, 2F]
    Tensor gated;   // [networks, B, F]
  };

  Made up(const Tensor& x, const Tensor& scale, bool with_gated) const {
    Made made{empty_like(x), scratch(x, gate_up.dim(2)), with_gated ? scratch(x, down.dim(1)) : Tensor()};
    run(x, [&]<class T>(auto backend) {
      kernel::rms_norm<T>(backend, x.mat<const T>(), gain.data<const acc_t<T>>(), eps, made.normed.mat<T>(),
                          scale.data<acc_t<T>>());
    });
    multiply({by_network(made.normed)}, {gate_up}, made.hidden);
    if (with_gated) {
      run(x, [&]<class T>(auto backend) {
        kernel::swiglu<T>(backend, half(made.hidden, 0).mat<const T>(), half(made.hidden, 1).mat<const T>(),
                          made.gated.mat<T>());
      });
    }
    return made;
  }

  Made forward(const Tensor& x, const Tensor& scale, const Tensor& y) const {
    Made made = up(x, scale, true);
    multiply_with({made.gated}, {down}, by_network(x), by_network(y));
    return made;
  }
};

struct Gradients {
  Tensor x, gain, gate_up, down;  // of the parameters: in the dtype of sums
};

// Adds the gradients of some rows to those of the parameters (or begins them), and writes those of x.
void backward_rows(const Network& network, const Tensor& x, const Tensor& scale, Network::Made made,
                   const Tensor& dy, const Tensor& dx, const Gradients& total, bool first) {
  const Tensor dgated = network.scratch(x, network.down.dim(1)), dhidden = empty_like(made.hidden);
  multiply({by_network(dy)}, {network.down, true}, dgated);
  const bool again = !made.gated.defined();
  if (again) made.gated = empty_like(dgated);
  run(x, [&]<class T>(auto backend) {
    if constexpr (std::is_same_v<decltype(backend), Cuda>)
      kernel::swiglu_backward<T>(backend, half(made.hidden, 0).mat<const T>(),
                                 half(made.hidden, 1).mat<const T>(), dgated.mat<const T>(),
                                 half(dhidden, 0).mat<T>(), half(dhidden, 1).mat<T>(),
                                 again ? made.gated.mat<T>() : Mat<T>());
  });
  const auto add = first ? [](const Operand& a, const Operand& b, const Tensor& y) { multiply(a, b, y); }
                         : [](const Operand& a, const Operand& b, const Tensor& y) { multiply_add(a, b, y); };
  add({made.gated, true}, {by_network(dy)}, total.down);
  add({by_network(made.normed), true}, {dhidden}, total.gate_up);
  const Tensor dnormed = empty_like(x), dgain = first ? total.gain : empty_like(total.gain);
  multiply({dhidden}, {network.gate_up, true}, by_network(dnormed));
  run(x, [&]<class T>(auto backend) {
    if constexpr (std::is_same_v<decltype(backend), Cuda>)
      kernel::rms_norm_backward<T>(backend, x.mat<const T>(), network.gain.data<const acc_t<T>>(),
                                   scale.data<const acc_t<T>>(), dnormed.mat<const T>(), dx.mat<T>(),
                                   dgain.data<acc_t<T>>(), dy.mat<const T>());
  });
  if (!first) add_into(total.gain, dgain);
}

Tensor on_device(const Tensor& given, const Tensor& gain, const Tensor& gate_up, const Tensor& down,
                 const ResidualFfnOptions& options) {
  const bool per_head = gate_up.ndim() == 3;
  const Tensor x =
      per_head ? given.detach().contiguous() : given.detach().contiguous().reshape({-1, given.dim(-1)});
  const auto dense = [&](const Tensor& weight, const char* name) {
    const Tensor w = operand_for(x, weight, name).contiguous();
    return per_head ? w : w.reshape({1, w.dim(0), w.dim(1)});
  };
  const Network network{cast(gain.detach(), sums_of(x.dtype())).contiguous(), dense(gate_up, "gate_up"),
                        dense(down, "down"), options.eps};
  const int64_t rows = x.dim(0), per_row = per_head ? x.dim(1) : 1;
  const int64_t block = options.recompute ? std::max<int64_t>(1, options.block_rows / per_row) : rows;
  const Tensor y = empty_like(x), scale = empty({rows * per_row}, sums_of(x.dtype()), x.device());
  const auto part = [block, rows, per_row](const Tensor& all, int64_t begin, bool factors = false) {
    const int64_t unit = factors ? per_row : 1;
    return all.narrow(0, begin * unit, std::min(block, rows - begin) * unit);
  };
  Network::Made made;
  for (int64_t begin = 0; begin < rows; begin += block)
    made = network.forward(part(x, begin), part(scale, begin, true), part(y, begin));
  if (options.recompute) made = {};

  return record(y.reshape(given.shape()), {given, gain, gate_up, down}, [&] {
    return [=, x = Saved(x), normed = Saved(made.normed), hidden = Saved(made.hidden),
            gated = Saved(made.gated), gate_up_weight = Saved(network.gate_up),
            down_weight = Saved(network.down), network_gain = network.gain, shape = given.shape(),
            eps = options.eps, recompute = options.recompute, gain_dtype = gain.dtype(),
            gate_up_shape = gate_up.shape(), down_shape = down.shape(), gate_up_dtype = gate_up.dtype(),
            down_dtype = down.dtype()](const Tensor& upstream, const Needs& needs) -> Grads {
      const Network again{network_gain, gate_up_weight.get(), down_weight.get(), eps};
      const DType sums = sums_of(x.get().dtype());
      const Device device = x.get().device();
      const Tensor dy = upstream.contiguous().reshape(x.get().shape());
      const Gradients total{empty_like(dy), needs.gradient(1, network_gain.shape(), sums, device),
                            needs.gradient(2, gate_up_shape, sums, device).reshape(again.gate_up.shape()),
                            needs.gradient(3, down_shape, sums, device).reshape(again.down.shape())};
      for (const Tensor& gradient : {total.gain, total.gate_up, total.down})
        if (rows == 0) Tensor(gradient).fill(0);
      for (int64_t begin = 0; begin < rows; begin += block) {
        const Tensor x_part = part(x.get(), begin), scale_part = part(scale, begin, true);
        const Network::Made made = recompute ? again.up(x_part, scale_part, false)
                                             : Network::Made{normed.get(), hidden.get(), gated.get()};
        backward_rows(again, x_part, scale_part, made, part(dy, begin), part(total.x, begin), total,
                      begin == 0);
      }
      return {total.x.reshape(shape), cast(total.gain, gain_dtype),
              cast(total.gate_up, gate_up_dtype).reshape(gate_up_shape),
              cast(total.down, down_dtype).reshape(down_shape)};
    };
  });
}

}  // namespace

Tensor residual_ffn(const Tensor& x, const Tensor& gain, const Tensor& gate_up, const Tensor& down,
                    const ResidualFfnOptions& options) {
  MR_OP("residual_ffn");
  check_ffn(x, gate_up, down);
  MR_CHECK(x.ndim() >= 1 && down.dim(-1) == x.dim(-1), "the result is ", down.shape(), " wide, the input ",
           x.shape(), ": they are added");
  MR_CHECK(gain.shape() == Shape{x.dim(-1)}, "the gain is ", gain.shape(), ", the input ", x.shape());
  MR_CHECK(options.block_rows > 0, "block_rows must be positive, got ", options.block_rows);
  const auto composed = [=](const Tensor& rows) {
    return ffn(rms_norm(rows, gain, options.eps), gate_up, down, rows);
  };
  if (x.device().is_cpu() || x.dim(-1) == 0 || down.dim(-2) == 0 || x.ndim() < 2)
    return options.recompute && x.ndim() > 1 ? checkpoint_rows(composed, x, options.block_rows) : composed(x);
  return on_device(x, gain, gate_up, down, options);
}

}  // namespace mixrec
