#include "mixrec/models/unified/ui_mixformer.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"
#include "mixrec/nn/init.h"
#include "mixrec/ops/attention/cross_attention.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/ffn/residual_ffn.h"
#include "mixrec/ops/head_mixing.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/ops/request.h"
#include "mixrec/ops/side_mixing.h"

#include <algorithm>
#include <cmath>
#include <memory>

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

void UiMixFormerOptions::visit(OptionVisitor& v) {
  MixFormerOptions::visit(v);
  v.number("item_heads", item_heads, between(0, 1024), "N_G; 0 = by the share of the item's features");
  v.flag("decoupled", decoupled, "compute the user side once per request");
}

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

UiMixFormer::UserInput UiMixFormer::user_input(const RequestBatch& batch, Pass& pass) const {
  const std::vector<Tensor> events = raw_events(batch, pass);
  std::vector<Tensor> parts{embedding_.requests(batch, pass.compute)};
  for (size_t h = 0; options_.pooled_history && h < events.size(); ++h)
    parts.push_back(segment_mean(events[h], batch.histories[h].offsets));
  UserInput input;
  input.heads = projected(dropout_.forward(concat(parts, 1), pass), user_input_);
  if (events.empty()) return input;
  input.events = event_projections_[0].forward(events[0]);
  input.history_offsets = batch.histories[0].offsets;
  return input;
}

Tensor UiMixFormer::item_input(const RequestBatch& batch, Pass& pass) const {
  return projected(dropout_.forward(embedding_.candidates(batch, pass.compute), pass), item_input_);
}

// How far the user side is, where the item side runs beside it on a card: an event a mark, in order.
class UiMixFormer::Progress {
 public:
  explicit Progress(bool beside) : beside_(beside) {}

  bool beside() const { return beside_; }

  void mark() {
    if (!beside_) return;
    marks_.push_back(std::make_unique<cuda::Event>());
    marks_.back()->record();
  }
  void wait_for(size_t mark) const {
    if (beside_) marks_[mark]->wait();
  }

  // The marks: in each layer two, at the end one.
  static size_t chunks_of(size_t layer) { return 2 * layer; }
  static size_t events_of(size_t layer) { return 2 * layer + 1; }

 private:
  bool beside_;
  std::vector<std::unique_ptr<cuda::Event>> marks_;
};

UiMixFormer::UserState UiMixFormer::user_side(const UserInput& input, Pass& pass, Progress& progress) const {
  const int64_t heads = options_.heads, chunk = options_.width / heads;
  UserState state;
  Tensor x = input.heads;
  pass.tap("user.input", x);
  const Tensor one_each = arange(x.dim(0) + 1, x.device());
  if (input.events.defined()) state.history_offsets = input.history_offsets;
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const UiMixFormerBlock& block = blocks_[l];
    const std::vector<Tensor> read =
        split(block.norm.forward(x), 2, {user_heads() * chunk, item_heads_ * chunk});
    state.chunks.push_back(read[1]);
    progress.mark();
    std::vector<Tensor> h;
    if (input.events.defined()) {
      h = split(block.sequence.forward(input.events), 1,
                {user_heads() * options_.event_width, item_heads_ * options_.event_width});
      state.events.push_back(h[1]);
    }
    progress.mark();
    const Tensor p = side_mixing(read[0], x);
    Tensor z = enriched(p, block.mixer_norm, block.user.mixer);
    if (!h.empty()) z = attended(block.user, z, h[0], state.history_offsets, one_each);
    x = enriched(z, block.fusion_norm, block.user.fusion);
    pass.tap("user.blocks." + std::to_string(l), x);
  }
  state.heads = x;
  progress.mark();
  return state;
}

UiMixFormer::UserState UiMixFormer::user_side(const RequestBatch& batch, Pass& pass) const {
  Progress progress(false);
  return user_side(user_input(batch, pass), pass, progress);
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

Tensor UiMixFormer::item_side(const UserState& user, const Tensor& input, const Tensor& offsets, Pass& pass,
                              const Progress& progress) const {
  const int64_t chunk = options_.width / options_.heads;
  Tensor x = input;
  pass.tap("item.input", x);
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const UiMixFormerBlock& block = blocks_[l];
    const Tensor own = block.norm.forward(x).narrow(2, user_heads() * chunk, item_heads_ * chunk);
    progress.wait_for(Progress::chunks_of(l));
    const Tensor p = side_mixing(own, x, user.chunks[l], offsets);
    Tensor z = enriched(p, block.mixer_norm, block.item.mixer);
    progress.wait_for(Progress::events_of(l));
    if (!user.events.empty()) z = attended(block.item, z, user.events[l], user.history_offsets, offsets);
    x = enriched(z, block.fusion_norm, block.item.fusion);
    pass.tap("item.blocks." + std::to_string(l), x);
  }
  progress.wait_for(Progress::chunks_of(blocks_.size()));
  std::vector<Tensor> logits(heads_.size());
  const auto run_heads = [&](size_t first, size_t last) {
    for (size_t t = first; t < last; ++t) logits[t] = heads_[t].forward_by_request(user.heads, x, offsets);
  };
  if (progress.beside() && heads_.size() > 1) {
    const cuda::Branch branch(x.device().index);
    {
      const cuda::StreamScope here(branch.stream());
      run_heads(0, heads_.size() / 2);
    }
    run_heads(heads_.size() / 2, heads_.size());
  } else {
    run_heads(0, heads_.size());
  }
  return concat(logits, 1);
}

Tensor UiMixFormer::item_side(const UserState& user, const RequestBatch& batch, Pass& pass) const {
  return item_side(user, item_input(batch, pass), batch.offsets, pass, Progress(false));
}

// users() and items() make the inputs.  The user side of a request has as many launches as the item side of all its
// candidates and hardly fills a card: it runs on a branch, a few layers ahead.
template <class Users, class Items>
Tensor UiMixFormer::both_sides(Device device, const Users& users, const Items& items, const Tensor& offsets,
                               Pass& pass) const {
  const bool beside = device.is_cuda() && !grad_enabled() && !pass.training && !pass.listener;
  Progress progress(beside);
  if (!beside) {
    const UserState state = user_side(users(), pass, progress);
    return item_side(state, items(), offsets, pass, progress);
  }
  UserState state;
  const cuda::Branch branch(device.index);
  {
    const cuda::StreamScope here(branch.stream());
    state = user_side(users(), pass, progress);
  }
  return item_side(state, items(), offsets, pass, progress);
}

Tensor UiMixFormer::forward(const UserInput& users, const Tensor& items, const Tensor& offsets,
                            Pass& pass) const {
  return both_sides(
      items.device(), [&] { return users; }, [&] { return items; }, offsets, pass);
}

// All heads of every candidate at once, under the mask: the literal form of eqs 10-11.
Tensor UiMixFormer::expanded(const RequestBatch& batch, Pass& pass) const {
  const auto [users, s, history_offsets] = user_input(batch, pass);
  Tensor x = concat({expand_by_request(users, batch.offsets, batch.candidates), item_input(batch, pass)}, 1);
  pass.tap("input", x);
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
      z = sides(
          z, [&](const Tensor& q) { return attended(block.user, q, h[0], history_offsets, batch.offsets); },
          [&](const Tensor& q) { return attended(block.item, q, h[1], history_offsets, batch.offsets); });
    }
    x = ffns(block.fusion_norm.forward(z), &UiSide::fusion) + z;
    pass.tap("blocks." + std::to_string(l), x);
  }
  std::vector<Tensor> logits;
  for (const TaskHead& head : heads_) logits.push_back(head.forward(x));
  return concat(logits, 1);
}

Tensor UiMixFormer::forward(const RequestBatch& batch, Pass& pass) const {
  if (!options_.decoupled) return expanded(batch, pass);
  return both_sides(
      batch.offsets.device(), [&] { return user_input(batch, pass); },
      [&] { return item_input(batch, pass); }, batch.offsets, pass);
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
    if (o.decoupled)  // the first layer's share of the user heads
      total -= (C - U) * 2 * users * D * real(head.mlp.layers[0].weight.dim(1));
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
