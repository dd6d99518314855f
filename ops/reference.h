// The composed twins of fused ops: the same signature, written from plain ops as the formula reads.  For
// tests, for study, and for a backend that lacks the fused kernel.
#pragma once

#include "mixrec/core/rng.h"
#include "mixrec/core/tensor.h"

#include <vector>

namespace mixrec::reference {

// ops/ffn/swiglu.h, ops/norm.h, ops/softmax.h, ops/loss.h, ops/dropout.h: contracts are there.
Tensor swiglu(const Tensor& gate, const Tensor& up);
Tensor swiglu(const Tensor& gate_up);

Tensor residual_ffn(const Tensor& x, const Tensor& gain, const Tensor& gate_up, const Tensor& down,
                    double eps = 1e-6);

Tensor rms_norm(const Tensor& x, const Tensor& gain = {}, double eps = 1e-6);
Tensor layer_norm(const Tensor& x, const Tensor& gain = {}, const Tensor& bias = {}, double eps = 1e-5);

Tensor softmax(const Tensor& x);
Tensor log_softmax(const Tensor& x);
Tensor logsumexp(const Tensor& x);

// Labels must be numbers here, also under a weight of 0.
Tensor bce_with_logits(const Tensor& logits, const Tensor& labels, const Tensor& weights = {},
                       double normaliser = 0);
Tensor bce_with_logits_per_task(const Tensor& logits, const Tensor& labels, const Tensor& weights = {},
                                const std::vector<double>& normalisers = {});
Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels, double normaliser = 0);

Tensor dropout(const Tensor& x, double rate, Rng& rng, bool training);

// ops/ffn/ffn.h, from linear() or per_head_matmul() and the fused swiglu().
Tensor ffn(const Tensor& x, const Tensor& gate_up, const Tensor& down, const Tensor& residual = {});

// With K and V as in MixFormer's eqs 7-8, one candidate after the other (ops/attention/cross_attention.h).
Tensor cross_attention(const Tensor& q, const Tensor& key, const Tensor& value, const Tensor& h,
                       const Tensor& history_offsets, const Tensor& candidate_offsets,
                       const Tensor& residual = {});

// attend() over residual_ffn(), both composed (ops/attention/sequence_attention.h).
Tensor sequence_attention(const Tensor& u, const Tensor& s, const Tensor& gain, const Tensor& gate_up,
                          const Tensor& down, const Tensor& history_offsets, const Tensor& candidate_offsets,
                          double eps = 1e-6);

}  // namespace mixrec::reference
