#include "mixrec/models/ui_mixformer.h"

#include "mixrec/core/error.h"
#include "mixrec/nn/init.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/cross_attention.h"
#include "mixrec/ops/head_mixing.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/ops/request.h"
#include "mixrec/ops/residual_ffn.h"

#include <algorithm>
#include <cmath>

namespace mixrec {
namespace {

int64_t slice_width(int64_t total, int64_t heads) { return (total + heads - 1) / heads; }

int64_t user_width(const FeatureEmbedding& embedding, const MixFormerOptions& options) {
  int64_t width = embedding.request_width();
  for (size_t h = 0; options.pooled_history && h < embedding.histories(); ++h)
    width += embedding.event_width(h);
  return width;
}

int64_t item_heads_of(const FeatureEmbedding& embedding, const UiMixFormerOptions& o) {
  MR_CHECK(o.heads >= 2, "UI-MixFormer splits its heads in two sides and needs 2 or more, got ", o.heads);
  MR_CHECK(o.item_heads >= 0 && o.item_heads < o.heads, "item_heads must leave a head to each side: got ",
           o.item_heads, " of ", o.heads);
  if (o.item_heads > 0) return o.item_heads;
  const int64_t item = embedding.candidate_width(), all = item + user_width(embedding, o);
  return std::clamp<int64_t>(all > 0 ? item * o.heads / all : 1, 1, o.heads - 1);
}

UiMixFormerOptions resolved_options(UiMixFormerOptions o) {
  static_cast<MixFormerOptions&>(o) = o.resolved();
  return o;
}

// Eq 2: rows of features, zero-padded, cut in one slice a head, each projected to D.
Tensor projected(const Tensor& features, const PerHeadLinear& input) {
  const int64_t heads = input.weight.dim(0), slice = input.weight.dim(1);
  return input.forward(
      pad_last(features, heads * slice - features.dim(1)).reshape({features.dim(0), heads, slice}));
}

// What each of the N heads of all sides reads of these n heads: x [B, n, D] -> [B, N, n·w], w = D / N.
Tensor chunks(const Tensor& x, int64_t all_heads) {
  const int64_t rows = x.dim(0), heads = x.dim(1), width = x.dim(2) / all_heads;
  return x.reshape({rows, heads, all_heads, width}).transpose(1, 2).reshape({rows, all_heads, heads * width});
}

// The FFN of one side behind a norm that both share, and the residual: eqs 4 and 9.
Tensor enriched(const Tensor& x, const RMSNorm& norm, const PerHeadFFN& ffn) {
  return residual_ffn(x, norm.gain, ffn.gate_up, ffn.down, {.eps = norm.eps});
}

// Eqs 7-8 for the heads of one side; h [E, n·d_s].
Tensor attended(const UiSide& side, const Tensor& q, const Tensor& h, const Tensor& history_offsets,
                const Tensor& candidate_offsets) {
  return cross_attention(q, side.key, side.value, h, history_offsets, candidate_offsets, q);
}

}  // namespace

UiSide::UiSide(int64_t heads, const MixFormerOptions& o, Rng& rng)
    : mixer(heads, o.width, o.ffn_hidden, rng, {o.down_scale}),
      fusion(heads, o.width, o.ffn_hidden, rng, {o.down_scale}),
      key(weight_parameter({heads, o.event_width, o.width}, rng)),
      value(weight_parameter({heads, o.event_width, o.width}, rng)) {}

UiMixFormerBlock::UiMixFormerBlock(int64_t user_heads, const MixFormerOptions& o, Rng& rng)
    : norm(o.width, o.norm_eps),
      mixer_norm(o.width, o.norm_eps),
      fusion_norm(o.width, o.norm_eps),
      sequence(o.heads * o.event_width, o.sequence_hidden, rng, o.norm_eps, {o.down_scale},
               o.recompute != "none"),
      user(user_heads, o, rng),
      item(o.heads - user_heads, o, rng) {}

UiMixFormer::UiMixFormer(const FeatureSet& spec, const UiMixFormerOptions& options, Rng& rng)
    : options_(resolved_options(options)),
      embedding_(spec, rng, {options_.table_deviation}),
      dropout_(options_.dropout),
      item_heads_(item_heads_of(embedding_, options_)),
      user_input_(user_heads(), slice_width(user_width(embedding_, options_), user_heads()), options_.width,
                  rng),
      item_input_(item_heads_, slice_width(embedding_.candidate_width(), item_heads_), options_.width, rng) {
  MR_CHECK(!spec.tasks.empty(), "UI-MixFormer needs at least one task");
  MR_CHECK(embedding_.candidate_width() > 0, "UI-MixFormer needs a feature of the candidates");
  MR_CHECK(user_width(embedding_, options_) > 0,
           "UI-MixFormer needs a feature of the requests, or a pooled history");
  MR_CHECK(spec.histories.size() <= 1, "UI-MixFormer reads one history, the data set has ",
           spec.histories.size());
  MR_CHECK(options_.recompute != "block", "UI-MixFormer recomputes 'none' or 'ffn', not 'block'");
  for (size_t h = 0; h < spec.histories.size(); ++h) {
    history_names_.push_back(spec.histories[h].name);
    event_projections_.emplace_back(embedding_.event_width(h), options_.heads * options_.event_width, rng,
                                    LinearOptions{.bias = false});
  }
  for (int64_t l = 0; l < options_.layers; ++l) blocks_.emplace_back(user_heads(), options_, rng);
  for (const TaskSpec& task : spec.tasks) {
    task_names_.push_back(task.name);
    heads_.emplace_back(options_, rng);
  }
}

std::vector<Tensor> UiMixFormer::raw_events(const RequestBatch& batch, Pass& pass) const {
  std::vector<Tensor> events;
  for (size_t h = 0; h < event_projections_.size(); ++h)
    events.push_back(embedding_.events(batch, h, pass.compute));
  return events;
}

Tensor UiMixFormer::user_input(const RequestBatch& batch, const std::vector<Tensor>& events,
                               Pass& pass) const {
  std::vector<Tensor> parts{embedding_.requests(batch, pass.compute)};
  for (size_t h = 0; options_.pooled_history && h < events.size(); ++h)
    parts.push_back(segment_mean(events[h], batch.histories[h].offsets));
  return projected(dropout_.forward(concat(parts, 1), pass), user_input_);
}

Tensor UiMixFormer::item_input(const RequestBatch& batch, Pass& pass) const {
  return projected(dropout_.forward(embedding_.candidates(batch, pass.compute), pass), item_input_);
}

UiMixFormer::UserState UiMixFormer::user_side(const RequestBatch& batch, Pass& pass) const {
  const int64_t heads = options_.heads, item_width = item_heads_ * (options_.width / heads);
  const std::vector<Tensor> events = raw_events(batch, pass);
  UserState state;
  Tensor x = user_input(batch, events, pass);
  pass.tap("user.input", x);
  const Tensor s = events.empty() ? Tensor() : event_projections_[0].forward(events[0]);
  if (s.defined()) state.history_offsets = batch.histories[0].offsets;
  const Tensor one_each = arange(batch.requests + 1, x.device());
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const UiMixFormerBlock& block = blocks_[l];
    const std::vector<Tensor> read =
        split(chunks(block.norm.forward(x), heads), 1, {user_heads(), item_heads_});
    state.chunks.push_back(read[1]);
    const Tensor p = pad_last(read[0], item_width) + x;
    Tensor z = enriched(p, block.mixer_norm, block.user.mixer);
    if (s.defined()) {
      const std::vector<Tensor> h =
          split(block.sequence.forward(s), 1,
                {user_heads() * options_.event_width, item_heads_ * options_.event_width});
      state.events.push_back(h[1]);
      z = attended(block.user, z, h[0], state.history_offsets, one_each);
    }
    x = enriched(z, block.fusion_norm, block.user.fusion);
    pass.tap("user.blocks." + std::to_string(l), x);
  }
  state.heads = x;
  return state;
}

UiMixFormer::UserState UiMixFormer::UserState::compact() const {
  // One block of memory: small ones cost more around them than inside.
  constexpr int64_t kAligned = 32;
  const auto room = [](const Tensor& x) { return (x.numel() + kAligned - 1) / kAligned * kAligned; };
  int64_t total = room(heads), at = 0;
  for (const auto* layers : {&chunks, &events})
    for (const Tensor& x : *layers) total += room(x);
  const Tensor block = empty({total}, heads.dtype(), heads.device());
  const auto moved = [&](const Tensor& x) {
    Tensor place = block.narrow(0, at, x.numel()).reshape(x.shape());
    place.copy_from(x);
    at += room(x);
    return place;
  };
  UserState state;
  for (const Tensor& x : chunks) state.chunks.push_back(moved(x));
  for (const Tensor& x : events) state.events.push_back(moved(x));
  state.heads = moved(heads);
  if (history_offsets.defined()) state.history_offsets = history_offsets.clone();
  return state;
}

size_t UiMixFormer::UserState::bytes() const {
  constexpr size_t kAround = 512;  // handles, and what an allocator rounds up to
  const auto bytes_of = [](const Tensor& x) {
    return x.defined() ? static_cast<size_t>(x.numel()) * size_of(x.dtype()) + kAround : 0;
  };
  size_t bytes = bytes_of(heads) + bytes_of(history_offsets);
  for (const auto* layers : {&chunks, &events})
    for (const Tensor& x : *layers) bytes += bytes_of(x);
  return bytes;
}

Tensor UiMixFormer::item_side(const UserState& user, const RequestBatch& batch, Pass& pass) const {
  Tensor x = item_input(batch, pass);
  pass.tap("item.input", x);
  const auto expand = [&](const Tensor& y) { return expand_by_request(y, batch.offsets, batch.candidates); };
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const UiMixFormerBlock& block = blocks_[l];
    const Tensor own = chunks(block.norm.forward(x), options_.heads).narrow(1, user_heads(), item_heads_);
    const Tensor p = concat({expand(user.chunks[l]), own}, 2) + x;
    Tensor z = enriched(p, block.mixer_norm, block.item.mixer);
    if (!user.events.empty())
      z = attended(block.item, z, user.events[l], user.history_offsets, batch.offsets);
    x = enriched(z, block.fusion_norm, block.item.fusion);
    pass.tap("item.blocks." + std::to_string(l), x);
  }
  return logits(concat({expand(user.heads), x}, 1));
}

// All heads of every candidate at once, under the mask: the literal form of eqs 10-11.
Tensor UiMixFormer::expanded(const RequestBatch& batch, Pass& pass) const {
  const std::vector<Tensor> events = raw_events(batch, pass);
  const Tensor users = expand_by_request(user_input(batch, events, pass), batch.offsets, batch.candidates);
  Tensor x = concat({users, item_input(batch, pass)}, 1);
  pass.tap("input", x);
  const Tensor s = events.empty() ? Tensor() : event_projections_[0].forward(events[0]);
  const int64_t user_columns = user_heads() * options_.event_width,
                item_columns = item_heads_ * options_.event_width;
  const auto sides = [&](const Tensor& y, const auto& of_user, const auto& of_item) {
    const std::vector<Tensor> parts = split(y, 1, {user_heads(), item_heads_});
    return concat({of_user(parts[0]), of_item(parts[1])}, 1);
  };
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const UiMixFormerBlock& block = blocks_[l];
    const auto ffns = [&](const Tensor& y, PerHeadFFN UiSide::*ffn) {
      return sides(
          y, [&](const Tensor& part) { return (block.user.*ffn).forward(part); },
          [&](const Tensor& part) { return (block.item.*ffn).forward(part); });
    };
    const Tensor p = head_mixing(block.norm.forward(x), user_heads(), x);
    Tensor z = ffns(block.mixer_norm.forward(p), &UiSide::mixer) + p;
    if (s.defined()) {
      const std::vector<Tensor> h = split(block.sequence.forward(s), 1, {user_columns, item_columns});
      const Tensor& offsets = batch.histories[0].offsets;
      z = sides(
          z, [&](const Tensor& q) { return attended(block.user, q, h[0], offsets, batch.offsets); },
          [&](const Tensor& q) { return attended(block.item, q, h[1], offsets, batch.offsets); });
    }
    x = ffns(block.fusion_norm.forward(z), &UiSide::fusion) + z;
    pass.tap("blocks." + std::to_string(l), x);
  }
  return logits(x);
}

Tensor UiMixFormer::logits(const Tensor& x) const {
  std::vector<Tensor> logits;
  for (const TaskHead& head : heads_) logits.push_back(head.forward(x));
  return concat(logits, 1);
}

Tensor UiMixFormer::forward(const RequestBatch& batch, Pass& pass) const {
  return options_.decoupled ? item_side(user_side(batch, pass), batch, pass) : expanded(batch, pass);
}

double UiMixFormer::forward_flops(const RequestBatch& batch) const {
  const UiMixFormerOptions& o = options_;
  const auto real = [](int64_t n) { return static_cast<double>(n); };
  const double D = real(o.width), F = real(o.ffn_hidden), ds = real(o.event_width), Ns = real(o.heads) * ds;
  const double users = real(user_heads()), items = real(item_heads_);
  const double C = real(batch.candidates), U = o.decoupled ? real(batch.requests) : C;
  double events = 0, user_pairs = 0, item_pairs = 0;  // pairs of a query and an event
  if (!batch.histories.empty() && !event_projections_.empty()) {
    const auto history = batch.histories[0].offsets.to_vector<int64_t>();
    const auto candidates = batch.offsets.to_vector<int64_t>();
    events = real(history.back());
    for (size_t r = 0; r + 1 < history.size(); ++r)
      item_pairs += real((history[r + 1] - history[r]) * (candidates[r + 1] - candidates[r]));
    user_pairs = o.decoupled ? events : item_pairs;
  }
  const double heads = U * users + C * items;
  const double layer = heads * (12 * D * F + 4 * ds * D) +
                       4 * ds * (users * user_pairs + items * item_pairs) +
                       events * 6 * Ns * real(o.sequence_hidden);
  double total = real(o.layers) * layer + 2 * U * real(user_input_.weight.numel()) +
                 2 * C * real(item_input_.weight.numel());
  for (const Linear& projection : event_projections_) total += events * 2 * real(projection.weight.numel());
  for (const TaskHead& head : heads_) {
    for (const Linear& linear : head.mlp.layers) total += C * 2 * real(linear.weight.numel());
  }
  return total;
}

void UiMixFormer::visit(Visitor& v) {
  v.module("embedding", embedding_);
  v.parameter("input.user_projection", user_input_.weight);
  v.parameter("input.item_projection", item_input_.weight);
  for (size_t h = 0; h < event_projections_.size(); ++h)
    v.module("event_projection." + history_names_[h], event_projections_[h]);
  v.modules("blocks", blocks_);
  for (size_t t = 0; t < heads_.size(); ++t) v.module("heads." + task_names_[t], heads_[t]);
}

}  // namespace mixrec
