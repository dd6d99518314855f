// UI-MixFormer (arXiv 2602.14110, eqs 10-11): MixFormer whose user side never reads the candidate, so that it is
// computed once per request.
//
// The N heads are split in N_U user heads, filled with the user's features, and N_G item heads, filled with the
// candidate's; user heads come first.  Head mixing is masked:
//
//   N_G = floor(D_G N / D_ns), between 1 and N - 1        D_G, D_ns: widths of the item side's and of all features
//   (10) M[i, j] = 0 if i < N_U and j >= N_U D / N, else 1
//   (11) mixed = M ⊙ HeadMixing(RMSNorm(x))
//
// User heads read chunks of user heads alone, item heads read everything.  By induction over the layers no state of
// a user head, and no event state h_t, depends on a candidate.  For a request with m candidates that leaves
//
//   once per request    user heads; the sequence FFN (eq 5); attention of the user heads; the chunks that item
//                       heads read of user heads: columns N_U·w … of their norms, w = D / N
//   per candidate       item heads: one product per head over the request's shared history
//
// Everything else is MixFormer (models/unified/mixformer.h): eqs 2-9 hold for each side with weights of its own; the gains
// of norms and the sequence FFN are shared.
#pragma once

#include "mixrec/models/unified/mixformer.h"

namespace mixrec {

struct UiMixFormerOptions : MixFormerOptions {
  int64_t item_heads = 0;  // N_G; 0: by the rule above
  // false: x [C, N, D] goes through all heads at once with the mask of eq 10, and the user side is computed again for
  // every candidate.  The same function, for comparison.
  bool decoupled = true;

  void visit(OptionVisitor& v);
};

// What a block has for the heads of one side, n of them.
struct UiSide : Module {
  PerHeadFFN mixer, fusion;  // of eqs 4 and 9
  Tensor key, value;         // [n, d_s, D], eq 7

  UiSide(int64_t heads, const MixFormerOptions& options, Rng& rng);
  void visit(Visitor& v) {
    v.module("mixer", mixer), v.module("fusion", fusion), v.parameter("key", key),
        v.parameter("value", value);
  }
};

struct UiMixFormerBlock : Module {
  RMSNorm norm, mixer_norm, fusion_norm;
  SequenceFFN sequence;
  UiSide user, item;

  UiMixFormerBlock(int64_t user_heads, const MixFormerOptions& options, Rng& rng);
  void visit(Visitor& v) {
    v.module("norm", norm), v.module("mixer_norm", mixer_norm), v.module("fusion_norm", fusion_norm);
    v.module("sequence", sequence), v.module("user", user), v.module("item", item);
  }
};

class UiMixFormer : public Module {
 public:
  UiMixFormer(const FeatureSet& spec, const UiMixFormerOptions& options, Rng& rng);

  Tensor forward(const RequestBatch& batch, Pass& pass) const;  // logits [C, tasks]

  // What the blocks of the user side read: eq 2 of its features, and its events.
  struct UserInput {
    Tensor heads;            // [R, N_U, D]
    Tensor events;           // [E, N·d_s]; undefined without a history
    Tensor history_offsets;  // i64 [R + 1]
  };
  UserInput user_input(const RequestBatch& batch, Pass& pass) const;
  Tensor item_input(const RequestBatch& batch, Pass& pass) const;  // [C, N_G, D]

  // The user side of R requests: all that item heads need of it.  It depends on request features and histories
  // alone, and may be kept and used again for other candidates of the same requests.
  struct UserState {
    std::vector<Tensor> chunks;  // a layer: [R, N_U, N_G·w], what item heads read of user heads
    std::vector<Tensor> events;  // a layer: [E, N_G·d_s], h_t of the item heads; empty without a history
    Tensor heads;                // [R, N_U, D], after the last block
    Tensor history_offsets;      // i64 [R + 1]

    // The same numbers in one block of memory of their own, without what they were cut from; and about how many
    // bytes that takes.
    UserState compact() const;
    size_t bytes() const;
  };
  UserState user_side(const RequestBatch& batch, Pass& pass) const;
  // Candidate features and offsets of `batch`, against the user side of its requests.
  Tensor item_side(const UserState& user, const RequestBatch& batch, Pass& pass) const;

  // Logits of inputs that were made elsewhere; offsets i64 [R + 1] are those of the candidates.  On a card, without
  // gradients, both sides run at the same time.
  Tensor forward(const UserInput& users, const Tensor& items, const Tensor& offsets, Pass& pass) const;

  double forward_flops(const RequestBatch& batch) const;
  void visit(Visitor& v);

  const UiMixFormerOptions& options() const { return options_; }
  int64_t user_heads() const { return options_.heads - item_heads_; }
  int64_t item_heads() const { return item_heads_; }

 private:
  class Progress;

  std::vector<Tensor> raw_events(const RequestBatch& batch, Pass& pass) const;
  UserState user_side(const UserInput& input, Pass& pass, Progress& progress) const;
  Tensor item_side(const UserState& user, const Tensor& input, const Tensor& offsets, Pass& pass,
                   const Progress& progress) const;
  template <class Users, class Items>
  Tensor both_sides(Device device, const Users& users, const Items& items, const Tensor& offsets,
                    Pass& pass) const;
  Tensor expanded(const RequestBatch& batch, Pass& pass) const;

  UiMixFormerOptions options_;
  std::vector<std::string> task_names_, history_names_;
  FeatureEmbedding embedding_;
  Dropout dropout_;
  int64_t item_heads_;
  PerHeadLinear user_input_, item_input_;
  std::vector<Linear> event_projections_;
  std::vector<UiMixFormerBlock> blocks_;
  std::vector<TaskHead> heads_;
};

}  // namespace mixrec
