// Scorer: the model of a run, ready to answer requests.
//
//   Scorer scorer("run");
//   const Scores p = scorer.score({.user = "17", .history = {"5", "9"}, .candidates = {"12", "13"}});
//   p(1, 0);                                             // of candidate "13", for the first of scorer.tasks()
//
// It needs the run folder alone: the weights that the run chose, and encoders/, which holds vocabularies and tables
// (data/feature_encoder.h).  Probabilities are those of evaluation, corrected for kept_negatives alike.
//
// Thread-safe: many threads may call one scorer.  Nothing is recorded for gradients, memory is reused from call to
// call.  For models with a user side (UI-MixFormer) it keeps what was computed of users, under keys that callers
// give; a call that finds its key costs the item side only and gives the same bits as the call that computed it (and, on
// the host, as one without a key: a card sums up in an order that depends on sizes).
#pragma once

#include "mixrec/data/feature_encoder.h"
#include "mixrec/models/model.h"
#include "mixrec/train/serve/user_cache.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mixrec {

struct ScorerOptions {
  std::string device = "cpu";     // auto | cpu | cuda | cuda:N
  std::string precision = "f32";  // f32 | bf16
  int threads = 0;                // of the whole process; 0 leaves it as it is
  int64_t graphs = 32;  // on a card: recorded sizes of requests without a key that are kept; 0: none
  int64_t cache_bytes = int64_t{256} << 20;  // of kept user sides, in all; 0 keeps none
};

class Scores {
 public:
  Scores(std::vector<float> values, size_t tasks) : values_(std::move(values)), tasks_(tasks) {}

  size_t candidates() const { return values_.size() / tasks_; }
  size_t tasks() const { return tasks_; }
  float operator()(size_t candidate, size_t task = 0) const { return values_[candidate * tasks_ + task]; }
  const std::vector<float>& values() const { return values_; }  // candidate by candidate

 private:
  std::vector<float> values_;
  size_t tasks_;
};

class Scorer {
 public:
  explicit Scorer(const std::string& run, const ScorerOptions& options = {},
                  const std::vector<ModelEntry>& own_models = {});
  ~Scorer();
  Scorer(Scorer&&) noexcept;

  // Probabilities of the request's candidates.  `user_key` names the state of the user, say "17@2022-05-03": equal
  // keys promise equal user, values and history, which are then not looked at again; "" is never kept.
  // Adds to `notes` what it encodes; throws when a probability is not finite.
  Scores score(const ScoreRequest& request, const std::string& user_key = "",
               EncodeNotes* notes = nullptr) const;

  // Of an encoded batch of any number of requests; a key needs exactly one.
  Scores score(const RequestBatch& batch, const std::string& user_key = "") const;

  const std::vector<TaskSpec>& tasks() const;
  const FeatureEncoder& encoder() const;
  UserCache::Stats cache_stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mixrec
