// MixFormer (arXiv 2602.14110): one backbone for feature interaction and behaviour sequences.
//
// Inputs
//   (1) e = [e_1; …; e_M] ∈ R^{D_ns}                              all non-sequence features of a candidate
//   (2) x_j = W_j e[d(j-1) : dj], d = ⌈D_ns / N⌉, j = 1..N        X ∈ R^{N×D}; e is zero-padded to N·d
//       s_t = W_s [item; side information; signals; time] ∈ R^{N·d_s}
// Block, L times; X ← [o_1 … o_N], s_t stays the original in every layer
//   (3) P   = HeadMixing(RMSNorm(X)) + X                          query mixer
//   (4) q_i = SwiGLU_i(RMSNorm(p_i)) + p_i
//   (5-8) z = CrossAttention(q, s)                                nn/attention.h
//   (9) o_i = SwiGLU_i(RMSNorm(z_i)) + z_i                        output fusion
// Read-out, one a task: RMSNorm → flatten → MLP → logit.
//
// Event states depend on the event alone, so they are computed once per request however many candidates it
// has.
#pragma once

#include "mixrec/models/model.h"
#include "mixrec/nn/attention.h"
#include "mixrec/nn/embedding.h"
#include "mixrec/nn/mlp.h"

namespace mixrec {

struct MixFormerOptions {
  std::string preset = "";      // "small" or "medium" of the paper set the sizes below
  int64_t heads = 8;            // N
  int64_t width = 32;           // D, a multiple of N
  int64_t layers = 2;           // L
  int64_t event_width = 16;     // d_s
  int64_t ffn_hidden = 0;       // F of the per-head FFNs; 0: 8/3 D
  int64_t sequence_hidden = 0;  // F_s of the sequence FFN; 0: 2 N d_s
  int64_t head_hidden = 64;     // hidden width of a task's MLP; 0: none
  bool pooled_history = true;   // the mean of the raw events is one more non-sequence feature
  double dropout = 0;           // on the embedded features
  double table_deviation = 0.005;
  double down_scale = 0.01;  // of FFN down-projections, see FfnOptions
  double norm_eps = 1e-6;
  // What the backward makes again instead of keeping it, the dearer the leaner: "none"; "ffn", the inside of the
  // sequence FFN (eq 5), which is most of a step's memory, in the plain form of sequence_attention(); "block",
  // everything inside a block.
  std::string recompute = "none";

  void visit(OptionVisitor& v);

  // With the preset applied and zeros replaced; throws on impossible sizes, naming both numbers.
  MixFormerOptions resolved() const;
};

// Eqs 3-4: [B, N, D] -> [B, N, D].
struct QueryMixer : Module {
  HeadMixing mixing;
  RMSNorm norm, ffn_norm;
  PerHeadFFN ffn;

  QueryMixer(const MixFormerOptions& options, Rng& rng);
  Tensor forward(const Tensor& x) const;
  void visit(Visitor& v) { v.module("norm", norm), v.module("ffn_norm", ffn_norm), v.module("ffn", ffn); }
};

// Eq 9: [B, N, D] -> [B, N, D].
struct OutputFusion : Module {
  RMSNorm norm;
  PerHeadFFN ffn;

  OutputFusion(const MixFormerOptions& options, Rng& rng);
  Tensor forward(const Tensor& z) const;
  void visit(Visitor& v) { v.module("norm", norm), v.module("ffn", ffn); }
};

struct MixFormerBlock : Module {
  QueryMixer query_mixer;
  CrossAttention attention;
  OutputFusion output_fusion;

  MixFormerBlock(const MixFormerOptions& options, Rng& rng);
  // x [C, N, D]; events s [E, N·d_s], the same in every block, or undefined when the model has no history.
  Tensor forward(const Tensor& x, const SequenceRows& s, const Tensor& history_offsets,
                 const Tensor& candidate_offsets, bool one_candidate_each) const;
  void visit(Visitor& v) {
    v.module("query_mixer", query_mixer), v.module("attention", attention),
        v.module("output_fusion", output_fusion);
  }
};

// RMSNorm → flatten → MLP → one logit: x [C, N, D] -> [C, 1].
struct TaskHead : Module {
  RMSNorm norm;
  MLP mlp;

  TaskHead(const MixFormerOptions& options, Rng& rng);
  Tensor forward(const Tensor& x) const;
  // Of heads the first of which are a request's: users [R, N_U, D], items [C, N_G, D] -> [C, 1].
  Tensor forward_by_request(const Tensor& users, const Tensor& items, const Tensor& offsets) const;
  void visit(Visitor& v) { v.module("norm", norm), v.module("mlp", mlp); }
};

class MixFormer : public Module {
 public:
  MixFormer(const FeatureSet& spec, const MixFormerOptions& options, Rng& rng);

  Tensor forward(const RequestBatch& batch, Pass& pass) const;  // logits [C, tasks]
  double forward_flops(const RequestBatch& batch) const;        // multiply-adds count as 2
  void visit(Visitor& v);

  const MixFormerOptions& options() const { return options_; }

 private:
  Tensor input(const RequestBatch& batch, const std::vector<Tensor>& events, Pass& pass) const;

  MixFormerOptions options_;
  std::vector<std::string> task_names_, history_names_;
  FeatureEmbedding embedding_;
  Dropout dropout_;
  PerHeadLinear input_;
  std::vector<Linear> event_projections_;
  std::vector<MixFormerBlock> blocks_;
  std::vector<TaskHead> heads_;
};

}  // namespace mixrec
