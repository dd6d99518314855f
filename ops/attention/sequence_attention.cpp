#include "mixrec/ops/attention/sequence_attention.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/jagged.h"
#include "mixrec/ops/attention/attend.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/ffn/residual_ffn.h"
#include "mixrec/ops/gemm/product.h"
#include "mixrec/ops/norm.h"

#include <string>
#include <type_traits>
#include <vector>

namespace mixrec {
namespace {

constexpr int64_t kDevicePitch = 16;  // heads in a row of weights on a device

DType sums_of(DType dtype) { return dtype == f64 ? f64 : f32; }

// Rows [R, N, width] as one matrix per head.
Tensor by_head(const Tensor& rows) { return rows.transpose(0, 1); }

Tensor as_batch(const Tensor& matrix) { return matrix.reshape({1, matrix.dim(0), matrix.dim(1)}); }

bool is_aligned(const Tensor& x) { return reinterpret_cast<uintptr_t>(x.raw_data()) % 16 == 0; }

// Outside the graph, dense, and where 16 bytes can be read at once.
Tensor plain_rows(const Tensor& x) {
  const Tensor dense = x.detach().contiguous();
  return is_aligned(dense) ? dense : dense.clone();
}

// ---- Which form. ----

bool one_candidate_each(const Tensor& u, const Tensor& candidates, bool claimed) {
  if (u.dim(0) != candidates.dim(0) - 1) return false;
  if (!candidates.device().is_cpu()) return claimed;
  const auto at = candidates.contiguous();
  for (int64_t r = 0; r < u.dim(0); ++r)
    if (at.data<const int64_t>()[r] != r) return false;
  return true;
}

// Why the absorbed form is not there; empty where it is.
std::string obstacle(const Tensor& u, const Tensor& s, const Tensor& down, const Tensor& candidates,
                     const SequenceAttentionOptions& options) {
  if (!one_candidate_each(u, candidates, options.one_candidate_each))
    return "it needs requests with one candidate each";
  if (options.recompute) return "it recomputes nothing in blocks";
  if (s.numel() == 0 || u.numel() == 0 || down.numel() == 0) return "there is nothing to compute";
  if (s.device().is_cpu()) return "";
  if (u.dtype() != bf16) return "on a device it is there for bf16";
  if (u.dim(1) > kDevicePitch || u.dim(2) % 16 != 0 || down.dim(0) % 8 != 0)
    return "on a device it needs at most 16 heads, whose width is a multiple of 16, and a hidden width that "
           "is a "
           "multiple of 8";
  return "";
}

// ---- The absorbed form. ----

// Parameters as products read them.
struct Weights {
  Tensor gate_up;  // [N·Ds, 2F], the gain in it
  Tensor down;     // [F, N·Ds]
  int64_t heads;

  // W_n [F, Ds] for every head, as views of a matrix like `down`.
  Tensor heads_of(const Tensor& matrix) const {
    return matrix.reshape({matrix.dim(0), heads, matrix.dim(1) / heads}).transpose(0, 1);
  }
  // x_n W_nᵀ: [R, N, Ds] -> [R, N, F].
  Tensor absorb(const Tensor& x) const {
    const Tensor y = empty({x.dim(0), heads, down.dim(0)}, x.dtype(), x.device());
    multiply({by_head(x)}, {heads_of(down), true}, by_head(y));
    return y;
  }
  // x_n W_n + addend_n: [R, N, F] -> [R, N, Ds] in x's dtype; the sum is rounded once.
  Tensor release(const Tensor& x, const Tensor& addend) const {
    const Tensor y = empty_like(addend);
    multiply_with({by_head(x)}, {heads_of(down)}, by_head(addend), by_head(y));
    return cast(y, x.dtype());
  }
};

// What the forward leaves to the backward.
struct Kept {
  Tensor hidden;                 // [E, 2F]: the backward overwrites it, and nobody else knows it
  Tensor queries;                // [R, N, F]: q
  Tensor weights, scale;         // of the softmax, see kernel::SequenceState
  Tensor sums, rounded, direct;  // the same
  Tensor history;

  const Tensor& product_sums() const { return rounded.defined() ? rounded : sums; }
};

template <class T, class Backend>
using WeightOf = std::conditional_t<std::is_same_v<Backend, Cuda>, bfloat16, acc_t<T>>;

// Whether there are kernels of the absorbed form.
template <class T, class Backend>
constexpr bool kHasKernels = std::is_same_v<Backend, Cpu> || std::is_same_v<T, bfloat16>;

template <class T>
T* data_or_null(const Tensor& x) {
  return x.defined() ? x.data<T>() : nullptr;
}

template <class T, class Backend>
kernel::SequenceState<T, WeightOf<T, Backend>> state_of(const Kept& kept) {
  return {kept.weights.data<WeightOf<T, Backend>>(), kept.scale.data<acc_t<T>>(),
          data_or_null<acc_t<T>>(kept.sums), data_or_null<T>(kept.rounded), kept.direct.data<acc_t<T>>()};
}

template <class T>
kernel::SequenceEvents<T> events_of(const Kept& kept, const Tensor& s, const Tensor& u) {
  return {kept.hidden.data<T>(),
          s.data<const T>(),
          kept.history.data<const int64_t>(),
          u.dim(0),
          s.dim(0),
          u.dim(1),
          u.dim(2),
          kept.hidden.dim(1) / 2};
}

Kept keep(const Tensor& u, const Tensor& normed, const Weights& weights, const Tensor& history,
          bool for_backward) {
  const int64_t events = normed.dim(0), requests = u.dim(0), hidden = weights.down.dim(0);
  const bool cpu = normed.device().is_cpu(), rounds = normed.dtype() != sums_of(normed.dtype());
  const int64_t pitch = cpu ? weights.heads : kDevicePitch;
  const DType sums = sums_of(normed.dtype());
  const auto make = [&](const Shape& shape, DType dtype) { return empty(shape, dtype, normed.device()); };
  const Shape absorbed{requests, weights.heads, hidden};
  Kept kept{.hidden = make({events, 2 * hidden}, normed.dtype()),
            .queries = weights.absorb(u),
            .weights = cpu ? make({events, pitch}, sums) : make({events, 2, pitch}, bf16),
            .scale = make({requests, pitch}, sums),
            .sums = for_backward || !rounds ? make(absorbed, sums) : Tensor(),
            .rounded = rounds ? make(absorbed, normed.dtype()) : Tensor(),
            .direct = make(u.shape(), sums),
            .history = history};
  multiply({as_batch(normed)}, {as_batch(weights.gate_up)}, as_batch(kept.hidden));
  return kept;
}

Tensor absorbed_forward(const Tensor& u, const Tensor& s, const Weights& weights, const Kept& kept) {
  run(s, [&]<class T, class Backend>(Backend backend) {
    if constexpr (kHasKernels<T, Backend>)
      kernel::sequence_forward(backend, events_of<T>(kept, s, u), u.data<const T>(),
                               kept.queries.data<const T>(), state_of<T, Backend>(kept));
  });
  return weights.release(kept.product_sums(), kept.direct);
}

// Calls f(backend, w.mat()) with the types of rows x and of parameter w.
template <class F>
void run_folding(const Tensor& x, const Tensor& w, F f) {
  run(x, [&]<class T>(auto backend) {
    if (w.dtype() == x.dtype()) return f.template operator()<T>(backend, w.mat<const T>());
    if constexpr (std::is_same_v<T, bfloat16>) f.template operator()<T>(backend, w.mat<const float>());
  });
}

Tensor folded(const Tensor& x, const Tensor& gate_up, const Tensor& gain) {
  const Tensor y = empty(gate_up.shape(), x.dtype(), x.device());
  run_folding(x, gate_up, [&]<class T>(auto backend, auto w) {
    kernel::fold_gain(backend, w, gain.data<const acc_t<T>>(), y.data<T>());
  });
  return y;
}

// A place for what newer ops left of a gradient: the sum to add to, if there is one that kernels can take.
struct Running {
  Tensor sum;
  bool adds;

  Running(const Needs& needs, size_t input, const Tensor& like)
      : sum(needs.running(input)), adds(sum.defined()) {
    if (!adds) sum = empty_like(like);
  }
};

// Leaves the gradient of gate_up in kept.hidden; of u, and Σ δ z.
struct QuerySide {
  Tensor du, sums;
};
QuerySide absorbed_backward(const Tensor& u, const Tensor& s, const Weights& weights, const Kept& kept,
                            const Tensor& dm, const Running& ds) {
  const Tensor p = weights.absorb(dm);
  const Tensor sums = empty_like(p), direct = empty_like(kept.direct);
  const bool aligned = is_aligned(ds.sum);
  const Tensor into = aligned ? ds.sum : empty_like(s);
  run(s, [&]<class T, class Backend>(Backend backend) {
    if constexpr (kHasKernels<T, Backend>)
      kernel::sequence_backward(backend, events_of<T>(kept, s, u), u.data<const T>(),
                                kept.queries.data<const T>(), dm.data<const T>(), p.data<const T>(),
                                state_of<T, Backend>(kept), sums.data<T>(), direct.data<acc_t<T>>(),
                                into.data<T>(), aligned && ds.adds);
  });
  if (!aligned) add_into(ds.sum, into);
  return {weights.release(sums, direct), sums};
}

Tensor absorbed(const Tensor& given_u, const SequenceRows& rows, const Tensor& gain, const Tensor& gate_up,
                const Tensor& down, const Tensor& history) {
  const std::vector<Tensor> inputs{given_u, rows.s(), rows.normed(), gain, gate_up, down};
  const Tensor u = plain_rows(given_u), s = plain_rows(rows.s()), normed = plain_rows(rows.normed());
  const Tensor wide_gain = cast(gain.detach(), sums_of(s.dtype())).contiguous(),
               matrix = gate_up.detach().contiguous();
  const Weights weights{folded(s, matrix, wide_gain), operand_for(s, down, "down").contiguous(), u.dim(1)};
  bool saves = false;
  for (const Tensor& x : inputs) saves = saves || needs_grad(x);
  const Kept kept = keep(u, normed, weights, history, saves);
  return record(absorbed_forward(u, s, weights, kept), inputs, [&] {
    return [=, u = Saved(u), s = Saved(s), normed = Saved(normed), folded_weight = Saved(weights.gate_up),
            down_weight = Saved(weights.down), matrix = Saved(matrix), heads = u.dim(1),
            gain_dtype = gain.dtype(),
            down_dtype = down.dtype()](const Tensor& upstream, const Needs& needs) -> Grads {
      const Weights again{folded_weight.get(), down_weight.get(), heads};
      const Tensor dm = plain_rows(upstream), &w = matrix.get();
      const DType sums = sums_of(dm.dtype());
      const auto place = [&](size_t input, const Shape& shape) {
        return needs.gradient(input, shape, sums, dm.device());
      };
      const Running ds(needs, 1, s.get()), dnormed(needs, 2, normed.get());
      const auto [du, deltas] = absorbed_backward(u.get(), s.get(), again, kept, dm, ds);

      const Tensor ddown = place(5, again.down.shape()), ddown_heads = again.heads_of(ddown);
      multiply({by_head(kept.product_sums()), true}, {by_head(dm)}, ddown_heads);
      multiply_add({by_head(deltas), true}, {by_head(u.get())}, ddown_heads);

      const Tensor dgate_up = place(4, w.shape()), dgain = place(3, wide_gain.shape());
      multiply({as_batch(normed.get()), true}, {as_batch(kept.hidden)}, as_batch(dgate_up));
      run_folding(dm, w, [&]<class T>(auto backend, auto from) {
        kernel::unfold_gain(backend, from, wide_gain.data<const acc_t<T>>(), dgate_up.data<acc_t<T>>(),
                            dgain.data<acc_t<T>>());
      });
      const auto into =
          dnormed.adds ? [](const Operand& a, const Operand& b, const Tensor& y) { multiply_add(a, b, y); }
                       : [](const Operand& a, const Operand& b, const Tensor& y) { multiply(a, b, y); };
      into({as_batch(kept.hidden)}, {as_batch(again.gate_up), true}, as_batch(dnormed.sum));
      return {du,
              ds.sum,
              dnormed.sum,
              cast(dgain, gain_dtype),
              cast(dgate_up, w.dtype()),
              cast(ddown, down_dtype)};
    };
  });
}

void check_inputs(const Tensor& u, const Tensor& s, const Tensor& gain, const Tensor& gate_up,
                  const Tensor& down, const Tensor& history, const Tensor& candidates) {
  MR_CHECK(u.ndim() == 3, "needs queries [candidates, heads, width], got ", u.shape());
  MR_CHECK(s.ndim() == 2, "needs events [events, heads * width], got ", s.shape());
  check_same(u, s, "u", "s");
  const int64_t width = u.dim(1) * u.dim(2);
  MR_CHECK(s.dim(1) == width, "events are ", s.dim(1), " wide, ", u.dim(1), " heads of ", u.dim(2), " need ",
           width);
  MR_CHECK(gain.shape() == Shape{width}, "the gain is ", gain.shape(), ", the events ", s.shape());
  MR_CHECK(gate_up.ndim() == 2 && gate_up.dim(0) == width && gate_up.dim(1) % 2 == 0, "gate_up is ",
           gate_up.shape(), ", the events ", s.shape(), ": needs [", width, ", 2 F]");
  MR_CHECK(down.shape() == Shape({gate_up.dim(1) / 2, width}), "down is ", down.shape(), ", gate_up ",
           gate_up.shape(), ": needs ", Shape({gate_up.dim(1) / 2, width}));
  check_offsets(history, s.dim(0), "history offsets");
  check_offsets(candidates, u.dim(0), "candidate offsets");
  MR_CHECK(history.dim(0) == candidates.dim(0), "history offsets are for ", history.dim(0) - 1,
           " requests, candidate offsets for ", candidates.dim(0) - 1);
}

}  // namespace

SequenceForm choose_form(const SequenceSizes& sizes, DType dtype, Device device) {
  const auto real = [](int64_t n) { return static_cast<double>(n); };
  const double E = real(sizes.events), R = real(sizes.requests), N = real(sizes.heads),
               F = real(sizes.hidden), row = N * real(sizes.width),
               bytes = real(static_cast<int64_t>(size_of(dtype)));
  // Operations for each byte that memory moves in the same time: 774 TFLOP/s over 3.9 TB/s on an H200; of a core, whose
  // caches hold a request of the thin products, some 75 GFLOP/s over 8 GB/s.
  const double per_byte = device.is_cuda() ? 200 : 9;
  // Down products, attention and the two passes of SwiGLU, against the thin passes and the products on the query side.
  const double plain = E * row * (6 * F + 12) + per_byte * bytes * E * (9 * F + 6 * row);
  // Twelve launches more, of 2-3 µs each in a graph.
  const double launches = device.is_cuda() ? 25e9 : 0;
  const double absorbed = launches + 12 * N * F * E + 12 * row * F * R +
                          per_byte * (bytes * E * (10 * F + 5 * row) + 40 * N * F * R);
  // A block of the device walks a history alone, and a multiprocessor holds several blocks.
  constexpr double kBlockColumns = 128, kFewBlocks = 264;
  if (device.is_cuda() && R * F / kBlockColumns < kFewBlocks) return SequenceForm::plain;
  return absorbed < plain ? SequenceForm::absorbed : SequenceForm::plain;
}

const Tensor& SequenceRows::normed() const {
  if (!normed_.defined()) normed_ = rms_norm(s_, {}, eps_);
  return normed_;
}

Tensor sequence_attention(const Tensor& u, const SequenceRows& rows, const Tensor& gain,
                          const Tensor& gate_up, const Tensor& down, const Tensor& history_offsets,
                          const Tensor& candidate_offsets, const SequenceAttentionOptions& options) {
  MR_OP("sequence_attention");
  const Tensor& s = rows.s();
  check_inputs(u, s, gain, gate_up, down, history_offsets, candidate_offsets);
  const std::string why_not = obstacle(u, s, down, candidate_offsets, options);
  SequenceForm form = options.form;
  if (form == SequenceForm::automatic && why_not.empty())
    form = choose_form({u.dim(0), s.dim(0), u.dim(1), u.dim(2), down.dim(0)}, u.dtype(), u.device());
  if (form == SequenceForm::absorbed) {
    MR_CHECK(why_not.empty(), "the absorbed form is not there: ", why_not);
    return absorbed(u, rows, gain, gate_up, down, history_offsets.contiguous());
  }
  const Tensor h = residual_ffn(s, gain, gate_up, down, {.eps = rows.eps(), .recompute = options.recompute});
  return attend(u, h, history_offsets, candidate_offsets);
}

}  // namespace mixrec
