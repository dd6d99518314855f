#include "mixrec/models/unified/mixformer.h"

#include "mixrec/autograd/checkpoint.h"
#include "mixrec/core/error.h"
#include "mixrec/ops/ffn/residual_ffn.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/request.h"

namespace mixrec {
namespace {

std::vector<int64_t> head_sizes(const MixFormerOptions& o) {
  if (o.head_hidden == 0) return {o.heads * o.width, 1};
  return {o.heads * o.width, o.head_hidden, 1};
}

// Width of eq 1's concatenation.
int64_t concatenated_width(const FeatureEmbedding& embedding, const MixFormerOptions& options) {
  int64_t width = embedding.request_width() + embedding.candidate_width();
  for (size_t h = 0; options.pooled_history && h < embedding.histories(); ++h)
    width += embedding.event_width(h);
  return width;
}

int64_t slice_width(int64_t total, int64_t heads) { return (total + heads - 1) / heads; }

}  // namespace

void MixFormerOptions::visit(OptionVisitor& v) {
  const OptionRange size = between(1, 65536), size_or_rule = between(0, 1 << 20);
  v.choice("preset", preset, {"", "small", "medium"}, "of the paper: sets the sizes below");
  v.number("heads", heads, between(1, 1024), "N");
  v.number("width", width, size, "D, a multiple of the heads");
  v.number("layers", layers, between(1, 1000), "L");
  v.number("event_width", event_width, size, "d_s: an event's width per head");
  v.number("ffn_hidden", ffn_hidden, size_or_rule, "of the FFNs per head; 0 = 8/3 of the width");
  v.number("sequence_hidden", sequence_hidden, size_or_rule,
           "of the sequence FFN; 0 = twice heads times event_width");
  v.number("head_hidden", head_hidden, size_or_rule, "hidden width of a task's MLP; 0 = none");
  v.flag("pooled_history", pooled_history, "the mean of the raw events is one more feature");
  v.number("dropout", dropout, below(0, 1), "on the embedded features, in training");
  v.number("table_deviation", table_deviation, between(0, 1e3), "standard deviation of initial embeddings");
  v.number("down_scale", down_scale, between(0, 1e3), "of the initial down-projections of FFNs");
  v.number("norm_eps", norm_eps, above(0, 1), "under the root of norms");
  v.choice("recompute", recompute, {"none", "ffn", "block"},
           "what the backward recomputes instead of keeping it");
}

MixFormerOptions MixFormerOptions::resolved() const {
  MixFormerOptions o = *this;
  if (preset == "small" || preset == "medium") {
    o.heads = 16, o.layers = 4, o.event_width = 64, o.sequence_hidden = 2048, o.head_hidden = 256;
    o.width = preset == "small" ? 384 : 768;  // 386 as printed is not a multiple of 16
  } else {
    MR_CHECK(preset.empty(), "unknown MixFormer preset '", preset, "': there are 'small' and 'medium'");
  }
  MR_CHECK(o.heads > 0 && o.width > 0 && o.layers > 0 && o.event_width > 0,
           "MixFormer needs positive sizes, got heads ", o.heads, ", width ", o.width, ", layers ", o.layers,
           ", event_width ", o.event_width);
  MR_CHECK(o.width % o.heads == 0, "MixFormer's width ", o.width, " must be a multiple of its heads ",
           o.heads, ": head mixing cuts every head into one chunk a head");
  MR_CHECK(o.recompute == "none" || o.recompute == "ffn" || o.recompute == "block",
           "recompute must be 'none', 'ffn' or 'block', got '", o.recompute, "'");
  if (o.ffn_hidden == 0) o.ffn_hidden = 8 * o.width / 3;
  if (o.sequence_hidden == 0) o.sequence_hidden = 2 * o.heads * o.event_width;
  return o;
}

QueryMixer::QueryMixer(const MixFormerOptions& o, Rng& rng)
    : norm(o.width, o.norm_eps),
      ffn_norm(o.width, o.norm_eps),
      ffn(o.heads, o.width, o.ffn_hidden, rng, {o.down_scale}) {}

Tensor QueryMixer::forward(const Tensor& x) const {
  const Tensor p = mixing.forward(norm.forward(x), x);
  return residual_ffn(p, ffn_norm.gain, ffn.gate_up, ffn.down, {.eps = ffn_norm.eps});
}

OutputFusion::OutputFusion(const MixFormerOptions& o, Rng& rng)
    : norm(o.width, o.norm_eps), ffn(o.heads, o.width, o.ffn_hidden, rng, {o.down_scale}) {}

Tensor OutputFusion::forward(const Tensor& z) const {
  return residual_ffn(z, norm.gain, ffn.gate_up, ffn.down, {.eps = norm.eps});
}

MixFormerBlock::MixFormerBlock(const MixFormerOptions& o, Rng& rng)
    : query_mixer(o, rng),
      attention({.heads = o.heads,
                 .width = o.width,
                 .event_width = o.event_width,
                 .sequence_hidden = o.sequence_hidden,
                 .norm_eps = o.norm_eps,
                 .ffn = {o.down_scale},
                 .recompute_events = o.recompute == "ffn"},
                rng),
      output_fusion(o, rng) {}

Tensor MixFormerBlock::forward(const Tensor& x, const SequenceRows& s, const Tensor& history_offsets,
                               const Tensor& candidate_offsets, bool one_candidate_each) const {
  const Tensor q = query_mixer.forward(x);
  if (!s.s().defined()) return output_fusion.forward(q);
  return output_fusion.forward(
      attention.forward(q, s, history_offsets, candidate_offsets, one_candidate_each));
}

TaskHead::TaskHead(const MixFormerOptions& o, Rng& rng)
    : norm(o.width, o.norm_eps), mlp(head_sizes(o), rng) {}

namespace {

// [C, N, D] -> [C, N·D]
Tensor flattened(const Tensor& x) { return x.reshape({x.dim(0), x.dim(1) * x.dim(2)}); }

}  // namespace

Tensor TaskHead::forward(const Tensor& x) const { return mlp.forward(flattened(norm.forward(x))); }

Tensor TaskHead::forward_by_request(const Tensor& users, const Tensor& items, const Tensor& offsets) const {
  return mlp.forward_by_request(flattened(norm.forward(users)), flattened(norm.forward(items)), offsets);
}

MixFormer::MixFormer(const FeatureSet& spec, const MixFormerOptions& options, Rng& rng)
    : options_(options.resolved()),
      embedding_(spec, rng, {options_.table_deviation}),
      dropout_(options_.dropout),
      input_(options_.heads, slice_width(concatenated_width(embedding_, options_), options_.heads),
             options_.width, rng) {
  MR_CHECK(!spec.tasks.empty(), "MixFormer needs at least one task");
  MR_CHECK(spec.histories.size() <= 1, "MixFormer reads one history, the data set has ",
           spec.histories.size());
  for (size_t h = 0; h < spec.histories.size(); ++h) {
    history_names_.push_back(spec.histories[h].name);
    event_projections_.emplace_back(embedding_.event_width(h), options_.heads * options_.event_width, rng,
                                    LinearOptions{.bias = false});
  }
  for (int64_t l = 0; l < options_.layers; ++l) blocks_.emplace_back(options_, rng);
  for (const TaskSpec& task : spec.tasks) {
    task_names_.push_back(task.name);
    heads_.emplace_back(options_, rng);
  }
}

Tensor MixFormer::input(const RequestBatch& batch, const std::vector<Tensor>& events, Pass& pass) const {
  std::vector<Tensor> user{embedding_.requests(batch, pass.compute)};
  for (size_t h = 0; options_.pooled_history && h < events.size(); ++h) {
    user.push_back(segment_mean(events[h], batch.histories[h].offsets));
  }
  const int64_t heads = options_.heads, slice = input_.weight.dim(1);
  const Tensor e =
      dropout_.forward(embedding_.candidates(batch, user, {}, heads * slice, pass.compute), pass);
  return input_.forward(e.reshape({batch.candidates, heads, slice}));
}

Tensor MixFormer::forward(const RequestBatch& batch, Pass& pass) const {
  std::vector<Tensor> events;
  for (size_t h = 0; h < event_projections_.size(); ++h)
    events.push_back(embedding_.events(batch, h, pass.compute));
  Tensor x = input(batch, events, pass);
  pass.tap("input", x);
  const Tensor s = events.empty() ? Tensor() : event_projections_[0].forward(events[0]);
  const Tensor history_offsets = events.empty() ? Tensor() : batch.histories[0].offsets;
  const SequenceRows rows(s, options_.norm_eps);
  const bool one_each = batch.candidates == batch.requests;  // a request has a candidate at least
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const auto block = [&block = blocks_[l], history_offsets, offsets = batch.offsets, one_each](
                           const Tensor& in, const SequenceRows& from) {
      return block.forward(in, from, history_offsets, offsets, one_each);
    };
    // What is recomputed shares nothing with other blocks.
    const auto again = [block, eps = options_.norm_eps](const std::vector<Tensor>& in) {
      return block(in[0], SequenceRows(in[1], eps));
    };
    x = options_.recompute == "block" ? checkpoint(again, {x, s}) : block(x, rows);
    pass.tap("blocks." + std::to_string(l), x);
  }
  std::vector<Tensor> logits;
  for (const TaskHead& head : heads_) logits.push_back(head.forward(x));
  return concat(logits, 1);
}

double MixFormer::forward_flops(const RequestBatch& batch) const {
  const MixFormerOptions& o = options_;
  const double N = static_cast<double>(o.heads), D = static_cast<double>(o.width);
  const double Ns = N * static_cast<double>(o.event_width), F = static_cast<double>(o.ffn_hidden);
  const double Fs = static_cast<double>(o.sequence_hidden), C = static_cast<double>(batch.candidates);
  double events = 0, attended = 0;
  if (!batch.histories.empty() && !event_projections_.empty()) {
    const auto history = batch.histories[0].offsets.to_vector<int64_t>();
    const auto candidates = batch.offsets.to_vector<int64_t>();
    events = static_cast<double>(history.back());
    for (size_t r = 0; r + 1 < history.size(); ++r) {
      attended += static_cast<double>((history[r + 1] - history[r]) * (candidates[r + 1] - candidates[r]));
    }
  }
  const double layer = C * (12 * N * D * F + 4 * Ns * D) + attended * 4 * Ns + events * 6 * Ns * Fs;
  const double slice = static_cast<double>(input_.weight.dim(1));
  double total = static_cast<double>(o.layers) * layer + C * 2 * N * slice * D;
  for (const Linear& projection : event_projections_)
    total += events * 2 * static_cast<double>(projection.weight.numel());
  for (const TaskHead& head : heads_) {
    for (const Linear& linear : head.mlp.layers) total += C * 2 * static_cast<double>(linear.weight.numel());
  }
  return total;
}

void MixFormer::visit(Visitor& v) {
  v.module("embedding", embedding_);
  v.parameter("input.projection", input_.weight);
  for (size_t h = 0; h < event_projections_.size(); ++h) {
    v.module("event_projection." + history_names_[h], event_projections_[h]);
  }
  v.modules("blocks", blocks_);
  for (size_t t = 0; t < heads_.size(); ++t) v.module("heads." + task_names_[t], heads_[t]);
}

}  // namespace mixrec
